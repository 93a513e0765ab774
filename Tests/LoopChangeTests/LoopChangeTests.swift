// A connection that goes on on another event loop, as its peer sees it: every byte arrives once, in order, whatever was under way.

import LoopChange
import NIOCore
import NIOPosix
import Testing

/// Sends back what it is told, and moves to another loop when it is told so. Bytes are changed on the way where TLS would change them.
private final class Echo: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let isPlain: Bool
    private let next: (any EventLoop)?
    private let moved: @Sendable (any Channel) -> Void
    private var input = ByteBuffer()
    private var isMoving = false

    init(isPlain: Bool, next: (any EventLoop)?, moved: @escaping @Sendable (any Channel) -> Void) {
        self.isPlain = isPlain
        self.next = next
        self.moved = moved
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        input.writeBuffer(&bytes)
        process(context.channel)
    }

    func process(_ channel: any Channel) {
        while !isMoving, input.readableBytes > 0 {
            let zero = input.readableBytesView.firstIndex(of: 0)
            let count = zero.map { $0 - input.readerIndex } ?? input.readableBytes
            if let bytes = input.readSlice(length: count), count > 0 { channel.writeAndFlush(bytes, promise: nil) }
            guard zero != nil else { return }
            input.moveReaderIndex(forwardBy: 1)
            if let next { move(channel, to: next) }
        }
    }

    private func move(_ channel: any Channel, to next: any EventLoop) {
        isMoving = true
        let moved = moved
        LoopChange.detach(channel, from: self, isPlain: isPlain) { self.input }.whenSuccess { connection in
            connection.attach(to: next) { channel in
                let echo = Echo(isPlain: true, next: nil, moved: moved)
                try channel.pipeline.syncOperations.addHandler(echo)
                moved(channel)
                var rest = connection.rest
                echo.input.writeBuffer(&rest)
                echo.process(channel)
            }.whenFailure { _ in }
        }
    }
}

/// As TLS does: what crosses the wire is not what the handlers behind it see.
private final class Inverter: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.fireChannelRead(wrapInboundOut(inverted(unwrapInboundIn(data))))
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        context.write(wrapOutboundOut(inverted(unwrapOutboundIn(data))), promise: promise)
    }

    private func inverted(_ bytes: ByteBuffer) -> ByteBuffer { ByteBuffer(bytes: bytes.readableBytesView.map { ~$0 }) }
}

private final class Collector: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    let bytes: AsyncStream<[UInt8]>.Continuation

    init(_ bytes: AsyncStream<[UInt8]>.Continuation) { self.bytes = bytes }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        bytes.yield(Array(unwrapInboundIn(data).readableBytesView))
    }

    func channelInactive(context: ChannelHandlerContext) { bytes.finish() }
}

struct LoopChangeTests {
    /// Of a server on a loop of its own whose connections move to another one: a client, what it receives, where its connection is then.
    private func withMovingServer(
        isPlain: Bool,
        _ body: (any Channel, inout AsyncStream<[UInt8]>.AsyncIterator, AsyncStream<any Channel>, any EventLoop)
            async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 3)
        let (first, second, third) = (group.next(), group.next(), group.next())
        let (moved, movedTo) = AsyncStream.makeStream(of: (any Channel).self)
        let server = try await ServerBootstrap(group: first)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if !isPlain { try channel.pipeline.syncOperations.addHandler(Inverter()) }
                    try channel.pipeline.syncOperations.addHandler(
                        Echo(isPlain: isPlain, next: second) { movedTo.yield($0) })
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let (received, told) = AsyncStream.makeStream(of: [UInt8].self)
        let address = try #require(server.localAddress)
        let client = try await ClientBootstrap(group: third)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if !isPlain { try channel.pipeline.syncOperations.addHandler(Inverter()) }
                    try channel.pipeline.syncOperations.addHandler(Collector(told))
                }
            }
            .connect(to: address).get()
        var iterator = received.makeAsyncIterator()
        try await body(client, &iterator, moved, second)
        client.close(promise: nil)
        try await server.close()
        try await group.shutdownGracefully()
    }

    private func take(_ count: Int, _ received: inout AsyncStream<[UInt8]>.AsyncIterator) async -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count, let more = await received.next() { bytes += more }
        return bytes
    }

    @Test("what is sent before, with and after the move is answered once and in order", arguments: [true, false])
    func nothingIsLost(isPlain: Bool) async throws {
        try await withMovingServer(isPlain: isPlain) { client, received, moved, second in
            let before = (0..<200).map { UInt8($0 % 255 + 1) }
            // The move is asked for in the middle of what one read brings, and more is on its way by then.
            try await client.writeAndFlush(ByteBuffer(bytes: before + [0] + before)).get()
            for _ in 0..<50 { client.writeAndFlush(ByteBuffer(bytes: before), promise: nil) }
            let all = await take(52 * before.count, &received)
            #expect(all == (0..<52).flatMap { _ in before })
            var channels = moved.makeAsyncIterator()
            let channel = try #require(await channels.next())
            #expect(channel.eventLoop === second && channel.isActive)
            client.writeAndFlush(ByteBuffer(bytes: [7]), promise: nil)
            #expect(await take(1, &received) == [7])
        }
    }

    @Test("the end of either side is the other's, across the move", arguments: [true, false], [true, false])
    func endsAreHeard(isPlain: Bool, byClient: Bool) async throws {
        try await withMovingServer(isPlain: isPlain) { client, received, moved, _ in
            try await client.writeAndFlush(ByteBuffer(bytes: [0, 1])).get()
            #expect(await take(1, &received) == [1])
            var channels = moved.makeAsyncIterator()
            let channel = try #require(await channels.next())
            if byClient {
                try await client.close()
                try await channel.closeFuture.get()
            } else {
                try await channel.close()
                #expect(await received.next() == nil)
            }
        }
    }

    @Test("much that nobody takes waits at its sender, not in between", arguments: [true, false])
    func backPressure(isPlain: Bool) async throws {
        try await withMovingServer(isPlain: isPlain) { client, received, _, _ in
            try await client.writeAndFlush(ByteBuffer(bytes: [0, 1])).get()
            #expect(await take(1, &received) == [1])
            try await client.setOption(.autoRead, value: false).get()
            let part = [UInt8](repeating: 3, count: 1 << 20)
            for _ in 0..<4 { client.writeAndFlush(ByteBuffer(bytes: part), promise: nil) }
            try await client.setOption(.autoRead, value: true).get()
            #expect(await take(4 << 20, &received).count == 4 << 20)
        }
    }
}
