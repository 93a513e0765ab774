// Volumes of a node as NBD exports, over TCP or a Unix socket. Bound to the node's event loop; every connection lives on it.

internal import CHostSupport
internal import Glibc
public import GroupEngine
public import Logging
public import LogModel
public import LoopPolling
internal import NBDProtocol
public import NIOCore
internal import NIOPosix

public final class NBDServer: NBDConnectionOwner {
    let service: any VolumeService
    let eventLoop: any EventLoop
    let limits: NBDServerLimits
    let security: NBDServerSecurity?
    let logger: Logger
    let poller: LoopPoller?
    private var listeners: [any Channel] = []
    private static let backlog: CInt = 128
    let memory: ClientMemory
    private(set) var connections: [ObjectIdentifier: NBDConnection] = [:]
    /// Those beyond the limit, which are told so. The oldest first.
    private var refused: [NBDConnection] = []
    public private(set) var refusedCount = 0
    /// The log has a line about the present want of places.
    private var isFullReported = false
    private(set) var isWatchingMemory = false
    private var socketPath: String?
    private var socketFile = tl_socket_file()

    /// Everything is called on `eventLoop`, where `service` and `poller` live too.
    public init(
        service: any VolumeService, eventLoop: any EventLoop, limits: NBDServerLimits = NBDServerLimits(),
        security: NBDServerSecurity? = nil, poller: LoopPoller? = nil, logger: Logger
    ) {
        self.poller = poller
        self.service = service
        self.eventLoop = eventLoop
        self.limits = limits
        self.security = security
        self.logger = logger
        memory = ClientMemory(budgetBytes: limits.memoryBytes, connections: limits.connections)
    }

    /// Of replies that a client has not taken: no more requests of it are taken then.
    private var unsentLimit: Int { max(64 << 10, min(limits.unsentBytes, memory.shareBytes)) }

    /// Begins to listen on one address more and answers where. A stale Unix socket is replaced; `access` is of the new one.
    public func start(
        on address: Endpoint, access: FileAccess = .ownerOnly
    ) -> EventLoopFuture<SocketAddress> {
        eventLoop.preconditionInEventLoop()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let bootstrap = ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: Self.backlog)
            .childChannelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65536, maximum: 256 << 10)
            )
            // One such buffer a turn of the loop: then the other connections have theirs (S28).
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(
                .writeBufferWaterMark,
                value: ChannelOptions.Types.WriteBufferWaterMark(low: unsentLimit / 2, high: unsentLimit)
            )
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.accept(channel) }
            }
        let listening: EventLoopFuture<any Channel>
        switch address {
        case .tcp(let address):
            listening =
                bootstrap
                .forClients(limits.liveness)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .bind(host: address.host, port: address.port)
        case .unix(let path):
            let socket = tl_host_listen_unix(
                path, Self.backlog, access.mode, access.group ?? .max, &socketFile)
            guard socket >= 0 else {
                return eventLoop.makeFailedFuture(IOError(errnoCode: -socket, reason: "\(path): cannot be listened on"))
            }
            socketPath = path
            listening = bootstrap.withBoundSocket(socket)
        }
        return listening.flatMapThrowing { channel in
            bound.value.listeners.append(channel)
            guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
            return address
        }
    }

    private func accept(_ channel: any Channel) throws {
        let hasPlace = connections.count < limits.connections || makePlace()
        let connection = NBDConnection(server: self, channel: channel, refusal: hasPlace ? nil : refuse())
        if hasPlace {
            isFullReported = false
            connections[ObjectIdentifier(connection)] = connection
        } else {
            refused.append(connection)
        }
        channel.closeFuture.assumeIsolated().whenComplete { _ in connection.channelEnded() }
        try channel.pipeline.syncOperations.addHandler(connection)
    }

    /// A client that is gone without a word, or says nothing in its handshake, gives way to a new one.
    private func makePlace() -> Bool {
        let gone = connections.values.filter(\.isUnresponsive)
        for connection in gone { connection.fail("it does not answer, and a new client needs its place") }
        return !gone.isEmpty
    }

    /// Makes room for one more client that is told why it is not served, and says what it is told.
    private func refuse() -> String {
        refusedCount += 1
        if !isFullReported {
            isFullReported = true
            logger.warning("NBD connections are refused: all \(limits.connections) are taken (limits.connections)")
        }
        if refused.count >= NBDServerLimits.refusedConnections { refused[0].close() }
        return "all \(limits.connections) connections of this node are taken"
    }

    /// What the same client sent before, and nobody has taken, is of a connection that it has given up (S24).
    func endOlder(than newer: NBDConnection) {
        guard let named = newer.named, let client = named.client else { return }
        for older in connections.values where older !== newer && older.named == named {
            older.fail("\(client) has opened \(named.volume) again")
        }
    }

    func ended(_ connection: NBDConnection) {
        connections[ObjectIdentifier(connection)] = nil
        refused.removeAll { $0 === connection }
    }

    public var connectionCount: Int { connections.count }

    // MARK: Memory

    /// A client waits for memory that others hold: those that sit on borrowed memory lose it in time.
    func watchMemory() {
        guard !isWatchingMemory else { return }
        isWatchingMemory = true
        eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(limits.patience.nanoseconds / 8)) {
            self.isWatchingMemory = false
            guard self.memory.isContended else { return }
            self.endWhoSitsOnMemory()
            if self.memory.isContended { self.watchMemory() }
        }
    }

    private func endWhoSitsOnMemory() {
        let limit = NIODeadline.now() - limits.patience
        for connection in connections.values where connection.owesSince.map({ $0 < limit }) == true {
            connection.fail("others wait for the memory of what it neither sent nor took")
        }
    }

    /// Stops listening and closes every connection.
    public func stop() {
        eventLoop.preconditionInEventLoop()
        for listener in listeners { listener.close(mode: .all, promise: nil) }
        listeners = []
        if let socketPath { tl_host_remove_socket(socketPath, socketFile) }
        for connection in Array(connections.values) + refused { connection.close() }
    }
}
