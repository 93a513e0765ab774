// Which bytes of a volume come from where: a map from byte ranges to values in which the newest insertion wins (S9).
// Reads are overlaid with it, and destage and replay coalesce with it.
//
// A range is one segment, however long, until something newer is put into it. The segments are disjoint and stand in
// ascending order in leaves of at most `leafSegments`; a place is found by bisection of the leaves and then of one leaf. An
// insertion moves one leaf's segments, and the leaves only when one is split or emptied. Each leaf knows its oldest record,
// so forgetting looks only into leaves that have something to forget.
//
// Every write passes through here, so all of it is inlinable: the modules that use it have it compiled for their values.

/// A value of a ``ByteRangeMap``: the source of a run of bytes, which can be entered in the middle.
public protocol ByteSource {
    /// The record that the bytes came with.
    var record: LSN { get }
    /// The source of the bytes from `bytes` further on.
    func advanced(by bytes: UInt64) -> Self
}

public struct ByteRangeMap<Value: ByteSource> {
    public struct Segment {
        public var range: ByteRange
        public var value: Value

        @inlinable init(_ range: ByteRange, _ value: Value) {
            self.range = range
            self.value = value
        }
    }

    /// Segments, one at least, that end before the next leaf begins.
    @usableFromInline struct Leaf {
        @usableFromInline var segments: [Segment]
        /// Where the first segment begins.
        @usableFromInline var start: UInt64
        /// No segment came with an older record.
        @usableFromInline var oldest: LSN

        @inlinable init(_ segments: [Segment]) {
            self.segments = segments
            start = segments[0].range.offset
            oldest = segments.reduce(segments[0].value.record) { min($0, $1.value.record) }
        }
    }

    /// A leaf is a few KiB: little to move for an insertion, and few leaves to move for a split.
    @inlinable static var leafSegments: Int { 128 }

    @usableFromInline var leaves: [Leaf] = []

    @inlinable public init() {}

    @inlinable public var isEmpty: Bool { leaves.isEmpty }

    @inlinable public var segmentCount: Int { leaves.reduce(0) { $0 + $1.segments.count } }

    /// Maps `range` to `value`; what it covered before is forgotten.
    @inlinable public mutating func insert(_ range: ByteRange, _ value: Value) {
        guard !range.isEmpty else { return }
        let new = Segment(range, value)
        guard !leaves.isEmpty else { return leaves.append(Leaf([new])) }
        let first = leafIndex(of: range.offset)
        let last = leafIndex(of: range.end - 1)
        let from = leaves[first].firstEnding(after: range.offset)
        let to = leaves[last].firstBeginning(at: range.end)
        // What sticks out at either side is kept.
        let head = from < leaves[first].segments.count ? leaves[first].segments[from].part(before: range.offset) : nil
        let tail = to > 0 ? leaves[last].segments[to - 1].part(from: range.end) : nil
        let end = first == last ? to : leaves[first].segments.count
        if first < last { removeSegments(behind: first, upTo: to, of: last) }
        leaves[first].replace(from..<end, by: head, new, tail)
        if leaves[first].segments.count > Self.leafSegments { split(first) }
    }

    /// Forgets everything that came with a record below `end`.
    @inlinable public mutating func remove(below end: LSN) {
        var isTouched = false
        for index in leaves.indices where leaves[index].oldest < end {
            leaves[index].remove(below: end)
            isTouched = true
        }
        if isTouched { joinSmallLeaves() }
    }

    /// Calls `body` with the mapped parts of `range`, in ascending order, clipped to it.
    @inlinable public func forEach(in range: ByteRange, _ body: (ByteRange, Value) throws -> Void) rethrows {
        guard !range.isEmpty, !leaves.isEmpty else { return }
        for leaf in leaves[leafIndex(of: range.offset)...] {
            for segment in leaf.segments[leaf.firstEnding(after: range.offset)...] {
                guard segment.range.offset < range.end else { return }
                let start = max(segment.range.offset, range.offset)
                let end = min(segment.range.end, range.end)
                try body(
                    ByteRange(offset: start, length: end - start),
                    segment.value.advanced(by: start - segment.range.offset))
            }
        }
    }

