// Volumes of a node as NBD exports, over TCP or a Unix socket. Connections arrive on the node's event loop, and go on on the loop of the volume
// that they name (NBDRoom.swift).

internal import CHostSupport
internal import Glibc
public import GroupEngine
public import Logging
public import LogModel
public import LoopPolling
internal import NBDProtocol
public import NIOCore
internal import NIOPosix
internal import StorageNode

/// Bound to the node's event loop.
public final class NBDServer {
    let eventLoop: any EventLoop
    let rooms: NBDRooms
    private var commons: NBDCommons { rooms.commons }
    /// Of this loop.
    let room: NBDRoom
    private var listeners: [any Channel] = []
    private static let backlog: CInt = 128
    /// The log has a line about the present want of places.
    private var isFullReported = false
    /// Clients that arrived while others were looked at for a place.
    private var waitingForPlace = 0
    private var socketPath: String?
    private var socketFile = tl_socket_file()

    /// Everything is called on `eventLoop`, where `service` lives too.
    public init(
        service: any VolumeService, eventLoop: any EventLoop, limits: NBDServerLimits = NBDServerLimits(),
        security: NBDServerSecurity? = nil, pollers: LoopPollers = LoopPollers(.off), logger: Logger
    ) {
        self.eventLoop = eventLoop
        rooms = NBDRooms(NBDCommons(limits, security, logger), pollers, home: eventLoop)
        room = rooms.room(on: eventLoop, service)
    }

    /// Begins to listen on one address more and answers where. A stale Unix socket is replaced; `access` is of the new one.
    public func start(
        on address: Endpoint, access: FileAccess = .ownerOnly
    ) -> EventLoopFuture<SocketAddress> {
        eventLoop.preconditionInEventLoop()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let bootstrap = ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: Self.backlog)
            .childChannelInitializer { channel in bound.value.accept(channel) }
        let listening: EventLoopFuture<any Channel>
        switch address {
        case .tcp(let address):
            listening =
                bootstrap
                .forClients(commons.limits.liveness)
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

    private func accept(_ channel: any Channel) -> EventLoopFuture<Void> {
        guard !commons.places.take() else {
            isFullReported = false
            return eventLoop.makeCompletedFuture { try room.admit(channel, refusal: nil) }
        }
        guard waitingForPlace < NBDServerLimits.refusedConnections else {
            return eventLoop.makeCompletedFuture { try room.admit(channel, refusal: refuse()) }
        }
        waitingForPlace += 1
        room.makePlaces()
        let admitted = eventLoop.makePromise(of: Void.self)
        rooms.all.filter { $0.eventLoop !== eventLoop }.ask(from: eventLoop) { room, answer in
            room.makePlaces()
            answer(())
        } _: { _ in
            self.waitingForPlace -= 1
            admitted.completeWith(
                Result { try self.room.admit(channel, refusal: self.commons.places.take() ? nil : self.refuse()) })
        }
        return admitted.futureResult
    }

    /// What one more client is told that is not served.
    private func refuse() -> String {
        commons.places.refuse()
        let limit = commons.limits.connections
        if !isFullReported {
            isFullReported = true
            commons.logger.warning("NBD connections are refused: all \(limit) are taken (limits.connections)")
        }
        return "all \(limit) connections of this node are taken"
    }

    public var connectionCount: Int { commons.places.takenCount }
    public var refusedCount: Int { commons.places.refusedCount }

    /// Stops listening and closes every connection.
    public func stop() {
        eventLoop.preconditionInEventLoop()
        for listener in listeners { listener.close(mode: .all, promise: nil) }
        listeners = []
        if let socketPath { tl_host_remove_socket(socketPath, socketFile) }
        rooms.close()
    }
}
