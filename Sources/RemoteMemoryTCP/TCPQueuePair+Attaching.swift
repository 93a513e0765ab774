// A rail from one event loop to another: the listener's loop proves who made it, the loop of the group that it is for goes on with it.

public import LoopChange
public import LoopPolling
public import NIOCore

extension TCPQueuePair {
    /// Goes on with a connection that another loop let go of. `made` is called once if that succeeds, and sets the delegate before it
    /// returns; what had arrived meanwhile is heard after that. On `eventLoop`, as `poller` and `registry` are.
    public static func attach(
        _ connection: DetachedConnection, to eventLoop: any EventLoop, registry: TCPRegionRegistry,
        poller: LoopPoller?, made: @escaping (TCPQueuePair) -> Void
    ) {
        // What carries the bytes of a connection with TLS to this loop is plain itself.
        let queuePair = TCPQueuePair(eventLoop: eventLoop, registry: registry, isPlain: true, poller: poller)
        let begin = NIOLoopBound(
            { (channel: any Channel) in
                let options = channel.syncOptions
                try options?.setOption(.recvAllocator, value: readAllocator)
                try options?.setOption(.maxMessagesPerRead, value: 1)
                try channel.pipeline.syncOperations.addHandler(queuePair)
                made(queuePair)
                connection.outer?.whenEnded(on: channel.eventLoop) { end in
                    if end == .all { channel.close(promise: nil) }
                }
                guard connection.rest.readableBytes > 0 else { return }
                channel.pipeline.fireChannelRead(connection.rest)
                channel.pipeline.fireChannelReadComplete()
            }, eventLoop: eventLoop)
        // What keeps it from going on has ended the connection, as the peer sees.
        connection.attach(to: eventLoop) { try begin.value($0) }.whenFailure { _ in }
    }
}
