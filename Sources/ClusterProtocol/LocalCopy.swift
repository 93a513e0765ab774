// What this node's pool says of the group when the node starts.

public import LogModel

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
