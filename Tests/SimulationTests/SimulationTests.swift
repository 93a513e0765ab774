// The production engine on two nodes under virtual time, from a seed.

import Foundation
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

    /// A folder for the pools of one world at a time.
    private static func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
        let folder = "/dev/shm/twinlog-simulation-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        let result = Swift.Result { try body(folder) }
        // A process watches 256 mappings for memory that fails; of thousands of worlds few may leave one.
        let mappings = try String(contentsOfFile: "/proc/self/maps", encoding: .utf8).split(separator: "\n")
        #expect(mappings.count { $0.contains(folder) } < 16, "worlds have left pools mapped")
        try FileManager.default.removeItem(atPath: folder)
        return try result.get()
    }

    static func run(_ seed: UInt64, in folder: String, traced: Bool = false) -> Outcome {
        let world = World(seed: seed, in: folder, traced: traced)
        world.live()
        defer { world.dismantle() }
        return Outcome(seed: seed, violation: world.violation, coverage: world.coverage, trace: world.trace)
    }

    private final class Lowest: Sendable {
        private let lowest = Mutex(UInt64.max)
        var value: UInt64 { lowest.withLock { $0 } }
        func add(_ seed: UInt64) { lowest.withLock { $0 = min($0, seed) } }
    }

    /// The first seed that fails, and what all up to there have met.
    private static func runAll(_ seeds: Range<UInt64>) async throws -> (failed: Outcome?, total: [String: Int]) {
        let workers: UInt64 = 2
        let firstFailed = Lowest()
        var failed: Outcome?
        var total: [String: Int] = [:]
        try await withThrowingTaskGroup(of: (failed: Outcome?, total: [String: Int]).self) { group in
            for worker in 0..<workers {
                group.addTask {
                    try withFolder { folder in
                        var total: [String: Int] = [:]
                        for seed in seeds where seed % workers == worker {
                            guard seed < firstFailed.value else { break }
                            let outcome = run(seed, in: folder)
                            total.merge(outcome.coverage.all) { $0 + $1 }
                            guard outcome.violation != nil else { continue }
                            firstFailed.add(seed)
                            return (outcome, total)
                        }
                        return (nil, total)
                    }
                }
            }
            for try await part in group {
                total.merge(part.total) { $0 + $1 }
                guard let other = part.failed, other.seed < failed?.seed ?? .max else { continue }
                failed = other
            }
        }
        return (failed, total)
    }

    /// What two idle cores do in little more than a minute, without optimization; `make test` runs more, with it.
    private static let usualSeeds: UInt64 = 500

    /// Runs with one fault are so alike that more seeds than these have little to add.
    private static let mostOfOneFault: UInt64 = 2000

    private static func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }

    /// What fewer than five of 2,000 seeds meet.
    private static let rare: Set = ["keptThoughMediumFails", "givenAwayUnreleased"]

    @Test func everyPromiseIsKeptUnderEverySeed() async throws {
        let seeds: Range<UInt64>
        if let only = Self.number("TWINLOG_SEED") {
            seeds = only..<(only + 1)
        } else {
            let first = Self.number("TWINLOG_FIRST_SEED") ?? 1
            seeds = first..<(first + (Self.number("TWINLOG_SEEDS") ?? Self.usualSeeds))
        }
        let (failed, total) = try await Self.runAll(seeds)
        if let failed {
            Issue.record(
                "seed \(failed.seed): \(failed.violation ?? "") -- replay: TWINLOG_SEED=\(failed.seed) swift test --filter SimulationTests"
            )
        }
        if seeds.count == 1 || failed != nil {
            let replay = try Self.withFolder { Self.run(failed?.seed ?? seeds.lowerBound, in: $0, traced: true) }
            for line in replay.trace { print(line) }
        }
        print(
            "\(seeds.count) seeds: "
                + total.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        guard seeds.count >= 2000, failed == nil else { return }
        for (name, count) in total where seeds.count >= 10_000 || !Self.rare.contains(name) {
            #expect(count > 0, "no seed has met this: \(name)")
        }
    }

    @Test("a usable copy is served in time beside one fault that stays", arguments: LastingFault.allCases)
    func served(beside fault: LastingFault) throws {
        try Self.run(Self.usualSeeds / 50, "\(fault)") { seed, isTraced, folder in
            let world = World(seed: seed, in: folder, traced: isTraced, lasting: fault)
            defer { world.dismantle() }
            world.live(under: fault)
            return (world.violation, world.trace)
        }
    }

    @Test("S5: a record that is bad in both copies is said, and nothing passes over it")
    func badInBothCopies() throws {
        try Self.run(Self.usualSeeds / 10, "both copies") { seed, isTraced, folder in
            let world = World(seed: seed, in: folder, traced: isTraced, several: false)
            defer { world.dismantle() }
            world.liveWithoutAGoodCopy()
            return (world.violation, world.trace)
        }
    }

    /// The first seed that fails, of as many as this kind of run usually has, or a part of `TWINLOG_SEEDS` up to a limit, or of
    /// `TWINLOG_LASTING_SEEDS`. With `TWINLOG_SEED` that one alone, with its whole timeline.
    private static func run(
        _ usual: UInt64, _ kind: String,
        _ body: (_ seed: UInt64, _ isTraced: Bool, _ folder: String) -> (violation: String?, trace: [String])
    ) throws {
        let only = number("TWINLOG_SEED")
        let seeds = number("TWINLOG_LASTING_SEEDS") ?? min(number("TWINLOG_SEEDS") ?? usualSeeds, mostOfOneFault)
        let count = seeds * usual / usualSeeds
        for seed in only.map({ $0..<$0 + 1 }) ?? 1..<1 + max(2, count) {
            let outcome = try withFolder { body(seed, false, $0) }
            guard outcome.violation != nil || only != nil else { continue }
            if let violation = outcome.violation { Issue.record("seed \(seed), \(kind): \(violation)") }
            let trace = try withFolder { body(seed, true, $0).trace }
            for line in only == nil ? trace.suffix(200) : trace[...] { print(line) }
            return
        }
    }

    @Test func aSeedAlwaysGivesTheSameRun() throws {
        for seed in UInt64(1)...5 {
            let first = try Self.withFolder { Self.run(seed, in: $0, traced: true).trace }
            let again = try Self.withFolder { Self.run(seed, in: $0, traced: true).trace }
            #expect(first.count > 50)
            let same = zip(first, again).prefix { $0 == $1 }.count
            #expect(
                same == first.count && same == again.count,
                "seed \(seed), line \(same): \(first.dropFirst(same).first ?? "the end") -- \(again.dropFirst(same).first ?? "the end")"
            )
        }
    }
}
