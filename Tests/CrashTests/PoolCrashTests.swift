// Crashes of a pool's own structures: creation, directory, identity, head; and whether the engine finds what it is for.

import CCrashStates
import CLogCore
import Foundation
import LogModel
import PersistentMemory
import Testing

private let isas = [tl_isa_best(), TL_ISA_PORTABLE]

/// Puts every crash state of a recording under `body`, which recovers it from the file and records its own stores.
private func forEachState(
    of recording: Recording, from image: [UInt8], seed: UInt64, in folder: CrashFolder,
    limits: crash_limits = crash_limits(exhaustive: 4096, spread: 60, random: 600),
    _ body: (crash_state, _ path: String, Recording) throws -> Void
) throws -> Int {
    let memory = try CrashMemory(folder.file("crashed"), image: image)
    let states = try #require(
        crash_states_create(recording.recorder, memory.base, UInt64(memory.length), seed, limits))
    defer { crash_states_destroy(states) }
    var state = crash_state(), count = 0
    while crash_states_next(states, &state) {
        let recovery = try Recording()
        do {
            try body(state, memory.path, recovery)
        } catch {
            Issue.record("seed \(seed), before operation \(state.operation), choice \(state.choice): \(error)")
        }
        crash_states_undo(states, recovery.recorder)
        count += 1
    }
    try #require(crash_states_is_restored(states))
    return count
}

private func openPool(_ path: String, _ recovery: Recording) throws(PoolError) -> Pool {
    try Pool.open(
        path: path, expecting: (poolIdentity.cluster, poolIdentity.node), persistence: .volatile, readOnly: false,
        recorder: recovery.recorder)
}

struct PoolCrashTests {
    /// S20, S22.
    @Test(arguments: isas) func aCrashWhileAPoolIsMadeLeavesNothingThatIsTakenForAnother(_ isa: tl_isa) throws {
        let folder = try CrashFolder(), recording = try Recording()
        _ = try Pool.create(
            path: folder.file("pool"), sizeBytes: 256 << 10, identity: poolIdentity, persistence: .volatile,
            recorder: recording.recorder, isa: isa)
        recording.mark(1)
        let blank = [UInt8](repeating: 0, count: 256 << 10)
        let count = try forEachState(of: recording, from: blank, seed: 1, in: folder) { state, path, recovery in
            do throws(PoolError) {
                for time in 1...2 {
                    let stores = recovery.count
                    let pool = try openPool(path, recovery)
                    guard pool.regions.isEmpty, pool.identity == poolIdentity else {
                        throw PoolError(.foreign, path: path, "another pool")
                    }
                    if time == 2 && recovery.count > stores {
                        throw PoolError(.foreign, path: path, "healed a second time")
                    }
                }
            } catch {
                // It still has its temporary name then; whoever opens it all the same is told.
                guard state.marks == 0, [.notAPool, .corrupt, .truncated].contains(error.code) else { throw error }
            }
        }
        #expect(count > 500)
    }

    /// Both copies are there from the start: one rotten copy is not the end of a pool.
    @Test func aNewPoolHasTwoCopiesOfItsSuperblockAndDirectory() throws {
        let folder = try CrashFolder()
        _ = try Pool.create(
            path: folder.file("pool"), sizeBytes: 256 << 10, identity: poolIdentity, persistence: .volatile)
        let bytes = try contents(of: folder.file("pool"))
        #expect(areEqual(Array(bytes[0..<4096]), Array(bytes[4096..<8192])))
        #expect(areEqual(Array(bytes[8192..<12288]), Array(bytes[12288..<16384])))
    }

