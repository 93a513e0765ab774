// An owner's log on an event loop, and a mirror that answers when the test says so.

import CLogCore
import ClusterProtocol
import Glibc
import LogModel
import NIOCore
import NIOPosix
import PersistentMemory
import RemoteMemory
import StorageMedium
import Synchronization
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

let ringBytes: UInt64 = 64 * 1024

/// Of a ring's size: `==` takes a second for 64 MiB in a debug build, and prints them.
func isSame(_ a: [UInt8], _ b: [UInt8]) -> Bool { a.count == b.count && memcmp(a, b, a.count) == 0 }

extension GroupThreads {
    static let singleton = GroupThreads(
        reads: .singleton, destage: .singleton, steps: .singleton, probe: .singleton, memory: .singleton)
}

extension Authority {
    /// What a machine would say that is asked nothing.
    static func forEver(mirrors: Int) -> Authority {
        Authority(
            validUntil: .max, rule: AcknowledgementRule(allowed: true, required: MemberSet(first: mirrors)))
    }
}

/// The mirror's ring, and what was asked of it. Lives on the rig's event loop.
final class FakeMirror: QueuePair {
    struct Read {
        var id: WorkRequestID
        var offset: UInt64
        var length: Int
    }

    weak var delegate: (any QueuePairDelegate)?
    let creditBytes = RemoteMemoryLimits.windowBytes
    /// Requests that the window has room for still; `nil` for any number.
    var room: Int?
    var bytes: [UInt8]
    /// Places of the ring that were written to, in order.
    var written: [Range<UInt64>] = []
    var messages: [[UInt8]] = []
    var reads: [Read] = []
    private(set) var posted: WorkRequestID = 0

    init(ringBytes: UInt64) { bytes = [UInt8](repeating: 0, count: Int(ringBytes)) }

    func postWrite(
        _ source: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        if room == 0 { throw RemoteMemoryError(.noCredit, "the window is full") }
        room = room.map { $0 - 1 }
        posted += 1
        bytes.replaceSubrange(Int(offset)..<Int(offset) + source.count, with: source)
        written.append(offset..<offset + UInt64(source.count))
        return posted
    }

    func postAtomicWrite(_ value: UInt64, key: RegionKey, offset: UInt64) throws(RemoteMemoryError) -> WorkRequestID {
        posted += 1
        return posted
    }

    func postRead(key: RegionKey, offset: UInt64, length: Int) throws(RemoteMemoryError) -> WorkRequestID {
        posted += 1
        reads.append(Read(id: posted, offset: offset, length: length))
        return posted
    }

    func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID {
        posted += 1
        return posted
    }

    func send(_ message: [UInt8]) throws(RemoteMemoryError) { messages.append(message) }
    func close() {}

    func completeAll(_ rig: OwnerRig) { rig.owner.mirrorCompleted(through: posted) }

    /// Answers every READ with what the ring holds now.
    func answerReads(_ rig: OwnerRig) throws {
        let asked = reads
        reads = []
        try #require(!asked.isEmpty)
        for read in asked {
            let answer = Array(bytes[Int(read.offset)..<Int(read.offset) + read.length])
            rig.owner.mirrorRead(read.id, answer)
        }
    }
}

struct NoMedium: Medium {
    let sizeBytes: UInt64 = 1 << 20
    private var missing: MediumError { MediumError(.read, "there is no medium here") }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) { throw missing }
    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) { throw missing }
    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) { throw missing }
    func flush() throws(MediumError) { throw missing }
}

/// Bound to its event loop.
final class OwnerRig {
    let region: Region
    let log: WriteLog
    let mirror: FakeMirror
    let owner: OwnerDataPath
    let eventLoop: any EventLoop
    private let reports: Reports

    final class Reports: Sendable {
        let kinds = Mutex<[EventKind]>([])
        /// The oldest request that the mirror has not completed, as the group was told last.
        let pending = Mutex<UInt64?>(nil)
    }

    var kinds: [EventKind] { reports.kinds.withLock { $0 } }
    var pendingTold: UInt64? { reports.pending.withLock { $0 } }
    /// Whether the record counts the mirror.
    var needsMirror: Bool {
        get { owner.owned.authority.rule.needsMirror }
        set { owner.owned.authority.rule.required = MemberSet(first: newValue ? 1 : 0) }
    }

