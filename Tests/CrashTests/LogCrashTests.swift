// Crashes of the log: every acknowledged write is there once and byte-equal, nothing that was never issued, and opening
// what a crash left changes nothing more.

import CLogCore
import Foundation
import LogModel
import PersistentMemory
import Synchronization
import Testing
import WriteLog

private let uuid = UUID128(high: 1, low: 2)
private let volume = VolumeID(name: "vol0")

/// What was issued. A write's number is its volume offset in MiB.
private final class Issued: Sendable {
    struct Write: Hashable {
        var start: LSN
        var end: LSN
        var kind: LogRecord.Kind
        var length: UInt64
        var bytes: [UInt8]
    }
    struct State {
        var writes: [UInt64: Write] = [:]
        /// Writes below it may be gone: the head was told to pass them.
        var heads: [(mark: UInt64, head: LSN)] = []
        var next: UInt64 = 1
    }
    let state = Mutex(State())

    func number() -> UInt64 {
        state.withLock { state in
            defer { state.next += 1 }
            return state.next
        }
    }
}

/// Array's own comparison goes element by element in debug builds.
private func areEqual(_ one: [UInt8], _ other: [UInt8]) -> Bool {
    one.count == other.count && memcmp(one, other, one.count) == 0
}

struct LogCrashTests {
    private let folder: CrashFolder
    private let recording: Recording
    private let before: [UInt8]
    private let pool: Pool
    private let region: Region

    init() throws {
        folder = try CrashFolder()
        recording = try Recording()
        do {
            let pool = try Pool.create(
                path: folder.pool, sizeBytes: 256 << 10, identity: poolIdentity, persistence: .volatile)
            let region = try pool.allocateRegion(group: group, ringBytes: 64 << 10)
            try region.format(role: .owner, logUUID: uuid, incarnation: Incarnation(1), start: LSN(64 * 500))
        }
        before = try folder.contents()
        pool = try Pool.open(
            path: folder.pool, expecting: nil, persistence: .volatile, readOnly: false, recorder: recording.recorder)
        region = try #require(pool.region(of: group))
    }

    /// Reopens an owner's log as production does: a new incarnation at the old end.
    private func openLog(_ incarnation: UInt64, at start: LSN) throws -> WriteLog {
        try region.format(role: .owner, logUUID: uuid, incarnation: Incarnation(incarnation), start: start)
        return try WriteLog(region: region)
    }

