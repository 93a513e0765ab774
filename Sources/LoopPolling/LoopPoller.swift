// Looks at the sockets of an event loop before the loop goes to sleep, as PollingPolicy says.

internal import CHostSupport
internal import Glibc
public import LogModel
public import NIOCore

/// Bound to one event loop; everything is called there.
public final class LoopPoller {
    /// A look at so many sockets costs less than a wake-up; a loop with more has something to do anyway.
    private static let mostSockets = 64

    private let eventLoop: any EventLoop
    private var policy: PollingPolicy
    private var sockets: [pollfd] = []
    private var isScheduled = false
    /// When the last turn that heard something began, and ended.
    private var turnBegan: UInt64 = 0
    private var turnEnded: UInt64?

    /// `nil` where nothing would ever be looked for.
    public init?(_ mode: PollMode, eventLoop: any EventLoop) {
        guard mode != .off else { return nil }
        self.eventLoop = eventLoop
        policy = PollingPolicy(mode)
    }

    /// Looks at the socket of `channel` from now on, until it is closed. Channels without one are left out.
    public func watch(_ channel: any Channel) {
        eventLoop.preconditionInEventLoop()
        guard channel.isActive, let socket = channel.socketDescriptor else { return }
        sockets.append(pollfd(fd: socket, events: Int16(POLLIN), revents: 0))
        // Before the descriptor is somebody else's: a channel closes its socket and tells of it in one go, on this loop.
        channel.closeFuture.assumeIsolated().whenComplete { _ in self.sockets.removeAll { $0.fd == socket } }
    }

    /// Something arrived on a watched channel in this turn of the loop, and is about to be worked on.
    public func heard() {
        guard !isScheduled else { return }
        isScheduled = true
        turnBegan = Self.now
        // What arrived is carried out by tasks of this turn, whose answers are sent by tasks that they add: look behind them.
        let loop = eventLoop.assumeIsolated()
        loop.execute { loop.execute { loop.execute { self.endTurn() } } }
    }

    private func endTurn() {
        isScheduled = false
        let now = Self.now
        if let ended = turnEnded { policy.turned(waitNanos: turnBegan - ended, workNanos: now - turnBegan) }
        turnEnded = now
        guard sockets.count <= Self.mostSockets else { return }
        let nanos = policy.nanosToLook()
        if nanos > 0 { policy.looked(look(until: now + nanos)) }
    }

    private func look(until deadline: UInt64) -> PollingPolicy.Outcome {
        let switches = tl_host_involuntary_switches()
        var count: CInt
        repeat {
            count = poll(&sockets, nfds_t(sockets.count), 0)
        } while count == 0 && Self.now < deadline
        if tl_host_involuntary_switches() != switches { return .disturbed }
        return count != 0 ? .arrived : .nothing
    }

    private static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

extension Channel {
    /// `nil` for a channel that has none, or is closed.
    fileprivate var socketDescriptor: CInt? {
        try? pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { $0 }
    }
}
