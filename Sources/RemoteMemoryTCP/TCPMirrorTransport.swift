// Making rails: a listener and a dialer. Both sides greet before anything else; who is of another cluster, speaks another
// version, talks nonsense or says nothing in time loses the connection, with a reason where one can be told.

public import LogModel
public import NIOCore
internal import NIOPosix
public import RemoteMemory

public struct RailAddress: Hashable, Sendable, CustomStringConvertible {
    public var host: String
    public var port: Int

    /// HOST:PORT, an IPv6 host in brackets.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65535).contains(port)
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard !host.isEmpty else { return nil }
        self.host = host
        self.port = port
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Who this node is on its rails.
public struct RailIdentity: Hashable, Sendable {
    public var cluster: String
    public var node: NodeID
    public init(cluster: String, node: NodeID) {
        self.cluster = cluster
        self.node = node
    }
}

/// Accepts rails. Bound to one event loop; every rail lives on it.
public final class TCPMirrorListener {
    /// A node has a rail per group and direction; far above what one cluster needs, and a bound all the same.
    public static let maximumConnections = 256

    private let eventLoop: any EventLoop
    private let identity: RailIdentity
    private let registry: TCPRegionRegistry
    private let greetingLimit: TimeAmount
    private let onAccepted: (TCPQueuePair, NodeID) -> Void
    private var servers: [any Channel] = []
    private var connections = 0

    /// `onAccepted` is called on the loop with each rail that greeted well; it sets the delegate before returning.
    public init(
        identity: RailIdentity, registry: TCPRegionRegistry, eventLoop: any EventLoop,
        greetingLimit: TimeAmount = .seconds(5), onAccepted: @escaping (TCPQueuePair, NodeID) -> Void
    ) {
        self.identity = identity
        self.registry = registry
        self.eventLoop = eventLoop
        self.greetingLimit = greetingLimit
        self.onAccepted = onAccepted
    }

    /// Binds one address and answers where it listens.
    public func listen(on address: RailAddress) -> EventLoopFuture<SocketAddress> {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.accept(channel) }
            }
            .bind(host: address.host, port: address.port)
            .flatMapThrowing { channel in
                bound.value.servers.append(channel)
                guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
                return address
            }
    }

    private func accept(_ channel: any Channel) throws {
        guard connections < Self.maximumConnections else { throw ChannelError.inappropriateOperationForState }
        connections += 1
        channel.closeFuture.assumeIsolated().whenComplete { _ in self.connections -= 1 }
        let handler = GreetingHandler(
            identity: identity, limit: greetingLimit, isDialer: false, expected: nil
        ) { result in
            guard case .success(let peer) = result else { return nil }
            let queuePair = TCPQueuePair(eventLoop: channel.eventLoop, registry: self.registry)
            self.onAccepted(queuePair, peer)
            return queuePair
        }
        try channel.pipeline.syncOperations.addHandler(handler)
    }

    public func close() {
        for server in servers { server.close(mode: .all, promise: nil) }
        servers = []
    }
}

public enum TCPMirrorDialer {
    /// Connects and greets. `done` is called once, on the loop; on success the queue pair's delegate is still to be set,
    /// before returning. Errors are ``RemoteMemoryError``s.
    public static func dial(
        _ address: RailAddress, as identity: RailIdentity, expecting peer: NodeID, registry: TCPRegionRegistry,
        timeout: TimeAmount, on eventLoop: any EventLoop,
        done: @escaping (Result<TCPQueuePair, RemoteMemoryError>) -> Void
    ) {
        var isDone = false
        func finish(_ result: Result<TCPQueuePair, RemoteMemoryError>) {
            guard !isDone else { return }
            isDone = true
            done(result)
        }
        let initialize = NIOLoopBound(
            { (channel: any Channel) in
                let handler = GreetingHandler(identity: identity, limit: timeout, isDialer: true, expected: peer) {
                    result in
                    switch result {
                    case .success:
                        let queuePair = TCPQueuePair(eventLoop: eventLoop, registry: registry)
                        finish(.success(queuePair))
                        return queuePair
                    case .failure(let error):
                        finish(.failure(error))
                        return nil
                    }
                }
                try channel.pipeline.syncOperations.addHandler(handler)
            }, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in channel.eventLoop.makeCompletedFuture { try initialize.value(channel) } }
            .connect(host: address.host, port: address.port)
            .assumeIsolated()
            .whenFailure { error in
                finish(.failure(RemoteMemoryError(.disconnected, "\(address): cannot be reached: \(error)")))
            }
    }
}

