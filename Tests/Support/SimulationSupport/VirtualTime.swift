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

/// A closure in a list: kept as it is, where a list of closures wraps each in another one.
package struct Action {
    package let run: () -> Void
    package init(_ run: @escaping () -> Void) { self.run = run }
}

/// A binary heap of actions in virtual time. The actions stand in places of their own, so that nothing counts references while the heap
/// is put in order.
package struct Timeline {
    private struct Entry {
        var time: UInt64
        var order: UInt64
        var place: Int
        func isBefore(_ other: Entry) -> Bool { time != other.time ? time < other.time : order < other.order }
    }

    package private(set) var now: UInt64 = 0
    private var heap: [Entry] = []
    private var actions: [Action?] = []
    private var freePlaces: [Int] = []
    private var scheduled: UInt64 = 0

    package init() {}

    package mutating func schedule(after delay: UInt64, _ action: @escaping () -> Void) {
        scheduled += 1
        let entry = Entry(time: now + delay, order: scheduled, place: keep(action))
        heap.append(entry)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard entry.isBefore(heap[parent]) else { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = entry
    }

    private mutating func keep(_ action: @escaping () -> Void) -> Int {
        guard let place = freePlaces.popLast() else {
            actions.append(Action(action))
            return actions.count - 1
        }
        actions[place] = Action(action)
        return place
    }

    /// Moves time to the next action that is due by `deadline` and takes it off; `nil` moves time to the deadline.
    package mutating func next(until deadline: UInt64) -> Action? {
        guard let first = heap.first, first.time <= deadline else {
            now = max(now, deadline)
            return nil
        }
        now = first.time
        let last = heap.removeLast()
        if !heap.isEmpty { sink(last) }
        freePlaces.append(first.place)
        return actions[first.place].take()
    }

    /// Puts `entry` where the first one was, or below.
    private mutating func sink(_ entry: Entry) {
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].isBefore(heap[child]) { child += 1 }
            guard heap[child].isBefore(entry) else { break }
            heap[parent] = heap[child]
            parent = child
        }
        heap[parent] = entry
    }
}
