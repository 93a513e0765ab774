// The events that a group's machine takes and the directives that it gives. See GroupMachine.swift.

public import Coordination
public import LogModel

/// Nanoseconds on one node's boot-time clock (it counts suspension, S17). Never compared between nodes.
public typealias Nanos = UInt64

public struct GroupSettings: Sendable {
    public var group: GroupID
    public var node: NodeID
    public var peer: NodeID
    /// The node that creates the group's record when there is none.
    public var home: NodeID
    public var process: ProcessIdentity
    public var pool: UUID128
    public var heartbeatInterval: Nanos
    public var heartbeatTimeout: Nanos
    public var lease: Nanos
    /// `on-mirror-loss: degrade`; false is `stall`.
    public var degradeOnMirrorLoss: Bool
    /// How long a mirror that lives may leave the oldest request uncompleted. A request waits for two msyncs at most, the one
    /// that is under way and its own, each of what a rail carries (4 MiB); a disk under load takes a second for one. So
    /// 5 s, however short the heartbeats are; where they are slow, ten timeouts, so that a mirror is silent first.
    public var completionLimit: Nanos
    /// How long a medium may take nothing before the group is left to its partner. A path that fails over takes a second or
    /// ten, and so does the worst flush of a slow disk (``DestageMachine/usualBatchWrites``); neither is to move a group. NBD
    /// clients give up after 30 s. So 15 s: what is left of the 30 is for ``releaseLimit``, ``evacuationLimit`` and the takeover.
    public var mediumLimit: Nanos = 15_000_000_000
    /// How long the release of the medium may wait for a call that does not return. When the group is left because of that call
    /// it has lasted for ``mediumLimit`` already; an operator's handover has waited for it while it drained.
    public var releaseLimit: Nanos = 5_000_000_000
    /// How long a stop with nobody to take over may drain. What is left then stays in the log, for the next start; a medium that fails, or a
    /// damaged record that only the absent partner has, would keep the process for ever. A GiB takes a disk ten seconds; longer than any
    /// batch, shorter than what supervisors allow (90 s).
    public var drainAloneLimit: Nanos = 60_000_000_000
    /// How long the process' other groups may take to leave it before it is fenced: a handover takes well below a second.
    public var evacuationLimit: Nanos = 5_000_000_000
    /// How long a group that was left because of its medium stays where it is: what both nodes cannot write to is not helped by
    /// moving it, and each move costs the clients their connections. Long beside a takeover, short beside a night.
    public var mediumRest: Nanos = 600_000_000_000
    /// How long a claim may be held up before the group is left to a partner that holds everything too, as for a medium that fails.
    public var claimLimit: Nanos = 15_000_000_000
    /// How long a log whose end is in doubt waits for a partner that may hold more, before it decides alone: longer than a server
    /// takes to boot, where that is to be waited for.
    public var doubtLimit: Nanos = 30_000_000_000

    public init(
        group: GroupID, node: NodeID, peer: NodeID, home: NodeID, process: ProcessIdentity, pool: UUID128,
        heartbeatInterval: Nanos, heartbeatTimeout: Nanos, lease: Nanos, degradeOnMirrorLoss: Bool
    ) {
        self.group = group
        self.node = node
        self.peer = peer
        self.home = home
        self.process = process
        self.pool = pool
        self.heartbeatInterval = heartbeatInterval
        self.heartbeatTimeout = heartbeatTimeout
        self.lease = lease
        self.degradeOnMirrorLoss = degradeOnMirrorLoss
        completionLimit = max(5_000_000_000, 10 * heartbeatTimeout)
    }

    /// What a lease loses to clocks that do not run alike, and to the way from a check to its effect (S17).
    public var leaseMargin: Nanos { lease / 10 }
}

/// What this node's region of the group holds, from its durable identity.
public struct LocalLog: Hashable, Sendable {
    public var logUUID: UUID128
    public var incarnation: Incarnation
    public init(logUUID: UUID128, incarnation: Incarnation) {
        self.logUUID = logUUID
        self.incarnation = incarnation
    }
}

