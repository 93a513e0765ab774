// Rails in memory. What one end posts crosses as bytes, in order, and is executed at the target when it arrives; a completion leaves
// when everything before it is persisted. Messages are delayed, held back by a silent partition, or lost with the connection.

import ClusterProtocol
@testable import GroupEngine
import LogModel
import PersistentMemory
import RemoteMemory
import SimulationSupport
import TestSupport

/// The regions of one process, by key.
final class VirtualRegistry: RegionRegistry {
    final class Entry {
        let target: any RegionTarget
        /// Whose log it is, if it is a mirror's.
        let group: GroupID?
        let lengthBytes: UInt64
        var persistsUnderWay = 0
        var onIdle: [() -> Void] = []

        init(_ target: any RegionTarget, lengthBytes: UInt64) {
            self.target = target
            group = (target as? MirrorTarget)?.region.group
            self.lengthBytes = lengthBytes
        }
    }

    private unowned let world: World
    private var entries: [UInt64: Entry] = [:]

    init(_ world: World) { self.world = world }

    func register(_ target: any RegionTarget, lengthBytes: UInt64) -> RegionKey {
        let key = world.random.next()
        entries[key] = Entry(target, lengthBytes: lengthBytes)
        return RegionKey(rawValue: key)
    }

    func revoke(_ key: RegionKey, sealed: @escaping () -> Void) {
        guard let entry = entries.removeValue(forKey: key.rawValue), entry.persistsUnderWay > 0 else { return sealed() }
        entry.onIdle.append(sealed)
    }

    func entry(_ key: RegionKey, offset: UInt64, count: UInt64) throws(RemoteMemoryError) -> Entry {
        guard let entry = entries[key.rawValue] else { throw RemoteMemoryError(.access, "the key is revoked") }
        guard offset <= entry.lengthBytes, count <= entry.lengthBytes - offset else {
            throw RemoteMemoryError(.access, "\(count) bytes at \(offset) are outside of the region")
        }
        return entry
    }
}

/// What crosses a rail.
private enum Frame {
    enum Operation {
        case write([UInt8])
        case atomicWrite(UInt64)
        case read(length: Int)
        case flush

        var windowBytes: Int {
            switch self {
            case .write(let bytes): bytes.count
            case .atomicWrite: 8
            case .read(let length): length
            case .flush: 0
            }
        }
    }

    case request(WorkRequestID, Operation, key: RegionKey, offset: UInt64)
    case message([UInt8])
    case completed(WorkRequestID)
    case readData(WorkRequestID, [UInt8])
    case refused(RemoteMemoryError)
    /// The other end is closed.
    case end
}

/// Whose a rail is, as what crosses it says.
private final class RailUse {
    var group: GroupID?
}

/// One end of a rail.
final class VirtualQueuePair: QueuePair {
    weak var delegate: (any QueuePairDelegate)?
    let server: Server
    /// Unsafe: whichever of the two ends first takes itself out of the other.
    private unowned(unsafe) var otherEnd: VirtualQueuePair?
    /// Nothing goes to the other end any more.
    private var isCut = false
    private var failure: RemoteMemoryError?

    // On the way to the peer
    private var nextDelivery: UInt64 = 0
    private var heldBack: [Frame] = []

    // The initiator's side
    private var lastPosted: WorkRequestID = 0
    private var outstanding: [(id: WorkRequestID, bytes: Int)] = []

    // The target's side
    private var lastExecuted: WorkRequestID = 0
    private var lastCompleted: WorkRequestID = 0
    private var touched: [VirtualRegistry.Entry] = []
    private var isPersisting = false
    private var refusal: RemoteMemoryError?

    /// Some peers allow few requests at once.
    private let windowRequests: Int
    let network: Int
    private let use: RailUse

    private init(_ server: Server, windowRequests: Int, over network: Int, _ use: RailUse) {
        self.server = server
        self.use = use
        self.network = network
        self.windowRequests = windowRequests
    }

    /// `windowRequests`: as many as the seed says.
    static func pair(
        _ dialer: Server, _ acceptor: Server, over network: Int, windowRequests: Int? = nil
    ) -> (dialer: VirtualQueuePair, acceptor: VirtualQueuePair) {
        let world = dialer.world
        let drawn =
            world.random.chance(20) ? Int(world.random.between(1, 4)) : RemoteMemoryLimits.windowRequests
        let windowRequests = windowRequests ?? drawn
        let use = RailUse()
        let ends = (
            VirtualQueuePair(dialer, windowRequests: windowRequests, over: network, use),
            VirtualQueuePair(acceptor, windowRequests: windowRequests, over: network, use)
        )
        ends.0.otherEnd = ends.1
        ends.1.otherEnd = ends.0
        return ends
    }

