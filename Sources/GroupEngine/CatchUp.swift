// Checks and heals for a mirror's catch-up (ClusterProtocol/CatchUp.swift): the records are read on a thread, part by part.

internal import ClusterProtocol
internal import LogModel
internal import WriteLog

extension CatchUp {
    static let partBytes: UInt64 = 4 << 20
    /// From a catch-up that had to stop to the next dial: it would stop there again, unless one of the copies is replaced.
    static let pause: Nanos = 10_000_000_000
}

/// Why a catch-up stopped.
struct StoppedCatchUp {
    var reason: String
    /// Of the damage that it could not pass.
    var at: LSN
    var dialsAgain: Nanos
}

extension OwnerLog {
    /// The end of what may be shipped to the mirror now.
    var shippable: LSN { mirror?.catchUp?.checked ?? log.published }

    /// Why no mirror gets the log, `nil` if nothing keeps it from that.
    var catchUpProblem: String? { presentStop?.reason }

    /// A mirror whose catch-up would stop at the same place again is not dialed at once.
    var mayDialMirror: Bool { presentStop.map { runtime.now >= $0.dialsAgain } ?? true }

    /// What is on the medium need not be shipped.
    private var presentStop: StoppedCatchUp? { stoppedCatchUp.flatMap { $0.at >= destage.head ? $0 : nil } }

    /// `nil` if the mirror that holds everything below `durable` lacks nothing.
    func beginCatchUp(from durable: LSN) -> CatchUp? {
        attachments += 1
        let head = destage.head, end = log.published
        let start = head < durable && durable < end ? log.startOfRecord(with: durable) : nil
        return CatchUp(durable: durable, startOfRecord: start, head: head, end: end)
    }

    /// Checks the next part, if it is time for that.
    func continueCatchUp() {
        guard let shipped = mirror?.session.shipped else { return }
        switch mirror?.catchUp?.next(head: destage.head, shipped: shipped) {
        case .none, .wait: return
        case .done:
            mirror?.catchUp = nil
            stoppedCatchUp = nil
        case .check(let from): check(from: from)
        }
    }

    private func check(from: LSN) {
        guard let end = mirror?.catchUp?.end else { return }
        let log = log, attachment = attachments
        // The part is neither given back nor overwritten while it is read.
        let read = destage.beginRead()
        runtime.run(.memory) {
            CheckedPart.check(log, from: from, to: end)
        } _: { [self] result in
            endRead(read)
            guard attachment == attachments, mirror?.catchUp != nil else { return }
            switch result {
            case .success(let part): didCheck(part)
            // The threads have ended, and the process with them.
            case .failure(let error): stopCatchUp(at: from, "the log could not be checked: \(error)")
            }
        }
    }

    private func didCheck(_ part: CheckedPart) {
        let finding = mirror?.catchUp?.didCheck(
            upTo: part.end, isDamaged: part.damage != nil, head: destage.head)
        if let damage = part.damage {
            switch finding {
            case .none, .goOn: break
            case .heal: healForCatchUp(damage)
            case .stop:
                stopCatchUp(
                    at: damage.from, "the log at LSN \(damage.from) is damaged again as soon as it is healed")
            }
        }
        schedulePump()
    }

    private func healForCatchUp(_ damage: DamagedRange) {
        let attachment = attachments
        heal(damage) { [self] outcome in
            guard attachment == attachments, mirror?.catchUp != nil else { return }
            if case .healed = outcome {
                mirror?.catchUp?.didHeal(at: damage.from)
            } else {
                mirror?.catchUp?.didHeal(at: nil)
            }
            if case .lost(let reason) = outcome { stopCatchUp(at: damage.from, reason) }
            schedulePump()
        }
    }

    /// Nothing from `lsn` on reaches the mirror: what it holds there may be good, and what is here is not.
    private func stopCatchUp(at lsn: LSN, _ reason: String) {
        let text = "the catch-up stops at LSN \(lsn): \(reason)"
        let isNew = stoppedCatchUp?.reason != text
        stoppedCatchUp = StoppedCatchUp(reason: text, at: lsn, dialsAgain: runtime.now + CatchUp.pause)
        if isNew { authority.report(Report("catch-up-stopped", text)) }
        authority.cannotShip(text)
    }
}

/// What a thread found in a part of the log.
struct CheckedPart: Sendable {
    /// The end of what passed its checks.
    var end: LSN
    /// What stands there and fails them.
    var damage: DamagedRange?

    /// Reads whole records of `[from, to)`, a part of them at most.
    static func check(_ log: WriteLog, from: LSN, to: LSN) -> CheckedPart {
        var records = log.records(from: from, to: to)
        var end = from
        while let entry = records.next() {
            if case .damaged(let from, let to) = entry {
                return CheckedPart(end: from, damage: DamagedRange(from: from, to: to))
            }
            end = records.position
            if end - from >= CatchUp.partBytes { return CheckedPart(end: end) }
        }
        return CheckedPart(end: to)
    }
}