    @discardableResult
    private func append(_ log: WriteLog, _ issued: Issued, _ random: inout SeededGenerator) -> Bool {
        let number = issued.number(), offset = number << 20
        let outcome: WriteLog.AppendOutcome
        var write: Issued.Write
        switch random.next() % 8 {
        case 0:
            let length = 1 + random.next() % 100_000
            outcome = log.append(volume: volume, offset: offset, .discard(length: length), acknowledged: log.head)
            write = .init(start: .zero, end: .zero, kind: .discard, length: length, bytes: [])
        default:
            let bytes = (0..<Int(1 + random.next() % 3000)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            outcome = bytes.withUnsafeBytes {
                log.append(volume: volume, offset: offset, .data($0), acknowledged: log.head)
            }
            write = .init(start: .zero, end: .zero, kind: .data, length: UInt64(bytes.count), bytes: bytes)
        }
        guard case .appended(let place) = outcome else { return false }
        write.start = place.start
        write.end = place.end
        issued.state.withLock { $0.writes[number] = write }
        // Marked when everything up to its end is published: only then is it acknowledged.
        while log.published < place.end { sched_yield() }
        recording.mark(number)
        return true
    }

    private func trim(_ log: WriteLog, to head: LSN, _ issued: Issued) throws {
        issued.state.withLock { $0.heads.append((mark: 0, head: head)) }
        try log.setHead(head, acknowledged: head)
        log.setReclaimLimit(head)
    }

    /// Recovers every state, and holds it against what was issued.
    private func recoverAll(_ issued: Issued, seed: UInt64, operations: [Operation]? = nil) throws -> (
        states: Int, faults: [String]
    ) {
        let folder = try CrashFolder()  // the live pool is still open in its own
        var states = CrashStates(from: before, operations ?? recording.operations, seed: seed)
        let known = issued.state.withLock { $0 }
        let byStart = Dictionary(uniqueKeysWithValues: known.writes.map { ($0.value.start, $0.key) })
        var faults: [String] = []
        let count = try states.forEach { state in
            guard faults.count < 3 else { return }
            func fault(_ text: String) { faults.append("\(state.description): \(text)") }
            try folder.put(state.image)
            let found: [UInt64]
            let head: LSN
            do throws(PoolError) {
                let pool = try Pool.open(path: folder.pool, expecting: nil, persistence: .volatile)
                guard let region = pool.region(of: group), var scan = LogScan(region: region) else {
                    return fault("no log")
                }
                head = region.head
                var numbers: [UInt64] = []
                while let write = scan.next() {
                    guard let number = byStart[write.start], let issued = known.writes[number] else {
                        return fault("a write at \(write.start) that was never issued")
                    }
                    var bytes: [UInt8] = [], length: UInt64 = 0
                    for record in write.records where record.kind == issued.kind {
                        bytes += record.payload
                        length += record.range.length
                    }
                    if write.end != issued.end || !areEqual(bytes, issued.bytes) || length != issued.length {
                        fault("write \(number) has other bytes")
                    }
                    numbers.append(number)
                }
                if scan.verdict == .corrupt { fault("judged corrupt at \(scan.firstBadLSN ?? .zero)") }
                found = numbers
            } catch {
                return fault("\(error)")
            }
            for number in state.marks where !found.contains(number) && known.writes[number]!.end > head {
                fault("acknowledged write \(number) at \(known.writes[number]!.start) is gone")
            }
            if head != LSN(64 * 500), !known.heads.contains(where: { $0.head == head }) { fault("a head at \(head)") }
            // Opening again changes nothing.
            let after = try folder.contents()
            _ = try Pool.open(path: folder.pool, expecting: nil, persistence: .volatile)
            if !areEqual(try folder.contents(), after) { fault("a second opening changed the pool") }
        }
        return (count, faults)
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func whatWasAcknowledgedSurvivesEveryCrash(_ seed: UInt64) throws {  // S1-S7
        var random = SeededGenerator(seed: seed)
        let issued = Issued()
        var start = LSN(64 * 500)
        for incarnation in 2...4 as ClosedRange<UInt64> {
            issued.state.withLock { $0.heads.append((mark: 0, head: start)) }
            let log = try openLog(incarnation, at: start)
            for _ in 0..<40 {
                if !append(log, issued, &random) || random.next() % 6 == 0 {
                    try trim(log, to: log.published, issued)
                }
            }
            // All of it is destaged before the next incarnation begins, so nothing of this one is needed any more.
            try trim(log, to: log.published, issued)
            start = log.published
        }
        let (states, faults) = try recoverAll(issued, seed: seed)
        #expect(faults == [])
        #expect(states > 1500)
    }

    @Test(arguments: [1, 2] as [UInt64])
    func concurrentWritersLoseNothing(_ seed: UInt64) throws {  // S1, S2, S7
        let issued = Issued()
        issued.state.withLock { $0.heads.append((mark: 0, head: LSN(64 * 500))) }
        let log = try openLog(2, at: LSN(64 * 500))
        let group = DispatchGroup()
        for thread in 0..<3 as Range<UInt64> {
            group.enter()
            let this = self
            Thread.detachNewThread {
                var random = SeededGenerator(seed: seed * 10 + thread)
                for _ in 0..<5 { this.append(log, issued, &random) }
                group.leave()
            }
        }
        group.wait()
        let (states, faults) = try recoverAll(issued, seed: seed)
        #expect(faults == [])
        #expect(states > 100)
    }

    /// The engine finds what it is for: the same run without its drains loses acknowledged writes.
    @Test func aRunWithoutDrainsIsFoundOut() throws {  // S2
        var random = SeededGenerator(seed: 9)
        let issued = Issued()
        issued.state.withLock { $0.heads.append((mark: 0, head: LSN(64 * 500))) }
        let log = try openLog(2, at: LSN(64 * 500))
        let first = recording.operations.count
        for _ in 0..<5 { append(log, issued, &random) }
        var operations = recording.operations
        #expect(try recoverAll(issued, seed: 9).faults == [])
        operations = operations[..<first] + operations[first...].filter { $0.kind != TL_OPERATION_DRAIN }
        let (_, faults) = try recoverAll(issued, seed: 9, operations: operations)
        #expect(faults.contains { $0.contains("is gone") })
    }

    /// The mirror's side: what was drained before a completion is there, in one piece with what came before it.
    @Test func whatAMirrorCompletedSurvivesItsCrash() throws {  // S11
        let source = try CrashFolder()
        let owner = try Pool.create(
            path: source.pool, sizeBytes: 256 << 10, identity: poolIdentity, persistence: .volatile)
        let from = try owner.allocateRegion(group: group, ringBytes: 64 << 10)
        let start = LSN(64 * 500)
        for (region, role) in [(from, RegionRole.owner), (region, .mirror)] {
            try region.format(role: role, logUUID: uuid, incarnation: Incarnation(2), start: start)
        }
        let log = try WriteLog(region: from)
        var random = SeededGenerator(seed: 4)
        let issued = Issued()
        issued.state.withLock { $0.heads.append((mark: 0, head: start)) }
        var shipped = start
        for _ in 0..<20 {
            let count = issued.state.withLock { $0.next }
            guard append(log, issued, &random) else { break }
            // A completion covers what was drained: marks of the mirror stand for the same writes.
            from.withRingBytes(from: shipped, count: log.published - shipped) { piece in
                region.store(piece, at: shipped)
                shipped = shipped + UInt64(piece.count)
            }
            try region.drain()
            recording.mark(1_000_000 + count)
        }
        // The owner's own marks came too early for the mirror: only its own count.
        let operations = recording.operations.compactMap { operation -> Operation? in
            guard operation.kind == TL_OPERATION_MARK else { return operation }
            guard operation.offset >= 1_000_000 else { return nil }
            var mark = operation
            mark.offset -= 1_000_000
            return mark
        }
        let (states, faults) = try recoverAll(issued, seed: 4, operations: operations)
        #expect(faults == [])
        #expect(states > 200)
    }
}