    deinit { otherEnd?.otherEnd = nil }

    private var world: World { server.world }
    private var peer: VirtualQueuePair? { isCut ? nil : otherEnd }
    var isDone: Bool { failure != nil }

    // MARK: Posting

    var creditBytes: Int {
        guard failure == nil, outstanding.count < windowRequests else { return 0 }
        return max(0, RemoteMemoryLimits.windowBytes - outstanding.reduce(0) { $0 + $1.bytes })
    }

    func postWrite(
        _ bytes: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try post(.write(Array(bytes)), key, offset)
    }

    func postAtomicWrite(_ value: UInt64, key: RegionKey, offset: UInt64) throws(RemoteMemoryError) -> WorkRequestID {
        guard offset % 8 == 0 else { throw RemoteMemoryError(.invalidRequest, "a word at \(offset) is not aligned") }
        return try post(.atomicWrite(value), key, offset)
    }

    func postRead(key: RegionKey, offset: UInt64, length: Int) throws(RemoteMemoryError) -> WorkRequestID {
        try post(.read(length: length), key, offset)
    }

    func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID { try post(.flush, key, 0) }

    private func post(
        _ operation: Frame.Operation, _ key: RegionKey, _ offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try check(operation.windowBytes)
        guard operation.windowBytes <= creditBytes, outstanding.count < windowRequests else {
            throw RemoteMemoryError(.noCredit, "the window is full")
        }
        lastPosted += 1
        outstanding.append((lastPosted, operation.windowBytes))
        transmit(.request(lastPosted, operation, key: key, offset: offset))
        return lastPosted
    }

    func send(_ message: [UInt8]) throws(RemoteMemoryError) {
        try check(message.count)
        transmit(.message(message))
    }

    private func check(_ byteCount: Int) throws(RemoteMemoryError) {
        if let failure { throw failure }
        guard 0...RemoteMemoryLimits.maximumTransferBytes ~= byteCount else {
            throw RemoteMemoryError(.invalidRequest, "\(byteCount) bytes are not what one request carries")
        }
    }

    func close() {
        guard failure == nil else { return }
        transmit(.end)
        fail(RemoteMemoryError(.disconnected, "closed by this side"))
    }

    // MARK: The way

    private func transmit(_ frame: Frame) {
        guard let peer else { return }
        nextDelivery = max(nextDelivery, world.now + world.networkDelay(over: network))
        world.after(nextDelivery - world.now) { [self] in
            guard !world.isBlocked(from: server.node, over: network), heldBack.isEmpty else {
                return heldBack.append(frame)
            }
            peer.arrived(frame)
        }
    }

    /// A partition ended: what it held back arrives.
    func releaseHeldBack() {
        let frames = heldBack
        heldBack = []
        for frame in frames { peer?.arrived(frame) }
    }

    /// The connection is lost, with what is on the way; this end learns of it some time.
    func cut() {
        guard failure == nil else { return }
        peer?.isCut = true
        server.later(world.random.between(0, 50) * millisecond) { [self] in
            fail(RemoteMemoryError(.disconnected, "the connection was cut"))
        }
    }

    /// The process at this end is gone. The other end hears so from the connection, or in its own time.
    func abandon(sayingSo: Bool) {
        guard failure == nil else { return }
        if sayingSo { transmit(.end) } else { peer?.cut() }
        failure = RemoteMemoryError(.disconnected, "the process is gone")
    }

    private func fail(_ error: RemoteMemoryError) {
        guard failure == nil else { return }
        failure = error
        outstanding = []
        server.execute { [self] in
            let delegate = delegate
            self.delegate = nil
            delegate?.queuePair(self, failed: error)
        }
    }

    private func arrived(_ frame: Frame) {
        server.perform { [self] in
            guard failure == nil, peer != nil, refusal == nil else { return }
            receive(frame)
            if failure == nil { delegate?.queuePairHeard(self) }
        }
    }

    private func receive(_ frame: Frame) {
        switch frame {
        case .request(let id, let operation, let key, let offset):
            do throws(RemoteMemoryError) {
                try execute(id, operation, key, offset)
                lastExecuted = id
            } catch {
                refusal = error
            }
            schedulePersist()
        case .message(let bytes):
            if world.groups.count > 1 { expectOwn(message: bytes) }
            delegate?.queuePair(self, received: bytes)
        case .completed(let id):
            outstanding.removeAll { $0.id <= id }
            delegate?.queuePair(self, completedThrough: id)
        case .readData(let id, let bytes): delegate?.queuePair(self, read: id, returned: bytes)
        case .refused(let error): fail(error)
        case .end: fail(RemoteMemoryError(.disconnected, "the connection ended"))
        }
    }

