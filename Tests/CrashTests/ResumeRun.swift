// From a crash on, as a log whose records stay (WriteLog/ResumedLog.swift): it is resumed and appended to, and every crash of that leaves
// the records that were found, then the one that was appended, and never one that was given up (S4, S5, S10).

import CCrashStates
import CLogCore
import LogModel
import PersistentMemory
import TestSupport
import WriteLog

extension CrashRun {
    /// Nothing is promised yet, what was found is, the append is.
    private enum Mark: UInt64 { case begun = 0, resumed, appended }

    /// All subsets of a line's words: what is erased must not look like rot while it is.
    private static let limits = crash_limits(exhaustive: 256, spread: 2, random: 8)

    /// Resumes the log in `memory`, whose crash kept `promise`; then every crash of that. Answers how many. `memory` is what it was when
    /// this returns.
    func resume(_ memory: CrashMemory, _ promise: Promise, seed: UInt64) throws -> Int {
        let crashed = memory.contents
        defer { memory.put(crashed) }
        let recording = try Recording()
        guard let expected = try resumed(memory, promise, recording, seed) else { return 0 }
        memory.put(crashed)
        guard
            let states = crash_states_create(
                recording.recorder, memory.base, UInt64(memory.length), plan.seed, Self.limits)
        else { throw Fault("no memory for the engine") }
        defer { crash_states_destroy(states) }
        var state = crash_state(), count = 0
        while crash_states_next(states, &state) {
            let opening = try Recording()
            let mark = Mark(rawValue: state.marks) ?? .appended
            do {
                try check(memory, expected, mark, opening)
            } catch let fault as Fault {
                throw Fault(
                    "a crash of the resumed log, before its operation \(state.operation), choice \(state.choice): \(fault.text)"
                )
            }
            crash_states_undo(states, opening.recorder)
            count += 1
        }
        return count
    }

    private struct Expected {
        var head: LSN
        /// The end of what was found, and of the append behind it.
        var found: LSN
        var appended: LSN
        /// The ring's bytes of what was found.
        var bytes: [UInt8]
        var payload: [UInt8]
    }

    /// `nil` where there is no owner's log, or no room.
    private func resumed(
        _ memory: CrashMemory, _ promise: Promise, _ recording: Recording, _ seed: UInt64
    ) throws -> Expected? {
        let judge = Judge(ledger: ledger, path: memory.path)
        let (pool, region, found) = try judge.recover(promise, recorder: recording.recorder, isa: isa)
        defer { pool.close() }
        guard region.identity?.role == .owner, var scan = LogScan(region: region) else { return nil }
        _ = scan.finish()
        let log = try WriteLog(resuming: scan)
        recording.mark(1)
        var random = SplitMix64(seed: seed)
        let payload = random.bytes(Int(random.below(200)) + 1)
        let outcome = payload.withUnsafeBytes {
            log.append(volume: volume, offset: 0, .data($0), acknowledged: found.end)
        }
        guard case .appended(let place) = outcome else { return nil }
        guard place.start == found.end else { throw Fault("the log goes on at \(place.start), not \(found.end)") }
        recording.mark(2)
        let bytes = self.bytes(of: region, from: scan.headLSN, to: found.end)
        return Expected(
            head: scan.headLSN, found: found.end, appended: place.end, bytes: bytes, payload: payload)
    }

    private func bytes(of region: Region, from: LSN, to: LSN) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(to - from))
        bytes.withUnsafeMutableBytes { region.readRing(from: from, into: $0) }
        return bytes
    }

    private func check(_ memory: CrashMemory, _ expected: Expected, _ mark: Mark, _ opening: Recording) throws {
        let pool: Pool
        do throws(PoolError) {
            pool = try Pool.open(
                path: memory.path, expecting: nil, persistence: .volatile, readOnly: false, recorder: opening.recorder)
        } catch {
            throw Fault("the pool does not open: \(error)")
        }
        defer { pool.close() }
        guard let region = pool.region(of: group), var scan = LogScan(region: region) else {
            throw Fault("there is no log")
        }
        var payload: [UInt8] = []
        while let write = scan.next() {
            if write.start == expected.found { payload = write.records.flatMap { Array($0.payload) } }
        }
        guard scan.finish() != .corrupt else { throw Fault("judged corrupt at \(scan.firstBadLSN ?? .zero)") }
        let ends = mark == .appended ? [expected.appended] : [expected.found, expected.appended]
        guard scan.headLSN == expected.head, ends.contains(scan.endLSN) else {
            throw Fault("the log is [\(scan.headLSN), \(scan.endLSN)), not from \(expected.head) to \(ends)")
        }
        if mark != .begun, scan.acknowledgedLSN < expected.found {
            throw Fault("what was found counts as promised no more")
        }
        let found = bytes(of: region, from: expected.head, to: expected.found)
        guard areEqual(found, expected.bytes), scan.endLSN == expected.found || areEqual(payload, expected.payload)
        else { throw Fault("a record has other bytes") }
    }
}
