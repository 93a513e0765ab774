// Which process a node is, so that a fence ends it and no other, and what it says of its life.

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
    /// The PID namespace that `pid` counts in, as `/proc/self/ns/pid` names it. `nil` in records that do not tell: taken for this
    /// one.
    public var pidNamespace: String?

    public init(
        node: NodeID, pid: Int32, startTicks: UInt64, bootID: String, hostID: String? = nil,
        pidNamespace: String? = nil
    ) {
        self.node = node
        self.pid = pid
        self.startTicks = startTicks
        self.bootID = bootID
        self.hostID = hostID
        self.pidNamespace = pidNamespace
    }
}

/// A node's sign of life at the coordinator, renewed a few times per lease (S17). Observers compare `counter` between
/// their own readings, on their own clock; they never compare clocks.
public struct Presence: Hashable, Sendable, Codable {
    public var process: ProcessIdentity
    /// Grows with every renewal of this process.
    public var counter: UInt64
    public var pool: UUID128
    /// Why this node could not take a group over now, by the group's name; of those that it could not.
    public var problems: [String: String]?

    public init(process: ProcessIdentity, counter: UInt64, pool: UUID128, problems: [String: String]? = nil) {
        self.process = process
        self.counter = counter
        self.pool = pool
        self.problems = problems
    }
}
