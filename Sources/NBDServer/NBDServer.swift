// Volumes of a node as NBD exports, over TCP or a Unix socket. Bound to the node's event loop; every connection lives on it.

internal import CHostSupport
internal import Glibc
public import Logging
internal import NBDProtocol
public import NIOCore
internal import NIOPosix
public import StorageNode

/// Where a server listens or a client connects: HOST:PORT or unix:/path.
public enum NBDListenAddress: Hashable, Sendable, CustomStringConvertible {
    case tcp(host: String, port: Int)
    case unix(path: String)

    public init?(_ text: String) {
        if text.hasPrefix("unix:") {
            self = .unix(path: String(text.dropFirst(5)))
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65535).contains(port), colon > text.startIndex
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        self = .tcp(host: host, port: port)
    }

    public var description: String {
        switch self {
        case .tcp(let host, let port): "\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}

public struct NBDServerLimits: Sendable {
    /// Connections at once.
    public var connections = 256
    /// The time a client has from connecting to the end of the handshake.
    public var handshake: TimeAmount = .seconds(10)
    /// Payload that waits for space in the log, a connection. Beyond it the socket is not read.
    public var parkedBytes = 8 << 20
    /// Bytes of reads that are being carried out, a connection: one of the largest, and a little.
    public var readBytes = 40 << 20
    /// Bytes of replies that the client has not taken, a connection, at which no further request is taken. With `readBytes` and
    /// one read beyond both, it bounds what a client that never reads makes the server keep: 80 MiB.
    public var unsentBytes = 8 << 20
    /// Requests that are not answered yet, a connection.
    public var requests = 1024

    public init() {}
}

public final class NBDServer {
    let service: any VolumeService
    let eventLoop: any EventLoop
    let limits: NBDServerLimits
    let logger: Logger
    private var listener: (any Channel)?
    private static let backlog: CInt = 128
    private var connections: [ObjectIdentifier: NBDConnection] = [:]
    private var socketPath: String?

    /// Everything is called on `eventLoop`, where `service` lives too.
    public init(
        service: any VolumeService, eventLoop: any EventLoop, limits: NBDServerLimits = NBDServerLimits(),
        logger: Logger
    ) {
        self.service = service
        self.eventLoop = eventLoop
        self.limits = limits
        self.logger = logger
    }

    /// Begins to listen and answers where. A stale Unix socket is replaced; the new one has mode 0600.
    public func start(on address: NBDListenAddress) -> EventLoopFuture<SocketAddress> {
        eventLoop.preconditionInEventLoop()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let bootstrap = ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: Self.backlog)
            .childChannelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65536, maximum: 1 << 20)
            )
            .childChannelOption(
                .writeBufferWaterMark,
                value: ChannelOptions.Types.WriteBufferWaterMark(low: limits.unsentBytes / 2, high: limits.unsentBytes)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.accept(channel) }
            }
        let listening: EventLoopFuture<any Channel>
        switch address {
        case .tcp(let host, let port):
            listening =
                bootstrap
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .bind(host: host, port: port)
        case .unix(let path):
            let socket = tl_host_listen_private(path, Self.backlog)
            guard socket >= 0 else {
                return eventLoop.makeFailedFuture(IOError(errnoCode: -socket, reason: "\(path): cannot be listened on"))
            }
            socketPath = path
            listening = bootstrap.withBoundSocket(socket)
        }
        return listening.flatMapThrowing { channel in
            bound.value.listener = channel
            guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
            return address
        }
    }

    private func accept(_ channel: any Channel) throws {
        guard connections.count < limits.connections else {
            logger.warning("NBD connection refused: \(limits.connections) are open already")
            throw ChannelError.inappropriateOperationForState
        }
        let connection = NBDConnection(server: self, channel: channel)
        connections[ObjectIdentifier(connection)] = connection
        channel.closeFuture.assumeIsolated().whenComplete { _ in
            self.connections[ObjectIdentifier(connection)] = nil
        }
        try channel.pipeline.syncOperations.addHandler(connection)
    }

    public var connectionCount: Int { connections.count }

    /// Stops listening and closes every connection.
    public func stop() {
        eventLoop.preconditionInEventLoop()
        listener?.close(mode: .all, promise: nil)
        listener = nil
        if let socketPath { unlink(socketPath) }
        for connection in connections.values { connection.close() }
    }
}
