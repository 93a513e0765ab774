// What a group's machine is made with: who takes part, and how long it waits for what.

public import Coordination
public import LogModel

/// Nanoseconds on one node's boot-time clock (it counts suspension, S17). Never compared between nodes.
public typealias Nanos = UInt64

public struct GroupSettings: Sendable {
    public var group: GroupID
    public var node: NodeID
    /// The other nodes that may hold a copy of the group's log: one at least.
    public var partners: [NodeID]
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
    /// Least time between two moves for a failing medium. If both nodes fail, moving only drops clients.
    public var mediumRest: Nanos = 600_000_000_000
    /// How long a claim may be held up before the group is left to a partner that holds everything too, as for a medium that fails.
    public var claimLimit: Nanos = 15_000_000_000
    /// How long a log whose end is in doubt waits for a partner that may hold more, before it decides alone: longer than a server
    /// takes to boot, where that is to be waited for.
    public var doubtLimit: Nanos = 30_000_000_000
    /// The most of the log that one WRITE carries to a mirror.
    public var shipBytes = MirrorSession.maximumShipBytes

    public init(
        group: GroupID, node: NodeID, partners: [NodeID], home: NodeID, process: ProcessIdentity, pool: UUID128,
        heartbeatInterval: Nanos, heartbeatTimeout: Nanos, lease: Nanos, degradeOnMirrorLoss: Bool
    ) {
        self.group = group
        self.node = node
        self.partners = partners.sorted()
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
