// What an owner and a mirror tell each other when they meet, and with every heartbeat.

public import LogModel

/// An owner asks to write its log into the partner's mirror region.
public struct AttachRequest: Hashable, Sendable {
    public var group: GroupID
    public var from: NodeID
    public var epoch: Epoch
    public var logUUID: UUID128
    public var incarnation: Incarnation
    public var head: LSN
    public var acknowledged: LSN
    public var ringBytes: UInt64
    /// Where the incarnation began: everything of earlier ones is on the medium, up to here.
    public var start: LSN
    /// Where the owner's log ends, durably.
    public var end: LSN
    /// The owner's pool, and which start of the owner it is.
    public var pool: UUID128
    public var generation: UInt64
    /// The record counts the asked node as in sync.
    public var counts: Bool
    /// Counts this process' requests, from 1: one that comes late on another rail is told from the newest. 0: of an earlier release.
    public var attempt: UInt64

    public init(
        group: GroupID, from: NodeID, epoch: Epoch, logUUID: UUID128, incarnation: Incarnation, head: LSN,
        acknowledged: LSN, ringBytes: UInt64, start: LSN = .zero, end: LSN = .zero, pool: UUID128 = .zero,
        generation: UInt64 = 0, counts: Bool = false, attempt: UInt64 = 0
    ) {
        self.start = start
        self.end = end
        self.pool = pool
        self.generation = generation
        self.counts = counts
        self.group = group
        self.from = from
        self.epoch = epoch
        self.logUUID = logUUID
        self.incarnation = incarnation
        self.head = head
        self.acknowledged = acknowledged
        self.ringBytes = ringBytes
        self.pool = pool
        self.generation = generation
        self.end = end
        self.counts = counts
        self.attempt = attempt
    }
}

/// What an attached mirror says of its region.
public struct MirrorContents: Hashable, Sendable {
    /// The pool that the region is in, and how often it was started.
    public var pool: UUID128
    /// Which start of the mirror with this pool it is.
    public var generation: UInt64
    /// The region already held this incarnation of the log, and its records were kept.
    public var isKept: Bool
    /// The highest acknowledged LSN that the region knows, and where its valid records end.
    public var acknowledged: LSN
    public var end: LSN

    public init(
        pool: UUID128, generation: UInt64 = 0, isKept: Bool, acknowledged: LSN = .zero, end: LSN = .zero
    ) {
        self.pool = pool
        self.generation = generation
        self.isKept = isKept
        self.acknowledged = acknowledged
        self.end = end
    }
}

/// Why a mirror does not take an owner's log. The numbers stand on the wire.
public enum AttachRefusal: UInt8, Hashable, Sendable, CaseIterable {
    /// The coordinator knows a newer epoch, or another owner: the asker must read the record (S15).
    case staleEpoch = 1
    /// Not now; ask again.
    case notReady = 2
    /// What counts here as in sync is gone: count it out, then ask again (S13, S20).
    case lostLog = 3
    /// The log here holds acknowledged records that the owner's lacks.
    case holdsMore = 4
    /// The two nodes' configurations differ in what must be equal (S27).
    case differentConfiguration = 5
    /// The region here cannot be written to.
    case damaged = 6
}

/// What a node says of itself with every heartbeat.
public struct Heartbeat: Hashable, Sendable {
    /// It owns the group and has lost its right to serve: it is alive, and of no use.
    public var isSuspended: Bool
    /// Why it could not take the group over; `nil` if it could, or does not know yet.
    public var problem: String?
    /// Of an owner: it asks for a grant, at this time on its own clock (S17).
    public var asks: Nanos?
    /// Of a mirror: from now on it claims nothing for the length of a lease. It answers what was asked at this time.
    public var grants: Nanos?

    public init(isSuspended: Bool = false, problem: String? = nil, asks: Nanos? = nil, grants: Nanos? = nil) {
        self.isSuspended = isSuspended
        self.problem = problem
        self.asks = asks
        self.grants = grants
    }
}

/// What an owner says on each of its rails, whether the session is there or not.
public struct RailHeartbeat: Hashable, Sendable {
    public var group: GroupID
    /// Of the owner's log: a rail of an earlier owner, or of an earlier claim, is no sign of life.
    public var incarnation: Incarnation
    /// As ``Heartbeat/isSuspended``.
    public var isSuspended: Bool
    /// On the sender's clock.
    public var sent: Nanos

    public init(group: GroupID, incarnation: Incarnation, isSuspended: Bool = false, sent: Nanos) {
        self.group = group
        self.incarnation = incarnation
        self.isSuspended = isSuspended
        self.sent = sent
    }
}
