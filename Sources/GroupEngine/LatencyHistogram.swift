// How often something took how long: buckets that are linear within an octave, as in HdrHistogram (hdrhistogram.org), so that a percentile
// is at most a sixteenth above the truth whatever its size.

internal import ClusterProtocol

/// Counters of several kinds of duration, side by side. Recording is an index, an addition and a comparison in memory of its own: on a
/// data path an array in a class would cost ten times as much in checks.
final class LatencyCounters {
    /// Of each kind its buckets, and then the greatest duration since ``takeGreatest(_:)``. Allocated and freed by this object alone.
    private let words: UnsafeMutablePointer<UInt64>
    private let kinds: Int
    private static let wordsOfKind = LatencyHistogram.bucketCount + 1

    init(kinds: Int) {
        self.kinds = kinds
        words = .allocate(capacity: kinds * Self.wordsOfKind)
        words.initialize(repeating: 0, count: kinds * Self.wordsOfKind)
    }

    deinit { words.deallocate() }

    private func words(of kind: Int) -> UnsafeMutablePointer<UInt64> {
        precondition(0..<kinds ~= kind)
        return words + kind * Self.wordsOfKind
    }

    func record(_ kind: Int, _ duration: Nanos) {
        let words = words(of: kind)
        words[LatencyHistogram.bucket(of: duration)] &+= 1
        if duration > words[LatencyHistogram.bucketCount] { words[LatencyHistogram.bucketCount] = duration }
    }

    func histogram(_ kind: Int) -> LatencyHistogram {
        LatencyHistogram(UnsafeBufferPointer(start: words(of: kind), count: LatencyHistogram.bucketCount))
    }

    func greatest(_ kind: Int) -> Nanos { words(of: kind)[LatencyHistogram.bucketCount] }

    func takeGreatest(_ kind: Int) -> Nanos {
        defer { words(of: kind)[LatencyHistogram.bucketCount] = 0 }
        return greatest(kind)
    }
}

struct LatencyHistogram: Sendable {
    /// Buckets of one octave, as a power of two.
    private static let octaveBits = 4
    private static let bucketsPerOctave = 1 << octaveBits
    /// 2^40 ns are 18 minutes; what takes longer counts as that long.
    private static let highestBit = 39
    static let bucketCount = (highestBit - octaveBits + 2) * bucketsPerOctave

    private var counts: [UInt64]

    fileprivate init(_ counts: UnsafeBufferPointer<UInt64>) { self.counts = Array(counts) }

    /// Of nothing.
    init() { counts = Array(repeating: 0, count: Self.bucketCount) }

    /// Below 16 each number has its own bucket; above, the four bits behind the highest one choose it.
    fileprivate static func bucket(of duration: Nanos) -> Int {
        let capped = min(duration, (1 << UInt64(highestBit + 1)) - 1)
        guard capped >= bucketsPerOctave else { return Int(capped) }
        let shift = (63 - capped.leadingZeroBitCount) - octaveBits
        return (shift + 1) * bucketsPerOctave + Int(capped >> UInt64(shift)) - bucketsPerOctave
    }

    /// The greatest duration that is counted in `bucket`.
    private static func upperBound(of bucket: Int) -> Nanos {
        guard bucket >= bucketsPerOctave else { return Nanos(bucket) }
        let shift = UInt64(bucket / bucketsPerOctave - 1)
        let lower = UInt64(bucket % bucketsPerOctave + bucketsPerOctave) << shift
        return lower + (1 << shift) - 1
    }

    /// What was counted here and not in `earlier`, which this once was.
    func since(_ earlier: LatencyHistogram) -> LatencyHistogram {
        var difference = self
        for bucket in counts.indices { difference.counts[bucket] &-= earlier.counts[bucket] }
        return difference
    }

    var count: UInt64 { counts.reduce(0, &+) }

    /// The least bound that at least `perMille` of all are not above; 0 where there are none.
    func percentile(perMille: UInt64) -> Nanos {
        let wanted = (count * perMille + 999) / 1000
        guard wanted > 0 else { return 0 }
        var passed: UInt64 = 0
        for (bucket, number) in counts.enumerated() {
            passed += number
            if passed >= wanted { return Self.upperBound(of: bucket) }
        }
        return 0
    }
}
