// Whether an event loop looks for the next arrival before it sleeps, and for how long. Pure: it is told what came of it.
//
// A sleeping processor takes tens of microseconds to wake up, and whoever sends to it pays for that too. Looking costs a processor
// that nobody else may need. So `auto` looks only while arrivals follow each other soon, and not where another thread wanted the
// processor meanwhile.

public import LogModel

public struct PollingPolicy: Sendable {
    /// The longest that `auto` looks: twice what a wake-up costs. An arrival that is later than that gains little.
    public static let longestNanos: UInt64 = 100_000
    /// Beside longer turns a wake-up costs little, and what comes during one is taken with the next.
    static let mostWorkNanos: UInt64 = 50_000
    /// Turns without looking after one that kept another thread waiting; twice as many each time.
    static let longestPause = 1024

    public enum Outcome: Sendable {
        case arrived
        case nothing
        /// Another thread had the processor meanwhile.
        case disturbed
    }

    private let mode: PollMode
    /// Moving means. The first begins above its limit: nothing is known.
    private var meanWaitNanos = 4 * Self.longestNanos
    private var meanWorkNanos: UInt64 = 0
    private var pausedTurns = 0
    private var nextPause = 1

    public init(_ mode: PollMode) { self.mode = mode }

    /// How long to look after this turn of the loop; 0: sleep.
    public mutating func nanosToLook() -> UInt64 {
        switch mode {
        case .off: return 0
        case .always(let micros): return micros * 1000
        case .auto:
            guard pausedTurns == 0 else {
                pausedTurns -= 1
                return 0
            }
            return meanWaitNanos <= Self.longestNanos && meanWorkNanos <= Self.mostWorkNanos ? Self.longestNanos : 0
        }
    }

    /// What came of looking.
    public mutating func looked(_ outcome: Outcome) {
        switch outcome {
        case .arrived: nextPause = max(1, nextPause / 2)
        case .nothing: break
        case .disturbed:
            pausedTurns = nextPause
            nextPause = min(Self.longestPause, 2 * nextPause)
        }
    }

    /// A turn of the loop had `work` to do with what came `wait` after the end of the turn before it, looked for or not.
    public mutating func turned(waitNanos wait: UInt64, workNanos work: UInt64) {
        meanWaitNanos = (7 * meanWaitNanos + min(wait, 4 * Self.longestNanos)) / 8
        meanWorkNanos = (7 * meanWorkNanos + min(work, 4 * Self.longestNanos)) / 8
    }
}
