// Checks and heals for a mirror's catch-up (ClusterProtocol/CatchUp.swift): the records are read on a thread, part by part.

internal import ClusterProtocol
internal import LogModel
internal import WriteLog

extension CatchUp {
    static let partBytes: UInt64 = 4 << 20
    /// From a catch-up that had to stop to the next dial: it would stop there again, unless one of the copies is replaced.
    static let pause: Nanos = 10_000_000_000
}

final class CatchUpChecker {
    /// Why a catch-up stopped.
    private struct Stopped {
        var reason: String
        /// Of the damage that it could not pass.
        var at: LSN
        var dialsAgain: Nanos
    }

    private let owned: OwnedLog
    private let shipper: Shipper
    private let healer: Healer
    private var stopped: Stopped?

    init(_ owned: OwnedLog, _ shipper: Shipper, _ healer: Healer) {
        self.owned = owned
        self.shipper = shipper
        self.healer = healer
    }

    /// Why no mirror gets the log, `nil` if nothing keeps it from that.
    var problem: String? { presentStop?.reason }

    /// A mirror whose catch-up would stop at the same place again is not dialed at once.
    var mayDialMirror: Bool { presentStop.map { owned.runtime.now >= $0.dialsAgain } ?? true }

    /// What is on the medium need not be shipped.
    private var presentStop: Stopped? { stopped.flatMap { $0.at >= owned.destage.head ? $0 : nil } }

    /// `nil` if the mirror that holds everything below `durable` lacks nothing.
    func catchUp(from durable: LSN) -> CatchUp? {
        let log = owned.log
        let head = owned.destage.head, end = log.published
        let start = head < durable && durable < end ? log.startOfRecord(with: durable) : nil
        return CatchUp(durable: durable, startOfRecord: start, head: head, end: end)
    }

    /// Checks the next part, if it is time for that.
    func goOn() {
        guard let shipped = shipper.mirror?.session.shipped else { return }
        switch shipper.mirror?.catchUp?.next(head: owned.destage.head, shipped: shipped) {
        case .none, .wait: return
        case .done:
            shipper.mirror?.catchUp = nil
            stopped = nil
        case .check(let from): check(from: from)
        }
    }

    private func check(from: LSN) {
        guard let end = shipper.mirror?.catchUp?.end else { return }
        let log = owned.log, attachment = shipper.attachments
        // The part is neither given back nor overwritten while it is read.
        let read = owned.destage.beginRead()
        owned.runOnMemory {
            CheckedPart.check(log, from: from, to: end)
        } _: { [self] result in
            owned.endRead(read)
            guard attachment == shipper.attachments, shipper.mirror?.catchUp != nil else { return }
            switch result {
            case .success(let part): didCheck(part)
            // The threads have ended, and the process with them.
            case .failure(let error): stop(at: from, "the log could not be checked: \(error)")
            }
        }
    }

    private func didCheck(_ part: CheckedPart) {
        let finding = shipper.mirror?.catchUp?.didCheck(
            upTo: part.end, isDamaged: part.damage != nil, head: owned.destage.head)
        if let damage = part.damage {
            switch finding {
            case .none, .goOn: break
            case .heal: healForCatchUp(damage)
            case .stop:
                stop(
                    at: damage.from, "the log at LSN \(damage.from) is damaged again as soon as it is healed")
            }
        }
        owned.schedulePump()
    }

    private func healForCatchUp(_ damage: DamagedRange) {
        let attachment = shipper.attachments
        healer.heal(damage) { [self] outcome in
            guard attachment == shipper.attachments, shipper.mirror?.catchUp != nil else { return }
            if case .healed = outcome {
                shipper.mirror?.catchUp?.didHeal(at: damage.from)
            } else {
                shipper.mirror?.catchUp?.didHeal(at: nil)
            }
            if case .lost(let reason) = outcome { stop(at: damage.from, reason) }
            owned.schedulePump()
        }
    }

    /// Nothing from `lsn` on reaches the mirror: what it holds there may be good, and what is here is not.
    private func stop(at lsn: LSN, _ reason: String) {
        let text = "the catch-up stops at LSN \(lsn): \(reason)"
        let isNew = stopped?.reason != text
        stopped = Stopped(reason: text, at: lsn, dialsAgain: owned.runtime.now + CatchUp.pause)
        if isNew { owned.report(.catchUpStopped, text) }
        owned.listener.cannotShip(text)
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