/// The first exchange on a connection; then it puts the queue pair in its place.
private final class GreetingHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// A greeting or a refusal is far smaller.
    static let maximumBytes = FrameHeader.byteCount + 1024

    private let identity: RailIdentity
    private let limit: TimeAmount
    private let isDialer: Bool
    private let expected: NodeID?
    private let complete: (Result<NodeID, RemoteMemoryError>) -> TCPQueuePair?
    private var input = ByteBuffer()
    private var isComplete = false
    private var timer: Scheduled<Void>?

    init(
        identity: RailIdentity, limit: TimeAmount, isDialer: Bool, expected: NodeID?,
        complete: @escaping (Result<NodeID, RemoteMemoryError>) -> TCPQueuePair?
    ) {
        self.identity = identity
        self.limit = limit
        self.isDialer = isDialer
        self.expected = expected
        self.complete = complete
    }

    func channelActive(context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: limit) {
            self.refuse(
                RemoteMemoryError(.disconnected, "no greeting within \(self.limit.nanoseconds / 1_000_000) ms"), channel
            )
        }
        if isDialer { send(.hello, Greeting(cluster: identity.cluster, node: identity.node.rawValue).encoded, channel) }
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isComplete else { return }
        var buffer = unwrapInboundIn(data)
        input.writeBuffer(&buffer)
        do throws(RemoteMemoryError) {
            try greet(context)
        } catch {
            refuse(error, context.channel)
        }
    }

    private func greet(_ context: ChannelHandlerContext) throws(RemoteMemoryError) {
        guard input.readableBytes >= FrameHeader.byteCount else { return }
        let header = try FrameHeader(peeking: input)
        let total = FrameHeader.byteCount + Int(header.payloadBytes)
        guard total <= Self.maximumBytes else {
            throw RemoteMemoryError(.protocolViolation, "a greeting of \(header.payloadBytes) bytes")
        }
        guard input.readableBytes >= total else { return }
        input.moveReaderIndex(forwardBy: FrameHeader.byteCount)
        let payload = input.readBytes(length: Int(header.payloadBytes)) ?? []
        guard payload.withUnsafeBytes({ frameChecksum($0) }) == header.payloadChecksum else {
            throw RemoteMemoryError(.protocolViolation, "the greeting is damaged")
        }
        if header.kind == .refuse {
            throw RemoteMemoryError(
                .protocolViolation, "refused by the peer: \(String(decoding: payload.prefix(512), as: UTF8.self))")
        }
        guard header.kind == (isDialer ? .welcome : .hello) else {
            throw RemoteMemoryError(.protocolViolation, "expected a greeting, not a frame of kind \(header.kind)")
        }
        try welcome(Greeting(payload), context)
    }

    private func welcome(_ greeting: Greeting, _ context: ChannelHandlerContext) throws(RemoteMemoryError) {
        guard greeting.cluster == identity.cluster else {
            throw RemoteMemoryError(
                .protocolViolation, "this is cluster '\(identity.cluster)', not '\(greeting.cluster)'")
        }
        let peer = NodeID(greeting.node)
        guard expected == nil || expected == peer else {
            throw RemoteMemoryError(.protocolViolation, "expected node '\(expected?.rawValue ?? "")', met '\(peer)'")
        }
        isComplete = true
        timer?.cancel()
        if !isDialer {
            send(.welcome, Greeting(cluster: identity.cluster, node: identity.node.rawValue).encoded, context.channel)
        }
        guard let queuePair = complete(.success(peer)) else { return context.close(promise: nil) }
        install(queuePair, context)
    }

    private func install(_ queuePair: TCPQueuePair, _ context: ChannelHandlerContext) {
        do {
            try context.pipeline.syncOperations.addHandler(queuePair, position: .after(self))
        } catch {
            context.close(promise: nil)
            return
        }
        if input.readableBytes > 0 {
            context.fireChannelRead(wrapInboundOut(input))
            context.fireChannelReadComplete()
        }
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    typealias InboundOut = ByteBuffer

    private func refuse(_ error: RemoteMemoryError, _ channel: any Channel) {
        guard !isComplete else { return }
        isComplete = true
        timer?.cancel()
        if !isDialer { send(.refuse, Array(error.message.utf8.prefix(512)), channel) }
        _ = complete(.failure(error))
        channel.close(mode: .all, promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        refuse(RemoteMemoryError(.disconnected, "the connection ended before the greeting"), context.channel)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        refuse(RemoteMemoryError(.disconnected, "the connection failed: \(error)"), context.channel)
    }

    private func send(_ kind: FrameKind, _ payload: [UInt8], _ channel: any Channel) {
        var buffer = channel.allocator.buffer(capacity: FrameHeader.byteCount + payload.count)
        payload.withUnsafeBytes { FrameHeader(kind, payload: $0).write(to: &buffer) }
        buffer.writeBytes(payload)
        channel.writeAndFlush(buffer, promise: nil)
    }
}
