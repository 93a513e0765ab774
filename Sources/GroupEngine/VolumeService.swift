// What a node offers to front ends such as the NBD server: volumes, by name. A service and its sessions are bound to one event loop; where
// groups have loops of their own, each volume has the service of its group's.

public import NIOCore

public struct VolumeInfo: Hashable, Sendable {
    public var name: String
    public var sizeBytes: UInt64
    /// Its clients may not change it.
    public var isReadOnly: Bool
    public init(name: String, sizeBytes: UInt64, isReadOnly: Bool = false) {
        self.name = name
        self.sizeBytes = sizeBytes
        self.isReadOnly = isReadOnly
    }
}

/// Why a volume is not served here now: a sentence for the client, naming the owner if there is another one.
public struct VolumeRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        case unknownVolume
        case ownedElsewhere
        /// Not now: starting, replaying, stopping.
        case notReady
    }
    public var code: Code
    public var message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

public enum VolumeRequest: Sendable {
    case read(offset: UInt64, length: Int)
    case write(offset: UInt64, payload: ByteBuffer)
    /// Reads as zeros from its acknowledgement on; the space may be released.
    case discard(offset: UInt64, length: UInt64)
    /// Reads as zeros; `mayRelease` is false if the client wants the space kept.
    case writeZeroes(offset: UInt64, length: UInt64, mayRelease: Bool)
    case flush
    /// The range will be read soon.
    case prefetch(offset: UInt64, length: UInt64)
}

/// A part of a volume, from where the one before ends.
public struct VolumeExtent: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        /// May hold anything.
        case data
        /// Reads as zeros, and has or will have space.
        case zeros
        /// Reads as zeros and takes no space.
        case hole
    }
    public var lengthBytes: UInt64
    public var kind: Kind
    public init(lengthBytes: UInt64, kind: Kind) {
        self.lengthBytes = lengthBytes
        self.kind = kind
    }
}

/// Why one request failed. The session goes on.
public enum VolumeError: Error, Hashable, Sendable {
    /// The range is not inside of the volume. Checked by the front end too.
    case outOfRange
    /// The medium failed to answer a read, or what is asked of it.
    case readFailed(String)
}

public typealias VolumeCompletion = (Result<ByteBuffer?, VolumeError>) -> Void

/// One client connection's use of one volume.
public protocol VolumeSession: AnyObject {
    /// Carries out one request and calls `completion` once, in any order relative to other requests, possibly before
    /// returning. A read answers with exactly its bytes. A write, discard or write-zeroes completes when it is
    /// acknowledged (S1), so FUA needs nothing more (S25). If ownership is lost, `completion` is never called and
    /// `onRevoked` is. Precondition: a range is inside of the volume.
    func submit(_ request: VolumeRequest, completion: @escaping VolumeCompletion)
    /// What lies from `offset` on: at least one extent, together at most `length`. A hint about space, but what is said to read as zeros
    /// did when the answer was made.
    func extents(
        offset: UInt64, length: UInt64, completion: @escaping (Result<[VolumeExtent], VolumeError>) -> Void)
    /// Payload bytes of requests that wait because the log is full. The front end stops reading from a connection that
    /// has more than its limit here.
    var parkedBytes: Int { get }
    /// Called when `parkedBytes` has fallen.
    var onUnparked: (() -> Void)? { get set }
    /// The node does not own the volume any more: close the connection without answering what is pending.
    var onRevoked: (() -> Void)? { get set }
    /// The client sends nothing more. What it sent is still carried out; sessions that are opened later begin only when that is
    /// done, or dropped (S24).
    func endInput()
    /// The connection ended: requests that are not issued yet are dropped, completions are not called (S24).
    func close()
}

/// Where a volume is served.
public struct VolumePlace: Sendable {
    public let eventLoop: any EventLoop
    /// Called on `eventLoop`.
    public let service: @Sendable () -> any VolumeService

    public init(eventLoop: any EventLoop, service: @escaping @Sendable () -> any VolumeService) {
        self.eventLoop = eventLoop
        self.service = service
    }
}

/// The volumes of a node, as one of its event loops serves them.
public protocol VolumeService: AnyObject {
    /// Every configured volume, whoever owns it.
    func volumes() -> [VolumeInfo]
    /// Where the volume is to be found and opened; `nil` if that is here, or nowhere on this node.
    func place(of name: String) -> VolumePlace?
    /// The volume if it is served here now, or why not.
    func find(_ name: String) -> Result<VolumeInfo, VolumeRefusal>
    /// Opens the volume for one connection. `ready` is called on the event loop, possibly later: a session begins only
    /// when everything issued on earlier connections, and everything sent on those that send nothing more, is acknowledged or
    /// gone (S24). Returns what gives the opening up if the
    /// connection ends before; `ready` is not called then.
    @discardableResult
    func open(
        _ name: String, ready: @escaping (Result<any VolumeSession, VolumeRefusal>) -> Void
    ) -> () -> Void
}

extension VolumeService {
    public func place(of name: String) -> VolumePlace? { nil }
}
