// Where writes end up. A medium is byte-addressed, of fixed size, and may answer any call with an error.

internal import Glibc
public import LogModel

/// A medium refused or failed: which medium, which call, where, and the errno.
public struct MediumError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        case open
        /// Nothing is at the path.
        case missing
        /// What is at the path is never a medium: a directory, a pool, the archive of a log.
        case notAMedium
        /// The file is another medium than the one that is expected, or cannot be told from another (S18).
        case otherMedium
        /// Another open file description holds the medium's exclusive lock (S18).
        case locked
        /// The medium refuses what this node writes: another node has taken it (S18). Nothing is tried again; the group is given up.
        case fenced
        case read, write, flush, discard
        case outOfRange
        /// Of another size than configured, from the start or since somebody cut it.
        case wrongSize
    }
    public var code: Code
    public var message: String
    public var errno: Int32

    public init(_ code: Code, _ message: String, errno: Int32 = 0) {
        self.code = code
        self.message = message
        self.errno = errno
    }
    public var description: String { message }

    /// There is no space left for what is written: the path to the medium is well, and so is what it holds.
    public var isFull: Bool { errno == ENOSPC || errno == EDQUOT }
}

public struct MediumExtent: Hashable, Sendable {
    public var range: ByteRange
    /// Takes no space and reads as zeros.
    public var isHole: Bool
    public init(range: ByteRange, isHole: Bool) {
        self.range = range
        self.isHole = isHole
    }
}

/// One portion of the medium: the storage of one volume. Thread-safe; calls block, so they run on threads of their own.
public protocol Medium: Sendable {
    var sizeBytes: UInt64 { get }

    /// Fills `buffer` from `offset`. A range outside the medium throws `outOfRange`.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError)

    /// As ``read(into:at:)``, for callers that must not wait: fills `buffer` only from memory. False if that cannot be done, or cannot be
    /// known; `buffer` then holds anything.
    func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool

    /// Writes the buffers one after another from `offset`; all of their bytes or an error. Not durable until ``flush()``.
    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError)

    /// The range reads as zeros afterwards. Not durable until ``flush()``. Releases the space where it can (`discard`).
    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError)

    /// What lies from the start of `range` on, contiguous, in at most `limit` pieces; may end before the range does. What is no
    /// hole may still be zeros.
    func extents(of range: ByteRange, limit: Int) throws(MediumError) -> [MediumExtent]

    /// `range` will be read soon. A hint: nothing is promised.
    func prefetch(_ range: ByteRange) throws(MediumError)

    /// What was written in `range` may begin to reach the medium, so that ``flush()`` finds less to wait for. A hint: what goes wrong is told by
    /// ``flush()``.
    func startWriteback(_ range: ByteRange)

    /// Everything written before is durable when this returns. After an error, what was written since the last
    /// successful flush is in an unknown state and must be written anew (S8).
    func flush() throws(MediumError)
}

/// Of a medium that knows nothing of holes or caches, and does nothing ahead.
extension Medium {
    public func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool {
        false
    }

    public func extents(of range: ByteRange, limit: Int) throws(MediumError) -> [MediumExtent] {
        [MediumExtent(range: range, isHole: false)]
    }

    public func prefetch(_ range: ByteRange) throws(MediumError) {}

    public func startWriteback(_ range: ByteRange) {}
}
