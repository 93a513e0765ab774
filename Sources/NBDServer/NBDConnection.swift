// One client: the handshake, then requests, answered in the order in which they complete. Everything that a client can
// make grow has a limit (S21); a client that breaks the protocol loses its connection and nothing else.

internal import Logging
internal import NBDProtocol
internal import NIOCore
internal import StorageNode

final class NBDConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private unowned let server: NBDServer
    private let channel: any Channel
    private var handshake = NBDServerHandshake()
    private var input = ByteBuffer()
    private var session: (any VolumeSession)?
    private var export: NBDExportInfo?
    /// A request whose payload has not all arrived.
    private var incoming: NBDRequest?
    /// Bytes of a refused WRITE that are still to come: let go of as they arrive.
    private var skipping = 0
    private var requestsInFlight = 0
    /// Of reads that are being carried out; what they brought then waits in the channel.
    private var readBytesInFlight = 0
    private var isPaused = false
    private var isClosed = false
    private var isDisconnecting = false
    private var isFlushScheduled = false
    private var timer: Scheduled<Void>?
    private var giveUpOpening: (() -> Void)?

    init(server: NBDServer, channel: any Channel) {
        self.server = server
        self.channel = channel
    }

    // MARK: The channel

    func channelActive(context: ChannelHandlerContext) {
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: server.limits.handshake) {
            self.fail("no handshake within \(self.server.limits.handshake.nanoseconds / 1_000_000_000) s")
        }
        channel.writeAndFlush(NBDServerHandshake.greeting(), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isClosed, !isDisconnecting else { return }
        var buffer = unwrapInboundIn(data)
        if input.readableBytes == 0 { input = buffer } else { input.writeBuffer(&buffer) }
        process()
        // A socket that was closed by its peer is read to its end whatever autoRead says.
        if input.readableBytes > Int(NBD.maximumPayloadBytes) + (4 << 20) {
            fail("more than one request's bytes arrived while none could be taken")
        }
    }

    /// A client that does not read its replies, of whatever kind, is not served until it does.
    func channelWritabilityChanged(context: ChannelHandlerContext) {
        resume()
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        server.logger.debug("NBD connection failed: \(error)")
        close()
    }

    func close() {
        guard !isClosed else { return }
        end()
        channel.close(mode: .all, promise: nil)
    }

    private func end() {
        isClosed = true
        timer?.cancel()
        input.clear()
        giveUpOpening?()
        giveUpOpening = nil
        session?.close()
        session = nil
    }

    private func fail(_ reason: String) {
        guard !isClosed else { return }
        server.logger.info("NBD connection closed: \(reason)")
        close()
    }

    private func process() {
        do throws(NBDProtocolError) {
            if !handshake.isTransmission { try shakeHands() }
            if handshake.isTransmission { try takeRequests() }
            // Without it a stream that never pauses at the end of a request would grow the buffer for ever.
            if input.readerIndex > input.readableBytes { input.discardReadBytes() }
        } catch {
            fail(error.message)
        }
    }

    // MARK: The handshake

    private func shakeHands() throws(NBDProtocolError) {
        while !isClosed, !handshake.isTransmission, let step = try handshake.next(&input) { perform(step) }
    }

    private func perform(_ step: NBDServerHandshake.Step) {
        switch step {
        case .send(let buffer): channel.writeAndFlush(buffer, promise: nil)
        case .list: perform(handshake.answerList(server.service.volumes().map(\.name)))
        case .close: close()
        case .find(let name, .info): answer(server.service.find(name).map(Self.info))
        case .find(let name, _): open(name)
        }
    }

    private static func info(_ volume: VolumeInfo) -> NBDExportInfo {
        NBDExportInfo(
            sizeBytes: volume.sizeBytes,
            flags: [.hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConn])
    }

    private func open(_ name: String) {
        let found = server.service.find(name)
        guard case .success(let volume) = found else { return answer(found.map(Self.info)) }
        var isAnswered = false
        var isLater = false
        let giveUp = server.service.open(name) { [self] result in
            isAnswered = true
            giveUpOpening = nil
            switch result {
            case .success(let session):
                guard !isClosed else { return session.close() }
                begin(session, Self.info(volume))
                answer(.success(Self.info(volume)))
            case .failure(let refusal): answer(.failure(refusal))
            }
            if isLater { process() }
        }
        isLater = true
        if !isAnswered { giveUpOpening = giveUp }
    }

    private func answer(_ result: Result<NBDExportInfo, VolumeRefusal>) {
        guard !isClosed else { return }
        let answer: NBDServerHandshake.Answer =
            switch result {
            case .success(let info): .export(info)
            case .failure(let refusal):
                .refused(
                    refusal.code == .unknownVolume ? .unknown : refusal.code == .ownedElsewhere ? .policy : .shutdown,
                    refusal.message)
            }
        for step in handshake.answer(answer) { perform(step) }
    }

    private func begin(_ session: any VolumeSession, _ info: NBDExportInfo) {
        timer?.cancel()
        self.session = session
        export = info
        session.onRevoked = { [weak self] in self?.fail("the volume is not served here any more") }
        session.onUnparked = { [weak self] in self?.resume() }
    }

    // MARK: Requests

    private var mayTakeRequest: Bool {
        requestsInFlight < server.limits.requests && readBytesInFlight < server.limits.readBytes && channel.isWritable
            && (session?.parkedBytes ?? 0) < server.limits.parkedBytes
    }

    private func takeRequests() throws(NBDProtocolError) {
        while !isClosed, !isDisconnecting {
            if skipping > 0 {
                let count = min(skipping, input.readableBytes)
                input.moveReaderIndex(forwardBy: count)
                skipping -= count
                guard skipping == 0 else { break }
            }
            if incoming == nil {
                guard mayTakeRequest, let request = try NBDRequest.read(&input) else { break }
                incoming = request
            }
            guard let request = incoming, try take(request) else { break }
            incoming = nil
        }
        updateReading()
    }

    /// Carries out a request, or refuses it; false if its payload is not all here.
    private func take(_ request: NBDRequest) throws(NBDProtocolError) -> Bool {
        guard let export else { return false }
        if let problem = request.problem(sizeBytes: export.sizeBytes) {
            if request.command == .write { skipping = Int(request.length) }
            refuse(request, problem, "the request is not possible on this export of \(export.sizeBytes) bytes")
            return true
        }
        var payload: ByteBuffer?
        if request.command == .write {
            guard input.readableBytes >= Int(request.length) else { return false }
            payload = input.readSlice(length: Int(request.length))
        }
        carryOut(request, payload)
        return true
    }

    private func carryOut(_ request: NBDRequest, _ payload: ByteBuffer?) {
        let length = UInt64(request.length)
        let volumeRequest: VolumeRequest
        switch request.command {
        case .read: volumeRequest = .read(offset: request.offset, length: Int(request.length))
        case .write: volumeRequest = .write(offset: request.offset, payload: payload ?? ByteBuffer())
        case .trim: volumeRequest = .discard(offset: request.offset, length: length)
        case .writeZeroes:
            volumeRequest = .writeZeroes(
                offset: request.offset, length: length, mayRelease: !request.flags.contains(.noHole))
        case .flush: volumeRequest = .flush
        case .disconnect, nil:
            isDisconnecting = true
            return closeIfDone()
        }
        requestsInFlight += 1
        if request.command == .read { readBytesInFlight += Int(request.length) }
        session?.submit(volumeRequest) { [weak self] result in self?.completed(request, result) }
    }

    private func completed(_ request: NBDRequest, _ result: Result<ByteBuffer?, VolumeError>) {
        guard !isClosed else { return }
        requestsInFlight -= 1
        if request.command == .read { readBytesInFlight -= Int(request.length) }
        switch result {
        case .success(let data):
            if request.command == .read, let data {
                reply(request, data)
            } else {
                reply { NBDReply.done(request.cookie, into: &$0) }
            }
        case .failure(let error):
            let code: NBD.ErrorCode
            switch error {
            case .outOfRange: code = .invalid
            case .readFailed: code = .io
            }
            refuse(request, code, "\(error)")
        }
        resume()
        closeIfDone()
    }

    private func reply(_ request: NBDRequest, _ data: ByteBuffer) {
        precondition(data.readableBytes == Int(request.length), "a read answers with exactly its bytes")
        reply {
            NBDReply.data(
                request.cookie, offset: request.offset, length: data.readableBytes, structured: handshake.isStructured,
                into: &$0)
        }
        channel.write(data, promise: nil)
    }

    private func refuse(_ request: NBDRequest, _ code: NBD.ErrorCode, _ message: String) {
        if request.command == .read {
            reply {
                NBDReply.readError(
                    request.cookie, code, message: message, structured: handshake.isStructured, into: &$0)
            }
        } else {
            reply { NBDReply.done(request.cookie, error: code, into: &$0) }
        }
    }

    /// Replies of one turn of the loop leave with one flush.
    private func reply(_ build: (inout ByteBuffer) -> Void) {
        var buffer = channel.allocator.buffer(capacity: 32)
        build(&buffer)
        channel.write(buffer, promise: nil)
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        channel.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            if !self.isClosed { self.channel.flush() }
        }
    }

    private func closeIfDone() {
        guard isDisconnecting, requestsInFlight == 0, !isClosed else { return }
        channel.flush()
        close()
    }

    // MARK: Back-pressure

    private func updateReading() {
        let shouldPause = !isClosed && incoming == nil && skipping == 0 && !mayTakeRequest
        guard shouldPause != isPaused, !isClosed else { return }
        isPaused = shouldPause
        channel.setOption(.autoRead, value: !shouldPause).whenFailure { _ in }
    }

    private func resume() {
        guard isPaused, mayTakeRequest, !isClosed else { return }
        // Not from inside of a completion: the request queue may be in the middle of its own work.
        channel.eventLoop.assumeIsolated().execute {
            guard self.isPaused, !self.isClosed else { return }
            self.process()
            self.updateReading()
        }
    }
}