    @Test(arguments: isas) func aRegionIsThereWholeOrNotAtAll(_ isa: tl_isa) throws {
        let folder = try CrashFolder(), recording = try Recording(), live = folder.file("pool")
        _ = try Pool.create(path: live, sizeBytes: 512 << 10, identity: poolIdentity, persistence: .volatile)
        let before = try contents(of: live)
        do {
            let pool = try Pool.open(
                path: live, expecting: nil, persistence: .volatile, readOnly: false, recorder: recording.recorder,
                isa: isa)
            for number in 1...3 {
                _ = try pool.allocateRegion(group: GroupID("g\(number)"), ringBytes: 64 << 10)
                recording.mark(number)
            }
        }
        let count = try forEachState(of: recording, from: before, seed: 2, in: folder) { state, path, recovery in
            for time in 1...2 {
                let stores = recovery.count
                let pool = try openPool(path, recovery)
                let least = Int(state.marks)
                guard (least...least + 1).contains(pool.regions.count) else {
                    throw Fault("\(pool.regions.count) regions, not \(least) or one more")
                }
                for (index, region) in pool.regions.enumerated()
                where region.group != GroupID("g\(index + 1)") || region.identity != nil {
                    throw Fault("region \(index) is another")
                }
                if time == 2 && recovery.count > stores { throw Fault("healed a second time") }
            }
        }
        #expect(count > 150)
    }

    /// A crash while an incarnation begins or a head moves leaves the earlier one or the new one (S4), whatever was there.
    @Test(arguments: isas) func incarnationsAndHeadsChangeInOneStep(_ isa: tl_isa) throws {
        let folder = try CrashFolder(), recording = try Recording(), live = folder.file("pool")
        do {
            let pool = try Pool.create(path: live, sizeBytes: 128 << 10, identity: poolIdentity, persistence: .volatile)
            _ = try pool.allocateRegion(group: group, ringBytes: 64 << 10)
        }
        let before = try contents(of: live)
        // (incarnation, head) after each mark; mark n is the n-th of them.
        var steps: [(UInt64, UInt64)] = []
        do {
            let pool = try Pool.open(
                path: live, expecting: nil, persistence: .volatile, readOnly: false, recorder: recording.recorder,
                isa: isa)
            let region = try #require(pool.region(of: group))
            func step(_ incarnation: UInt64, _ head: UInt64) {
                steps.append((incarnation, head))
                recording.mark(steps.count)
            }
            for incarnation in 1...4 as ClosedRange<UInt64> {
                let start = incarnation * 8192
                try region.format(
                    role: incarnation % 2 == 0 ? .mirror : .owner, logUUID: logUUID,
                    incarnation: Incarnation(incarnation), start: LSN(start))
                step(incarnation, start)
                for move in 1...3 as ClosedRange<UInt64> {
                    try region.setHead(LSN(start + move * 640), acknowledged: LSN(start + move * 640))
                    step(incarnation, start + move * 640)
                }
            }
        }
        let count = try forEachState(of: recording, from: before, seed: 3, in: folder) { state, path, recovery in
            let pool = try openPool(path, recovery)
            let done = Int(state.marks)
            guard let region = pool.region(of: group) else { throw Fault("the region is gone") }
            let found = (region.identity?.incarnation.rawValue ?? 0, region.head.rawValue)
            let allowed = [done, done + 1].filter { $0 <= steps.count }.map { $0 == 0 ? (0, 0) : steps[$0 - 1] }
            guard allowed.contains(where: { $0 == found }) else {
                throw Fault("after step \(done): incarnation and head \(found), not \(allowed)")
            }
        }
        #expect(count > 800)
    }

    /// The engine finds what it is for: without its drains, or with its write-backs left out, a run loses what it
    /// acknowledged.
    @Test(arguments: [
        (tl_isa_best(), TL_OPERATION_DRAIN), (TL_ISA_PORTABLE, TL_OPERATION_DRAIN),
        (TL_ISA_PORTABLE, TL_OPERATION_WRITE_BACK),
    ]) func aRunWithoutDrainsOrWriteBacksIsFoundOut(_ isa: tl_isa, _ left: tl_operation_kind) throws {  // S2
        let folder = try CrashFolder()
        let run = try Scenario.small.prepare(seed: 1, percent: 10, isa: isa, folder: folder)
        let less = Ledger(try Recording(), as: run.ledger)
        for index in 0..<run.ledger.recording.count {
            var operation = run.ledger.recording[index]
            if operation.kind != left { tl_recorder_add(less.recording.recorder, &operation) }
        }
        let report = try CrashRun(
            name: "small", plan: CrashPlan(seed: 1), ledger: less, folder: folder, before: run.before
        ).run()
        #expect(!report.faults.isEmpty)
    }
}
