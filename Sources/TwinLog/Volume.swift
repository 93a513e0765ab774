// One client's use of one volume of a node.

internal import GroupEngine
public import NIOCore

/// A volume that this node serves, for one client: what is asked of it before ``close()`` comes before what later openings ask.
/// Any number of calls may be under way at once; of two that overlap and do not wait for each other, either may come first.
///
/// Once the node loses the volume's group every call throws `servedElsewhere`, with unknown outcome if it was under way: open the volume
/// anew, here or on its owner. A cancelled task throws `cancelled` at once, and what it asked for may still be carried out.
///
/// Safe from any number of threads.
public final class Volume: Sendable {
    /// Of one read or write: what a node bears of one client at once.
    private static let maximumRequestBytes: UInt64 = 32 << 20

    /// As the configuration has it.
    public let name: String
    /// It never changes while the volume is open.
    public let sizeBytes: UInt64
    /// Its configuration lets nobody change it.
    public let isReadOnly: Bool
    private let eventLoop: any EventLoop
    private let client: NIOLoopBound<VolumeClient>

    /// On the event loop.
    init(_ about: VolumeInfo, _ session: any VolumeSession, _ eventLoop: any EventLoop) {
        name = about.name
        sizeBytes = about.sizeBytes
        isReadOnly = about.isReadOnly
        self.eventLoop = eventLoop
        client = NIOLoopBound(VolumeClient(session, of: about.name), eventLoop: eventLoop)
    }

    deinit { endSession() }

    /// Exactly the `count` bytes from `offset` on (both in bytes, `count` at most 32 MiB): of every place, what was last acknowledged.
    /// Throws `invalidValue`, `mediumFailed`, `servedElsewhere`, `closed` or `cancelled`.
    public func read(at offset: UInt64, count: Int) async throws(TwinLogError) -> ByteBuffer {
        try check(offset, UInt64(clamping: count), upTo: Self.maximumRequestBytes)
        guard let bytes = try await submit(.read(offset: offset, length: count)) else {
            preconditionFailure("a read is answered with its bytes")
        }
        return bytes
    }

    /// Returns when the bytes (at most 32 MiB) are durable in every log that the group requires. Beyond a quarter of the log a crash may
    /// leave a part of them. Throws `invalidValue`, `servedElsewhere`, `closed` or `cancelled`.
    public func write(_ bytes: ByteBuffer, at offset: UInt64) async throws(TwinLogError) {
        try checkChange(offset, UInt64(bytes.readableBytes), upTo: Self.maximumRequestBytes)
        _ = try await submit(.write(offset: offset, payload: bytes))
    }

    /// The range reads as zeros from the return on, and its space may be released. Errors as of ``write(_:at:)``.
    public func discard(at offset: UInt64, count: UInt64) async throws(TwinLogError) {
        try checkChange(offset, count)
        _ = try await submit(.discard(offset: offset, length: count))
    }

    /// The range reads as zeros from the return on; `keepingSpace`: without giving its space away. Errors as of ``write(_:at:)``.
    public func writeZeroes(at offset: UInt64, count: UInt64, keepingSpace: Bool = false) async throws(TwinLogError) {
        try checkChange(offset, count)
        _ = try await submit(.writeZeroes(offset: offset, length: count, mayRelease: !keepingSpace))
    }

    /// Returns when everything that was acknowledged before, to any client, is durable in every copy that is in sync. Throws
    /// `servedElsewhere`, `closed` or `cancelled`.
    public func flush() async throws(TwinLogError) { _ = try await submit(.flush) }

    /// Ends this client's use. What was not begun is dropped: its calls throw `closed`, as do all later ones.
    public func close() async {
        await withCheckedContinuation { continuation in
            eventLoop.execute { [client] in
                client.value.close()
                continuation.resume()
            }
        }
    }

    private func endSession() { eventLoop.execute { [client] in client.value.close() } }

    private func submit(_ request: VolumeRequest) async throws(TwinLogError) -> ByteBuffer? {
        try await Answer.wait { answer in
            eventLoop.execute { [client] in client.value.submit(request, answer) }
        }
    }

    private func checkChange(_ offset: UInt64, _ count: UInt64, upTo most: UInt64 = .max) throws(TwinLogError) {
        guard !isReadOnly else { throw TwinLogError(.invalidValue, "volume '\(name)' is read-only") }
        try check(offset, count, upTo: most)
    }

    private func check(_ offset: UInt64, _ count: UInt64, upTo most: UInt64) throws(TwinLogError) {
        guard count > 0, count <= most, offset <= sizeBytes, count <= sizeBytes - offset else {
            throw TwinLogError(
                .invalidValue,
                "\(count) bytes at \(offset) are no range of volume '\(name)', which has \(sizeBytes), or too many at once"
            )
        }
    }
}

/// The session, and who waits for it. Bound to the event loop.
private final class VolumeClient {
    private let session: any VolumeSession
    private let name: String
    private var pending: [UInt64: Answer<ByteBuffer?>] = [:]
    private var lastID: UInt64 = 0
    /// Why nothing is carried out any more.
    private var end: TwinLogError?

    init(_ session: any VolumeSession, of name: String) {
        self.session = session
        self.name = name
        session.onRevoked = { [weak self] in
            self?.end(
                with: TwinLogError(
                    .servedElsewhere,
                    "volume '\(name)' is not served here any more; what was under way may have been carried out"))
        }
    }

    func submit(_ request: VolumeRequest, _ answer: Answer<ByteBuffer?>) {
        if let end {
            answer.give(.failure(end))
            return
        }
        lastID += 1
        let id = lastID
        pending[id] = answer
        session.submit(request) { [weak self] result in
            self?.pending.removeValue(forKey: id)?.give(result.mapError(TwinLogError.init))
        }
    }

    func close() {
        guard end == nil else { return }
        end(with: TwinLogError(.closed, "volume '\(name)' is closed"))
        session.close()
    }

    private func end(with error: TwinLogError) {
        end = error
        let waiting = pending
        pending = [:]
        for answer in waiting.values { answer.give(.failure(error)) }
    }
}
