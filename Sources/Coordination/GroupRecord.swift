// What the coordinator knows of a volume group. Ownership changes only by compare-and-swap of this record (S15).

public import LogModel

/// One start of one process on one boot of one machine: what a process fence needs to kill the right one (S18).
public struct ProcessIdentity: Hashable, Sendable, Codable {
    public var node: NodeID
    public var pid: Int32
    /// Field 22 of `/proc/PID/stat`: clock ticks from boot to the start of the process.
    public var startTicks: UInt64
    /// `/proc/sys/kernel/random/boot_id`.
    public var bootID: String
    /// `/etc/machine-id`, or the host's name. `nil` in records that do not tell: taken for this host.
    public var hostID: String?

    public init(node: NodeID, pid: Int32, startTicks: UInt64, bootID: String, hostID: String? = nil) {
        self.hostID = hostID
        self.node = node
        self.pid = pid
        self.startTicks = startTicks
        self.bootID = bootID
    }
}

/// The record of one group. Every swap raises `version`; `epoch` never falls.
public struct GroupRecord: Hashable, Sendable, Codable {
    public enum Phase: String, Sendable, Codable {
        /// Won, but what the earlier incarnation left is not all on the medium yet: nobody serves, nothing is discarded.
        case claimed
        /// The owner serves (or did until it died).
        case published
    }

    /// Counts swaps of this record, from 1.
    public var version: UInt64
    public var group: GroupID
    /// The identity of the group's log (S4). It never changes.
    public var logUUID: UUID128
    public var owner: NodeID
    public var epoch: Epoch
    public var phase: Phase
    /// Nodes whose log holds every acknowledged record: these may take over a published group (S13, S14). Sorted.
    public var inSync: [NodeID]
    /// While claimed: the nodes whose logs hold everything that was acknowledged before the claim; any of them may
    /// claim anew and finish (S16). Empty while published. Sorted.
    public var sources: [NodeID]
    /// While claimed: processes that may still write to the medium and must be confirmed dead before recovery (S16).
    /// One that gave the group away may be among them: a call of the medium did not return to it.
    public var mustFence: [ProcessIdentity]
    /// The owner's process; a taker fences it. `nil` after a handover: the new owner has not claimed yet, and the old one has
    /// released the medium or is among ``mustFence``.
    public var ownerProcess: ProcessIdentity?
    /// While claimed by force with a log that is out of sync: what that log holds is older than what may be on the medium, so
    /// it is set aside and not replayed (S9). `nil` otherwise.
    public var setsAsideLog: Bool?
    /// While claimed and never published: nothing was ever written, so a pool without a log holds everything. `nil` from then on:
    /// a node whose pool has lost its log is not taken for a new one (S20).
    public var isNew: Bool?
    /// The group was left because its medium failed the owner, and no owner has destaged everything since. `nil` otherwise.
    public var leftForMedium: Bool?
    /// The pool that each node had when it last took part; a node with another one is not in sync, whatever it says (S20).
    public var pools: [String: UUID128]

    public init(
        version: UInt64, group: GroupID, logUUID: UUID128, owner: NodeID, epoch: Epoch, phase: Phase,
        inSync: [NodeID], sources: [NodeID], mustFence: [ProcessIdentity], ownerProcess: ProcessIdentity?,
        setsAsideLog: Bool? = nil, isNew: Bool? = nil, leftForMedium: Bool? = nil,
        pools: [String: UUID128]
    ) {
        self.setsAsideLog = setsAsideLog
        self.isNew = isNew
        self.leftForMedium = leftForMedium
        self.version = version
        self.group = group
        self.logUUID = logUUID
        self.owner = owner
        self.epoch = epoch
        self.phase = phase
        self.inSync = inSync
        self.sources = sources
        self.mustFence = mustFence
        self.ownerProcess = ownerProcess
        self.pools = pools
    }
}

/// A node's sign of life at the coordinator, renewed a few times per lease (S17). Observers compare `counter` between
/// their own readings, on their own clock; they never compare clocks.
public struct Presence: Hashable, Sendable, Codable {
    public var process: ProcessIdentity
    /// Grows with every renewal of this process.
    public var counter: UInt64
    public var pool: UUID128

    public init(process: ProcessIdentity, counter: UInt64, pool: UUID128) {
        self.process = process
        self.counter = counter
        self.pool = pool
    }
}
