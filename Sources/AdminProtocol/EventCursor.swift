// Following a node's events. Their numbers never begin again: what is missing between two is named.

/// What of one node's events was seen already. It asks for the last of them once more: a node that has another one of that number, or
/// none, has lost its files.
public struct EventCursor: Sendable {
    private var last: NodeEvent?

    public init() {}

    /// Where to ask from.
    public var after: UInt64 { last.map { $0.sequence - 1 } ?? 0 }

    /// Takes what the node answered to ``after``, in order; answers what was not seen yet, with an event of kind `events-missing` where
    /// numbers are left out. The answer may be a part: ask again until nothing is new.
    public mutating func take(_ events: [NodeEvent]) -> [NodeEvent] {
        guard let first = events.first else {
            return last.map { [lose($0)] } ?? []
        }
        let seen = last
        if let seen, first.sequence == seen.sequence, first != seen { return [lose(seen)] }
        last = events.last
        let fresh = first == seen ? events.dropFirst() : events[...]
        var told: [NodeEvent] = []
        var expected = (seen?.sequence ?? 0) + 1
        for event in fresh {
            if event.sequence > expected { told.append(Self.missing(expected...(event.sequence - 1), before: event)) }
            told.append(event)
            expected = event.sequence + 1
        }
        return told
    }

    /// Asks for what comes after a number until nothing is new. What came before a failure is answered with it: it will not come again.
    public mutating func collect(
        _ ask: (_ after: UInt64) throws(AdminClientError) -> [NodeEvent]
    ) -> (events: [NodeEvent], failure: AdminClientError?) {
        var all: [NodeEvent] = []
        while true {
            do throws(AdminClientError) {
                let fresh = take(try ask(after))
                if fresh.isEmpty { return (all, nil) }
                all += fresh
            } catch {
                return (all, error)
            }
        }
    }

    private mutating func lose(_ seen: NodeEvent) -> NodeEvent {
        last = nil
        return NodeEvent(
            sequence: seen.sequence, time: seen.time, node: seen.node, group: nil, kind: "events-missing",
            message: "\(seen.node) has lost its events up to \(seen.sequence); what it has follows")
    }

    private static func missing(_ numbers: ClosedRange<UInt64>, before event: NodeEvent) -> NodeEvent {
        NodeEvent(
            sequence: numbers.upperBound, time: event.time, node: event.node, group: nil, kind: "events-missing",
            message:
                "\(numbers.count) events of \(event.node), \(numbers.lowerBound) to \(numbers.upperBound), are not kept any more"
        )
    }
}

public enum EventOrder {
    /// The events of several nodes, each in order of number, as one list: by time where that does not contradict a node's numbers.
    public static func merge(_ nodes: [[NodeEvent]]) -> [NodeEvent] {
        var rest = nodes.map { $0[...] }
        var merged: [NodeEvent] = []
        while let next = rest.indices.filter({ !rest[$0].isEmpty }).min(by: {
            rest[$0].first!.time < rest[$1].first!.time
        }) {
            merged.append(rest[next].removeFirst())
        }
        return merged
    }
}
