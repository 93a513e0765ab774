// On an ordinary file only `msync` makes durable. The kernel says which pages of a mapping it has not written: none may be
// left when the log says that something is durable.

import Foundation
import LogModel
import PersistentMemory
import Testing
import WriteLog

struct MsyncTests {
    /// Bytes of the pool's mapping that are not on the disk yet.
    private func dirtyBytes(_ fixture: LogFixture) throws -> Int {
        let smaps = try #require(FileHandle(forReadingAtPath: "/proc/self/smaps"))
        let text = String(decoding: try smaps.readToEnd() ?? Data(), as: UTF8.self)
        var isInside = false
        var found: Int?
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard let first = words.first else { continue }
            if !first.hasSuffix(":") {
                isInside = line.contains(fixture.folder)  // under its first name, or this one
                if isInside { found = found ?? 0 }
            } else if isInside, first == "Shared_Dirty:" || first == "Private_Dirty:" {
                found = (found ?? 0) + (Int(words[1]) ?? 0) * 1024
            }
        }
        return try #require(found, "the pool is not mapped")
    }

    /// `nil` where there is no disk.
    private func fixture() throws -> LogFixture? {
        let fixture = try LogFixture(parent: "/tmp")
        if fixture.pool.persistence == .msync { return fixture }
        print("skipped: /tmp is on \(fixture.pool.persistence) memory here, not on a disk")
        return nil
    }

    @Test("S1: what a pool, a region and a log's header say is on the disk when they are made")
    func creation() throws {
        guard let fixture = try fixture() else { return }
        #expect(try dirtyBytes(fixture) == 0)
    }

    @Test(
        "S1: published is not durable before persist, and nothing below the durable LSN is dirty after it, around the end too"
    )
    func persist() throws {
        guard let fixture = try fixture() else { return }
        var laps = 0
        // The kernel may write pages back by itself, but hardly all of them each time.
        var seenDirty = 0
        while laps < 10 {
            let place = try fixture.appended([UInt8](repeating: UInt8(laps), count: 14_000))
            laps += 1
            #expect(fixture.log.durable < place.end)
            seenDirty += try dirtyBytes(fixture)
            #expect(try fixture.log.persist() == place.end)
            #expect(try dirtyBytes(fixture) == 0)
            try fixture.trim(to: place.end)
            #expect(try dirtyBytes(fixture) == 0)  // the head
        }
        #expect(seenDirty > 0)
        #expect(fixture.log.tail.rawValue > 2 * fixture.log.ringBytes)
    }

    @Test("S11: what a mirror stores is on the disk after its drain, around the end too")
    func drain() throws {
        guard let fixture = try fixture() else { return }
        let region = fixture.region
        let bytes = [UInt8](repeating: 7, count: 30_000)
        var seenDirty = 0
        for lap in 0..<5 as Range<UInt64> {
            bytes.withUnsafeBytes { region.store($0, at: LSN(lap * 29_952)) }
            seenDirty += try dirtyBytes(fixture)
            try region.drain()
            #expect(try dirtyBytes(fixture) == 0)
        }
        #expect(seenDirty > 0)
    }

    @Test("S1: what a failed msync could not write is never said to be durable, though the next one succeeds")
    func failure() throws {
        guard let fixture = try fixture() else { return }
        let before = try fixture.appended([UInt8](repeating: 1, count: 5000))
        try fixture.log.persist()
        try fixture.appended([UInt8](repeating: 2, count: 9000))
        try withoutPage(of: fixture, at: LSN(8192)) {
            #expect(throws: WriteLogError.self) { try fixture.log.persist() }
        }
        // The kernel would do it now, and be believed.
        try fixture.region.drain()
        #expect(throws: WriteLogError.self) { try fixture.log.persist() }
        #expect(fixture.log.durable == before.end)
    }

    @Test("S26: nor is what was stored to memory that has failed, though an msync of what stands in its place succeeds")
    func failedMemory() throws {
        guard let fixture = try fixture() else { return }
        let before = try fixture.appended([UInt8](repeating: 1, count: 5000))
        try fixture.log.persist()
        try failPage(of: fixture.region, at: LSN(8192))
        guard case .failed = fixture.append([UInt8](repeating: 2, count: 9000)) else {
            Issue.record("appended to failed memory")
            return
        }
        for _ in 0..<2 {
            let error = #expect(throws: WriteLogError.self) { try fixture.log.persist() }
            #expect(error?.description.contains("has failed") == true)
        }
        #expect(fixture.log.durable == before.end)
    }

    /// `msync` of a range with a page that is not mapped fails.
    private func withoutPage(of fixture: LogFixture, at lsn: LSN, _ body: () throws -> Void) throws {
        let page = fixture.region.ringBase + Int(lsn.rawValue)
        let file = open(fixture.folder + "/pool", O_RDWR)
        defer { close(file) }
        try #require(munmap(page, 4096) == 0)
        defer {
            let offset = off_t(fixture.region.ringOffset + lsn.rawValue)
            precondition(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, offset) == page)
        }
        try body()
    }
}
