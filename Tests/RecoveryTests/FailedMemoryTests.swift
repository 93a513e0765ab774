// Memory that fails under a log: nothing is replayed from what nobody can read, and nothing is called healed that does not
// stay (S5, S26).

import Foundation
import LogModel
import PersistentMemory
import Recovery
import StorageMedium
import TestSupport
import Testing
import WriteLog

struct FailedMemoryTests {
    /// As one with an uncorrectable error does, the page raises SIGBUS when it is met: its file does not have it.
    private func failPage(of region: Region, at lsn: LSN) throws {
        let page = region.ringBase + Int(lsn.rawValue % region.ringBytes / 4096 * 4096)
        let empty = open("/dev/shm", 0o20200000 | O_RDWR, 0o600)  // O_TMPFILE
        try #require(empty >= 0)
        defer { close(empty) }
        try #require(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0) == page)
    }

    @Test func aLogThatCannotBeReadToItsEndIsNotReplayed() throws {
        let fixture = try Fixture()
        var random = SplitMix64(seed: 1)
        for number in 0..<4 { try fixture.write(random.bytes(8128), at: UInt64(number) << 14) }
        try failPage(of: fixture.region, at: LSN(3 * 8192))
        let medium = try fixture.medium()
        let error = try #require(throws: ReplayError.self) {
            try Replay.run(fixture.region, onto: [volume0: medium])
        }
        #expect(error.code == .corrupt && error.message.contains("has failed"), "\(error)")
        #expect(error.message.contains("only to LSN 24576"), "\(error)")
        #expect(try data(of: fixture.mediumPath("vol0")) == Fixture.blankMedium)
    }

    /// A medium beside which memory fails.
    // @unchecked: one thread.
    private final class Spoiling: Medium, @unchecked Sendable {
        let sizeBytes: UInt64 = 1 << 20
        var spoil: (() throws -> Void)?
        private(set) var zeros = 0

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {}
        func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
            do { try spoil?() } catch { preconditionFailure("\(error)") }
            spoil = nil
            for buffer in buffers { zeros += buffer.reduce(0) { $0 + ($1 == 0 ? 1 : 0) } }
        }
        func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {}
        func flush() throws(MediumError) {}
    }

    @Test func aReplayBesideWhichMemoryFailsHasNotSucceeded() throws {
        let fixture = try Fixture()
        for number in 0..<4 { try fixture.write([UInt8](repeating: 7, count: 8128), at: UInt64(number) << 14) }
        let medium = Spoiling()
        // Judged whole before, of the last record's payload.
        medium.spoil = { try failPage(of: fixture.region, at: LSN(3 * 8192 + 4096)) }
        let error = try #require(throws: ReplayError.self) {
            try Replay.run(fixture.region, onto: [volume0: medium])
        }
        #expect(error.code == .corrupt && error.message.contains("zeros may be on the medium"), "\(error)")
        #expect(medium.zeros == 4096, "which they are")
    }

    @Test func aCopyInFailedMemoryIsNotCalledHealed() throws {
        let pair = try Pair.filled()
        // This one could be healed; but not before the refusal.
        try pair.mirror.flip(at: pair.single[7].start + 70)
        let before = try data(of: pair.mirror.path)
        try failPage(of: pair.mirror.region, at: pair.single[4].start)
        for dryRun in [true, false] {
            let error = try #require(throws: HealError.self) { try pair.healMirror(dryRun: dryRun) }
            #expect(error.code == .notHealed && error.message.contains(pair.mirror.path), "\(error)")
        }
        #expect(try data(of: pair.mirror.path) == before, "nothing was stored")
    }

    @Test func aSourceInFailedMemoryStillHealsWhatItHolds() throws {
        let pair = try Pair.filled()
        let healable = pair.single.filter { $0.start > pair.single[0].end + 8192 }
        try failPage(of: pair.owner.region, at: pair.single[0].start)
        let damaged = try #require(healable.last)
        try pair.mirror.flip(at: damaged.start + 70)
        let outcome = try pair.healMirror()
        #expect(outcome.healed == [damaged.start..<damaged.end] && outcome.verdict == .clean)
        #expect(!outcome.damagedInSource.isEmpty && outcome.lost.isEmpty)
    }

    /// A broken address line: two pages of the pool are one. What is stored to the one destroys the other.
    @Test func whatDoesNotReadBackIsNotCalledHealed() throws {
        let pair = try Pair.filled()
        let (one, other) = (pair.single[2], pair.single[6])
        let region = pair.mirror.region
        func page(_ lsn: LSN) -> Int { Int((lsn.rawValue % region.ringBytes) / 4096 * 4096) }
        try #require(page(one.start) != page(other.start))
        try pair.mirror.zero(one.start..<one.end)
        let file = open(pair.mirror.path, O_RDWR)
        defer { close(file) }
        let alias = region.ringBase + page(other.start)
        let offset = off_t(Int(region.ringOffset) + page(one.start))
        try #require(mmap(alias, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, offset) == alias)
        let error = try #require(throws: HealError.self) { try pair.healMirror() }
        #expect(error.code == .notHealed && error.message.contains("does not read back"), "\(error)")
    }
}
