// The part of a moved connection that stays on the loop where it began, because TLS is there, for whoever goes on with the rest.

public import NIOCore
internal import Synchronization

/// Thread-safe.
public final class OuterConnection: Sendable {
    public enum End: Sendable {
        /// The peer sends nothing more.
        case input
        /// The connection is gone.
        case all
    }

    private struct State {
        var ends: [End] = []
        var listener: (@Sendable (End) -> Void)?
    }

    /// On its own loop.
    public let channel: any Channel
    private let state = Mutex(State())

    init(_ channel: any Channel) { self.channel = channel }

    /// Tells of each end as soon as the loop of the connection sees it, before what was sent ahead of it has come through, which may take
    /// until there is room for it. `body` is called on `eventLoop`, in the order in which that loop is given other things to do.
    public func whenEnded(on eventLoop: any EventLoop, _ body: @escaping @Sendable (End) -> Void) {
        state.withLock { state in
            let listener = { @Sendable (end: End) in eventLoop.execute { body(end) } }
            for end in state.ends { listener(end) }
            state.listener = listener
        }
    }

    func tell(_ end: End) {
        state.withLock { state in
            state.ends.append(end)
            state.listener?(end)
        }
    }
}
