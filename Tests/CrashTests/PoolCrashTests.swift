// Crashes of a pool's own structures: creation, directory, identity, head; and whether the engine finds what it is for.

import CCrashStates
import CLogCore
import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing

private let isas = [tl_isa_best(), TL_ISA_PORTABLE]

/// Puts every crash state of a recording under `body`, which recovers it from the file and records its own stores; and every
/// crash of some of those recoveries. Answers how many states of each.
private func forEachState(
    of recording: Recording, from image: [UInt8], seed: UInt64, in folder: Folder,
    limits: crash_limits = crash_limits(exhaustive: 4096, spread: 60, random: 600),
    _ body: (crash_state, _ path: String, Recording) throws -> Void
) throws -> (states: Int, inRecoveries: Int) {
    let memory = try CrashMemory(folder.file("crashed"), image: image)
    let nested = try CrashMemory(folder.file("nested"), image: image)
    let states = try #require(
        crash_states_create(recording.recorder, memory.base, UInt64(memory.length), seed, limits))
    defer { crash_states_destroy(states) }
    var state = crash_state(), count = 0, healed = 0, inRecoveries = 0
    while crash_states_next(states, &state) {
        let recovery = try Recording()
        nested.put(memory)
        do {
            try body(state, memory.path, recovery)
            if !recovery.isEmpty {
                if healed % 9 == 0 { inRecoveries += try cutRecovery(nested, seed, state, body) }
                healed += 1
            }
        } catch {
            Issue.record("seed \(seed), before operation \(state.operation), choice \(state.choice): \(error)")
        }
        crash_states_undo(states, recovery.recorder)
        count += 1
    }
    try #require(crash_states_is_restored(states))
    return (count, inRecoveries)
}

