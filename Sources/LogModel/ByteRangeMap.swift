// Which bytes of a volume come from where: a map from byte ranges to values in which the newest insertion wins (S9).
// Reads are overlaid with it, and destage and replay coalesce with it.
//
// The volume is cut into buckets of 1 MiB, each a short sorted array of disjoint segments, so an insertion moves at most
// one bucket's segments however many ranges the map holds.

/// A value of a ``ByteRangeMap``: the source of a run of bytes, which can be entered in the middle.
public protocol ByteSource {
    /// The source of the bytes from `bytes` further on.
    func advanced(by bytes: UInt64) -> Self
}

public struct ByteRangeMap<Value: ByteSource> {
    public struct Segment {
        public var range: ByteRange
        public var value: Value
    }

    static var bucketBytes: UInt64 { 1 << 20 }

    private var buckets: [UInt64: [Segment]] = [:]
    public private(set) var segmentCount = 0

    public init() {}

    public var isEmpty: Bool { segmentCount == 0 }

    /// Maps `range` to `value`; what it covered before is forgotten.
    public mutating func insert(_ range: ByteRange, _ value: Value) {
        forEachBucket(of: range) { map, index, part in
            var segments = map.buckets.removeValue(forKey: index) ?? []
            let before = segments.count
            let place = Self.cut(part, from: &segments)
            segments.insert(Segment(range: part, value: value.advanced(by: part.offset - range.offset)), at: place)
            map.segmentCount += segments.count - before
            map.buckets[index] = segments
        }
    }

    /// Forgets the segments inside of `range` that `matches` holds for.
    public mutating func remove(in range: ByteRange, where matches: (Value) -> Bool) {
        forEachBucket(of: range) { map, index, part in
            guard var segments = map.buckets.removeValue(forKey: index) else { return }
            let before = segments.count
            segments.removeAll { $0.range.overlaps(part) && matches($0.value) }
            map.segmentCount += segments.count - before
            if !segments.isEmpty { map.buckets[index] = segments }
        }
    }

    /// Calls `body` with the mapped parts of `range`, in ascending order, clipped to it.
    public func forEach(in range: ByteRange, _ body: (ByteRange, Value) throws -> Void) rethrows {
        guard !range.isEmpty else { return }
        for index in (range.offset / Self.bucketBytes)...((range.end - 1) / Self.bucketBytes) {
            guard let segments = buckets[index] else { continue }
            for segment in segments[Self.firstEnding(after: range.offset, in: segments)...] {
                if segment.range.offset >= range.end { break }
                let start = max(segment.range.offset, range.offset)
                let end = min(segment.range.end, range.end)
                try body(
                    ByteRange(offset: start, length: end - start),
                    segment.value.advanced(by: start - segment.range.offset))
            }
        }
    }

    /// Whether every byte of `range` is mapped.
    public func covers(_ range: ByteRange) -> Bool {
        var covered: UInt64 = 0
        forEach(in: range) { part, _ in covered += part.length }
        return covered == range.length
    }

    /// Every segment in ascending order of offset.
    public func sorted() -> [Segment] {
        var all: [Segment] = []
        all.reserveCapacity(segmentCount)
        for index in buckets.keys.sorted() { all += buckets[index] ?? [] }
        return all
    }

    private mutating func forEachBucket(
        of range: ByteRange, _ body: (inout ByteRangeMap, UInt64, ByteRange) -> Void
    ) {
        guard !range.isEmpty else { return }
        var offset = range.offset
        while offset < range.end {
            let index = offset / Self.bucketBytes
            let end = min(range.end, (index + 1) * Self.bucketBytes)
            body(&self, index, ByteRange(offset: offset, length: end - offset))
            offset = end
        }
    }

    /// The first segment that ends after `offset`, by bisection.
    private static func firstEnding(after offset: UInt64, in segments: [Segment]) -> Int {
        var low = 0
        var high = segments.count
        while low < high {
            let middle = (low + high) / 2
            if segments[middle].range.end <= offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Removes `part` from `segments`, keeping what sticks out at either side; answers where `part` belongs now.
    private static func cut(_ part: ByteRange, from segments: inout [Segment]) -> Int {
        let first = firstEnding(after: part.offset, in: segments)
        var kept: [Segment] = []
        var place = first
        var last = first
        while last < segments.count, segments[last].range.offset < part.end {
            let old = segments[last]
            if old.range.offset < part.offset {
                let head = ByteRange(offset: old.range.offset, length: part.offset - old.range.offset)
                kept.append(Segment(range: head, value: old.value))
                place = first + 1
            }
            if old.range.end > part.end {
                let tail = ByteRange(offset: part.end, length: old.range.end - part.end)
                kept.append(Segment(range: tail, value: old.value.advanced(by: part.end - old.range.offset)))
            }
            last += 1
        }
        segments.replaceSubrange(first..<last, with: kept)
        return place
    }
}
