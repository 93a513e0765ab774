// Fencing by the media themselves (SCSI-3 persistent reservations): the old owner is not turned off, it cannot write any more. Confirmed
// when every medium that the two nodes share says so when it is read back (S18).

public import Coordination
internal import Foundation
public import LogModel
public import SCSICommands

public struct ReservationFence: Fence {
    /// A medium that this node shares with `nodes`.
    public struct SharedMedium: Sendable {
        public var nodes: Set<NodeID>
        /// Makes a way to the medium. Blocks.
        public var open: @Sendable () throws(SCSIError) -> any SCSIDevice

        public init(nodes: Set<NodeID>, open: @escaping @Sendable () throws(SCSIError) -> any SCSIDevice) {
            self.nodes = nodes
            self.open = open
        }
    }

    private let media: [SharedMedium]
    private let me: KeyHolder
    private let cluster: [KeyHolder]
    private let look = KillingFence()

    /// `nodes`: of the cluster, `me` among them.
    public init(_ media: [SharedMedium], by me: NodeID, of nodes: [NodeID], cluster: String) {
        self.media = media
        self.me = KeyHolder(me, of: cluster)
        self.cluster = nodes.map { KeyHolder($0, of: cluster) }
    }

    public func confirmDead(
        _ process: ProcessIdentity, by node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        // A node does not shut itself out. An earlier process of its own is on this machine, or unseen and refused.
        if process.node == node { return try look.confirmDead(process, by: node) }
        let shared = media.filter { $0.nodes.contains(process.node) }
        guard !shared.isEmpty else {
            throw FenceError("reservation: there is no medium that \(process.node) could be kept from")
        }
        for medium in shared { try shutOut(process.node, from: medium) }
        return GroupRecord.Fence.Confirmation(
            method: GroupRecord.Fence.Confirmation.reservation, by: node.rawValue, at: Date.now.formatted(.iso8601))
    }

    private func shutOut(_ node: NodeID, from medium: SharedMedium) throws(FenceError) {
        do throws(SCSIError) {
            try ExclusiveHold.shutOthers(outOf: medium.open(), by: me, of: cluster)
        } catch {
            throw FenceError(
                "reservation: \(node) is not shut out: \(error); if \(node) is known to be off, say so with `twinlog confirm-dead \(node)`"
            )
        }
    }

    // MARK: Looking

    public func isGone(_ process: ProcessIdentity) throws(FenceError) -> Bool { try look.isGone(process) }

    public func confirmEnded(
        predecessor: ProcessIdentity, of node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation? {
        try look.confirmEnded(predecessor: predecessor, of: node)
    }
}
