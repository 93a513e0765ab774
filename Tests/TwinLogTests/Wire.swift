// A wire between a log and its mirror that a test can cut.

import NIOCore
import NIOPosix

/// Carries bytes between whoever connects to ``port`` and `target`. Safe from any task.
final class Wire: Sendable {
    let port: Int
    private let eventLoop: any EventLoop
    private let state: NIOLoopBound<State>

    /// Bound to the event loop.
    private final class State {
        var isCut = false
        var channels: [any Channel] = []
    }

    static func begin(to target: Int) async throws -> Wire {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let state = try await eventLoop.submit { NIOLoopBound(State(), eventLoop: eventLoop) }.get()
        let server = try await ServerBootstrap(group: eventLoop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { incoming in
                guard !state.value.isCut else { return incoming.close() }
                return ClientBootstrap(group: eventLoop).connect(host: "127.0.0.1", port: target).flatMap { outgoing in
                    state.value.channels += [incoming, outgoing]
                    return incoming.eventLoop.makeCompletedFuture {
                        try incoming.pipeline.syncOperations.addHandler(Carrier(to: outgoing))
                        try outgoing.pipeline.syncOperations.addHandler(Carrier(to: incoming))
                    }
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return Wire(port: server.localAddress?.port ?? 0, eventLoop, state)
    }

    private init(port: Int, _ eventLoop: any EventLoop, _ state: NIOLoopBound<State>) {
        self.port = port
        self.eventLoop = eventLoop
        self.state = state
    }

    /// Ends what is connected, wherever its bytes are, and lets nobody in.
    func cut() async throws {
        try await eventLoop.submit { [state] in
            state.value.isCut = true
            for channel in state.value.channels { channel.close(promise: nil) }
            state.value.channels = []
        }.get()
    }

    func mend() async throws { try await eventLoop.submit { [state] in state.value.isCut = false }.get() }

    private final class Carrier: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let other: any Channel
        init(to other: any Channel) { self.other = other }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            other.writeAndFlush(unwrapInboundIn(data), promise: nil)
        }
        func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
    }
}
