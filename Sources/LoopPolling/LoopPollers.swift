// The pollers of a process, one for each event loop that wants one.

public import LogModel
public import NIOCore
internal import Synchronization

/// Thread-safe.
public final class LoopPollers: Sendable {
    private let mode: PollMode
    private let pollers = Mutex<[ObjectIdentifier: NIOLoopBound<LoopPoller>]>([:])

    public init(_ mode: PollMode) { self.mode = mode }

    /// The loop's own, for everything on it; `nil` where nothing is ever looked for. On `eventLoop`, which outlives this.
    public func poller(of eventLoop: any EventLoop) -> LoopPoller? {
        pollers.withLock { pollers -> NIOLoopBound<LoopPoller>? in
            if let known = pollers[ObjectIdentifier(eventLoop)] { return known }
            let made = LoopPoller(mode, eventLoop: eventLoop).map { NIOLoopBound($0, eventLoop: eventLoop) }
            pollers[ObjectIdentifier(eventLoop)] = made
            return made
        }?.value
    }
}
