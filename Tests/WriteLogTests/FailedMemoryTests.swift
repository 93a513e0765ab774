// Memory that fails under a log reads as zeros. A scan must not take that for the log's end (S5, S26).

import LogModel
import PersistentMemory
import Testing
import WriteLog

struct FailedMemoryTests {
    let fixture: LogFixture
    /// Records of a page each, at least two pages apart from the next one's payload end.
    let places: [WriteLog.Appended]

    init() throws {
        let fixture = try LogFixture()
        self.fixture = fixture
        places = try (0..<4).map { try fixture.appended([UInt8](repeating: UInt8($0 + 1), count: 8128)) }
    }

    private func judged() throws -> LogScan {
        var scan = try #require(LogScan(region: fixture.region))
        _ = scan.finish()
        return scan
    }

    @Test("a record whose header stood in failed memory is damage, and not the log's end")
    func header() throws {
        try failPage(of: fixture.region, at: places[2].start)
        let scan = try judged()
        #expect(scan.verdict == .corrupt && scan.endLSN == places[2].start && scan.firstBadLSN == places[2].start)
        #expect(scan.memoryFault?.firstLSN == places[2].start)
    }

    @Test("so is the last record, behind which nothing says that it was there")
    func last() throws {
        try failPage(of: fixture.region, at: places[3].start)
        #expect(try judged().verdict == .corrupt)
    }

    @Test("so is a record whose payload stood there")
    func payload() throws {
        try failPage(of: fixture.region, at: places[3].start + 4096)
        let scan = try judged()
        #expect(scan.verdict == .corrupt && scan.firstBadLSN == places[3].start)
    }

    @Test("nothing is appended any more: it would not be there")
    func append() throws {
        let page = fixture.region.ringBase + Int(places[3].end.rawValue % fixture.region.ringBytes + 4095) / 4096 * 4096
        try failPage(page)
        // As long as nobody has met it, nobody knows; the first that does is told.
        var outcome = fixture.append([1])
        for _ in 0..<100 { if case .appended = outcome { outcome = fixture.append([1]) } }
        guard case .failed = outcome else {
            Issue.record("\(outcome)")
            return
        }
        guard case .failed = fixture.append([2]) else {
            Issue.record("behind what has failed nothing counts")
            return
        }
    }

    @Test("free space that fails costs nothing")
    func freeSpace() throws {
        try failPage(of: fixture.region, at: places[3].end + 4096)
        let scan = try judged()
        #expect(scan.verdict == .clean && scan.endLSN == places[3].end && scan.memoryFault == nil)
        #expect(fixture.region.memoryFault != nil)
    }

    @Test("what a lost head slot knew of a torn tail cannot be asked; a clean end needs no slot")
    func headSlot() throws {
        let page = fixture.region.ringBase - 4096
        try failPage(page)
        #expect(page.load(as: UInt64.self) == 0)
        #expect(try judged().verdict == .clean)
        try fixture.flip(at: places[3].start + 100)
        let scan = try judged()
        #expect(scan.verdict == .corrupt && scan.memoryFault != nil)
    }
}
