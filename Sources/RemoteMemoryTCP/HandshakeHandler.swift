// The first handler of a rail's connection: carries the handshake's frames, keeps its time limit, and puts the queue pair
// in its place when the peer has proved itself.

internal import LogModel
internal import NIOCore
internal import RemoteMemory

final class HandshakeHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var handshake: Handshake
    /// A dialer's: what it says first, and whom it means to meet.
    private let dialing: (hello: HandshakeFrame, peer: NodeID)?
    private let limit: TimeAmount
    /// What protects the connection, if anything does.
    private let security: (any RailSecurity)?
    /// One of the two is called, once. `accept` answers what takes the handler's place, or refuses all the same.
    private let accept: (RailPeer) throws(HandshakeFailure) -> TCPQueuePair
    private let failed: (HandshakeFailure) -> Void
    private var channel: (any Channel)?
    private var input = ByteBuffer()
    private var isComplete = false
    private var timer: Scheduled<Void>?

    init(
        _ handshake: Handshake, dialing: (hello: HandshakeFrame, peer: NodeID)? = nil, limit: TimeAmount,
        over security: (any RailSecurity)?,
        accept: @escaping (RailPeer) throws(HandshakeFailure) -> TCPQueuePair,
        failed: @escaping (HandshakeFailure) -> Void
    ) {
        self.handshake = handshake
        self.dialing = dialing
        self.limit = limit
        self.security = security
        self.accept = accept
        self.failed = failed
    }

    func handlerAdded(context: ChannelHandlerContext) { channel = context.channel }

    func channelActive(context: ChannelHandlerContext) {
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: limit) {
            self.fail(HandshakeFailure(.tooSlow, "no greeting within \(self.limit.nanoseconds / 1_000_000) ms"))
        }
        if let dialing { send(dialing.hello) }
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isComplete else { return }
        var buffer = unwrapInboundIn(data)
        input.writeBuffer(&buffer)
        do throws(HandshakeFailure) {
            while !isComplete, let frame = try nextFrame() {
                // Whoever is not the one that was dialled gets no proof.
                if let dialing { try check(dialing.peer, context) }
                let step = try handshake.receive(frame)
                if dialing == nil, let peer = step.peer { try check(peer.node, context) }
                let queuePair: TCPQueuePair? = if let peer = step.peer { try accept(peer) } else { nil }
                if let answer = step.answer { send(answer) }
                if let queuePair { install(queuePair, context) }
            }
        } catch {
            fail(error)
        }
    }

    private func check(_ peer: NodeID, _ context: ChannelHandlerContext) throws(HandshakeFailure) {
        guard let objection = security?.objection(to: peer, on: context.channel) else { return }
        throw HandshakeFailure(.wrongProof, objection)
    }

    /// `nil` while it is not whole. A length is checked before anything is waited for (S21).
    private func nextFrame() throws(HandshakeFailure) -> HandshakeFrame? {
        guard input.readableBytes >= FrameHeader.byteCount else { return nil }
        let header: FrameHeader
        do throws(RemoteMemoryError) {
            header = try FrameHeader(peeking: input)
        } catch {
            throw HandshakeFailure(.malformed, error.message)
        }
        guard header.payloadBytes <= HandshakeFrame.maximumPayloadBytes else {
            throw HandshakeFailure(.malformed, "a greeting of \(header.payloadBytes) bytes")
        }
        guard input.readableBytes >= FrameHeader.byteCount + Int(header.payloadBytes) else { return nil }
        input.moveReaderIndex(forwardBy: FrameHeader.byteCount)
        let payload = input.readBytes(length: Int(header.payloadBytes)) ?? []
        guard payload.withUnsafeBytes({ frameChecksum($0) }) == header.payloadChecksum else {
            throw HandshakeFailure(.malformed, "the greeting is damaged")
        }
        return HandshakeFrame(header.kind, payload, number: header.key)
    }

    private func install(_ queuePair: TCPQueuePair, _ context: ChannelHandlerContext) {
        isComplete = true
        timer?.cancel()
        do {
            try context.pipeline.syncOperations.addHandler(queuePair, position: .after(self))
        } catch {
            return context.close(promise: nil)
        }
        if input.readableBytes > 0 {
            context.fireChannelRead(wrapInboundOut(input))
            context.fireChannelReadComplete()
        }
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    /// Ends the connection. A listener says why; a dialer says nothing to whom it does not trust.
    func fail(_ failure: HandshakeFailure) {
        guard !isComplete else { return }
        isComplete = true
        timer?.cancel()
        if dialing == nil { send(HandshakeFrame(failure)) }
        failed(failure)
        channel?.close(mode: .all, promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(HandshakeFailure(ended: "the connection ended before the greeting"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Whose words are its own has seen something that an operator should know.
        if let words = security?.words(for: error) { return fail(HandshakeFailure(.wrongProof, words)) }
        fail(HandshakeFailure(ended: "the connection failed: \(error.systemWords)"))
    }

    private func send(_ frame: HandshakeFrame) {
        guard let channel else { return }
        var buffer = channel.allocator.buffer(capacity: FrameHeader.byteCount + frame.payload.count)
        frame.payload.withUnsafeBytes { FrameHeader(frame.kind, payload: $0, key: frame.number).write(to: &buffer) }
        buffer.writeBytes(frame.payload)
        channel.writeAndFlush(buffer, promise: nil)
    }
}
