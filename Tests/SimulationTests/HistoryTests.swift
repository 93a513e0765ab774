import SimulationSupport
import Testing

/// One block; times are what a client's clock says.
struct HistoryTests {
    private var history = History(blocks: 1)

    private mutating func write(_ stamp: UInt64, _ begun: UInt64, _ end: UInt64?) {
        history.issued(0, stamp, begun: begun)
        if let end { history.written(0, stamp, end: end) }
    }

    private mutating func read(_ stamp: UInt64, _ begun: UInt64, _ end: UInt64) {
        history.read(0, stamp, begun: begun, end: end)
    }

    @Test mutating func whatFollowsEachOtherIsLinearizable() {
        read(0, 1, 2)
        write(1, 3, 6)
        read(1, 4, 5)
        read(1, 7, 8)
        write(2, 9, 10)
        read(2, 11, 12)
        #expect(history.violation() == nil)
    }

    @Test mutating func writesAtTheSameTimeMayHaveAnyOrder() {
        write(1, 1, 10)
        write(2, 1, 10)
        read(2, 11, 12)
        read(2, 13, 14)
        #expect(history.violation() == nil)
    }

    @Test("a write without an answer has happened or not, at any time after it was asked")
    mutating func unanswered() {
        write(1, 1, 2)
        write(2, 3, nil)
        read(1, 4, 5)
        read(2, 6, 7)
        write(3, 8, nil)
        read(2, 9, 10)
        #expect(history.violation() == nil)
    }

    @Test mutating func aWriteThatIsGone() {
        write(1, 1, 2)
        read(0, 3, 4)
        #expect(history.violation() != nil)
    }

    @Test mutating func aWriteThatComesBack() {
        write(1, 1, 2)
        write(2, 3, 4)
        read(2, 5, 6)
        read(1, 7, 8)
        #expect(history.violation() != nil)
    }

    @Test("a write without an answer that was read is not taken back")
    mutating func unansweredAndTakenBack() {
        write(1, 1, 2)
        write(2, 3, nil)
        read(2, 4, 5)
        read(1, 6, 7)
        #expect(history.violation() != nil)
    }

    @Test mutating func aValueThatNobodyWrote() {
        read(7, 1, 2)
        #expect(history.violation() != nil)
    }

    @Test mutating func aValueBeforeItIsWritten() {
        read(0, 1, 2)
        write(1, 5, 6)
        read(1, 3, 4)
        #expect(history.violation() != nil)
    }
}
