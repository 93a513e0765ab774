// What stands between a dialer and a listener: carries bytes both ways, or holds them, or loses them and the connection.

import NIOCore
import NIOPosix
import RemoteMemorySupport

/// Bound to its event loop.
final class Relay {
    private let eventLoop: any EventLoop
    private var channels: [any Channel] = []
    private var isStalled = false
    private var isCut = false
    private var held: [(bytes: ByteBuffer, to: any Channel, isForTarget: Bool)] = []
    /// Bytes that the target still gets before the connection is lost.
    private var leftForTarget: Int?

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// Answers the port at which it carries what comes to `target`.
    func listen(to target: Int) -> EventLoopFuture<Int> {
        let relay = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .childChannelInitializer { incoming in
                ClientBootstrap(group: incoming.eventLoop).connect(host: "127.0.0.1", port: target).flatMapThrowing {
                    outgoing in
                    relay.value.channels += [incoming, outgoing]
                    try incoming.pipeline.syncOperations.addHandler(
                        Carrier(relay.value, to: outgoing, isForTarget: true))
                    try outgoing.pipeline.syncOperations.addHandler(
                        Carrier(relay.value, to: incoming, isForTarget: false))
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .flatMapThrowing { server in
                relay.value.channels.append(server)
                guard let port = server.localAddress?.port else { throw ChannelError.unknownLocalAddress }
                return port
            }
    }

    func disturb(_ disturbance: Disturbance) {
        switch disturbance {
        case .stall: isStalled = true
        case .goOn: goOn()
        case .cut: close()
        case .tear(let bytes):
            leftForTarget = bytes
            goOn()
        }
    }

    private func goOn() {
        isStalled = false
        let waiting = held
        held = []
        for (bytes, channel, isForTarget) in waiting { carry(bytes, to: channel, isForTarget: isForTarget) }
    }

    fileprivate func carry(_ bytes: ByteBuffer, to channel: any Channel, isForTarget: Bool) {
        guard !isCut else { return }
        guard !isStalled else { return held.append((bytes, channel, isForTarget)) }
        guard isForTarget, let left = leftForTarget else { return channel.writeAndFlush(bytes, promise: nil) }
        let part = bytes.getSlice(at: bytes.readerIndex, length: min(left, bytes.readableBytes)) ?? ByteBuffer()
        leftForTarget = left - part.readableBytes
        guard leftForTarget == 0 else { return channel.writeAndFlush(part, promise: nil) }
        isCut = true
        channel.writeAndFlush(part).assumeIsolated().whenComplete { _ in self.close() }
    }

    func close() {
        isCut = true
        for channel in channels { channel.close(promise: nil) }
        channels = []
    }
}

private final class Carrier: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let relay: Relay
    private let other: any Channel
    private let isForTarget: Bool

    init(_ relay: Relay, to other: any Channel, isForTarget: Bool) {
        self.relay = relay
        self.other = other
        self.isForTarget = isForTarget
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        relay.carry(unwrapInboundIn(data), to: other, isForTarget: isForTarget)
    }

    func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
}
