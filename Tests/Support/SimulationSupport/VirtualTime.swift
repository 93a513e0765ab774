// One seed's randomness and one queue of virtual time. Everything that happens in a run happens from `run`, in the order
// of (time, order of scheduling), so that a seed always gives the same run.

package import TestSupport

extension SplitMix64 {
    package mutating func chance(_ percent: UInt64) -> Bool { next() % 100 < percent }

    package mutating func between(_ low: UInt64, _ high: UInt64) -> UInt64 { low + next() % (high - low + 1) }
}

package let microsecond: UInt64 = 1000
package let millisecond: UInt64 = 1_000_000
package let second: UInt64 = 1_000_000_000

/// A binary heap of actions in virtual time.
package struct Timeline {
    private struct Entry {
        var time: UInt64
        var order: UInt64
        var action: () -> Void
        func isBefore(_ other: Entry) -> Bool { time != other.time ? time < other.time : order < other.order }
    }

    package private(set) var now: UInt64 = 0
    private var heap: [Entry] = []
    private var scheduled: UInt64 = 0

    package init() {}

    package mutating func schedule(after delay: UInt64, _ action: @escaping () -> Void) {
        scheduled += 1
        heap.append(Entry(time: now + delay, order: scheduled, action: action))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].isBefore(heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    /// Moves time to the next action that is due by `deadline` and takes it off; `nil` moves time to the deadline.
    package mutating func next(until deadline: UInt64) -> (() -> Void)? {
        guard let first = heap.first, first.time <= deadline else {
            now = max(now, deadline)
            return nil
        }
        now = first.time
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            sink()
        }
        return first.action
    }

    private mutating func sink() {
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].isBefore(heap[least])
            {
                least = child
            }
            guard least != parent else { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
