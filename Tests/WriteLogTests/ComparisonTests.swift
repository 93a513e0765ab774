import LogModel
import PersistentMemory
import TestSupport
import Testing
import WriteLog

/// Two copies of a log, held against each other.
struct ComparisonTests {
    private let fixture: LogFixture
    /// Of each record.
    private let ends: [LSN]

    /// Writes of several sizes, seven; the third is cut in two by the end of the ring.
    init() throws {
        let fixture = try LogFixture(ringBytes: 64 * 1024, start: LSN(64 * 1024 - 4096))
        self.fixture = fixture
        var generator = SplitMix64(seed: 11)
        var ends: [LSN] = []
        for size in [100, 512, 4096, 64, 9000, 1, 3000] {
            let outcome = generator.bytes(size).withUnsafeBytes {
                fixture.log.append(volume: volume, offset: 0, .data($0), acknowledged: fixture.log.head)
            }
            guard case .appended(let appended) = outcome else { throw Full() }
            ends += appended.records.dropFirst().map(\.lsn) + [appended.end]
        }
        try #require(ends.count == 8 && ends[2] == LSN(64 * 1024))
        self.ends = ends
    }

    private struct Full: Error {}
    private var start: LSN { fixture.log.head }

    private func copy(to end: LSN) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(end - start))
        bytes.withUnsafeMutableBytes { fixture.region.readRing(from: start, into: $0) }
        return bytes
    }

    private func compare(_ other: [UInt8], cut: Bool = false) throws -> (found: [PartComparison.Difference], end: LSN) {
        try other.withUnsafeBytes { bytes in
            var comparison = try #require(
                PartComparison(fixture.region, from: start, other: bytes, endsInRecord: cut))
            var found: [PartComparison.Difference] = []
            while let difference = comparison.next() { found.append(difference) }
            return (found, comparison.position)
        }
    }

    private func flip(at lsn: LSN) {
        var byte: UInt8 = 0
        withUnsafeMutableBytes(of: &byte) { fixture.region.readRing(from: lsn, into: $0) }
        byte ^= 0x20
        withUnsafeBytes(of: &byte) { fixture.region.store($0, at: lsn) }
    }

    @Test func equalCopiesDoNotDiffer() throws {
        let (found, end) = try compare(copy(to: ends[7]))
        #expect(found.isEmpty && end == ends[7])
    }

    /// No crash and no rot makes two good records at one place: neither is believed over the other (S5).
    @Test(arguments: [[7, 7, 7], [8, 8], [UInt8](repeating: 7, count: 100)] as [[UInt8]])
    func twoGoodRecordsThatDifferAreUndecidable(_ bytes: [UInt8]) throws {
        let one = try LogFixture(), other = try LogFixture()
        let mine = try one.appended([7, 7]), theirs = try other.appended(bytes)
        var copy = [UInt8](repeating: 0, count: 256)
        copy.withUnsafeMutableBytes { other.region.readRing(from: .zero, into: $0) }
        let range = LSN.zero..<max(mine.end, theirs.end)
        let found = try copy.withUnsafeBytes { bytes in
            var comparison = try #require(
                PartComparison(
                    one.region, from: .zero,
                    other: UnsafeRawBufferPointer(rebasing: bytes[..<Int(range.upperBound.rawValue)]),
                    endsInRecord: false))
            return [comparison.next(), comparison.next()]
        }
        #expect(found == [PartComparison.Difference(kind: .undecidable, range: range), nil])
    }

    /// In every record, in its header and in its payload; the middle ones lie behind the ring's end.
    @Test(arguments: Array(0..<8), [0, 8, 20, 64]) func theGoodCopyIsTold(_ record: Int, _ place: Int) throws {
        let from = record == 0 ? start : ends[record - 1]
        let range = from..<ends[record]
        var other = copy(to: ends[7])
        other[Int(from - start) + place] ^= 0x20
        #expect(try compare(other).found == [PartComparison.Difference(kind: .damagedThere, range: range)])
        other[Int(from - start) + place] ^= 0x20
        flip(at: from + UInt64(place))
        #expect(try compare(other).found == [PartComparison.Difference(kind: .damagedHere, range: range)])
        other[Int(from - start) + place] ^= 0x40
        let (found, end) = try compare(other)
        #expect(found == [PartComparison.Difference(kind: .undecidable, range: range)] && end == ends[7])
    }

    @Test func whatFillsTheLastLineIsNobodys() throws {
        var other = copy(to: ends[7])
        other[Int(ends[0] - start) - 1] ^= 1
        #expect(try compare(other).found.isEmpty)
    }

    @Test func aRecordThatIsNotWholeIsNotJudged() throws {
        let (found, end) = try compare(copy(to: ends[5] + LSN.alignment), cut: true)
        #expect(found.isEmpty && end == ends[5])
        #expect(try compare(copy(to: ends[5] + LSN.alignment)).found.count == 1)
    }

    @Test func bytesOfAnotherLogAreNeverBelieved() throws {
        var generator = SplitMix64(seed: 3)
        let (found, end) = try compare(generator.bytes(Int(ends[7] - start)))
        #expect(found.map(\.kind) == Array(repeating: .damagedThere, count: 8) && end == ends[7])
    }
}
