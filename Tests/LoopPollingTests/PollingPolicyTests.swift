import LogModel
import LoopPolling
import Testing

/// When a loop looks for the next arrival before it sleeps, and when it lets the processor go.
struct PollingPolicyTests {
    private static let soon: UInt64 = 20_000
    private static let late = 3 * PollingPolicy.longestNanos
    private static let enoughTurns = 64

    /// Turns that follow each other after `wait`, until the policy knows; answers how long it looks then.
    private func settle(_ policy: inout PollingPolicy, wait: UInt64, work: UInt64) -> UInt64 {
        for _ in 0..<Self.enoughTurns { policy.turned(waitNanos: wait, workNanos: work) }
        return policy.nanosToLook()
    }

    @Test func offNeverLooks() {
        var policy = PollingPolicy(.off)
        #expect(settle(&policy, wait: Self.soon, work: 0) == 0)
    }

    @Test func aGivenTimeIsAlwaysLooked() {
        var policy = PollingPolicy(.always(micros: 50))
        #expect(policy.nanosToLook() == 50_000)
        #expect(settle(&policy, wait: Self.late, work: Self.late) == 50_000)
        policy.looked(.disturbed)
        #expect(policy.nanosToLook() == 50_000)
    }

    @Test func autoLooksOnlyWhileArrivalsFollowSoon() {
        var policy = PollingPolicy(.auto)
        #expect(policy.nanosToLook() == 0)
        #expect(settle(&policy, wait: Self.soon, work: Self.soon) == PollingPolicy.longestNanos)
        #expect(settle(&policy, wait: Self.late, work: Self.soon) == 0)
        #expect(settle(&policy, wait: Self.soon, work: Self.soon) == PollingPolicy.longestNanos)
    }

    @Test("A wait of seconds is forgotten as soon as one of a tenth of a millisecond")
    func longWaitsCountNoMore() {
        var policy = PollingPolicy(.auto)
        policy.turned(waitNanos: .max / 16, workNanos: .max / 16)
        #expect(settle(&policy, wait: Self.soon, work: Self.soon) == PollingPolicy.longestNanos)
    }

    @Test func autoSleepsBesideLongTurns() {
        var policy = PollingPolicy(.auto)
        #expect(settle(&policy, wait: Self.soon, work: Self.late) == 0)
    }

    @Test("Where another thread wanted the processor, auto stays away from it for twice as many turns each time")
    func disturbed() {
        var policy = PollingPolicy(.auto)
        _ = settle(&policy, wait: Self.soon, work: Self.soon)
        var pauses: [Int] = []
        for _ in 0..<12 {
            policy.looked(.disturbed)
            var turns = 0
            while policy.nanosToLook() == 0 { turns += 1 }
            pauses.append(turns)
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024])
        for _ in 0..<10 { policy.looked(.arrived) }
        policy.looked(.disturbed)
        #expect(policy.nanosToLook() == 0)
        #expect(policy.nanosToLook() == PollingPolicy.longestNanos)
    }

    @Test(arguments: [
        ("off", PollMode.off), ("auto", .auto), ("1us", .always(micros: 1)), ("1000us", .always(micros: 1000)),
    ])
    func modes(_ text: String, _ mode: PollMode) {
        #expect(PollMode.parse(text) == mode)
        #expect("\(mode)" == text)
    }

    @Test(arguments: ["", "on", "us", "0us", "1001us", "+1us", "-1us", "50", "50ms", "1.5us", "Auto"])
    func whatIsNoMode(_ text: String) { #expect(PollMode.parse(text) == nil) }
}
