// One end of a pair that hands on what the other end's channel reads, both ways, no faster than it is taken.

internal import NIOCore

/// Bound to the event loop of both channels: that of the connection, and the near end of the pair of sockets that leads to another loop.
final class Relay: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    /// How long a connection whose far end has closed it may take for what it was sent before.
    private static let lingering = TimeAmount.seconds(5)
    private static let waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 32 << 10, high: 64 << 10)

    /// Breaks the circle when either ends.
    private var other: (any Channel)?
    /// Of the connection's own end.
    private let outer: OuterConnection?

    private init(to other: any Channel, _ outer: OuterConnection?) {
        self.other = other
        self.outer = outer
    }

    /// On their loop. Each of them is read from now on.
    static func join(_ outer: OuterConnection, _ near: any Channel) throws {
        let channel = outer.channel
        try channel.pipeline.syncOperations.addHandler(Relay(to: near, outer))
        try near.pipeline.syncOperations.addHandler(Relay(to: channel, nil))
        guard channel.isActive, near.isActive else { throw ChannelError.ioOnClosedChannel }
        for channel in [channel, near] {
            try channel.syncOptions?.setOption(.writeBufferWaterMark, value: waterMark)
            channel.setOption(.autoRead, value: true).whenFailure { _ in }
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        other?.write(unwrapInboundIn(data), promise: nil)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        guard let other else { return }
        other.flush()
        if !other.isWritable { context.channel.setOption(.autoRead, value: false).whenFailure { _ in } }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { other?.setOption(.autoRead, value: true).whenFailure { _ in } }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? ChannelEvent, event == .inputClosed else { return }
        outer?.tell(.input)
        // What it was given before is sent first.
        guard let other else { return }
        other.writeAndFlush(ByteBuffer()).whenComplete { _ in other.close(mode: .output, promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) { end() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
        end()
    }

    private func end() {
        guard let other else { return }
        self.other = nil
        if let outer {
            // What is on its way is for nobody's good any more.
            outer.tell(.all)
            return other.close(promise: nil)
        }
        other.writeAndFlush(ByteBuffer()).whenComplete { _ in other.close(promise: nil) }
        other.eventLoop.scheduleTask(in: Self.lingering) { other.close(promise: nil) }
    }
}
