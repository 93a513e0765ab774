// Goes through the crash states of one recording, recovers each, and once in a while goes on from one: replays it, begins
// the next incarnation, writes, and enumerates the crashes of that recovery in turn.

import CCrashStates
import CLogCore
import LogModel
import PersistentMemory
import TestSupport
import WriteLog

/// How many states, and which.
struct CrashPlan {
    var seed: UInt64
    var limits = crash_limits(exhaustive: 4096, spread: 12, random: 60)
    /// Of the recoveries that are themselves cut by a crash.
    var nestedLimits = crash_limits(exhaustive: 128, spread: 2, random: 8)
    /// One state in so many goes on to replay and to the next incarnation, with the crashes of that recovery.
    var continueEvery = 401
    /// Only this state: to look at one again.
    var only: (operation: UInt64, choice: UInt64)?
}

struct CrashReport {
    var states = 0
    var exhaustivePlaces = 0
    var sampledPlaces = 0
    var recoveriesCut = 0
    var nestedStates = 0
    var faults: [String] = []
    var total: Int { states + nestedStates }
}

struct CrashRun {
    var name: String
    var plan: CrashPlan
    let ledger: Ledger
    let folder: Folder
    let before: [UInt8]
    var isa: tl_isa?
    /// How much of the scenario was run, to say so.
    var percent = 100

    private static let maximumFaults = 3

    func run() throws -> CrashReport {
        var report = CrashReport()
        let memory = try CrashMemory(folder.file("crashed"), image: before)
        let nested = try CrashMemory(folder.file("nested"), image: before)
        let judge = Judge(ledger: ledger, path: memory.path)
        guard
            let states = crash_states_create(
                ledger.recording.recorder, memory.base, UInt64(memory.length), plan.seed, plan.limits)
        else { throw Fault("no memory for the engine") }
        defer { crash_states_destroy(states) }
        var state = crash_state()
        while report.faults.count < Self.maximumFaults, crash_states_next(states, &state) {
            if let only = plan.only, only != (state.operation, state.choice) { continue }
            let promise = ledger.promises[Int(state.marks)]
            let goesOn = plan.only != nil || report.states % plan.continueEvery == plan.continueEvery / 2
            if goesOn { nested.put(memory) }
            let recovery = try Recording()
            do {
                try recoverTwice(judge, promise, recovery)
                crash_states_undo(states, recovery.recorder)
                if goesOn { try goOn(nested, promise, seed: state.operation << 16 ^ state.choice, &report) }
            } catch let fault as Fault {
                crash_states_undo(states, recovery.recorder)
                report.faults.append(
                    "\(name): \(fault.text)\n  again: TWINLOG_CRASH_ONLY=\(name):\(plan.seed):\(percent):\(state.operation):\(state.choice)"
                )
            }
            count(state, &report)
            if report.states % 4096 == 0, !crash_states_is_restored(states) {
                throw Fault("\(name): a state was not undone before operation \(state.operation)")
            }
        }
        guard crash_states_is_restored(states) else { throw Fault("\(name): a state was not undone") }
        return report
    }

    private func count(_ state: crash_state, _ report: inout CrashReport) {
        report.states += 1
        guard state.choice == 0 else { return }
        if state.exhaustive { report.exhaustivePlaces += 1 } else { report.sampledPlaces += 1 }
    }

    /// A second recovery stores nothing, so it changes nothing; what the first one healed reads the same.
    private func recoverTwice(_ judge: Judge, _ promise: Promise, _ recovery: Recording) throws {
        _ = try judge.recover(promise, recorder: recovery.recorder)
        guard !recovery.isEmpty else { return }
        let second = try Recording()
        _ = try judge.recover(promise, recorder: second.recorder)
        if !second.isEmpty { throw Fault("a second recovery stored something") }
    }

    // MARK: After the crash

    /// Recovers the state in `memory` all the way into the next incarnation; then every crash of that recovery.
    private func goOn(
        _ memory: CrashMemory, _ promise: Promise, seed: UInt64, _ report: inout CrashReport
    ) throws {
        report.nestedStates += try resume(memory, promise, seed: seed)
        let crashed = memory.contents
        let recording = try Recording()
        let after = ledger.continued(from: promise, recording: recording)
        let judge = Judge(ledger: after, path: memory.path)
        try recoverWhole(judge, promise, Int(report.recoveriesCut))
        report.recoveriesCut += 1
        memory.put(crashed)
        guard
            let states = crash_states_create(
                recording.recorder, memory.base, UInt64(memory.length), plan.seed, plan.nestedLimits)
        else { throw Fault("no memory for the engine") }
        defer { crash_states_destroy(states) }
        var state = crash_state()
        while crash_states_next(states, &state) {
            let second = try Recording()
            do {
                try recoverTwice(judge, after.promises[Int(state.marks)], second)
            } catch let fault as Fault {
                throw Fault(
                    "a crash in the recovery, before its operation \(state.operation), choice \(state.choice): \(fault.text)"
                )
            }
            crash_states_undo(states, second.recorder)
            report.nestedStates += 1
        }
    }

    private func recoverWhole(_ judge: Judge, _ promise: Promise, _ number: Int) throws {
        let ledger = judge.ledger
        let (pool, region, found) = try judge.recover(promise, recorder: ledger.recording.recorder, isa: isa)
        defer { pool.close() }
        try judge.replay(region, found)
        if let begun = found.life?.identity, begun.incarnation != promise.incarnation {
            ledger.promise {
                $0 = Promise(incarnation: begun.incarnation, head: begun.startLSN, acknowledged: begun.startLSN)
            }
        }
        if number % 3 == 0, found.life != nil {
            try region.markReplayed()
            ledger.promise { $0.isReplayed = true }
        }
        // All of it is on the medium: the next incarnation begins at the end, as on a restart.
        let identity = RegionIdentity(
            role: .owner, logUUID: logUUID,
            incarnation: Incarnation((found.life?.identity.incarnation.rawValue ?? 0) + 1000), startLSN: found.end)
        let rig = LogRig(region: region, ledger: ledger)
        try rig.open(identity, medium: found.life?.medium(through: found.end) ?? ledger.lives[0].medium)
        var random = SplitMix64(seed: UInt64(number))
        // Fills the place of what was torn, so that what lay behind it could come back if anything let it (S4).
        try rig.append(.discard(length: 1), at: 0)
        _ = try judge.inspect(region, ledger.promise)
        try rig.append(bytes: random.bytes(Int(random.below(200)) + 1), at: 64)
        _ = try judge.inspect(region, ledger.promise)
    }
}
