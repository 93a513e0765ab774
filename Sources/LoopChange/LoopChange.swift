// Moves a connection from one event loop to another, which SwiftNIO's channels cannot do: the old channel ends, and a new one goes on with
// what it was connected to. The peer notices nothing.

internal import Glibc
public import NIOCore
internal import NIOPosix

/// A connection between two event loops. Whoever has it attaches it, once, or closes it.
public struct DetachedConnection: Sendable {
    private let socket: CInt
    /// What had arrived and nobody took.
    public let rest: ByteBuffer
    /// What stays on the loop where the connection began; `nil` if nothing does.
    public let outer: OuterConnection?

    init(socket: CInt, rest: ByteBuffer, outer: OuterConnection? = nil) {
        self.socket = socket
        self.rest = rest
        self.outer = outer
    }

    /// Goes on with the connection on `eventLoop`. `begin` is called there with the new channel, which is active and has no handler yet; nothing
    /// is read before it returns, and ``rest`` is its own to deal with. What it throws ends the connection.
    public func attach(
        to eventLoop: any EventLoop, _ begin: @escaping @Sendable (any Channel) throws -> Void
    ) -> EventLoopFuture<Void> {
        // In one turn of that loop: the handlers are there before it looks at the socket.
        eventLoop.flatSubmit {
            ClientBootstrap(group: eventLoop).withConnectedSocket(socket).flatMapThrowing { channel in
                do {
                    try begin(channel)
                } catch {
                    channel.close(promise: nil)
                    throw error
                }
            }
        }
    }

    public func close() { _ = Glibc.close(socket) }
}

public enum LoopChange {
    /// Takes the connection of `channel` away from its event loop, once everything that was written to the channel is with the kernel.
    /// `handler` is the last of its handlers, which alone knows what the bytes mean: it has sent what it had to, keeps what it still
    /// receives, and gives it away as `rest`. Where handlers before it change the bytes, as TLS does, they stay on this loop, and a pair of
    /// sockets carries what comes out of them. The future fails if the connection ends before. On the channel's loop.
    public static func detach(
        _ channel: any Channel, from handler: any RemovableChannelHandler, isPlain: Bool,
        rest: @escaping () -> ByteBuffer
    ) -> EventLoopFuture<DetachedConnection> {
        channel.eventLoop.preconditionInEventLoop()
        let last = Last((handler: handler, rest: rest), eventLoop: channel.eventLoop)
        return channel.setOption(.autoRead, value: false).flatMap {
            channel.writeAndFlush(ByteBuffer())
        }.flatMap {
            guard !isPlain else {
                return channel.eventLoop.makeCompletedFuture {
                    DetachedConnection(socket: try copyOfSocket(channel), rest: last.value.rest())
                }.always { _ in channel.close(promise: nil) }
            }
            return relay(channel, last)
        }
    }

    private typealias Last = NIOLoopBound<(handler: any RemovableChannelHandler, rest: () -> ByteBuffer)>

    private static func copyOfSocket(_ channel: any Channel) throws -> CInt {
        let copy = try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
            fcntl($0, F_DUPFD_CLOEXEC, 0)
        }
        guard let copy else { throw ChannelError.operationUnsupported }
        guard copy >= 0 else { throw IOError(errnoCode: errno, reason: "a socket cannot be moved") }
        return copy
    }

    private static func relay(_ channel: any Channel, _ last: Last) -> EventLoopFuture<DetachedConnection> {
        var ends: (CInt, CInt) = (-1, -1)
        let made = withUnsafeMutableBytes(of: &ends) {
            socketpair(
                AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0,
                $0.assumingMemoryBound(to: CInt.self).baseAddress)
        }
        guard made == 0 else {
            let error = IOError(errnoCode: errno, reason: "a connection cannot be moved")
            channel.close(promise: nil)
            return channel.eventLoop.makeFailedFuture(error)
        }
        let (here, there) = ends
        return ClientBootstrap(group: channel.eventLoop)
            .channelOption(.autoRead, value: false)
            .withConnectedSocket(here)
            .flatMapThrowing { near in
                let (handler, rest) = (last.value.handler, last.value.rest())
                let outer = OuterConnection(channel)
                try Relay.join(outer, near)
                channel.pipeline.syncOperations.removeHandler(handler, promise: nil)
                return DetachedConnection(socket: there, rest: rest, outer: outer)
            }
            .flatMapErrorThrowing { error in
                _ = Glibc.close(there)
                channel.close(promise: nil)
                throw error
            }
    }
}
