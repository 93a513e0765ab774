// What a mirror lacks when it attaches is shipped to it anew, and has rested in the log since it was appended: it may have rotted. The
// mirror may hold the only good copy of it. So every record of it passes its checks before it is shipped, some MiB ahead of the
// shipping; one that fails is healed first, from the mirror itself if that kept its region (S5, S14, S26). What was
// appended after the attachment ships without that. Pure; the shell checks and heals.

public import LogModel

public struct CatchUp: Sendable {
    /// What is checked beyond what is shipped: as much as fills the rail's window while the next part is checked.
    public static let aheadBytes: UInt64 = 8 << 20

    public enum Step: Hashable, Sendable {
        /// Everything that the mirror lacked may be shipped.
        case done
        /// A part is being checked or healed, or enough is checked.
        case wait
        /// Check records from here on, up to ``end`` at most.
        case check(from: LSN)
    }

    public enum Finding: Hashable, Sendable {
        case goOn
        /// Heal what is damaged; nothing is checked meanwhile.
        case heal
        /// Damaged again as soon as it was healed: memory that does not keep what is stored.
        case stop
    }

    /// The end of the log when the mirror attached.
    public let end: LSN
    /// Everything below has passed its checks and may be shipped.
    public private(set) var checked: LSN
    private var isBusy = false
    private var healedAt: LSN?

    /// `nil` if a mirror that holds everything below `durable` lacks nothing. `startOfRecord` is that of the record that `durable` lies
    /// in, where it is known.
    public init?(durable: LSN, startOfRecord: LSN?, head: LSN, end: LSN) {
        guard max(durable, head) < end else { return nil }
        self.end = end
        checked = durable <= head ? head : startOfRecord ?? head
    }

    public mutating func next(head: LSN, shipped: LSN) -> Step {
        guard !isBusy else { return .wait }
        // What is on the medium already is not shipped.
        let from = max(checked, head)
        guard from < end else { return .done }
        guard from.rawValue < shipped.rawValue + Self.aheadBytes else { return .wait }
        isBusy = true
        return .check(from: from)
    }

    /// The check that ``next(head:shipped:)`` asked for: everything below `lsn` passed it, and what stands there does not if `isDamaged`.
    public mutating func didCheck(upTo lsn: LSN, isDamaged: Bool, head: LSN) -> Finding {
        isBusy = false
        checked = lsn
        guard isDamaged, lsn >= head else { return .goOn }
        guard healedAt != lsn else { return .stop }
        isBusy = true
        return .heal
    }

    /// The healing is over; `lsn` is where it was healed, `nil` if it was not.
    public mutating func didHeal(at lsn: LSN?) {
        isBusy = false
        healedAt = lsn ?? healedAt
    }
}
