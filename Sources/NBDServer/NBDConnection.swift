// One client: the handshake, then requests, answered in the order in which they complete. Everything that a client can
// make grow has a limit (S21, S28); a client that breaks the protocol loses its connection and nothing else.
//
// A client that sends no more, by a goodbye or by closing its half, still gets what it is due: what came whole is carried
// out and answered, then the connection is closed. After a goodbye it is carried out even if nobody is there to be answered.

internal import Foundation
internal import GroupEngine
internal import LoopChange
internal import Logging
internal import LoopPolling
internal import NBDProtocol
internal import NIOCore

/// The room of a connection, for the connection. Bound to the event loop.
protocol NBDConnectionOwner: AnyObject {
    var commons: NBDCommons { get }
    var service: any VolumeService { get }
    var poller: LoopPoller? { get }
    /// Ends connections that the client of `newer` has given up.
    func endOlder(than newer: NBDConnection)
    /// A client waits for memory that others hold.
    func watchMemory()
    func ended(_ connection: NBDConnection)
    /// It goes on at `place`, with its place among the clients.
    func move(_ connection: NBDConnection, _ moving: MovingConnection, to place: VolumePlace)
}

final class NBDConnection: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let room: any NBDConnectionOwner
    let limits: NBDServerLimits
    let channel: any Channel
    let account: ClientAccount
    let peer: String
    let connected: Date
    /// Why nothing is served on this connection, if so.
    let refusal: String?
    var handshake: NBDServerHandshake
    var input = ByteBuffer()
    var session: (any VolumeSession)?
    var transmission: NBDTransmission?
    /// Its name.
    var export: String?
    /// The volume and itself, as a client that names itself asked for them.
    var named: NamedExport?
    /// A request whose memory is not there yet, or whose payload has not all arrived.
    var incoming: NBDRequest?
    /// Bytes of a refused WRITE that are still to come: let go of as they arrive.
    var skipping = 0
    var requestsInFlight = 0
    /// Of reads that are being carried out; what they brought then waits in the channel.
    var readBytesInFlight = 0
    var isPaused = false
    var isClosed = false
    /// TLS with the client is on this loop.
    var hasTLSHere = false
    /// What stayed where the connection came from, with TLS, if it came from elsewhere with that.
    let outer: OuterConnection?
    /// On its way to the room of the volume that its client has named: nothing is done here any more.
    var isMoving = false
    /// The client closed its half.
    var isInputEnded = false
    /// What is known of the end of that.
    var outerEnd: OuterConnection.End?
    /// Of this turn of the loop, without the data of READs.
    var replies = ByteBuffer()
    var isFlushScheduled = false
    var timer: Scheduled<Void>?
    /// When the handshake came to its present step.
    var stepped = NIODeadline.now()
    var giveUpOpening: (() -> Void)?
    var ending = Ending.open
    var debt = Debt()

    /// How far the end of this connection is.
    enum Ending {
        case open
        /// No further request is taken; what is under way is answered. After a goodbye also if the channel is gone.
        case finishing(saidGoodbye: Bool)
        /// Everything is answered; the channel has not sent all of it.
        case sending
    }

    /// What the client has not done yet about memory that it borrowed.
    struct Debt {
        /// The rest of a payload is awaited since.
        var payloadSince: NIODeadline?
        var unsentReplies = 0
        /// The last of these replies was taken, or the first was given, then.
        var repliesSince: NIODeadline?
    }

    private init(
        _ room: any NBDConnectionOwner, _ channel: any Channel, _ handshake: NBDServerHandshake, _ peer: String,
        _ connected: Date, refusal: String?, outer: OuterConnection? = nil
    ) {
        self.outer = outer
        self.room = room
        limits = room.commons.limits
        self.channel = channel
        self.handshake = handshake
        self.peer = peer
        self.connected = connected
        self.refusal = refusal
        account = ClientAccount(room.commons.memory, on: channel.eventLoop)
        account.onGranted = { [unowned self] in resume() }
    }

    convenience init(room: any NBDConnectionOwner, channel: any Channel, refusal: String?) {
        let security = room.commons.security
        let handshake = NBDServerHandshake(tls: security.map { $0.isRequired ? .required : .allowed } ?? .off)
        self.init(room, channel, handshake, channel.peerName, Date(), refusal: refusal)
    }

    /// One that has come from another loop; ``goOn(from:)`` follows.
    convenience init(room: any NBDConnectionOwner, channel: any Channel, _ moving: MovingConnection) {
        self.init(
            room, channel, moving.handshake, moving.peer, moving.connected, refusal: nil, outer: moving.outer)
        isInputEnded = moving.isInputEnded
    }

    // MARK: The channel

    func channelActive(context: ChannelHandlerContext) {
        restartTimer()
        channel.writeAndFlush(NBDServerHandshake.greeting(), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isClosed, case .open = ending else { return }
        if session != nil { room.poller?.heard() }
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

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed {
            isInputEnded = true
            session?.endInput()
            process()
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        channelEnded()
        context.fireChannelInactive()
    }

    /// Of a client that said goodbye, what is under way goes on to its end.
    func channelEnded() {
        if case .finishing(saidGoodbye: true) = ending, requestsInFlight > 0 { return }
        // The socket goes on elsewhere, or its move fails.
        guard !isMoving else { return }
        end()
    }

    /// What happened to the part of the connection that stayed where it came from is known before all that came through it is read: what
    /// was sent to a client that is gone, or by it, outlives nobody (S24).
    func outerEnded(_ end: OuterConnection.End) {
        guard !isClosed, !isMoving else { return }
        switch end {
        case .input: session?.endInput()
        case .all:
            channelEnded()
            if isClosed { channel.close(mode: .all, promise: nil) }
        }
        outerEnd = end
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        room.commons.logger.debug("NBD connection failed: \(error)")
        channel.close(mode: .all, promise: nil)
    }

    func close() {
        guard !isClosed else { return }
        end()
        channel.close(mode: .all, promise: nil)
    }

    private func end() {
        guard !isClosed else { return }
        isClosed = true
        timer?.cancel()
        input.clear()
        giveUpOpening?()
        giveUpOpening = nil
        session?.close()
        session = nil
        account.close()
        room.ended(self)
    }

    func fail(_ reason: String) {
        guard !isClosed else { return }
        room.commons.logger.info("NBD connection of \(peer) closed: \(reason)")
        close()
    }

    func process() {
        guard !isMoving else { return }
        do throws(NBDProtocolError) {
            if !handshake.isTransmission { try shakeHands() }
            if handshake.isTransmission { try takeRequests() }
            // Without it a stream that never pauses at the end of a request would grow the buffer for ever.
            if input.readerIndex > input.readableBytes { input.discardReadBytes() }
        } catch {
            fail(error.message)
        }
    }

    // MARK: The end

    /// No further request is taken; what is under way is answered.
    func finish(saidGoodbye: Bool) {
        ending = .finishing(saidGoodbye: saidGoodbye)
        session?.endInput()
        dropIncoming()
        input.clear()
        leaveIfDone()
    }

    func leaveIfDone() {
        guard case .finishing = ending, requestsInFlight == 0, !isClosed else { return }
        guard channel.isActive else { return end() }
        ending = .sending
        session?.close()
        session = nil
        handOverReplies()
        channel.writeAndFlush(ByteBuffer()).assumeIsolated().whenComplete { _ in self.close() }
    }
}