    private init(
        _ pool: Pool, ringBytes: UInt64, _ eventLoop: any EventLoop, threads: GroupThreads = .singleton
    ) throws {
        self.eventLoop = eventLoop
        mirror = FakeMirror(ringBytes: ringBytes)
        region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: ringBytes)
        try region.format(role: .owner, logUUID: .zero, incarnation: Incarnation(1), start: .zero)
        log = try WriteLog(region: region)
        let reports = Reports()
        self.reports = reports
        // No medium: nothing is destaged, and everything stays in the log.
        let owned = OwnedLog(
            log: log, start: .zero, media: [:], runtime: LoopRuntime(eventLoop: eventLoop, threads: threads),
            authority: .forEver(mirrors: 1),
            listener: OwnedLog.Listener(
                progress: { progress in reports.pending.withLock { $0 = progress.pending } },
                report: { report in reports.kinds.withLock { $0.append(report.kind) } }))
        owner = OwnerDataPath(owned, start: .zero)
        owner.attach(mirror, key: RegionKey(rawValue: 1), durable: .zero, isKept: false)
        owner.serve()
        // The destager finds no medium for what is written; these tests do without it.
        owner.owned.destage.giveUp(until: .max)
    }

    /// Runs `body` in one turn of an event loop, with a log that is attached to an empty mirror.
    static func run(
        ringBytes: UInt64 = ringBytes, _ body: @escaping @Sendable (OwnerRig) throws -> Void
    ) async throws {
        let path = "/dev/shm/twinlog-owner-\(UUID128.random())"
        defer { unlink(path) }
        let pool = try Pool.create(
            path: path, sizeBytes: ringBytes + 192 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .auto)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        try await eventLoop.submit {
            let rig = try OwnerRig(pool, ringBytes: ringBytes, eventLoop)
            try body(rig)
            rig.owner.revoke()
        }.get()
    }

    /// Runs `body` with the same over many turns of the loop, the log in a pool in `folder`.
    static func overTurns(
        ringBytes: UInt64 = ringBytes, in folder: String = "/dev/shm", threads: GroupThreads = .singleton,
        _ body: (Runner) async throws -> Void
    ) async throws {
        let path = "\(folder)/twinlog-owner-\(UUID128.random())"
        defer { unlink(path) }
        let pool = try Pool.create(
            path: path, sizeBytes: ringBytes + 192 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .auto)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let rig = try await eventLoop.submit {
            NIOLoopBound(
                try OwnerRig(pool, ringBytes: ringBytes, eventLoop, threads: threads), eventLoop: eventLoop)
        }.get()
        try await body(Runner(rig: rig, eventLoop: eventLoop))
        try await eventLoop.submit { rig.value.owner.revoke() }.get()
    }

    struct Runner {
        let rig: NIOLoopBound<OwnerRig>
        let eventLoop: any EventLoop

        func callAsFunction<Value: Sendable>(
            _ body: @escaping @Sendable (OwnerRig) throws -> Value
        ) async throws -> Value {
            try await eventLoop.submit { try body(rig.value) }.get()
        }

        func eventually(_ what: String, _ holds: @escaping @Sendable (OwnerRig) throws -> Bool) async throws {
            for _ in 0..<4000 {
                if try await self(holds) { return }
                try await Task.sleep(for: .milliseconds(5))
            }
            throw PairRig.NotYet(what: what)
        }
    }

    /// The mirror answers and completes what it was asked.
    func serveMirror() throws {
        if !mirror.reads.isEmpty { try mirror.answerReads(self) }
        mirror.completeAll(self)
    }

    /// The rail ends, and the mirror attaches anew, as after a restart: everything above the head is shipped to it again.
    func reattach(isKept: Bool) {
        owner.detachMirror()
        mirror.reads = []
        mirror.written = []
        owner.attach(mirror, key: RegionKey(rawValue: 2), durable: owner.owned.destage.head, isKept: isKept)
    }

    func session() -> any VolumeSession { owner.session(VolumeID(name: "vol0"), NoMedium()) }

    /// One write, acknowledged by both.
    func write(_ byte: UInt8, bytes count: Int) throws {
        session().submit(.write(offset: 0, payload: ByteBuffer(repeating: byte, count: count))) { _ in }
        owner.pump()
        mirror.completeAll(self)
        try #require(owner.owned.acknowledgedWriteEnd == log.published)
    }

    /// As if a batch of everything were on its way to the medium.
    func beginBatch() throws {
        try #require(
            owner.owned.destage.nextBatch(
                acknowledged: owner.owned.acknowledged, allWritesAcknowledged: true, isValid: true, isPressed: true,
                now: .max) != nil)
    }

    /// As if that batch were on the medium, flushed.
    func finishBatch() throws {
        let head = owner.owned.destage.written(places: 1, isValid: true, now: .max)
        try log.setHead(try #require(head), acknowledged: owner.owned.acknowledged)
        owner.owned.destage.headMoved()
        owner.owned.forgetWhatNobodyReads()
        owner.pump()
    }

    func byte(at lsn: UInt64) -> UInt8 {
        var byte: UInt8 = 0
        withUnsafeMutableBytes(of: &byte) { region.readRing(from: LSN(lsn), into: $0) }
        return byte
    }

    /// What passes the persistence seam meanwhile.
    func recorded(_ body: () throws -> Void) throws -> [tl_operation_kind] {
        let recorder = try #require(tl_recorder_create())
        let persist = region.mapping.persist
        persist.pointee.recorder = recorder
        defer {
            persist.pointee.recorder = nil
            tl_recorder_destroy(recorder)
        }
        try body()
        return (0..<tl_recorder_count(recorder)).map { tl_recorder_operation(recorder, $0).kind }
    }

    func flip(at lsn: UInt64) {
        var flipped = byte(at: lsn) ^ 0x20
        withUnsafeBytes(of: &flipped) { region.store($0, at: LSN(lsn)) }
    }
}
