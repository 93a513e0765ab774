// The verbs: one-sided access to a partner's memory, with the semantics of RDMA and no word about what carries them.
// A transport implements `QueuePair` (the initiator's side) and serves `RegionTarget`s (the target's side).
//
// Rules of the contract, which every transport keeps:
//  - work requests of a queue pair execute at the target in the order in which they were posted;
//  - a completion means *persisted at the target*, not received (S11), and is cumulative: it covers every earlier request;
//  - a key is checked at execution, so a revoked key stops even requests that were on the way (S12): they complete with
//    an access error and nothing of them is stored;
//  - after any error completion the queue pair is in the error state and carries nothing more;
//  - everything that a peer sends is bounded before it is used (S21).

/// Permission to access one registered region. Unguessable, and dead once the region is sealed.
public struct RegionKey: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    /// Keys are capabilities: they do not appear in logs (S22).
    public var description: String { "RegionKey(…)" }
}

/// The number of a posted work request: 1, 2, 3 … on each queue pair.
public typealias WorkRequestID = UInt64

public enum RemoteMemoryLimits {
    /// The most bytes that one WRITE, READ or message carries. Bounds what a receiver buffers for one frame.
    public static let maximumTransferBytes = 1 << 20
    /// Bytes of WRITEs posted and not completed. Two full WRITEs: one being persisted while the next is on the way.
    public static let windowBytes = 4 << 20
    /// Work requests posted and not completed.
    public static let windowRequests = 256
}

/// Why a queue pair ended.
public struct RemoteMemoryError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// The key was revoked or never existed, or the range is outside of its region.
        case access
        /// The target could not store or persist.
        case remoteOperation
        /// The connection ended, or could not be made.
        case disconnected
        /// The peer sent something that the protocol does not allow, or speaks a version that this one does not.
        case protocolViolation
        /// The window is full: post again after a completion.
        case noCredit
    }
    public var code: Code
    public var message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

/// The target's side of one registered region. Called on the transport's event loop.
public protocol RegionTarget: AnyObject {
    /// Stores `bytes` at `offset`. Not durable until ``persist(_:)`` completes.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError)
    /// Stores one aligned 8-byte word, all or none. Not durable until ``persist(_:)`` completes.
    func atomicWrite(_ value: UInt64, at offset: UInt64) throws(RemoteMemoryError)
    /// Fills `buffer` from `offset`.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError)
    /// Makes every store made so far durable, then calls `done` once, on the event loop (possibly before returning).
    /// `nil` means durable; an error fails the queue pair.
    func persist(_ done: @escaping (RemoteMemoryError?) -> Void)
}

/// What a queue pair tells its user. Called on the queue pair's event loop, never from inside `post`.
public protocol QueuePairDelegate: AnyObject {
    /// Every request up to and including `id` is executed and persisted at the target.
    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID)
    /// The answer to one READ, in posting order, before its completion.
    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8])
    /// A message that the peer posted.
    func queuePair(_ queuePair: any QueuePair, received message: [UInt8])
    /// Anything arrived from the peer: proof of life. Called at most once per read from the transport.
    func queuePairHeard(_ queuePair: any QueuePair)
    /// The queue pair is dead; nothing more comes from it. `access` here is S12's answer to a stale owner.
    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError)
}

/// One connection to a partner, both ways: either side posts work requests and messages. Bound to one event loop; not
/// thread-safe.
public protocol QueuePair: AnyObject {
    var delegate: (any QueuePairDelegate)? { get set }
    /// Bytes that may be posted as WRITEs right now. With nothing outstanding at least ``RemoteMemoryLimits/maximumTransferBytes``: whoever
    /// has more to write than there is credit for waits for a completion.
    var creditBytes: Int { get }

    /// One-sided WRITE of `bytes` (at most ``RemoteMemoryLimits/maximumTransferBytes``), copied out before this returns.
    @discardableResult
    func postWrite(_ bytes: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64) throws(RemoteMemoryError)
        -> WorkRequestID
    @discardableResult
    func postAtomicWrite(_ value: UInt64, key: RegionKey, offset: UInt64) throws(RemoteMemoryError) -> WorkRequestID
    @discardableResult
    func postRead(key: RegionKey, offset: UInt64, length: Int) throws(RemoteMemoryError) -> WorkRequestID
    /// Completes when everything posted before it is persisted.
    @discardableResult
    func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID
    /// A message to the peer's delegate, in order with the requests, unacknowledged. Not counted against the window.
    func send(_ message: [UInt8]) throws(RemoteMemoryError)
    /// Ends the connection; the delegate hears `disconnected` unless it was set to `nil`.
    func close()
}

/// The regions that a node offers to its partners. Bound to one event loop.
public protocol RegionRegistry: AnyObject {
    /// Offers `target` under a fresh random key.
    func register(_ target: any RegionTarget, lengthBytes: UInt64) -> RegionKey
    /// Revokes the key, and calls `sealed` when no copy under it is in progress any more (S12).
    func revoke(_ key: RegionKey, sealed: @escaping () -> Void)
}