    // MARK: Groups

    /// A rail is one group's, from the first message that names one: nothing of another's ever crosses it.
    private func expectOwn(_ group: GroupID, _ what: String) {
        guard let own = use.group else { return use.group = group }
        if world.groups.count > 1 { world.coverage.framesOfSeveralGroups += 1 }
        if own != group { world.violate("\(server.name): a rail of \(own) \(what) of \(group)") }
    }

    private func expectOwn(message bytes: [UInt8]) {
        do throws(PeerMessageError) {
            switch try PeerMessage(bytes) {
            case .attach(let request): expectOwn(request.group, "brings a request")
            case .attached(let group, _, _, _, _), .refused(let group, _, _, _): expectOwn(group, "brings an answer")
            case .railHeartbeat(let heartbeat): expectOwn(heartbeat.group, "brings a heartbeat")
            case .heartbeat, .recordChanged, .repair, .configuration, .mediumQuestion, .mediumAnswer, .mediumProof,
                .railAnswer:
                break
            }
        } catch {
            world.violate("\(server.name) is sent what it cannot read: \(error)")
        }
    }

    // MARK: The target's side

    private func execute(
        _ id: WorkRequestID, _ operation: Frame.Operation, _ key: RegionKey, _ offset: UInt64
    ) throws(RemoteMemoryError) {
        let entry = try server.registry.entry(key, offset: offset, count: UInt64(operation.windowBytes))
        if let group = entry.group { expectOwn(group, "writes or reads the log") }
        do throws(RemoteMemoryError) {
            try carryOut(operation, id, at: entry.target, offset)
        } catch {
            entry.group.flatMap(world.group)?.oracle.refused(error, at: server)
            throw error
        }
        if !touched.contains(where: { $0 === entry }) { touched.append(entry) }
    }

    private func carryOut(
        _ operation: Frame.Operation, _ id: WorkRequestID, at target: any RegionTarget, _ offset: UInt64
    ) throws(RemoteMemoryError) {
        switch operation {
        case .write(let bytes):
            let stored = bytes.withUnsafeBytes { bytes in
                Result { () throws(RemoteMemoryError) in try target.write(bytes, at: offset) }
            }
            try stored.get()
        case .atomicWrite(let value): try target.atomicWrite(value, at: offset)
        case .read(let length):
            var bytes = [UInt8](repeating: 0, count: length)
            let read = bytes.withUnsafeMutableBytes { space in
                Result { () throws(RemoteMemoryError) in try target.read(into: space, at: offset) }
            }
            try read.get()
            transmit(.readData(id, bytes))
        case .flush: break
        }
    }

    /// What arrives until then shares the persist.
    private func schedulePersist() {
        guard !isPersisting else { return }
        isPersisting = true
        let expected = touched
        for entry in expected { entry.persistsUnderWay += 1 }
        server.later(world.memoryTime()) { [self] in
            server.node.hungMemory.pass { [self] in server.perform { self.persist(expected) } }
        }
    }

    private func persist(_ expected: [VirtualRegistry.Entry]) {
        let through = lastExecuted
        let entries = touched
        touched = []
        for entry in entries where !expected.contains(where: { $0 === entry }) { entry.persistsUnderWay += 1 }
        var failed: RemoteMemoryError?
        var waiting = entries.count
        guard waiting > 0 else { return persisted(through, nil) }
        for entry in entries {
            entry.target.persist { [self] error in
                entry.persistsUnderWay -= 1
                if entry.persistsUnderWay == 0 {
                    let idle = entry.onIdle
                    entry.onIdle = []
                    for body in idle { body() }
                }
                failed = failed ?? error
                waiting -= 1
                if waiting == 0 { persisted(through, failed) }
            }
        }
    }

    private func persisted(_ through: WorkRequestID, _ failed: RemoteMemoryError?) {
        isPersisting = false
        guard failure == nil else { return }
        refusal = refusal ?? failed
        if failed == nil, through > lastCompleted {
            lastCompleted = through
            transmit(.completed(through))
        }
        if !touched.isEmpty { return schedulePersist() }
        guard let refusal else { return }
        transmit(.refused(refusal))
        fail(refusal)
    }
}
