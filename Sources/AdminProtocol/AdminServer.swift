// The node's side of the admin socket. Bound to one event loop. A client that sends nonsense, too much or nothing loses
// its connection and nothing else (S21). The socket has its mode before it listens; 0600 unless the configuration says otherwise (S22).

internal import CHostSupport
internal import Foundation
internal import Glibc
public import LogModel
public import NIOCore
internal import NIOPosix

public final class AdminServer {
    public static let maximumConnections = 64
    static let idleLimit = TimeAmount.seconds(60)
    /// Connections that wait to be accepted. Beyond it a Unix socket refuses at once, so it is above `maximumConnections`: who
    /// comes while the loop is busy is told by the node, not by the kernel.
    static let backlog: CInt = 256

    /// Called on the event loop; answers once.
    public typealias Handler = (AdminRequest, @escaping (AdminResponse) -> Void) -> Void

    private let eventLoop: any EventLoop
    private let path: String
    private let access: FileAccess
    fileprivate let handler: Handler
    private var listener: (any Channel)?
    private var socketFile = tl_socket_file()
    private var connections = 0

    public init(
        path: String, access: FileAccess = .ownerOnly, eventLoop: any EventLoop, handler: @escaping Handler
    ) {
        self.path = path
        self.access = access
        self.eventLoop = eventLoop
        self.handler = handler
    }

    /// Listens; a stale socket is replaced.
    public func start() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let socket = tl_host_listen_unix(path, Self.backlog, access.mode, access.group ?? .max, &socketFile)
        guard socket >= 0 else {
            return eventLoop.makeFailedFuture(IOError(errnoCode: -socket, reason: "\(path): cannot be listened on"))
        }
        return ServerBootstrap(group: eventLoop)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.accept(channel) }
            }
            .withBoundSocket(socket)
            .map { bound.value.listener = $0 }
    }

    private func accept(_ channel: any Channel) throws {
        guard connections < Self.maximumConnections else { throw ChannelError.inappropriateOperationForState }
        connections += 1
        channel.closeFuture.assumeIsolated().whenComplete { _ in self.connections -= 1 }
        try channel.pipeline.syncOperations.addHandlers([
            IdleStateHandler(readTimeout: Self.idleLimit), AdminConnection(server: self),
        ])
    }

    public func stop() {
        listener?.close(mode: .all, promise: nil)
        listener = nil
        tl_host_remove_socket(path, socketFile)
    }
}

private final class AdminConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let server: AdminServer
    private var input = ByteBuffer()
    /// The handler has a request.
    private var isAnswering = false
    /// An answer is on its way. The next request waits for its end, so that a client that never reads is never owed more
    /// than one.
    private var isSending = false
    /// No more requests come: the connection ends with the answer to the last one.
    private var isInputEnded = false

    init(server: AdminServer) { self.server = server }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        input.writeBuffer(&buffer)
        next(context.channel)
        if input.readableBytes > AdminRequest.maximumBytes { context.close(promise: nil) }
    }

    /// One request at a time a connection.
    private func next(_ channel: any Channel) {
        guard !isAnswering, !isSending else { return }
        guard let end = input.readableBytesView.firstIndex(of: UInt8(ascii: "\n")),
            let line = input.readSlice(length: end - input.readerIndex + 1)
        else {
            if isInputEnded { channel.close(mode: .all, promise: nil) }
            return
        }
        input.discardReadBytes()
        isAnswering = true
        do {
            let request = try AdminCodec.decode(AdminRequest.self, from: line.readableBytesView)
            server.handler(request) { response in self.answer(response, channel) }
        } catch {
            input.clear()
            answer(.refused("not a request of this version: \(error)"), channel)
            channel.close(mode: .all, promise: nil)
        }
    }

    private func answer(_ response: AdminResponse, _ channel: any Channel) {
        let line: [UInt8]
        do {
            line = try AdminCodec.line(response)
        } catch {
            channel.close(mode: .all, promise: nil)
            return
        }
        isAnswering = false
        isSending = true
        channel.writeAndFlush(ByteBuffer(bytes: line)).assumeIsolated().whenSuccess {
            self.isSending = false
            // Not from inside of the handler, nor deeper with every request of a client that sends many.
            channel.eventLoop.assumeIsolated().execute { self.next(channel) }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent, !isAnswering { context.close(promise: nil) }
        if let event = event as? ChannelEvent, event == .inputClosed {
            isInputEnded = true
            next(context.channel)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
