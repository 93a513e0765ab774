// What clients may cost the node (S28), and how a client that is gone is noticed.

internal import Glibc
public import NIOCore
internal import NIOPosix

public struct NBDServerLimits: Sendable {
    /// Connections at once.
    public var connections = 256
    /// The time a client has for each step of the handshake, and a volume for its opening.
    public var handshake: TimeAmount = .seconds(10)
    /// Payload that waits for space in the log, a connection. Beyond it the socket is not read.
    public var parkedBytes = 8 << 20
    /// Bytes of reads that are being carried out, a connection: one of the largest, and a little.
    public var readBytes = 40 << 20
    /// Bytes of replies that the client has not taken, a connection, at which no further request is taken.
    public var unsentBytes = 8 << 20
    /// Requests that are not answered yet, a connection.
    public var requests = 1024
    /// Payload and data of all connections together.
    public var memoryBytes = 1 << 30
    /// How long a client may sit on borrowed memory that others wait for: without the rest of its payload, or without taking a reply.
    public var patience: TimeAmount = .seconds(30)
    public var liveness = Liveness()

    public init() {}

    /// A peer that is silent for `userTimeoutSeconds` is gone: asked after `idleSeconds`, then every `intervalSeconds`. Data that it does
    /// not take in that time, or a window that it keeps closed, counts as silence too.
    public struct Liveness: Sendable {
        public var idleSeconds: CInt = 15
        public var intervalSeconds: CInt = 5
        public var userTimeoutSeconds: CInt = 30
        public init() {}
    }

    /// Clients that are told that there is no place for them. A further one takes the place of the first.
    static let refusedConnections = 32
}

extension ServerBootstrap {
    /// Options of TCP connections: no waiting for more bytes, and a peer that vanished is found.
    func forClients(_ liveness: NBDServerLimits.Liveness) -> ServerBootstrap {
        let probes = max(1, liveness.userTimeoutSeconds / liveness.intervalSeconds)
        return childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(.tcpOption(.keepIdle), value: .init(liveness.idleSeconds))
            .childChannelOption(.tcpOption(.keepInterval), value: .init(liveness.intervalSeconds))
            .childChannelOption(.tcpOption(.keepCount), value: .init(probes))
            .childChannelOption(.tcpOption(.userTimeout), value: .init(liveness.userTimeoutSeconds * 1000))
    }
}

extension NIOBSDSocket.Option {
    static let keepIdle = NIOBSDSocket.Option(rawValue: TCP_KEEPIDLE)
    static let keepInterval = NIOBSDSocket.Option(rawValue: TCP_KEEPINTVL)
    static let keepCount = NIOBSDSocket.Option(rawValue: TCP_KEEPCNT)
    static let userTimeout = NIOBSDSocket.Option(rawValue: TCP_USER_TIMEOUT)
}

extension Channel {
    /// The peer of a TCP connection has left several probes or retransmissions unanswered. The first four bytes of `struct tcp_info`
    /// are state, congestion state, retransmissions and probes.
    var isPeerSilent: Bool {
        do {
            guard let info = try syncOptions?.getOption(.tcpOption(.tcp_info)) else { return false }
            let bytes = UInt32(truncatingIfNeeded: info)
            return bytes >> 24 >= 2 || (bytes >> 16) & 0xff >= 3
        } catch {
            // Not TCP: the end of a process is heard at once. Of a moved connection with TLS the room is asked where it began.
            return false
        }
    }
}
