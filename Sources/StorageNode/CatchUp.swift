// What a mirror lacks when it attaches is shipped to it anew, and has rested in the log since it was appended: it may have rotted. The
// mirror may hold the only good copy of it. So every record of it passes its checks before it is shipped, some MiB ahead of the
// shipping and on a thread; one that fails is healed first, from the mirror itself if that kept its region (S5, S14, S26). What
// was appended after the attachment ships without that.

internal import ClusterProtocol
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import WriteLog

struct CatchUp {
    /// What is checked beyond what is shipped: as much as fills the rail's window while the next part is checked.
    static let aheadBytes: UInt64 = 8 << 20
    static let partBytes: UInt64 = 4 << 20
    /// From a catch-up that had to stop to the next dial: it would stop there again, unless one of the copies is replaced.
    static let pause = TimeAmount.seconds(10)

    /// Tells the answers of one attachment from those of the next.
    let number: UInt64
    /// The end of the log when the mirror attached.
    let end: LSN
    /// Everything below has passed its checks and may be shipped.
    var checked: LSN
    var isChecking = false
    /// Found damaged, and healed: damage there again is memory that does not keep what is stored.
    var healedAt: LSN?
}

/// Why a catch-up stopped.
struct StoppedCatchUp {
    var reason: String
    /// Of the damage that it could not pass.
    var at: LSN
    var dialsAgain: NIODeadline
}

extension OwnerLog {
    /// The end of what may be shipped to the mirror now.
    var shippable: LSN { mirror?.catchUp?.checked ?? log.published }

    /// Why no mirror gets the log, `nil` if nothing keeps it from that.
    var catchUpProblem: String? { presentStop?.reason }

    /// A mirror whose catch-up would stop at the same place again is not dialed at once.
    var mayDialMirror: Bool { presentStop.map { NIODeadline.now() >= $0.dialsAgain } ?? true }

    /// What is on the medium need not be shipped.
    private var presentStop: StoppedCatchUp? { stoppedCatchUp.flatMap { $0.at >= destage.head ? $0 : nil } }

    /// `nil` if the mirror that holds everything below `durable` lacks nothing.
    func beginCatchUp(from durable: LSN) -> CatchUp? {
        attachments += 1
        let end = log.published
        guard max(durable, destage.head) < end else { return nil }
        let start = durable <= destage.head ? destage.head : log.startOfRecord(with: durable) ?? destage.head
        return CatchUp(number: attachments, end: end, checked: start)
    }

    /// Checks the next part, if it is time for that.
    func continueCatchUp() {
        guard let attached = mirror, let catchUp = attached.catchUp, !catchUp.isChecking else { return }
        // What is on the medium already is not shipped.
        let from = max(catchUp.checked, destage.head)
        guard from < catchUp.end else {
            mirror?.catchUp = nil
            stoppedCatchUp = nil
            return
        }
        guard from.rawValue < attached.session.shipped.rawValue + CatchUp.aheadBytes else { return }
        mirror?.catchUp?.isChecking = true
        let log = log, end = catchUp.end
        // The part is neither given back nor overwritten while it is read.
        let read = destage.beginRead()
        threads.memory.runIfActive(eventLoop: eventLoop) { CheckedPart.check(log, from: from, to: end) }
            .assumeIsolated().whenComplete { [self] result in
                endRead(read)
                guard mirror?.catchUp?.number == catchUp.number else { return }
                mirror?.catchUp?.isChecking = false
                switch result {
                case .success(let part): didCheck(part)
                // The threads have ended, and the process with them.
                case .failure(let error): stopCatchUp(at: from, "the log could not be checked: \(error)")
                }
            }
    }

    private func didCheck(_ part: CheckedPart) {
        mirror?.catchUp?.checked = part.end
        if let damage = part.damage, damage.from >= destage.head { healForCatchUp(damage) }
        schedulePump()
    }

    private func healForCatchUp(_ damage: DamagedRange) {
        guard mirror?.catchUp?.healedAt != damage.from else {
            return stopCatchUp(
                at: damage.from, "the log at LSN \(damage.from) is damaged again as soon as it is healed")
        }
        let number = mirror?.catchUp?.number
        mirror?.catchUp?.isChecking = true
        heal(damage) { [self] outcome in
            guard let number, mirror?.catchUp?.number == number else { return }
            mirror?.catchUp?.isChecking = false
            switch outcome {
            case .healed: mirror?.catchUp?.healedAt = damage.from
            case .interrupted: break
            case .lost(let reason): stopCatchUp(at: damage.from, reason)
            }
            schedulePump()
        }
    }

    /// Nothing from `lsn` on reaches the mirror: what it holds there may be good, and what is here is not.
    private func stopCatchUp(at lsn: LSN, _ reason: String) {
        let text = "the catch-up stops at LSN \(lsn): \(reason)"
        let isNew = stoppedCatchUp?.reason != text
        stoppedCatchUp = StoppedCatchUp(reason: text, at: lsn, dialsAgain: .now() + CatchUp.pause)
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
