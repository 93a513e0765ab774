// The verbs: one-sided access to a partner's memory, with the semantics of RDMA and no word about what carries them.
// A transport implements `QueuePair` (the initiator's side) and serves `RegionTarget`s (the target's side). What libibverbs has
// for each verb, and which of its verbs are not here, stands in docs/VERBS.md; `VerbsConformance` in Tests/Support holds every
// transport to the rules below.
//
// Execution
//  - The target executes the requests of a queue pair in posting order, and messages in order with them.
//  - A key and a range are checked at execution. A revoked key stops even requests that were on the way (S12); what fails the check
//    stores and reads nothing.
//  - Everything that a peer sends is bounded before it is used (S21).
//
// Completion
//  - A completion means *persisted at the target*, not received (S11).
//  - Every request is posted unsignalled: the target chooses which ones it completes. A completion is cumulative, it covers every
//    earlier request; completed numbers only grow, and the last request of a burst is completed without another post.
//  - A message has no completion.
//
// States
//  - A queue pair is connected from the moment its user gets it, and after its first error in the error state for ever.
//  - An error comes from a refused request (`access`, `remoteOperation`), from a peer that breaks the protocol, from the connection,
//    or from `close`. What the target executed before a refused request is persisted and completed first.
//  - Entering the error state flushes whatever is posted and not completed, without a call for each: `failed` stands for all
//    of it, is the last call that the delegate gets, and comes once. Of the flushed requests the target has executed
//    the first few, in posting order, and of the WRITE after them any part; none of them is known to be persisted. So the first
//    question of the next session is "where were you?".
//  - In the error state `creditBytes` is 0, posts and sends throw the error, and nothing that arrives is executed.
//
// A request that no transport could carry out (too long, a word out of line) is refused by `post` with `invalidRequest`. It is not
// posted, takes no number, and the queue pair stays as it is; so it is with `noCredit`.

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
    /// Bytes of WRITEs and READs posted and not completed. Four full WRITEs: some being persisted while the next are on the way.
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
        /// Longer than ``RemoteMemoryLimits/maximumTransferBytes``, or an ATOMIC WRITE that is not aligned. Nothing was posted.
        case invalidRequest
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

/// What a queue pair tells its user. Called on the queue pair's event loop, never from inside `post`, `send` or `close`.
public protocol QueuePairDelegate: AnyObject {
    /// Every request up to and including `id` is executed and persisted at the target. `id` is greater than at any call before.
    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID)
    /// The bytes that one READ asked for, in posting order, before the completion that covers it.
    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8])
    /// A message that the peer sent. Every request that the peer posted before it is executed, none of those after it; whether they
    /// are persisted it does not say.
    func queuePair(_ queuePair: any QueuePair, received message: [UInt8])
    /// Anything arrived from the peer: proof of life. Called at most once per read from the transport.
    func queuePairHeard(_ queuePair: any QueuePair)
    /// The queue pair is in the error state, and what was posted and not completed is flushed. The last call. `access` here is
    /// S12's answer to a stale owner.
    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError)
}

/// One connection to a partner, both ways: either side posts work requests and messages. Bound to one event loop; not
/// thread-safe.
public protocol QueuePair: AnyObject {
    /// Set before anything can arrive, or nothing is heard; `nil` for whoever wants to hear nothing more.
    var delegate: (any QueuePairDelegate)? { get set }
    /// Bytes that may be posted as WRITEs right now. With nothing outstanding at least ``RemoteMemoryLimits/maximumTransferBytes``: whoever
    /// has more to write than there is credit for waits for a completion. 0 also where the window of requests is full.
    var creditBytes: Int { get }

    /// WRITE: `bytes` stand at `offset` of the region. Any length up to ``RemoteMemoryLimits/maximumTransferBytes``, any alignment, 0 too.
    /// The bytes are the caller's again when this returns. Completed: stored whole and persisted. Not completed: any part may be stored.
    @discardableResult
    func postWrite(_ bytes: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64) throws(RemoteMemoryError)
        -> WorkRequestID
    /// ATOMIC WRITE: one word of 8 bytes, little-endian, at an `offset` that is a multiple of 8. Completed: persisted. At any time
    /// before, and after any crash, the word is the old one or the new one.
    @discardableResult
    func postAtomicWrite(_ value: UInt64, key: RegionKey, offset: UInt64) throws(RemoteMemoryError) -> WorkRequestID
    /// READ: what the region holds when the request is executed, so what was posted before is in it and what was posted after is not. What
    /// it returns need not be persisted before its completion.
    @discardableResult
    func postRead(key: RegionKey, offset: UInt64, length: Int) throws(RemoteMemoryError) -> WorkRequestID
    /// FLUSH: stores nothing. Completed: all that was posted before it is persisted, as at any completion, and what else the target had
    /// stored to the region of `key`.
    @discardableResult
    func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID
    /// SEND: a message of at most ``RemoteMemoryLimits/maximumTransferBytes`` to the peer's delegate. Takes nothing of the window; a peer that takes
    /// none of them for long loses the connection (S21).
    func send(_ message: [UInt8]) throws(RemoteMemoryError)
    /// Enters the error state; the delegate hears `disconnected` unless it was set to `nil`. The peer hears `disconnected` too. What is
    /// on the way may be executed, or not.
    func close()
}

/// The regions that a node offers to its partners. Bound to one event loop.
public protocol RegionRegistry: AnyObject {
    /// Offers `target` under a fresh random key. The same memory may be offered under several.
    func register(_ target: any RegionTarget, lengthBytes: UInt64) -> RegionKey
    /// Revokes the key: no request under it is executed from here on. Calls `sealed`, perhaps before returning, when no copy or persist
    /// under it is in progress any more (S12); at once for a key that is not known.
    func revoke(_ key: RegionKey, sealed: @escaping () -> Void)
}