/// Recovers the state in `memory`, and then every crash of that recovery.
private func cutRecovery(
    _ memory: CrashMemory, _ seed: UInt64, _ state: crash_state,
    _ body: (crash_state, _ path: String, Recording) throws -> Void
) throws -> Int {
    let crashed = memory.contents, recovery = try Recording()
    try body(state, memory.path, recovery)
    memory.put(crashed)
    let states = try #require(
        crash_states_create(
            recovery.recorder, memory.base, UInt64(memory.length), seed,
            crash_limits(exhaustive: 64, spread: 3, random: 12)))
    defer { crash_states_destroy(states) }
    var inside = crash_state(), count = 0
    while crash_states_next(states, &inside) {
        let second = try Recording()
        do {
            try body(state, memory.path, second)
        } catch {
            throw Fault(
                "a crash in the recovery, before its operation \(inside.operation), choice \(inside.choice): \(error)")
        }
        crash_states_undo(states, second.recorder)
        count += 1
    }
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
        let folder = try Folder(), recording = try Recording()
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
        #expect(count.states > 500 && count.inRecoveries > 100, "\(count)")
    }

    /// Both copies are there from the start: one rotten copy is not the end of a pool.
    @Test func aNewPoolHasTwoCopiesOfItsSuperblockAndDirectory() throws {
        let folder = try Folder()
        _ = try Pool.create(
            path: folder.file("pool"), sizeBytes: 256 << 10, identity: poolIdentity, persistence: .volatile)
        let bytes = try contents(of: folder.file("pool"))
        #expect(areEqual(Array(bytes[0..<4096]), Array(bytes[4096..<8192])))
        #expect(areEqual(Array(bytes[8192..<12288]), Array(bytes[12288..<16384])))
    }

    @Test(arguments: isas) func aRegionIsThereWholeOrNotAtAll(_ isa: tl_isa) throws {
        let folder = try Folder(), recording = try Recording(), live = folder.file("pool")
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
        #expect(count.states > 150 && count.inRecoveries > 100, "\(count)")
    }

    /// A crash while an incarnation begins or a head moves leaves the earlier one or the new one (S4), whatever was there.
    @Test(arguments: isas) func incarnationsAndHeadsChangeInOneStep(_ isa: tl_isa) throws {
        let folder = try Folder(), recording = try Recording(), live = folder.file("pool")
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
            let done = Int(state.marks)
            let allowed = [done, done + 1].filter { $0 <= steps.count }.map { $0 == 0 ? (0, 0) : steps[$0 - 1] }
            var first: (UInt64, UInt64)?
            for _ in 1...2 {
                let stores = recovery.count
                let pool = try openPool(path, recovery)
                guard let region = pool.region(of: group) else { throw Fault("the region is gone") }
                let found = (region.identity?.incarnation.rawValue ?? 0, region.head.rawValue)
                guard allowed.contains(where: { $0 == found }) else {
                    throw Fault("after step \(done): incarnation and head \(found), not \(allowed)")
                }
                if let first {
                    guard first == found else { throw Fault("first \(first), then \(found)") }
                    if recovery.count > stores { throw Fault("healed a second time") }
                }
                first = found
            }
        }
        #expect(count.states > 800 && count.inRecoveries > 100, "\(count)")
    }

    /// What was stored before a drain is there after it, wherever it begins and ends.
    @Test(arguments: isas) func storesOfAnyAlignmentAreDurableAfterTheirDrain(_ isa: tl_isa) throws {  // S2, S11
        let folder = try Folder(), recording = try Recording(), live = folder.file("pool")
        do {
            let pool = try Pool.create(path: live, sizeBytes: 128 << 10, identity: poolIdentity, persistence: .volatile)
            _ = try pool.allocateRegion(group: group, ringBytes: 64 << 10)
        }
        let before = try contents(of: live)
        var ring = [UInt8](repeating: 0, count: 64 << 10), rings: [[UInt8]] = [ring]
        do {
            let pool = try Pool.open(
                path: live, expecting: nil, persistence: .volatile, readOnly: false, recorder: recording.recorder,
                isa: isa)
            let region = try #require(pool.region(of: group))
            for (lsn, count) in [(8, 16), (56, 16), (120, 300), (256, 64), (400, 5), (65530, 70), (511, 130)] {
                let bytes = [UInt8](repeating: UInt8(rings.count), count: count)
                bytes.withUnsafeBytes { region.store($0, at: LSN(UInt64(lsn))) }
                try region.drain()
                for place in lsn..<lsn + count { ring[place % ring.count] = bytes[0] }
                rings.append(ring)
                recording.mark(rings.count - 1)
            }
        }
        let count = try forEachState(of: recording, from: before, seed: 4, in: folder) { state, path, recovery in
            let region = try #require(try openPool(path, recovery).region(of: group))
            let done = rings[Int(state.marks)], next = rings[min(Int(state.marks) + 1, rings.count - 1)]
            for part in [0..<1024, 65472..<65536] {
                region.withRingBytes(from: LSN(UInt64(part.lowerBound)), count: UInt64(part.count)) { found in
                    let wrong = part.first { place in
                        let byte = found[place - part.lowerBound]
                        return byte != done[place] && byte != next[place]
                    }
                    #expect(wrong == nil, "after \(state.marks) stores")
                }
            }
        }
        #expect(count.states > 100)
    }

    /// The engine finds what it is for: without its drains, or with its write-backs left out, a run loses what it
    /// acknowledged.
    @Test(arguments: [
        (tl_isa_best(), TL_OPERATION_DRAIN), (TL_ISA_PORTABLE, TL_OPERATION_DRAIN),
        (TL_ISA_PORTABLE, TL_OPERATION_WRITE_BACK),
    ]) func aRunWithoutDrainsOrWriteBacksIsFoundOut(_ isa: tl_isa, _ left: tl_operation_kind) throws {  // S2
        let folder = try Folder()
        let run = try Scenario.small.prepare(seed: 1, percent: 10, isa: isa, folder: folder)
        let report = try CrashRun(
            name: "small", plan: CrashPlan(seed: 1), ledger: try run.ledger.without(left), folder: folder,
            before: run.before
        ).run()
        #expect(!report.faults.isEmpty)
    }

    /// The same on an ordinary file, where both stand for `msync`.
    @Test(arguments: [TL_OPERATION_DRAIN, TL_OPERATION_WRITE_BACK])
    func aRunWithoutMsyncIsFoundOut(_ left: tl_operation_kind) throws {  // S1
        let folder = try Folder()
        guard let disk = try Variant.disk() else { return print("skipped: /tmp is in memory here, not on a disk") }
        let run = try Scenario.small.prepare(seed: 1, percent: 10, isa: tl_isa_best(), folder: folder, disk: disk)
        let report = try CrashRun(
            name: "small", plan: CrashPlan(seed: 1), ledger: try run.ledger.without(left), folder: folder,
            before: run.before
        ).run()
        #expect(!report.faults.isEmpty)
    }
}

extension Ledger {
    /// As if the operations of one kind had been left out.
    fileprivate func without(_ kind: tl_operation_kind) throws -> Ledger {
        let less = Ledger(try Recording(), as: self)
        for index in 0..<recording.count {
            var operation = recording[index]
            if operation.kind != kind { tl_recorder_add(less.recording.recorder, &operation) }
        }
        return less
    }
}
