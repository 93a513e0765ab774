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
        try FileManager.default.removeItem(atPath: folder)
        return try result.get()
    }

    static func run(_ seed: UInt64, in folder: String, traced: Bool = false) -> Outcome {
        let world = World(seed: seed, in: folder, traced: traced)
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

    /// What two idle cores do in little more than a minute, without optimization.
    private static let usualSeeds: UInt64 = 500

    private static func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }

    @Test func everyPromiseIsKeptUnderEverySeed() async throws {
        let seeds: Range<UInt64>
        if let only = Self.number("TWINLOG_SEED") {
            seeds = only..<(only + 1)
        } else {
            seeds = 1..<(1 + (Self.number("TWINLOG_SEEDS") ?? Self.usualSeeds))
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
        guard seeds.count >= 3000, failed == nil else { return }
        for (name, count) in total { #expect(count > 0, "no seed has met this: \(name)") }
    }

    @Test("a usable copy is served in time beside one fault that stays", arguments: World.LastingFault.allCases)
    func served(beside fault: World.LastingFault) throws {
        for seed in 1..<(1 + max(2, (Self.number("TWINLOG_SEEDS") ?? Self.usualSeeds) / 50)) {
            let run = { (isTraced: Bool) in
                try Self.withFolder { folder in
                    let world = World(seed: seed, in: folder, traced: isTraced, lasting: true)
                    defer { world.dismantle() }
                    world.live(under: fault)
                    return (world.oracle.violation, world.trace)
                }
            }
            guard let violation = try run(false).0 else { continue }
            Issue.record("seed \(seed), \(fault): \(violation)")
            for line in try run(true).1.suffix(200) { print(line) }
            return
        }
    }

    @Test("S5: a record that is bad in both copies is said, and nothing passes over it")
    func badInBothCopies() throws {
        for seed in 1..<(1 + max(10, (Self.number("TWINLOG_SEEDS") ?? Self.usualSeeds) / 10)) {
            let run = { (isTraced: Bool) in
                try Self.withFolder { folder in
                    let world = World(seed: seed, in: folder, traced: isTraced)
                    defer { world.dismantle() }
                    world.liveWithoutAGoodCopy()
                    return (world.oracle.violation, world.trace)
                }
            }
            guard let violation = try run(false).0 else { continue }
            Issue.record("seed \(seed): \(violation)")
            for line in try run(true).1.suffix(200) { print(line) }
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
