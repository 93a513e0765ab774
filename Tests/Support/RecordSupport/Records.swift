// Records in a line, for tests: who holds what by name, and the pools.

public import Coordination
public import LogModel

extension GroupRecord {
    /// `holders` of a published record, or of a claim: see ``GroupRecord/holders``. Everybody's copy is of `generation` and `incarnation`.
    public init(
        version: UInt64, group: GroupID, logUUID: UUID128, owner: NodeID, epoch: Epoch, phase: Phase,
        holders: [NodeID], mustFence: [ProcessIdentity] = [], ownerProcess: ProcessIdentity?,
        pools: [String: UUID128], generation: UInt64 = 1, incarnation: Incarnation = .none
    ) {
        var members: [NodeID: Member] = [:]
        for (name, pool) in pools {
            members[NodeID(name)] = Member(role: .out, pool: pool, generation: generation, incarnation: incarnation)
        }
        self.init(
            version: version, group: group, logUUID: logUUID, owner: owner, epoch: epoch, phase: phase,
            members: members, fences: mustFence.map { Fence(target: $0) }, ownerProcess: ownerProcess)
        setHolders(holders)
    }
}
