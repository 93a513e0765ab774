import LogModel
import LoopPolling
import NIOCore
import NIOPosix
import Testing

/// A real loop that looks at real sockets.
struct LoopPollerTests {
    private static let mode = PollMode.always(micros: PollMode.maximumMicros)

    /// Sends back what it is sent, in a task of a task, as a node answers.
    private final class Echo: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let poller: LoopPoller
        init(_ poller: LoopPoller) { self.poller = poller }

        func channelActive(context: ChannelHandlerContext) { poller.watch(context.channel) }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            poller.heard()
            let bytes = unwrapInboundIn(data)
            let channel = context.channel
            let loop = channel.eventLoop.assumeIsolated()
            loop.execute { loop.execute { channel.writeAndFlush(bytes, promise: nil) } }
        }
    }

    private final class Counter: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let done: EventLoopPromise<Int>
        private let received: NIOLoopBoundBox<Int>
        private let rounds: Int
        init(_ rounds: Int, _ loop: any EventLoop) {
            self.rounds = rounds
            done = loop.makePromise()
            received = NIOLoopBoundBox.makeBoxSendingValue(0, eventLoop: loop)
        }
        var all: EventLoopFuture<Int> { done.futureResult }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(NIOAny(ByteBuffer(string: ".")), promise: nil)
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            received.value += 1
            guard received.value < rounds else { return done.succeed(received.value) }
            context.writeAndFlush(data, promise: nil)
        }
        func channelInactive(context: ChannelHandlerContext) { done.fail(ChannelError.eof) }
    }

    private func withLoops(_ body: (any EventLoop, any EventLoop) async throws -> Void) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        try await body(group.next(), group.next())
        try await group.shutdownGracefully()
    }

    @Test("Answers leave before the loop looks, and arrivals are taken while it does")
    func goesOn() async throws {
        try await withLoops { loop, other in
            let poller = try await loop.submit { NIOLoopBound(LoopPoller(Self.mode, eventLoop: loop), eventLoop: loop) }
                .get()
            let server = try await ServerBootstrap(group: loop)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        guard let poller = poller.value else { throw ChannelError.eof }
                        try channel.pipeline.syncOperations.addHandler(Echo(poller))
                    }
                }
                .bind(host: "127.0.0.1", port: 0).get()
            let address = try #require(server.localAddress)
            for _ in 0..<3 {
                let counter = Counter(200, other)
                let client = try await ClientBootstrap(group: other)
                    .channelInitializer { $0.pipeline.addHandler(counter) }
                    .connect(to: address).get()
                #expect(try await counter.all.get() == 200)
                // A watched socket that is closed, and whose number another one gets.
                try await client.close()
            }
            try await server.close()
        }
    }

    @Test func whatNeverLooksIsNotThere() async throws {
        try await withLoops { loop, _ in
            let isThere = try await loop.submit { LoopPoller(.off, eventLoop: loop) != nil }.get()
            #expect(!isThere)
        }
    }
}
