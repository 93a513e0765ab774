// A log that goes on behind its own records (ResumedLog.swift).

import Glibc
import LogModel
import PersistentMemory
import Testing
import WriteLog

struct ResumeTests {
    /// The pool of `fixture`, opened anew as after a crash.
    private func reopened(_ fixture: LogFixture) throws -> (pool: Pool, scan: LogScan) {
        fixture.pool.close()
        let pool = try Pool.open(path: fixture.folder + "/pool", expecting: nil, persistence: .auto)
        let region = try #require(pool.region(of: GroupID("g0")))
        var scan = try #require(LogScan(region: region))
        _ = scan.finish()
        return (pool, scan)
    }

    private func payloads(_ region: Region) throws -> [[UInt8]] {
        var scan = try #require(LogScan(region: region))
        var found: [[UInt8]] = []
        while let write = scan.next() { found += write.records.map { Array($0.payload) } }
        return found
    }

    private func append(_ bytes: [UInt8], to log: WriteLog) throws -> WriteLog.Appended {
        let outcome = bytes.withUnsafeBytes {
            log.append(volume: volume, offset: 0, .data($0), acknowledged: log.published)
        }
        guard case .appended(let place) = outcome else { throw LogFixture.NoRoom() }
        return place
    }

    @Test("S10: what was there stays, and what is appended follows it")
    func recordsStay() throws {
        let fixture = try LogFixture()
        let first = try fixture.appended([1, 2, 3])
        let (pool, scan) = try reopened(fixture)
        #expect(scan.endLSN == first.end && scan.verdict == .clean)
        let log = try WriteLog(resuming: scan)
        #expect(log.published == first.end && log.head == first.start)
        #expect(try append([4], to: log).start == first.end)
        #expect(try payloads(log.region) == [[1, 2, 3], [4]])
        #expect(log.region.acknowledged == first.end, "what was told to be there counts as promised (S5)")
        pool.close()
    }

    @Test("S4: a record behind a hole does not come back when the hole is filled")
    func nothingComesBack() throws {
        let fixture = try LogFixture()
        try fixture.appended([1])
        let torn = try fixture.appended([2])
        let behind = try fixture.appended([3])
        // The second record's header was never stored.
        [UInt8](repeating: 0, count: 64).withUnsafeBytes { fixture.region.store($0, at: torn.start) }
        try fixture.region.drain()

        let (pool, scan) = try reopened(fixture)
        #expect(scan.endLSN == torn.start && scan.verdict == .torn)
        let log = try WriteLog(resuming: scan)
        #expect(try append([9], to: log).end == behind.start, "the hole is filled up to the record behind it")
        #expect(try payloads(log.region) == [[1], [9]])
        pool.close()
    }

    @Test("S6: the records that stay keep their space, once around the ring's end too")
    func spaceOfWhatStays() throws {
        let fixture = try LogFixture(ringBytes: 64 * 1024)
        let count = 3
        var kept: [[UInt8]] = []
        for number in 0..<count {
            kept.append([UInt8](repeating: UInt8(number + 1), count: 12 * 1024))
            try fixture.appended(kept[number])
        }
        let (pool, scan) = try reopened(fixture)
        let log = try WriteLog(resuming: scan)
        var appended = 0
        while (try? append([UInt8](repeating: 0xEE, count: 4096), to: log)) != nil { appended += 1 }
        // 64 KiB, less 4 KiB for control records and three records of 12 KiB.
        #expect(appended == 5)
        #expect(try Array(payloads(log.region).prefix(count)) == kept)
        pool.close()
    }

    @Test("S21: a payload that holds a later header of this log is left as it is")
    func payloadsAreNotTouched() throws {
        let fixture = try LogFixture()
        // The bytes of a record at 4096, as a payload that lies at 4096, too: of the lap that comes next.
        let other = try LogFixture(start: LSN(64 * 1024 + 4096))
        try other.appended([7])
        var image = [UInt8](repeating: 0, count: 128)
        image.withUnsafeMutableBytes { other.region.readRing(from: LSN(64 * 1024 + 4096), into: $0) }
        let payload = [UInt8](repeating: 0, count: 4096 - 64) + image
        try fixture.appended(payload)
        let (pool, scan) = try reopened(fixture)
        let log = try WriteLog(resuming: scan)
        #expect(try payloads(log.region) == [payload])
        pool.close()
    }
}