/// What this node's region has seen of the coordinator, durably, whatever log it holds.
public struct LocalStanding: Hashable, Sendable {
    /// Of the present start: above that of every earlier start of a node with this region.
    public var generation: UInt64
    /// The last one that the coordinator is known to have counted. It has counted this one, or the present one, or is not the one that
    /// this region knows.
    public var counted: UInt64
    /// The highest epoch that was acted on.
    public var epoch: Epoch
    public init(generation: UInt64, counted: UInt64, epoch: Epoch) {
        self.generation = generation
        self.counted = counted
        self.epoch = epoch
    }
}

/// Why nothing reaches the medium though there is something to write.
public struct MediumTrouble: Hashable, Sendable {
    /// The first failure, or the beginning of the call that does not return.
    public var since: Nanos
    /// Which medium, which call, and the error if there is one.
    public var reason: String
    /// Writers wait for space that only a working medium gives back.
    public var isLogFull: Bool
    /// It is full, for whoever writes to it: moving the group helps nobody.
    public var isFull: Bool

    public init(since: Nanos, reason: String, isLogFull: Bool, isFull: Bool = false) {
        self.isFull = isFull
        self.since = since
        self.reason = reason
        self.isLogFull = isLogFull
    }
}

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

    public init(
        group: GroupID, from: NodeID, epoch: Epoch, logUUID: UUID128, incarnation: Incarnation, head: LSN,
        acknowledged: LSN, ringBytes: UInt64, start: LSN = .zero, end: LSN = .zero, pool: UUID128 = .zero,
        generation: UInt64 = 0, counts: Bool = false
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
    public init(isSuspended: Bool = false, problem: String? = nil) {
        self.isSuspended = isSuspended
        self.problem = problem
    }
}

public enum Command: Hashable, Sendable {
    case handOver
    case takeOver(force: Bool)
    /// The operator says that the pool is right and the coordinator is not (S20).
    case forgetCoordinator
    /// An operator says that what ran on a node is dead, where no fence can confirm it (S18).
    case confirmDead(NodeID, by: String, at: String)
    /// Earlier processes of this node have ended: one that lived would hold the lock of the pool (S18).
    case predecessorsEnded(at: String)
    /// Stop for good: hand over if possible, destage.
    case stop
}

/// Which command it is, of those that one group was given: two operators may give equal ones.
public struct CommandID: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
}

public enum Event: Sendable {
    /// The pool is open, and this start is counted there; `local` is `nil` if the group's region was never written. First event.
    case started(local: LocalLog?, LocalStanding)
    /// Time passes; at least every heartbeat interval.
    case tick

    /// The answer to `readRecord`, and to nothing else.
    case recordRead(GroupRecord?)
    /// The answer to `swap`.
    case swapped(SwapOutcome)
    /// `readRecord` or `swap` failed: nothing was changed, and nothing will be by that call.
    case coordinatorFailed(String)
    /// A renewal that began at `startedAt` has been announced, and *after that* the group's record was read.
    case renewed(startedAt: Nanos, record: GroupRecord?)
    /// What the coordinator, asked at `askedAt`, knew of the peer's life, and a process of the peer that is known to be gone.
    case peerPresence(Presence?, deadProcess: ProcessIdentity?, askedAt: Nanos)

    /// Anything arrived from the peer on this group's rail.
    case heard
    /// What the peer says of itself on this group's rail.
    case peerSaid(Heartbeat)
    /// Standby: why this node could not take the group over now, `nil` if it could. Said when it is known, and when it changes.
    case takeoverProblem(String?)
    /// Owner: the rail that `dial` asked for is up. Mirror: what `acceptAttach` accepted is the group's rail from now on.
    case railUp
    case railDown
    /// Mirror: an owner asks to attach.
    case attachRequested(AttachRequest)
    /// Owner: the mirror holds everything below `durable`.
    case attached(durable: LSN, MirrorContents)
    case attachRefused(AttachRefusal, String)
    /// Owner: the session's numbers, when they moved and with every tick: what is durable here and at the mirror, and the
    /// oldest request that the mirror was sent and has not completed.
    case progress(local: LSN, mirror: LSN, pending: UInt64?)
    /// The partner says that the record has changed.
    case recordChanged