    /// Whether every byte of `range` is mapped.
    @inlinable public func covers(_ range: ByteRange) -> Bool {
        var covered: UInt64 = 0
        forEach(in: range) { part, _ in covered += part.length }
        return covered == range.length
    }

    /// Every segment in ascending order of offset.
    @inlinable public func sorted() -> [Segment] {
        var all: [Segment] = []
        all.reserveCapacity(segmentCount)
        for leaf in leaves { all += leaf.segments }
        return all
    }
}

// MARK: Leaves

extension ByteRangeMap {
    /// The last leaf that begins at or before `offset`, or the first one. There is a leaf.
    @inlinable func leafIndex(of offset: UInt64) -> Int {
        max(0, firstIndex(below: leaves.count) { leaves[$0].start > offset } - 1)
    }

    /// Removes what is between two leaves, and the segments before number `to` of the second.
    @inlinable mutating func removeSegments(behind first: Int, upTo to: Int, of last: Int) {
        leaves[last].segments.removeFirst(to)
        if let next = leaves[last].segments.first { leaves[last].start = next.range.offset }
        leaves.removeSubrange(first + 1..<(leaves[last].segments.isEmpty ? last + 1 : last))
    }

    @inlinable mutating func split(_ index: Int) {
        let segments = leaves[index].segments
        let half = segments.count / 2
        leaves[index] = Leaf(Array(segments[..<half]))
        leaves.insert(Leaf(Array(segments[half...])), at: index + 1)
    }

    /// Joins neighbours that fill half a leaf at most, and drops empty ones.
    @inlinable mutating func joinSmallLeaves() {
        var kept = 0
        for index in leaves.indices where !leaves[index].segments.isEmpty {
            if kept > 0, leaves[kept - 1].segments.count + leaves[index].segments.count <= Self.leafSegments / 2 {
                leaves[kept - 1].segments += leaves[index].segments
                leaves[kept - 1].oldest = min(leaves[kept - 1].oldest, leaves[index].oldest)
            } else {
                leaves.swapAt(kept, index)
                kept += 1
            }
        }
        leaves.removeSubrange(kept...)
    }
}

extension ByteRangeMap.Leaf {
    @inlinable func firstEnding(after offset: UInt64) -> Int {
        firstIndex(below: segments.count) { segments[$0].range.end > offset }
    }

    @inlinable func firstBeginning(at offset: UInt64) -> Int {
        firstIndex(below: segments.count) { segments[$0].range.offset >= offset }
    }

    @inlinable mutating func replace(
        _ covered: Range<Int>, by head: ByteRangeMap.Segment?, _ new: ByteRangeMap.Segment,
        _ tail: ByteRangeMap.Segment?
    ) {
        segments.replaceSubrange(covered, with: CollectionOfOne(new))
        oldest = min(oldest, new.value.record)
        if let tail {
            segments.insert(tail, at: covered.lowerBound + 1)
            oldest = min(oldest, tail.value.record)
        }
        if let head { segments.insert(head, at: covered.lowerBound) }
        start = segments[0].range.offset
    }

    /// It may leave nothing.
    @inlinable mutating func remove(below end: LSN) {
        segments.removeAll { $0.value.record < end }
        if !segments.isEmpty { self = Self(segments) }
    }
}

extension ByteRangeMap.Segment {
    @inlinable func part(before end: UInt64) -> Self? {
        guard range.offset < end else { return nil }
        return Self(ByteRange(offset: range.offset, length: end - range.offset), value)
    }

    @inlinable func part(from start: UInt64) -> Self? {
        guard range.end > start else { return nil }
        return Self(ByteRange(offset: start, length: range.end - start), value.advanced(by: start - range.offset))
    }
}

/// The first index that `holds`, by bisection; `count` if there is none. It holds for every later one, too.
@inlinable func firstIndex(below count: Int, _ holds: (Int) -> Bool) -> Int {
    var low = 0
    var high = count
    while low < high {
        let middle = (low + high) / 2
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    return low
}
