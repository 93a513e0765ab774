import LogModel
import Testing

private struct Stamp: ByteSource, Equatable {
    var write: Int
    var offset: UInt64
    func advanced(by bytes: UInt64) -> Stamp { Stamp(write: write, offset: offset + bytes) }
}

private struct SplitMix64: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

@Suite struct ByteRangeMapTests {
    /// Every byte holds what a plain array of bytes would hold, after any sequence of insertions and removals (S9).
    @Test(arguments: [UInt64](1...40)) func behavesLikeAnArrayOfBytes(seed: UInt64) {
        var random = SplitMix64(state: seed)
        let base: UInt64 = (1 << 20) - 300  // straddles a bucket's border
        var map = ByteRangeMap<Stamp>()
        var model = [Stamp?](repeating: nil, count: 600)
        for write in 0..<200 {
            let start = Int(random.next() % 600)
            let length = 1 + Int(random.next() % UInt64(min(120, 600 - start)))
            let range = ByteRange(offset: base + UInt64(start), length: UInt64(length))
            if random.next() % 4 == 0 {
                let limit = Int(random.next() % UInt64(write + 1))
                map.remove(in: range) { $0.write < limit }
                // A removal forgets whole segments that overlap, so the model asks the map which bytes are gone.
                var after = [Stamp?](repeating: nil, count: 600)
                map.forEach(in: ByteRange(offset: base, length: 600)) { part, stamp in
                    for i in 0..<part.length { after[Int(part.offset - base + i)] = stamp.advanced(by: i) }
                }
                for i in 0..<600 {
                    if after[i] == nil, let old = model[i] { #expect(old.write < limit) }
                    if let now = after[i] { #expect(now == model[i]) }
                    if i >= start, i < start + length, let now = after[i] { #expect(now.write >= limit) }
                }
                model = after
            } else {
                map.insert(range, Stamp(write: write, offset: 0))
                for i in 0..<length { model[start + i] = Stamp(write: write, offset: UInt64(i)) }
            }
            var seen = [Stamp?](repeating: nil, count: 600)
            var last = base
            map.forEach(in: ByteRange(offset: base, length: 600)) { part, stamp in
                #expect(part.offset >= last)
                last = part.end
                for i in 0..<part.length { seen[Int(part.offset - base + i)] = stamp.advanced(by: i) }
            }
            #expect(seen == model)
            #expect(map.sorted().count == map.segmentCount)
        }
    }

    @Test func clipsAndCovers() {
        var map = ByteRangeMap<Stamp>()
        map.insert(ByteRange(offset: 100, length: 100), Stamp(write: 1, offset: 0))
        map.insert(ByteRange(offset: 150, length: 10), Stamp(write: 2, offset: 0))
        #expect(map.covers(ByteRange(offset: 100, length: 100)))
        #expect(!map.covers(ByteRange(offset: 99, length: 10)))
        var parts: [(ByteRange, Stamp)] = []
        map.forEach(in: ByteRange(offset: 140, length: 30)) { parts.append(($0, $1)) }
        #expect(parts.map(\.0.offset) == [140, 150, 160])
        #expect(
            parts.map(\.1) == [Stamp(write: 1, offset: 40), Stamp(write: 2, offset: 0), Stamp(write: 1, offset: 60)])
    }
}
