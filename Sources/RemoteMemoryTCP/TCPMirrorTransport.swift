// Making rails: a listener and a dialer. Both sides prove that they belong to the cluster before there is a queue pair
// (Handshake.swift, S27); whoever does not, or says nothing in time, loses the connection and costs nothing else.

public import LogModel
public import LoopPolling
public import NIOCore
internal import NIOPosix
internal import Glibc
public import RemoteMemory

/// Accepts rails. Bound to one event loop, on which every rail begins.
public final class TCPMirrorListener {
    /// Rails of peers that have proved themselves. Those that another loop goes on with are bounded there.
    public static let maximumConnections = 256
    /// Connections that have not proved themselves yet: strangers take no place of a peer (S28). A handshake takes a
    /// millisecond, so the oldest gives way: to shut a peer out, a stranger must connect so many times within that.
    public static let maximumUnproved = 32

    private let eventLoop: any EventLoop
    private let identity: RailIdentity
    private let registry: TCPRegionRegistry
    private let greetingLimit: TimeAmount
    private let poller: LoopPoller?
    private let onAccepted: (TCPQueuePair, RailPeer) -> Void
    private var servers: [any Channel] = []
    /// The oldest first.
    private var unproved: [HandshakeHandler] = []
    private var connections = 0

    /// `onAccepted` is called on the loop with each rail whose peer has proved itself; it sets the delegate before returning. `poller` is
    /// the loop's.
    public init(
        identity: RailIdentity, registry: TCPRegionRegistry, eventLoop: any EventLoop,
        greetingLimit: TimeAmount = .seconds(5), poller: LoopPoller? = nil,
        onAccepted: @escaping (TCPQueuePair, RailPeer) -> Void
    ) {
        self.identity = identity
        self.registry = registry
        self.eventLoop = eventLoop
        self.greetingLimit = greetingLimit
        self.poller = poller
        self.onAccepted = onAccepted
    }

    /// Binds one address and answers where it listens. `security` protects what is accepted there.
    public func listen(on address: TCPAddress, over security: (any RailSecurity)? = nil) -> EventLoopFuture<
        SocketAddress
    > {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.recvAllocator, value: TCPQueuePair.readAllocator)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.accept(channel, over: security) }
            }
            .bind(host: address.host, port: address.port)
            .flatMapThrowing { channel in
                bound.value.servers.append(channel)
                guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
                return address
            }
    }

    private func accept(_ channel: any Channel, over security: (any RailSecurity)?) throws {
        try security?.protect(channel, as: .listener)
        weak var handler: HandshakeHandler?
        let greeting = HandshakeHandler(.listening(as: identity), limit: greetingLimit, over: security) {
            [self] peer throws(HandshakeFailure) in
            forget(handler)
            guard connections < Self.maximumConnections else {
                throw HandshakeFailure(.tooMany, "there are \(connections) rails already")
            }
            connections += 1
            channel.closeFuture.assumeIsolated().whenComplete { _ in self.connections -= 1 }
            let queuePair = TCPQueuePair(
                eventLoop: channel.eventLoop, registry: registry, isPlain: security == nil, poller: poller)
            var proved = peer
            proved.isEncrypted = security != nil
            onAccepted(queuePair, proved)
            return queuePair
        } failed: { [self] _ in
            forget(handler)
        }
        handler = greeting
        try channel.pipeline.syncOperations.addHandler(greeting)
        unproved.append(greeting)
        if unproved.count > Self.maximumUnproved {
            unproved[0].fail(HandshakeFailure(.tooMany, "others came while this connection had not proved itself"))
        }
    }

    private func forget(_ handler: HandshakeHandler?) { unproved.removeAll { $0 === handler } }

    public func close() {
        for server in servers { server.close(mode: .all, promise: nil) }
        servers = []
    }
}

public enum TCPMirrorDialer {
    /// Connects, and proves itself to a listener that has proved itself. `done` is called once, on the loop; on success the
    /// queue pair's delegate is still to be set, before returning. Errors are ``RemoteMemoryError``s.
    public static func dial(
        _ address: TCPAddress, as identity: RailIdentity, expecting peer: NodeID,
        over security: (any RailSecurity)? = nil,
        registry: TCPRegionRegistry, poller: LoopPoller? = nil, timeout: TimeAmount, on eventLoop: any EventLoop,
        done: @escaping (Result<(TCPQueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        var isDone = false
        func finish(_ result: Result<(TCPQueuePair, RailPeer), RemoteMemoryError>) {
            guard !isDone else { return }
            isDone = true
            done(result)
        }
        let initialize = NIOLoopBound(
            { (channel: any Channel) in
                try security?.protect(channel, as: .dialer)
                let (handshake, hello) = Handshake.dialing(peer, as: identity)
                let handler = HandshakeHandler(handshake, dialing: (hello, peer), limit: timeout, over: security) {
                    peer throws(HandshakeFailure) in
                    let queuePair = TCPQueuePair(
                        eventLoop: eventLoop, registry: registry, isPlain: security == nil, poller: poller)
                    var proved = peer
                    proved.isEncrypted = security != nil
                    finish(.success((queuePair, proved)))
                    return queuePair
                } failed: { failure in
                    finish(.failure(failure.error))
                }
                try channel.pipeline.syncOperations.addHandler(handler)
            }, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.recvAllocator, value: TCPQueuePair.readAllocator)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelInitializer { channel in channel.eventLoop.makeCompletedFuture { try initialize.value(channel) } }
            .connect(host: address.host, port: address.port)
            .assumeIsolated()
            .whenFailure { error in
                finish(.failure(RemoteMemoryError(.disconnected, "\(address): cannot be reached: \(words(error))")))
            }
    }

    /// Connects and says nothing. `done` is called once, on the loop: true if each address that the name has refused the connection, which a
    /// host does where no process listens.
    public static func isRefused(
        at address: TCPAddress, timeout: TimeAmount, on eventLoop: any EventLoop, _ done: @escaping (Bool) -> Void
    ) {
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .connect(host: address.host, port: address.port)
            .assumeIsolated()
            .whenComplete { result in
                switch result {
                case .success(let channel):
                    channel.close(promise: nil)
                    done(false)
                case .failure(let error): done(isRefusal(error))
                }
            }
    }

    private static func isRefusal(_ error: any Error) -> Bool {
        guard let failure = error as? NIOConnectionError, !failure.connectionErrors.isEmpty else { return false }
        return failure.connectionErrors.allSatisfy { ($0.error as? IOError)?.errnoCode == ECONNREFUSED }
    }

    /// Of the addresses that the name has, the first that failed tells why.
    private static func words(_ error: any Error) -> String {
        guard let failure = error as? NIOConnectionError else { return "\(error)" }
        if let first = failure.connectionErrors.first { return first.error.systemWords }
        let unresolved = failure.dnsAError ?? failure.dnsAAAAError
        return unresolved.map { "\(failure.host) does not resolve: \($0)" } ?? "\(failure)"
    }
}
