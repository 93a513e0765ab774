// One rail's connection: the initiator's side of its own requests and the target's side of the peer's, over one TCP
// connection. The channel's handler and the user's queue pair in one object, bound to the channel's event loop.
//
// Target: the frames that one read brought are executed in order, straight from the buffer; then every region touched is
// persisted once and one cumulative completion answers them all (S11). While a persist is under way the next frames are
// stored already and share the next persist. If too much waits for persists, the socket is not read.

public import LoopChange
internal import LoopPolling
public import NIOCore
public import RemoteMemory

public final class TCPQueuePair: QueuePair, ChannelInboundHandler, RemovableChannelHandler {
    public typealias InboundIn = ByteBuffer
    public typealias OutboundOut = ByteBuffer

    /// Bytes stored and not persisted at which the socket is not read for a while: twice the peer's window, so that a
    /// peer that keeps to its window never meets it.
    static let unpersistedLimitBytes = 2 * RemoteMemoryLimits.windowBytes

    /// Bytes of answers that are not sent yet: the data of a window of READs and the frames around them. A peer that keeps to
    /// its window and reads never meets it, since it posts anew only after a completion, which follows the data.
    static let unsentAnswersLimitBytes =
        RemoteMemoryLimits.windowBytes + 4 * RemoteMemoryLimits.windowRequests * FrameHeader.byteCount

    /// Bytes of one read from the socket, and of one turn of the loop: a frame of 64 KiB comes whole, and so do most of those that a busy
    /// owner ships. Other connections have their turn after about a third of a millisecond (S28).
    static let readBytes = 256 << 10
    static let readAllocator = FixedSizeRecvByteBufferAllocator(capacity: readBytes)

    public weak var delegate: (any QueuePairDelegate)?
    public let eventLoop: any EventLoop
    private let registry: TCPRegionRegistry
    private let isPlain: Bool
    private let poller: LoopPoller?
    private var channel: (any Channel)?
    private var output: RailOutput?
    private var input = ByteBuffer()
    private var failure: RemoteMemoryError?
    private var isReading = false
    /// Another loop goes on with the connection: what arrives is kept for it.
    private var isDetached = false

    // The initiator's side
    private var lastPosted: WorkRequestID = 0
    private var outstanding = CircularBuffer<(id: WorkRequestID, bytes: Int)>()
    /// READs posted and not answered, with the bytes asked for.
    private var reads = CircularBuffer<(id: WorkRequestID, bytes: Int)>()
    private var outstandingBytes = 0

    // The target's side
    private var lastExecuted: WorkRequestID = 0
    private var touched: [TCPRegionRegistry.Entry] = []
    private var unpersistedBytes = 0
    private var isPersisting = false
    private var errorAfterPersist: RemoteMemoryError?
    private var isReadPaused = false

    /// `isPlain`: no TLS beneath it.
    init(eventLoop: any EventLoop, registry: TCPRegionRegistry, isPlain: Bool, poller: LoopPoller? = nil) {
        self.poller = poller
        self.eventLoop = eventLoop
        self.registry = registry
        self.isPlain = isPlain
    }

    public var creditBytes: Int {
        guard failure == nil, outstanding.count < RemoteMemoryLimits.windowRequests else { return 0 }
        return max(0, RemoteMemoryLimits.windowBytes - outstandingBytes)
    }

    // MARK: Posting

    @discardableResult
    public func postWrite(
        _ bytes: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try checkLength(bytes.count)
        return try post(.write, payload: bytes, key: key, offset: offset)
    }

    @discardableResult
    public func postAtomicWrite(
        _ value: UInt64, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        guard offset % 8 == 0 else {
            throw RemoteMemoryError(.invalidRequest, "an ATOMIC WRITE at \(offset) is not aligned")
        }
        let result = withUnsafeBytes(of: value.littleEndian) { bytes in
            Result { () throws(RemoteMemoryError) in try post(.atomicWrite, payload: bytes, key: key, offset: offset) }
        }
        return try result.get()
    }

    @discardableResult
    public func postRead(key: RegionKey, offset: UInt64, length: Int) throws(RemoteMemoryError) -> WorkRequestID {
        try checkLength(length)
        return try post(.read, payload: .empty, key: key, offset: offset, readBytes: UInt32(length))
    }

