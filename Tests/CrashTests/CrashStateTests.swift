// Every crash state of every scenario. A failing state prints how to look at it again.

import CCrashStates
import CLogCore
import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing

struct Variant {
    var name: String
    var isa = tl_isa_best()
    /// On an ordinary file, if there is a disk.
    var usesMsync = false

    static let all = [
        Variant(name: "streamed"), Variant(name: "cached", isa: TL_ISA_PORTABLE),
        Variant(name: "msync", usesMsync: true),
    ]
    /// `nil`: /tmp is in memory, where msync promises nothing.
    static func disk() throws -> Folder? {
        let folder = try Folder(in: "/tmp")
        let probe = try Pool.create(
            path: folder.file("probe"), sizeBytes: 128 << 10, identity: poolIdentity, persistence: .auto)
        return probe.persistence == .msync ? folder : nil
    }
}

/// What `make crash-states` and a failure's own words ask for.
private enum Asked {
    static func number(_ name: String) -> UInt64? { ProcessInfo.processInfo.environment[name].flatMap(UInt64.init) }
    static var states: UInt64? { number("TWINLOG_CRASH_STATES") }
    static var firstSeed: UInt64 { number("TWINLOG_CRASH_SEED") ?? 1 }
    /// scenario/variant:seed:percent:operation:choice
    static var only: [String]? {
        ProcessInfo.processInfo.environment["TWINLOG_CRASH_ONLY"].map { $0.split(separator: ":").map(String.init) }
    }
}

@Suite(.serialized) struct CrashStateTests {
    /// At least this many in each run of the tests, in a part of each scenario.
    private static let leastStates = 100_000
    private static func testPercent() throws -> Int { try Variant.disk() == nil ? 46 : 27 }

    private func run(
        _ scenario: Scenario, _ variant: Variant, seed: UInt64, percent: Int,
        only: (UInt64, UInt64)? = nil
    ) throws -> CrashReport {
        let folder = try Folder(), disk = variant.usesMsync ? try Variant.disk() : nil
        if variant.usesMsync, disk == nil {
            print("skipped: /tmp is in memory here, not on a disk")
            return CrashReport()
        }
        var run = try scenario.prepare(
            seed: seed, percent: percent, isa: variant.isa, folder: folder, disk: disk)
        run.name = "\(scenario.name)/\(variant.name)"
        run.percent = percent
        run.plan.only = only
        let report = try run.run()
        print(report.row(run.name, seed: seed))
        #expect(report.faults == [])
        return report
    }

    private func runAll(seed: UInt64, percent: Int) throws -> CrashReport {
        var total = CrashReport()
        for scenario in Scenario.all {
            for variant in Variant.all where total.faults.isEmpty {
                total += try run(scenario, variant, seed: seed, percent: percent)
            }
        }
        return total
    }

    @Test(.enabled(if: Asked.states == nil && Asked.only == nil, "other states are asked for"))
    func everyCrashStateRecovers() throws {  // S1-S7, S10, S11
        let total = try runAll(seed: Asked.firstSeed, percent: try Self.testPercent())
        print(total.row("all", seed: Asked.firstSeed))
        #expect(total.states >= Self.leastStates)
    }

    @Test(.enabled(if: Asked.states != nil, "`make crash-states` asks for more"))
    func asManyCrashStatesAsAskedForRecover() throws {
        let asked = try #require(Asked.states)
        var total = CrashReport(), seed = Asked.firstSeed
        while total.total < asked && total.faults.isEmpty {
            total += try runAll(seed: seed, percent: 100)
            print(total.row("all so far", seed: seed))
            seed += 1
        }
    }

    @Test(.enabled(if: Asked.only != nil, "a failure says how to look at its state again"))
    func theStateAskedForRecovers() throws {
        let only = try #require(Asked.only)
        try #require(only.count == 5, "TWINLOG_CRASH_ONLY=scenario/variant:seed:percent:operation:choice")
        let scenario = try #require(Scenario.all.first { only[0].hasPrefix("\($0.name)/") })
        let variant = try #require(Variant.all.first { only[0].hasSuffix("/\($0.name)") })
        let numbers = only.dropFirst().compactMap { UInt64($0) }
        try #require(numbers.count == 4)
        let report = try run(
            scenario, variant, seed: numbers[0], percent: Int(numbers[1]), only: (numbers[2], numbers[3]))
        #expect(report.states > 0, "there is no such state")
    }
}

extension CrashReport {
    static func += (one: inout CrashReport, other: CrashReport) {
        one.states += other.states
        one.exhaustivePlaces += other.exhaustivePlaces
        one.sampledPlaces += other.sampledPlaces
        one.recoveriesCut += other.recoveriesCut
        one.nestedStates += other.nestedStates
        one.faults += other.faults
    }

    func row(_ name: String, seed: UInt64) -> String {
        "\(name.padding(toLength: 28, withPad: " ", startingAt: 0)) seed \(seed): \(states) states "
            + "(\(exhaustivePlaces) places exhaustive, \(sampledPlaces) sampled), \(nestedStates) in \(recoveriesCut) "
            + "cut recoveries"
    }
}
