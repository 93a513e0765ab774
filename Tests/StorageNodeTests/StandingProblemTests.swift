// How often a problem that lasts is said, on a clock of its own.

import Testing

@testable import StorageNode

struct StandingProblemTests {
    private static let second: UInt64 = 1_000_000_000

    @Test("O6: what lasts is said once and then ever more rarely; what changes is said at once")
    func pauses() {
        var problem = StandingProblem()
        // An hour, three times a second.
        var said: [UInt64] = []
        for third in 0..<(3 * 3600) as Range<UInt64> {
            let now = third * Self.second / 3
            if problem.isNews("cannot be opened: Permission denied", now) { said.append(now / Self.second) }
        }
        #expect(said.prefix(5) == [0, 10, 30, 70, 150])
        #expect(said.count < 15, "\(said)")
        let later = 3600 * Self.second
        let told = [
            (0, "is another's"), (1, "is another's"),
            // The pause begins anew.
            (10, "is another's"),
            // It was gone for a moment: that it is back is news.
            (11, nil), (12, "is another's"),
        ].map { problem.isNews($1, later + $0 * Self.second) }
        #expect(told == [true, false, true, false, true])
    }
}
