// How often something took how long: buckets that are linear within an octave, as in HdrHistogram (hdrhistogram.org), so that a percentile
// is at most a sixteenth above the truth whatever its size. Recording is an index and an addition, without allocation.

package import ClusterProtocol

package struct LatencyHistogram: Sendable {
    /// Buckets of one octave, as a power of two.
    private static let octaveBits = 4
    private static let bucketsPerOctave = 1 << octaveBits
    /// 2^40 ns are 18 minutes; what takes longer counts as that long.
    private static let highestBit = 39
    static let bucketCount = (highestBit - octaveBits + 2) * bucketsPerOctave

    private var counts = [UInt64](repeating: 0, count: bucketCount)

    package init() {}

    package mutating func record(_ duration: Nanos) { counts[Self.bucket(of: duration)] &+= 1 }

    /// Below 16 each number has its own bucket; above, the four bits behind the highest one choose it.
    private static func bucket(of duration: Nanos) -> Int {
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

    /// What was recorded here and not in `earlier`, which this once was.
    func since(_ earlier: LatencyHistogram) -> LatencyHistogram {
        var difference = self
        for bucket in counts.indices { difference.counts[bucket] &-= earlier.counts[bucket] }
        return difference
    }

    package var count: UInt64 { counts.reduce(0, &+) }

    /// The least bound that at least `perMille` of all are not above; 0 where there are none.
    package func percentile(perMille: UInt64) -> Nanos {
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