    @discardableResult
    public func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID {
        try post(.flush, payload: .empty, key: key, offset: 0)
    }

    public func send(_ message: [UInt8]) throws(RemoteMemoryError) {
        try checkLength(message.count)
        if let failure { throw failure }
        let result = message.withUnsafeBytes { bytes in
            Result { () throws(RemoteMemoryError) in try answer(FrameHeader(.message, payload: bytes), bytes) }
        }
        if case .failure(let error) = result {
            fail(error)
            throw error
        }
    }

    private func checkLength(_ count: Int) throws(RemoteMemoryError) {
        guard 0...RemoteMemoryLimits.maximumTransferBytes ~= count else {
            throw RemoteMemoryError(.invalidRequest, "\(count) bytes are not what one request carries")
        }
    }

    private func post(
        _ kind: FrameKind, payload: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64, readBytes: UInt32 = 0
    ) throws(RemoteMemoryError) -> WorkRequestID {
        eventLoop.preconditionInEventLoop()
        if let failure { throw failure }
        let bytes = max(payload.count, Int(readBytes))
        guard outstanding.count < RemoteMemoryLimits.windowRequests,
            outstandingBytes + bytes <= RemoteMemoryLimits.windowBytes
        else {
            throw RemoteMemoryError(.noCredit, "the window is full")
        }
        lastPosted += 1
        outstanding.append((lastPosted, bytes))
        outstandingBytes += bytes
        if kind == .read { reads.append((lastPosted, bytes)) }
        output?.send(
            FrameHeader(
                kind, payload: payload, request: lastPosted, key: key.rawValue, offset: offset, readBytes: readBytes),
            payload, isAnswer: false)
        return lastPosted
    }

    /// An answer to the peer's requests or messages. A peer that asks and never reads loses the connection (S21).
    private func answer(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer) throws(RemoteMemoryError) {
        guard let output else { return }
        let bytes = FrameHeader.byteCount + payload.count
        guard output.unsentAnswerBytes + bytes <= Self.unsentAnswersLimitBytes else {
            throw RemoteMemoryError(
                .protocolViolation, "the peer asks for more than its window and does not read the answers")
        }
        output.send(header, payload, isAnswer: true)
    }

    public func close() {
        fail(RemoteMemoryError(.disconnected, "closed by this side"))
    }

    // MARK: The channel

    public func handlerAdded(context: ChannelHandlerContext) {
        // Closed by whoever it was made for, before it got its place.
        guard failure == nil else { return context.close(promise: nil) }
        channel = context.channel
        output = RailOutput(context.channel, isPlain: isPlain)
        poller?.watch(context.channel)
    }

    public func channelInactive(context: ChannelHandlerContext) {
        fail(RemoteMemoryError(.disconnected, "the connection ended"))
        context.fireChannelInactive()
    }

