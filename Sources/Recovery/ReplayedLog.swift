// A log is on the medium, and the medium will be used: from then on no copy of it may be replayed by a node (S9). The
// coordinator's record says so by a swap, so whoever claims the group sets its own log aside, whichever pool it starts with.

public import Coordination
internal import LogModel

public enum ReplayedLog {
    public enum Outcome: Hashable, Sendable {
        /// The record says it, durably.
        case told(GroupRecord)
        /// Somebody swapped meanwhile, so a node runs; this is the record now.
        case overtaken(GroupRecord?)
        /// Nobody knows, for this reason; the swap may still come into effect.
        case unknown(String)
    }

    /// Times that a swap of unknown outcome is made again.
    static let attempts = 3

    /// Swaps `record` for one in which no log of the group counts. A swap of unknown outcome is made again, from the same expectation:
    /// one that is won or lost tells what became of it.
    public static func tell(
        _ coordinator: any Coordinator, replacing record: GroupRecord, by replayed: GroupRecord.Replayed
    ) throws(CoordinationError) -> Outcome {
        let next = successor(of: record, replayed)
        var reason = ""
        for _ in 0..<attempts {
            switch try coordinator.swap(expecting: record.version, to: next) {
            case .won: return .told(next)
            case .lost(let present): return present == next ? .told(next) : .overtaken(present)
            case .unknown(let why): reason = why
            }
        }
        return .unknown(reason)
    }

    /// Whoever claims it replays nothing, and confirms that the last owner's process is gone.
    static func successor(of record: GroupRecord, _ replayed: GroupRecord.Replayed) -> GroupRecord {
        var next = record
        next.version += 1
        next.epoch = record.epoch.next
        next.claim = GroupRecord.Claim(replayed: replayed)
        next.setHolders([])
        if let process = record.ownerProcess { next.fence(process) }
        next.ownerProcess = nil
        return next
    }
}
