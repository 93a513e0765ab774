// Following a node's events over its restarts, which begin their numbers anew.

/// What of one node's events was seen already. It asks for the last of them once more: if that has changed, another process
/// answers.
public struct EventCursor: Sendable {
    private var last: NodeEvent?

    public init() {}

    /// Where to ask from.
    public var after: UInt64 { last.map { $0.sequence - 1 } ?? 0 }

    /// Takes what the node answered to ``after``, in order; answers what was not seen yet. After a restart that is nothing,
    /// and the next question asks for all of it.
    public mutating func take(_ events: [NodeEvent]) -> [NodeEvent] {
        guard let seen = last else {
            last = events.last
            return events
        }
        guard let first = events.first, first.sequence > seen.sequence || first == seen else {
            last = nil
            return []
        }
        last = events.last
        // A node remembers only so many: the seen one may be gone.
        return first == seen ? Array(events.dropFirst()) : events
    }
}
