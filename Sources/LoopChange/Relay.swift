// One end of a pair that hands on what the other end's channel reads, both ways, no faster than it is taken.

internal import NIOCore

/// Bound to the event loop of both channels.
final class Relay: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    /// Breaks the circle when either ends.
    private var other: (any Channel)?

    private init(to other: any Channel) { self.other = other }

    /// On their loop. Each of them is read from now on.
    static func join(_ one: any Channel, _ other: any Channel) throws {
        try one.pipeline.syncOperations.addHandler(Relay(to: other))
        try other.pipeline.syncOperations.addHandler(Relay(to: one))
        guard one.isActive, other.isActive else { throw ChannelError.ioOnClosedChannel }
        for channel in [one, other] { channel.setOption(.autoRead, value: true).whenFailure { _ in } }
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
        if let event = event as? ChannelEvent, event == .inputClosed {
            close(other, .output)
        }
    }

    func channelInactive(context: ChannelHandlerContext) { end() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
        end()
    }

    private func end() {
        guard let other else { return }
        self.other = nil
        close(other, .all)
    }

    /// What it was given before is sent first.
    private func close(_ channel: (any Channel)?, _ mode: CloseMode) {
        channel?.writeAndFlush(ByteBuffer()).whenComplete { _ in channel?.close(mode: mode, promise: nil) }
    }
}
