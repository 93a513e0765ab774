// The rails of a node's groups with a hand on each rail that the node makes: what is posted there can be held back and let go later, as a network does
// that fails in one direction.

import LogModel
import NIOCore
import RemoteMemory

@testable import StorageNode

/// Bound to the groups' event loop.
final class HeldRails: GroupRails {
    private let inner: any GroupRails
    /// In the order in which they were made.
    private(set) var rails: [HeldQueuePair] = []

    init(_ inner: any GroupRails) { self.inner = inner }

    var regions: any RegionRegistry { inner.regions }

    func begin(as identity: RailIdentity) { inner.begin(as: identity) }

    func isRefused(at place: String, timeout: TimeAmount, _ done: @escaping (Bool) -> Void) {
        inner.isRefused(at: place, timeout: timeout, done)
    }

    func attach(_ rail: any DetachedRail, _ made: @escaping (any QueuePair) -> Void) { inner.attach(rail, made) }

    func dial(
        _ place: String, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        inner.dial(place, expecting: peer, timeout: timeout) { result in
            done(
                result.map { queuePair, peer in
                    let rail = HeldQueuePair(queuePair, to: place)
                    self.rails.append(rail)
                    return (rail, peer)
                })
        }
    }

    /// The newest rail to `place`.
    func rail(to place: String) -> HeldQueuePair? { rails.last { $0.place == place } }
}

final class HeldQueuePair: QueuePair, QueuePairDelegate {
    weak var delegate: (any QueuePairDelegate)?
    let place: String
    /// What is posted waits, and so does the end of the connection.
    var isHeld = false
    /// The connection below has ended.
    private(set) var hasEnded = false
    /// What the mirror completed last.
    private(set) var completed: WorkRequestID = 0
    private let inner: any QueuePair
    private var posted: WorkRequestID = 0
    private var held: [() throws -> Void] = []

    init(_ inner: any QueuePair, to place: String) {
        self.inner = inner
        self.place = place
        inner.delegate = self
    }

    var creditBytes: Int { inner.creditBytes }

    private func post(
        _ body: @escaping (any QueuePair) throws(RemoteMemoryError) -> Void
    ) throws(RemoteMemoryError) -> WorkRequestID {
        if isHeld { held.append { try body(self.inner) } } else { try body(inner) }
        posted += 1
        return posted
    }

    func postWrite(
        _ bytes: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        let copy = Array(bytes)
        return try post { (inner) throws(RemoteMemoryError) in
            let result = copy.withUnsafeBytes { bytes in
                Result { () throws(RemoteMemoryError) in try inner.postWrite(bytes, key: key, offset: offset) }
            }
            _ = try result.get()
        }
    }

    func postAtomicWrite(_ value: UInt64, key: RegionKey, offset: UInt64) throws(RemoteMemoryError) -> WorkRequestID {
        try post { (inner) throws(RemoteMemoryError) in try inner.postAtomicWrite(value, key: key, offset: offset) }
    }

    func postRead(key: RegionKey, offset: UInt64, length: Int) throws(RemoteMemoryError) -> WorkRequestID {
        try post { (inner) throws(RemoteMemoryError) in try inner.postRead(key: key, offset: offset, length: length) }
    }

    func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID {
        try post { (inner) throws(RemoteMemoryError) in try inner.postFlush(key: key) }
    }

    func send(_ message: [UInt8]) throws(RemoteMemoryError) {
        if isHeld { held.append { try self.inner.send(message) } } else { try inner.send(message) }
    }

    func close() { if !isHeld { inner.close() } }

    /// What was held back goes on its way, unless the connection has ended.
    func letGo() {
        isHeld = false
        for body in held where !hasEnded { _ = Result { try body() } }
        held = []
    }

    // MARK: From the mirror

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {
        completed = id
        delegate?.queuePair(self, completedThrough: id)
    }

    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {
        delegate?.queuePair(self, read: id, returned: bytes)
    }

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
        delegate?.queuePair(self, received: message)
    }

    func queuePairHeard(_ queuePair: any QueuePair) { delegate?.queuePairHeard(self) }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {
        hasEnded = true
        delegate?.queuePair(self, failed: error)
    }
}
