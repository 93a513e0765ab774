// Two nodes under virtual time, from a seed: see README.md.

import Glibc
import LogModel
import Synchronization
import Testing

struct SimulationTests {
    struct Outcome: Sendable {
        var seed: UInt64
        var violation: String?
        var coverage: Coverage
        var trace: [String]
    }

    static func run(_ seed: UInt64, traced: Bool = false) -> Outcome {
        let world = World(seed: seed, traced: traced)
        world.live()
        defer { world.dismantle() }
        return Outcome(seed: seed, violation: world.oracle.violation, coverage: world.coverage, trace: world.trace)
    }

    private final class Lowest: Sendable {
        private let lowest = Mutex(UInt64.max)
        var value: UInt64 { lowest.withLock { $0 } }
        func add(_ seed: UInt64) { lowest.withLock { $0 = min($0, seed) } }
    }

    /// The first seed that fails, and what all up to there have met.
    private static func runAll(_ seeds: Range<UInt64>) async -> (failed: Outcome?, total: [String: Int]) {
        let workers: UInt64 = 2
        let firstFailed = Lowest()
        var failed: Outcome?
        var total: [String: Int] = [:]
        await withTaskGroup(of: (failed: Outcome?, total: [String: Int]).self) { group in
            for worker in 0..<workers {
                group.addTask {
                    var total: [String: Int] = [:]
                    for seed in seeds where seed % workers == worker {
                        guard seed < firstFailed.value else { break }
                        let outcome = run(seed)
                        total.merge(outcome.coverage.all) { $0 + $1 }
                        guard outcome.violation != nil else { continue }
                        firstFailed.add(seed)
                        return (outcome, total)
                    }
                    return (nil, total)
                }
            }
            for await part in group {
                total.merge(part.total) { $0 + $1 }
                guard let other = part.failed, other.seed < failed?.seed ?? .max else { continue }
                failed = other
            }
        }
        return (failed, total)
    }

    static func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }

    @Test func everyPromiseIsKeptUnderEverySeed() async {
        let seeds: Range<UInt64>
        if let only = Self.number("TWINLOG_SEED") {
            seeds = only..<(only + 1)
        } else {
            seeds = 1..<(1 + (Self.number("TWINLOG_SEEDS") ?? 1000))
        }
        let (failed, total) = await Self.runAll(seeds)
        if let failed {
            Issue.record(
                "seed \(failed.seed): \(failed.violation ?? "") -- replay: TWINLOG_SEED=\(failed.seed) swift test --filter SimulationTests"
            )
        }
        if seeds.count == 1 || failed != nil {
            for line in Self.run(failed?.seed ?? seeds.lowerBound, traced: true).trace { print(line) }
        }
        print(
            "\(seeds.count) seeds: "
                + total.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        guard seeds.count >= 1000, failed == nil else { return }
        for (name, count) in total { #expect(count > 0, "no seed has met this: \(name)") }
    }

    @Test("a usable copy is served in time beside one fault that stays", arguments: World.LastingFault.allCases)
    func served(beside fault: World.LastingFault) {
        let seeds = 1..<(1 + (Self.number("TWINLOG_SEEDS") ?? 1000) / 50)
        for seed in seeds {
            let world = World(seed: seed, lasting: true)
            world.live(under: fault)
            defer { world.dismantle() }
            guard let violation = world.oracle.violation else { continue }
            Issue.record("seed \(seed), \(fault): \(violation)")
            let again = World(seed: seed, traced: true, lasting: true)
            again.live(under: fault)
            for line in again.trace.suffix(200) { print(line) }
            return again.dismantle()
        }
    }

    @Test("S5: a record that is bad in both copies is said, and nothing passes over it")
    func badInBothCopies() {
        for seed in 1..<(1 + (Self.number("TWINLOG_SEEDS") ?? 1000) / 10) {
            let world = World(seed: seed)
            world.liveWithoutAGoodCopy()
            defer { world.dismantle() }
            guard let violation = world.oracle.violation else { continue }
            Issue.record("seed \(seed): \(violation)")
            let again = World(seed: seed, traced: true)
            again.liveWithoutAGoodCopy()
            for line in again.trace.suffix(200) { print(line) }
            return again.dismantle()
        }
    }

    @Test func aSeedAlwaysGivesTheSameRun() {
        for seed in UInt64(1)...5 {
            let first = Self.run(seed, traced: true).trace
            #expect(first.count > 50)
            #expect(first == Self.run(seed, traced: true).trace)
        }
    }
}
