// An owner's data path without a mirror, in one thread and in virtual time: nothing happens but what the test lets happen.

import ClusterProtocol
import Glibc
import LogModel
import NIOCore
import PersistentMemory
import StorageMedium
import TestSupport
import Testing
import WriteLog

@testable import GroupEngine

/// What blocks runs in its turn. Time passes when the test says so.
final class SteppedRuntime: Runtime {
    private(set) var now: Nanos = 1
    /// What ran where it may block, in order.
    private(set) var performed: [BlockingWork] = []
    /// What does not return when it begins now.
    var hangs: Set<BlockingWork> = []
    private var hung: [() -> Void] = []
    private var turns: [() -> Void] = []
    private var timers: [(due: Nanos, body: () -> Void)] = []

    func execute(_ body: @escaping () -> Void) { turns.append(body) }
    func executeNextTurn(_ body: @escaping () -> Void) { turns.append(body) }
    func execute(after delay: Nanos, _ body: @escaping () -> Void) { timers.append((now + delay, body)) }

    func perform(
        _ work: BlockingWork, _ body: @escaping @Sendable () -> Void, _ done: @escaping ((any Error)?) -> Void
    ) {
        let run = { [unowned self] in
            performed.append(work)
            body()
            done(nil)
        }
        if hangs.contains(work) { hung.append(run) } else { turns.append(run) }
    }

    /// What hangs returns.
    func release() {
        hangs = []
        turns += hung
        hung = []
        settle()
    }

    /// Runs all that is due now.
    func settle() {
        while true {
            if let due = timers.firstIndex(where: { $0.due <= now }) {
                timers.remove(at: due).body()
            } else if !turns.isEmpty {
                turns.removeFirst()()
            } else {
                return
            }
        }
    }

    func pass(_ time: Nanos) {
        now += time
        settle()
    }
}

struct SteppedOwner {
    static let volume = VolumeID(name: "vol0")
    let runtime = SteppedRuntime()
    /// A file of 1 MiB.
    let file: FileMedium
    let medium: FaultInjectingMedium
    let log: WriteLog
    let owner: OwnerDataPath
    let session: any VolumeSession

    init() throws {
        let place = "/dev/shm/twinlog-stepped-\(UUID128.random())"
        let pool = try Pool.create(
            path: place, sizeBytes: ringBytes + 192 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .volatile)
        unlink(place)
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: ringBytes)
        try region.format(role: .owner, logUUID: .random(), incarnation: Incarnation(1), start: .zero)
        log = try WriteLog(region: region)
        file = try FileMedium.open(path: place, sizeBytes: 1 << 20, createIfMissing: true)
        unlink(place)
        medium = FaultInjectingMedium(file, seed: 1)
        let owned = OwnedLog(
            log: log, start: .zero, media: [Self.volume: (medium: medium, path: "vol0")], runtime: runtime,
            authority: .forEver(mirrors: 0), listener: OwnedLog.Listener(report: { _ in }))
        owner = OwnerDataPath(owned, start: .zero)
        session = owner.session(Self.volume, medium)
        owner.serve()
    }

    /// Acknowledged when it returns.
    func write(_ byte: UInt8, at offset: UInt64 = 0, bytes count: Int = 4096) throws {
        var isDone = false
        session.submit(.write(offset: offset, payload: ByteBuffer(repeating: byte, count: count))) { _ in isDone = true
        }
        runtime.settle()
        try #require(isDone)
    }

    /// Of the file, at `offset`.
    func byteOnMedium(at offset: UInt64 = 0) throws -> UInt8 {
        var byte: UInt8 = 0
        let result = withUnsafeMutableBytes(of: &byte) { space in Result { try file.read(into: space, at: offset) } }
        try result.get()
        return byte
    }

    var batches: Int { medium.calls(of: .flush) }
}
