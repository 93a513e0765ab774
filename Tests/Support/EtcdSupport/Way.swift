// A way to a server over TCP that can be slow, or lose what is said on it. It stands between a client and the server, and counts requests.

internal import ClusterHarness
package import CoordinationEtcd
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import Synchronization

package final class Way: Sendable {
    /// What becomes of the bytes.
    package enum Fault: Sendable, Hashable {
        case none
        /// Each answer comes this much later.
        case slow(millis: Int64)
        /// Requests arrive, their answers do not; the connection ends.
        case losesAnswers
        /// Requests do not arrive; the connection ends.
        case losesRequests
        /// Requests arrive this much later, and their answers not at all.
        case late(millis: Int64)
    }

    private let traffic = Traffic()
    private let listener: any Channel
    private let isSecure: Bool

    package init(to target: EtcdSettings.Endpoint) throws {
        isSecure = target.isSecure
        let traffic = traffic
        listener = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { client in
                ClientBootstrap(group: client.eventLoop)
                    .channelInitializer { server in
                        server.eventLoop.makeCompletedFuture {
                            try server.pipeline.syncOperations.addHandler(Homeward(to: client, traffic))
                        }
                    }
                    .connect(host: target.address.host, port: target.address.port)
                    .flatMapThrowing { server in
                        try client.pipeline.syncOperations.addHandler(Outward(to: server, traffic))
                        client.setOption(.autoRead, value: true).whenFailure { _ in client.close(promise: nil) }
                    }
            }
            .bind(host: "127.0.0.1", port: Int(try LocalCluster.freePort())).wait()
    }

    deinit { listener.close(promise: nil) }

    package var endpoint: EtcdSettings.Endpoint {
        EtcdSettings.Endpoint(
            TCPAddress(host: "127.0.0.1", port: listener.localAddress?.port ?? 0), isSecure: isSecure)
    }

    /// From now on nobody gets onto this way; who is on it stays.
    package func stopListening() throws { try listener.close().wait() }

    package func set(_ fault: Fault) { traffic.state.withLock { $0.fault = fault } }

    /// Requests that were sent this way since the last call.
    package func takeRequests() -> Int {
        traffic.state.withLock { state in
            defer { state.requests = 0 }
            return state.requests
        }
    }
}

private final class Traffic: Sendable {
    struct State {
        var fault = Way.Fault.none
        var requests = 0
    }
    let state = Mutex(State())

    var fault: Way.Fault { state.withLock { $0.fault } }

    /// A request of this client arrives in one piece, or its beginning does.
    func count(_ bytes: ByteBuffer) {
        let text = String(buffer: bytes)
        state.withLock { $0.requests += text.ranges(of: "POST /").count }
    }
}

/// From the client to the server.
private final class Outward: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let server: any Channel
    private let traffic: Traffic

    init(to server: any Channel, _ traffic: Traffic) {
        self.server = server
        self.traffic = traffic
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        traffic.count(bytes)
        switch traffic.fault {
        case .losesRequests: context.close(promise: nil)
        case .late(let millis):
            server.eventLoop.scheduleTask(in: .milliseconds(millis)) { [server] in
                server.writeAndFlush(bytes, promise: nil)
            }
        case .none, .slow, .losesAnswers: server.writeAndFlush(bytes, promise: nil)
        }
    }

    /// What is on its way arrives all the same.
    func channelInactive(context: ChannelHandlerContext) {
        guard case .late = traffic.fault else { return server.close(promise: nil) }
    }
}

/// From the server to the client.
private final class Homeward: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let client: any Channel
    private let traffic: Traffic

    init(to client: any Channel, _ traffic: Traffic) {
        self.client = client
        self.traffic = traffic
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        switch traffic.fault {
        case .losesAnswers, .late: client.close(promise: nil)
        case .slow(let millis):
            client.eventLoop.scheduleTask(in: .milliseconds(millis)) { [client] in
                client.writeAndFlush(bytes, promise: nil)
            }
        case .none, .losesRequests: client.writeAndFlush(bytes, promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) { client.close(promise: nil) }
}
