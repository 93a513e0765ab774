// What an operator, or this node's own supervision, asks of a group.

public import LogModel

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
