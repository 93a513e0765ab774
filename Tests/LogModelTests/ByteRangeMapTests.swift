import TestSupport
import Testing

@testable import LogModel

private struct Stamp: ByteSource, Equatable {
    var write: Int
    var offset: UInt64
    var record: LSN { LSN(UInt64(write)) }
    func advanced(by bytes: UInt64) -> Stamp { Stamp(write: write, offset: offset + bytes) }
}

/// Counts how often the map looks at a value.
private struct Watched: ByteSource {
    final class Looks { var count = 0 }
    let lsn: LSN
    let looks: Looks
    var record: LSN {
        looks.count += 1
        return lsn
    }
    func advanced(by bytes: UInt64) -> Watched {
        looks.count += 1
        return self
    }
}

private let gib: UInt64 = 1 << 30

@Suite struct ByteRangeMapTests {
    /// Every byte holds what a plain array of bytes would hold, after any sequence of insertions and removals (S9).
    @Test(arguments: [UInt64](1...40)) func behavesLikeAnArrayOfBytes(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let base: UInt64 = 1 << 20
        var map = ByteRangeMap<Stamp>()
        var model = [Stamp?](repeating: nil, count: 600)
        for write in 0..<200 {
            let start = Int(random.next() % 600)
            let length = 1 + Int(random.next() % UInt64(min(120, 600 - start)))
            let range = ByteRange(offset: base + UInt64(start), length: UInt64(length))
            if random.next() % 4 == 0 {
                let limit = Int(random.next() % UInt64(write + 1))
                map.remove(below: LSN(UInt64(limit)))
                for i in model.indices where model[i].map({ $0.write < limit }) == true { model[i] = nil }
            } else {
                map.insert(range, Stamp(write: write, offset: 0))
                for i in 0..<length { model[start + i] = Stamp(write: write, offset: UInt64(i)) }
            }
            var seen = [Stamp?](repeating: nil, count: 600)
            var last = base
            map.forEach(in: ByteRange(offset: base, length: 600)) { part, stamp in
                #expect(part.offset >= last && !part.isEmpty)
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
        map.forEach(in: ByteRange(offset: 200, length: 10)) { part, _ in Issue.record("\(part) is not in it") }
        var parts: [(ByteRange, Stamp)] = []
        map.forEach(in: ByteRange(offset: 140, length: 30)) { parts.append(($0, $1)) }
        #expect(parts.map(\.0.offset) == [140, 150, 160])
        #expect(
            parts.map(\.1) == [Stamp(write: 1, offset: 40), Stamp(write: 2, offset: 0), Stamp(write: 1, offset: 60)])
    }

    /// As an array of cells: thousands of short ranges and, between them, some that are up to 4 GiB long (S9).
    @Test(arguments: [UInt64](1...5)) func longAndShortRangesAmongEachOther(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let cells = 4096
        let cellBytes = 4 * gib / UInt64(cells)
        func range(_ cells: Range<Int>) -> ByteRange {
            ByteRange(offset: UInt64(cells.lowerBound) * cellBytes, length: UInt64(cells.count) * cellBytes)
        }
        var map = ByteRangeMap<Stamp>()
        var model = [Stamp?](repeating: nil, count: cells)
        func found(in wanted: Range<Int>) -> [Stamp?] {
            var found = [Stamp?](repeating: nil, count: wanted.count)
            map.forEach(in: range(wanted)) { part, stamp in
                let first = Int(part.offset / cellBytes) - wanted.lowerBound
                for i in 0..<Int(part.length / cellBytes) {
                    found[first + i] = stamp.advanced(by: UInt64(i) * cellBytes)
                }
            }
            return found
        }
        var most = 0
        for write in 0..<8000 {
            let longest = [1, 1, 1, 4, 20][Int(random.next() % 5)]
            let start = Int(random.next() % UInt64(cells))
            let limit = random.next() % 1000 == 0 ? cells : longest
            let end = start + 1 + Int(random.next() % UInt64(min(limit, cells - start)))
            map.insert(range(start..<end), Stamp(write: write, offset: 0))
            for cell in start..<end { model[cell] = Stamp(write: write, offset: UInt64(cell - start) * cellBytes) }
            if random.next() % 300 == 0 {
                let limit = max(0, write - Int(random.next() % 3000))
                map.remove(below: LSN(UInt64(limit)))
                for i in model.indices where model[i].map({ $0.write < limit }) == true { model[i] = nil }
            }
            let from = Int(random.next() % UInt64(cells))
            let part = from..<min(cells, from + 50)
            #expect(found(in: part) == Array(model[part]))
            #expect(map.covers(range(part)) == !model[part].contains(nil))
            guard write % 100 == 0 else { continue }
            #expect(found(in: 0..<cells) == model)
            let sorted = map.sorted()
            #expect(zip(sorted, sorted.dropFirst()).allSatisfy { $0.range.end <= $1.range.offset })
            #expect(sorted.count == map.segmentCount)
            most = max(most, sorted.count)
        }
        #expect(most > 1000)
    }

    @Test func aLongRangeIsOneSegment() {
        var map = ByteRangeMap<Stamp>()
        for write in 0..<1000 { map.insert(ByteRange(offset: 0, length: 4 * gib), Stamp(write: write, offset: 0)) }
        #expect(map.segmentCount == 1)
        // What is put into it splits it, and what is put over it all is one again.
        for write in 1000..<2000 {
            map.insert(ByteRange(offset: UInt64(write) << 16, length: 4096), Stamp(write: write, offset: 0))
        }
        #expect(map.segmentCount == 2001)
        map.insert(ByteRange(offset: 0, length: .max), Stamp(write: 2000, offset: 0))
        #expect(map.segmentCount == 1 && map.covers(ByteRange(offset: gib, length: 1 << 60)))
    }

    @Test func anInsertionLooksAtAFewValuesOnly() {
        let looks = Watched.Looks()
        var map = ByteRangeMap<Watched>()
        for write in 0..<20_000 as Range<UInt64> {
            map.insert(ByteRange(offset: write << 17, length: 4096), Watched(lsn: LSN(write), looks: looks))
        }
        // A leaf of 128 is looked through when it is split, which takes 64 insertions.
        #expect(looks.count < 20_000 * 5)
        looks.count = 0
        map.insert(ByteRange(offset: 1, length: 4 * gib), Watched(lsn: LSN(20_000), looks: looks))
        #expect(map.segmentCount == 2 && looks.count < 10)
    }

    @Test func forgettingLooksOnlyWhereThereIsSomethingToForget() {
        let looks = Watched.Looks()
        var map = ByteRangeMap<Watched>()
        for lsn in 1...1000 as ClosedRange<UInt64> {
            map.insert(ByteRange(offset: 0, length: 4 * gib), Watched(lsn: LSN(lsn), looks: looks))
        }
        for write in 0..<20_000 as Range<UInt64> {
            map.insert(ByteRange(offset: write * 8192, length: 4096), Watched(lsn: LSN(1001 + write), looks: looks))
        }
        #expect(map.segmentCount == 40_000)
        looks.count = 0
        // Of the first 999 nothing is left, of the last one half of every leaf.
        for lsn in 1...1000 as ClosedRange<UInt64> { map.remove(below: LSN(lsn)) }
        #expect(map.segmentCount == 40_000 && looks.count == 0)
        map.remove(below: LSN(1001))
        #expect(map.segmentCount == 20_000 && looks.count < 40_000 * 3)
        looks.count = 0
        map.remove(below: LSN(1002))
        #expect(map.segmentCount == 19_999 && looks.count < 300)
    }

    /// The end of a cut range is kept with its neighbours on the left, which are newer than it is.
    @Test func whatIsLeftOfALongRangeIsForgottenWithItsRecord() {
        var map = ByteRangeMap<Stamp>()
        map.insert(ByteRange(offset: gib, length: gib), Stamp(write: 1, offset: 0))
        for write in 2..<1000 {
            map.insert(ByteRange(offset: UInt64(write) * 8192, length: 4096), Stamp(write: write, offset: 0))
        }
        map.insert(ByteRange(offset: 8192, length: gib), Stamp(write: 1000, offset: 0))
        #expect(map.sorted().map(\.value.write) == [1000, 1])
        map.remove(below: LSN(2))
        #expect(map.sorted().map(\.value.write) == [1000])
    }

    @Test func theNewestInsertionWinsWhateverItsRecord() {
        var map = ByteRangeMap<Stamp>()
        map.insert(ByteRange(offset: 0, length: 100), Stamp(write: 7, offset: 0))
        map.insert(ByteRange(offset: 50, length: 10), Stamp(write: 3, offset: 0))
        #expect(map.sorted().map(\.value.write) == [7, 3, 7])
        map.remove(below: LSN(4))
        #expect(map.sorted().map(\.range) == [ByteRange(offset: 0, length: 50), ByteRange(offset: 60, length: 40)])
    }

    @Test func leavesThatEmptyAreJoined() {
        var map = ByteRangeMap<Stamp>()
        let range = { (place: Int) in ByteRange(offset: UInt64(place) * 4096, length: 4096) }
        for write in 0..<20_000 { map.insert(range(write), Stamp(write: write, offset: 0)) }
        #expect(map.leaves.count > 150)
        for place in 0..<200 { map.insert(range(place * 100), Stamp(write: 20_000 + place, offset: 0)) }
        map.remove(below: LSN(20_000))
        #expect(map.segmentCount == 200 && map.leaves.count < 10)
        map.remove(below: LSN(20_200))
        #expect(map.isEmpty && map.segmentCount == 0)
    }
}