    public func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(RemoteMemoryError(.disconnected, "the connection failed: \(error.systemWords)"))
    }

    public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // After a request that was refused nothing is executed any more, so nothing is kept either.
        guard failure == nil, errorAfterPersist == nil else { return }
        poller?.heard()
        var buffer = unwrapInboundIn(data)
        if input.readableBytes == 0 { input = buffer } else { input.writeBuffer(&buffer) }
        guard !isDetached else { return }
        isReading = true
        output?.isReading = true
        executeFrames()
    }

    public func channelReadComplete(context: ChannelHandlerContext) {
        guard isReading, failure == nil, !isDetached else { return }
        isReading = false
        delegate?.queuePairHeard(self)
        persistTouched()
        output?.isReading = false
        output?.flush()
        updateReading()
    }

    /// Executes whole frames of `input`; less than one frame stays in it, so it is bounded by a frame and a read.
    private func executeFrames() {
        do throws(RemoteMemoryError) {
            while failure == nil, errorAfterPersist == nil, !isDetached, input.readableBytes > 0 {
                guard input.readableBytes >= FrameHeader.byteCount else {
                    return makeRoom(forFrameOf: FrameHeader.byteCount)
                }
                let header = try FrameHeader(peeking: input)
                let total = FrameHeader.byteCount + Int(header.payloadBytes)
                guard input.readableBytes >= total else { return makeRoom(forFrameOf: total) }
                input.moveReaderIndex(forwardBy: FrameHeader.byteCount)
                guard let payload = input.readSlice(length: Int(header.payloadBytes)) else { break }
                guard payload.withUnsafeReadableBytes({ frameChecksum($0) }) == header.payloadChecksum else {
                    throw RemoteMemoryError(.protocolViolation, "the payload of a frame is damaged")
                }
                try receive(header, payload)
            }
            // Let go of, so that the next read fills the same memory.
            if !isDetached { input = ByteBuffer() }
        } catch {
            violated(error)
        }
    }

    /// Moves the beginning of a frame, once, to where the rest of it has room, and what a read may bring behind it.
    private func makeRoom(forFrameOf total: Int) {
        let needed = total + Self.readBytes
        guard input.readerIndex > 0 || input.capacity < needed else { return }
        var room = ByteBufferAllocator().buffer(capacity: needed)
        room.writeImmutableBuffer(input)
        input = room
    }

    private func receive(_ header: FrameHeader, _ payload: ByteBuffer) throws(RemoteMemoryError) {
        switch header.kind {
        case .write, .atomicWrite, .read, .flush: try execute(header, payload)
        case .message: delegate?.queuePair(self, received: Array(payload.readableBytesView))
        case .complete: try completed(through: header.request)
        case .readData:
            guard let read = reads.popFirst(), read.id == header.request, read.bytes == payload.readableBytes else {
                throw RemoteMemoryError(
                    .protocolViolation, "\(payload.readableBytes) bytes answer no READ that was posted")
            }
            delegate?.queuePair(self, read: header.request, returned: Array(payload.readableBytesView))
        case .error:
            let text = String(decoding: payload.readableBytesView.prefix(512), as: UTF8.self)
            fail(
                RemoteMemoryError(
                    header.key == 1 ? .access : .remoteOperation, "the partner refused a request: \(text)"))
        case .hello, .welcome, .refuse, .proof, .accept:
            throw RemoteMemoryError(.protocolViolation, "a greeting in the middle of a connection")
        }
    }

    private func completed(through id: WorkRequestID) throws(RemoteMemoryError) {
        guard let oldest = outstanding.first, oldest.id <= id, id <= lastPosted else {
            throw RemoteMemoryError(.protocolViolation, "request \(id) is completed, but is not outstanding")
        }
        if let read = reads.first, read.id <= id {
            throw RemoteMemoryError(.protocolViolation, "READ \(read.id) is completed, but was not answered")
        }
        while let first = outstanding.first, first.id <= id {
            outstandingBytes -= first.bytes
            outstanding.removeFirst()
        }
        delegate?.queuePair(self, completedThrough: id)
    }

    // MARK: The target's side

    private func execute(_ header: FrameHeader, _ payload: ByteBuffer) throws(RemoteMemoryError) {
        guard header.request == lastExecuted + 1 else {
            throw RemoteMemoryError(.protocolViolation, "request \(header.request) follows \(lastExecuted)")
        }
        do throws(RemoteMemoryError) {
            try store(header, payload)
            lastExecuted = header.request
        } catch {
            // What came before it is persisted and completed first; nothing after it is executed.
            errorAfterPersist = error
        }
    }

    private func store(_ header: FrameHeader, _ payload: ByteBuffer) throws(RemoteMemoryError) {
        let length = header.kind == .read ? UInt64(header.readBytes) : UInt64(payload.readableBytes)
        let entry = try registry.entry(header.key, offset: header.offset, length: length)
        switch header.kind {
        case .write:
            let result = payload.withUnsafeReadableBytes { bytes in
                Result { () throws(RemoteMemoryError) in try entry.target.write(bytes, at: header.offset) }
            }
            try result.get()
        case .atomicWrite:
            guard payload.readableBytes == 8, header.offset % 8 == 0,
                let value = payload.getInteger(at: payload.readerIndex, endianness: .little, as: UInt64.self)
            else { throw RemoteMemoryError(.protocolViolation, "an ATOMIC WRITE that is not one aligned word") }
            try entry.target.atomicWrite(value, at: header.offset)
        case .read: try answerRead(header, entry)
        default: break
        }
        unpersistedBytes += payload.readableBytes
        if !touched.contains(where: { $0 === entry }) { touched.append(entry) }
    }

    private func answerRead(_ header: FrameHeader, _ entry: TCPRegionRegistry.Entry) throws(RemoteMemoryError) {
        var bytes = [UInt8](repeating: 0, count: Int(header.readBytes))
        let result = bytes.withUnsafeMutableBytes { space in
            Result { () throws(RemoteMemoryError) in try entry.target.read(into: space, at: header.offset) }
        }
        try result.get()
        let answered = bytes.withUnsafeBytes { bytes in
            Result { () throws(RemoteMemoryError) in
                try answer(FrameHeader(.readData, payload: bytes, request: header.request), bytes)
            }
        }
        try answered.get()
    }

    private func persistTouched() {
        guard !isPersisting, failure == nil else { return }
        guard !touched.isEmpty else { return reportError() }
        let entries = touched
        let through = lastExecuted
        touched = []
        unpersistedBytes = 0
        isPersisting = true
        var waiting = entries.count
        var failed: RemoteMemoryError?
        for entry in entries {
            entry.persistsUnderWay += 1
            entry.target.persist { error in
                self.eventLoop.preconditionInEventLoop()
                entry.persistsUnderWay -= 1
                if entry.persistsUnderWay == 0, let idle = entry.onIdle {
                    entry.onIdle = nil
                    idle()
                }
                failed = failed ?? error
                waiting -= 1
                if waiting == 0 { self.persisted(through: through, failed) }
            }
        }
    }

    private func persisted(through id: WorkRequestID, _ failed: RemoteMemoryError?) {
        isPersisting = false
        guard failure == nil else { return }
        if let failed {
            errorAfterPersist = errorAfterPersist ?? failed
            return reportError()
        }
        do throws(RemoteMemoryError) {
            try answer(FrameHeader(.complete, request: id), .empty)
        } catch {
            return violated(error)
        }
        updateReading()
        persistTouched()
    }

    /// The peer hears why its request was not executed; then the connection ends.
    private func reportError() {
        guard let error = errorAfterPersist, failure == nil else { return }
        let text = Array(error.message.utf8.prefix(512))
        text.withUnsafeBytes {
            output?.send(
                FrameHeader(.error, payload: $0, request: lastExecuted + 1, key: error.code == .access ? 1 : 2), $0,
                isAnswer: false)
        }
        fail(error)
    }

    private func updateReading() {
        let shouldPause = unpersistedBytes > Self.unpersistedLimitBytes
        guard shouldPause != isReadPaused, let channel else { return }
        isReadPaused = shouldPause
        channel.setOption(.autoRead, value: !shouldPause).whenFailure { _ in }
    }

    // MARK: Another loop

    /// Lets go of the connection, for another event loop to go on with it (``attach(_:to:registry:poller:made:)``). The delegate hears nothing
    /// more. The future fails if the connection ends before, or if more than messages has come on it. Precondition: nothing was posted.
    public func detach() -> EventLoopFuture<DetachedConnection> {
        precondition(lastPosted == 0, "requests stay on the loop where they began")
        delegate = nil
        if lastExecuted > 0 {
            fail(RemoteMemoryError(.protocolViolation, "requests came before the rail said which group it is for"))
        }
        guard failure == nil, let channel else {
            return eventLoop.makeFailedFuture(failure ?? RemoteMemoryError(.disconnected, "it has not begun"))
        }
        isDetached = true
        output?.isReading = false
        output?.flush()
        return LoopChange.detach(channel, from: self, isPlain: isPlain) { [self] in
            defer { input = ByteBuffer() }
            return input
        }
    }

    // MARK: The end

    private func violated(_ error: RemoteMemoryError) {
        fail(error)
    }

    private func fail(_ error: RemoteMemoryError) {
        guard failure == nil else { return }
        failure = error
        input.clear()
        outstanding.removeAll()
        reads.removeAll()
        output?.flush()
        output = nil
        channel?.close(mode: .all, promise: nil)
        channel = nil
        // Never from inside of `post` or `close`.
        eventLoop.assumeIsolated().execute {
            let delegate = self.delegate
            self.delegate = nil
            delegate?.queuePair(self, failed: error)
        }
    }
}