    /// Of the processes that `fence` named these are confirmed dead; `problem` is why others are not, and is to be tried again.
    case fenced([GroupRecord.Fence], problem: String?)
    /// The locked media's identities, by volume; of those that carry one.
    case mediaLocked([String: UUID128])
    /// The epoch that `noteEpoch` named is durable in this node's pool.
    case epochNoted(Epoch)
    /// No copy into the region is in progress any more, and no key opens it.
    case sealed
    /// Everything in the region is on the medium and flushed. `end` is where the old log ended.
    case recovered(end: LSN)
    case logOpened
    /// `fence`, `lockMedia`, `recover` or `openLog` failed and may be tried again.
    case stepFailed(String)
    /// Recovery found corrupt records, which it must not step over (S5).
    case logCorrupt(String)
    /// Recovery cannot go on for another reason that trying again does not change: a volume that is not configured.
    case recoveryRefused(String)
    /// `recover(askingFirst: true)` has read the log and written nothing: what it held beyond its end it cannot know (S5).
    case tailInDoubt(String)

    /// Memory of this node's region has failed: nothing that is stored there may be called durable any more (S26). Said again
    /// with every tick for as long as the process lives.
    case logFailed(String)

    /// Owner: what keeps batches from the medium now, `nil` if nothing does. Said before every tick.
    case medium(MediumTrouble?)
    /// The process' other groups have left it, as far as they could.
    case evacuated

    /// Owner: every record of the log is on the medium, and the head has moved past it.
    case drained
    case mediaReleased
    case command(Command, CommandID)
}

public enum Directive: Hashable, Sendable {
    case readRecord
    case swap(expecting: UInt64, to: GroupRecord)

    case dial
    case closeRail
    case sendAttach(epoch: Epoch, counts: Bool)
    /// Mirror: prepare the region, register it under a key for this epoch and tell the owner where it is. `generation` is noted in a
    /// region that is begun anew.
    case acceptAttach(AttachRequest, generation: UInt64)
    case refuseAttach(AttachRequest, AttachRefusal, String)
    case sendHeartbeat
    /// The coordinator has counted this start: note so in the pool.
    case confirmStart
    /// Make it durable in this node's pool that this epoch was seen, then say `epochNoted` (S20).
    case noteEpoch(Epoch)
    /// Tell the partner to read the record.
    case tellRecordChanged

    case fence([ProcessIdentity])
    /// `expected`: the identities that the record knows, by volume.
    case lockMedia(expected: [String: UUID128])
    case sealRegion
    /// Replay all of the region and flush; or, with `askingFirst`, read it and say `tailInDoubt`.
    case recover(askingFirst: Bool)
    /// Archive the region's log and write nothing of it (S9). Then `recovered`, with where it ended.
    case setLogAside
    /// Begin `incarnation` in this node's region as owner, from the recovered end on, and note `generation` there.
    case openLog(Incarnation, logUUID: UUID128, start: LSN, generation: UInt64)

    /// Accept requests, or go on after `suspend`.
    case serve
    /// The lease ran out: acknowledge, read and destage nothing until `serve`, or `stopServing`.
    case suspend
    /// Ownership is gone or given away: close the clients' connections without answers.
    case stopServing
    /// Evaluate acknowledgements again: the rule or a number changed.
    case acknowledge
    /// Owner: take no new requests and destage everything, then say `drained`.
    case drain
    case releaseMedia
    /// This process is about to be fenced: hand its other groups over, then say `evacuated`.
    case evacuate
    /// `stop` is complete.
    case stopped

    case report(Report)
    /// The command that was given is done, or refused with a reason.
    case commandDone(Command, CommandID, refusal: String?)
}

/// The word for a group's condition in `status`.
public enum GroupState: String, Hashable, Sendable, Codable {
    case starting, unavailable, mirrored, degraded, stalled, resyncing, suspecting, fencing, replaying, stopped
    case handingOver = "handing-over"
}
