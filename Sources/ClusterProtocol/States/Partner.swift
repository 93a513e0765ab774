// What is known of a partner's life, on this node's clock, whoever owns the group.

internal import Coordination
internal import LogModel

struct Partner: Sendable {
    private(set) var isRailUp = false
    var lastHeard: Nanos
    /// What it last said of itself, on the rail.
    private(set) var heartbeat = Heartbeat()
    private(set) var presence: Presence?
    /// Since when its presence is the present one.
    var presenceSince: Nanos
    /// When the coordinator was asked for what is known.
    private(set) var presenceAskedAt: Nanos
    /// When a presence was last seen to take the place of another: only that says that somebody lives.
    private(set) var lastSignOfLife: Nanos?
    /// A process of the partner that is known to be gone.
    private(set) var deadProcess: ProcessIdentity?
    /// What confirms it, if a fence did.
    private(set) var confirmation: GroupRecord.Fence?
    /// As owner: until then it claims nothing, whatever becomes of the rail (S17).
    private(set) var grantEnd: Nanos = 0

    init(since now: Nanos) {
        lastHeard = now
        presenceSince = now
        presenceAskedAt = now
    }

    mutating func railUp(_ now: Nanos) {
        isRailUp = true
        lastHeard = now
        heartbeat = Heartbeat()
    }

    /// The session goes on over another rail, which is up.
    mutating func railMoved() { isRailUp = true }

    mutating func railDown() {
        isRailUp = false
        heartbeat = Heartbeat()
    }

    /// This node closes the rail. What was said on it is still the latest.
    mutating func railClosed() { isRailUp = false }

    mutating func said(_ heartbeat: Heartbeat, _ now: Nanos) {
        lastHeard = now
        self.heartbeat = heartbeat
    }

    /// What a rail brings that stands by is as good a sign of life as any, and of no use from an owner that may not serve.
    mutating func heardBeside(isSuspended: Bool, _ now: Nanos) {
        lastHeard = now
        heartbeat.isSuspended = isSuspended
    }

    mutating func seen(_ presence: Presence?, dead: ProcessIdentity?, askedAt: Nanos, _ now: Nanos) {
        presenceAskedAt = askedAt
        if presence != self.presence {
            if self.presence != nil { lastSignOfLife = now }
            self.presence = presence
            presenceSince = now
        }
        if let dead { deadProcess = dead }
    }

    /// A fence has confirmed that a process of the partner is dead.
    mutating func ended(_ fence: GroupRecord.Fence) {
        deadProcess = fence.target
        confirmation = fence
    }

    /// Answers may overtake each other on different rails.
    mutating func granted(until end: Nanos) { grantEnd = max(grantEnd, end) }

    func isSilent(_ now: Nanos, timeout: Nanos) -> Bool { now >= lastHeard + timeout }

    /// Why it could not serve the group, as it announced at the coordinator.
    func announcedProblem(_ group: GroupID) -> String? { presence?.problems?[group.rawValue] }
}
