// A producer that stops between reserving and publishing: what others still get, and how it is reported.

import CLogCore
import LogModel
import Testing
import WriteLog

struct StallWatchTests {
    let fixture: LogFixture
    let start = Duration.seconds(1000)

    init() throws { fixture = try LogFixture() }

    /// Takes room as an append does, and stops there.
    private func stoppedProducer() throws -> tl_reservation {
        var reservation = tl_reservation()
        let result = ReservationTests.withWrite { tl_log_reserve(fixture.log.log, &$0, &reservation) }
        try #require(result == TL_LOG_DONE)
        return reservation
    }

    private func resume(_ reservation: tl_reservation) {
        ReservationTests.withWrite { write in
            var reservation = reservation
            tl_log_store(fixture.log.log, &write, &reservation)
            tl_log_publish(fixture.log.log, &reservation)
        }
    }

    @Test func aStoppedProducerIsReportedOnceAfterTheLimit() throws {
        var watch = StallWatch(limit: .seconds(1))
        let below = try fixture.appended([1])
        let stopped = try stoppedProducer()
        let range = LSN(stopped.start)..<LSN(stopped.end)
        // Others go on above it; the watermark, and what is durable, never pass it.
        var above: [WriteLog.Appended] = []
        for byte in 2..<10 {
            above.append(try fixture.appended([UInt8(byte)]))
            #expect(fixture.log.published == below.end && fixture.log.durable == below.end)
        }
        #expect(fixture.log.unpublished == range)
        #expect(watch.check(fixture.log, at: start) == nil)
        #expect(watch.check(fixture.log, at: start + .milliseconds(999)) == nil)
        #expect(
            watch.check(fixture.log, at: start + .milliseconds(1000))
                == StallWatch.Stall(range: range, duration: .seconds(1)))
        #expect(watch.check(fixture.log, at: start + .seconds(60)) == nil, "once")
        // A crash now: what lies below it is whole, what lies above is a torn tail.
        #expect(try scan(fixture.region).writes.map(\.start) == [below.start])
        #expect(try scan(fixture.region).verdict == .torn)

        resume(stopped)
        #expect(fixture.log.published == above.last?.end && fixture.log.unpublished == nil)
        #expect(watch.check(fixture.log, at: start + .seconds(61)) == nil)
    }

    @Test func aWatermarkThatMovesIsNoStall() throws {
        var watch = StallWatch(limit: .seconds(1))
        for second in 0..<10 {
            let slow = try stoppedProducer()
            #expect(watch.check(fixture.log, at: start + .seconds(second)) == nil)
            resume(slow)
        }
        // Two in turn, each for less than the limit, without a moment at which all was published.
        var slow = try stoppedProducer()
        for second in 20..<30 {
            #expect(watch.check(fixture.log, at: start + .seconds(second)) == nil)
            let next = try stoppedProducer()
            resume(slow)
            slow = next
        }
        #expect(watch.check(fixture.log, at: start + .seconds(30)) == nil)
        #expect(watch.check(fixture.log, at: start + .seconds(31))?.range == LSN(slow.start)..<LSN(slow.end))
    }

    @Test func theNextStallIsReportedToo() throws {
        var watch = StallWatch(limit: .seconds(1))
        for round in 0..<3 {
            let stopped = try stoppedProducer(), again = start + .seconds(10 * round)
            #expect(watch.check(fixture.log, at: again) == nil)
            #expect(watch.check(fixture.log, at: again + .seconds(2))?.range.lowerBound == LSN(stopped.start))
            resume(stopped)
        }
    }

    @Test func othersFindTheLogFullAndDoNotHang() throws {  // S6
        let stopped = try stoppedProducer()
        var appended = 0
        while case .appended = fixture.append([UInt8](repeating: 1, count: 1000)) {
            appended += 1
            try #require(appended < 1000)
        }
        #expect(appended > 40, "most of the ring was still given out")
        #expect(fixture.log.published == LSN(stopped.start))
        #expect(fixture.log.unpublished == LSN(stopped.start)..<LSN(stopped.end))
    }
}
