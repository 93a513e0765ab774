// What status, metrics and pages read of a group.

package import ClusterProtocol
package import LogModel
internal import PersistentMemory
internal import RemoteMemory
internal import WriteLog

/// A group's log on this node. `nil`: this node cannot know it.
package struct LogSnapshot: Hashable, Sendable {
    package var capacityBytes: UInt64
    package var head: LSN
    package var tail: LSN?
    package var durable: LSN?
    package var mirrored: LSN?
    package var acknowledged: LSN?
    package var usedBytes: UInt64
    /// Acknowledged writes that are not on the medium yet; of an owner.
    package var undestagedWrites: Int?
}

/// One of an owner's rails to its mirror.
package struct RailSnapshot: Hashable, Sendable {
    package enum State: String, Sendable { case session, standby, connecting, down }

    package var address: String
    package var state: State
    package var since: Nanos
    package var bytesInFlight: Int
    package var roundTrip: Nanos?
    /// `nil` while it is not up.
    package var isEncrypted: Bool?
    package var lastError: String?
}

extension Group {
    package var railSnapshots: [RailSnapshot] {
        rails.choice.rails.enumerated().map { index, rail in
            let state: RailSnapshot.State =
                switch rail.state {
                case .session: .session
                case .standby: .standby
                case .dialing: .connecting
                case .down: .down
                }
            return RailSnapshot(
                address: rails.place(index), state: state, since: rail.since,
                bytesInFlight: rails.bytesInFlight(on: index), roundTrip: rail.isUp ? rail.roundTrip : nil,
                isEncrypted: rails.peer(on: index)?.isEncrypted, lastError: rail.lastError)
        }
    }

    /// Why the group is not whole, or could not be taken over, for a person: the machine's reason, what the two configurations differ in, and what
    /// keeps a mirror from getting the log. `nil` if all is well.
    package var reason: String? {
        let machine = machine.reason(runtime.now)
        // An owner's reason may have the difference already, as its mirror's refusal.
        let told = host.knownDifference(from: peer).flatMap { machine?.contains($0) == true ? nil : $0 }
        let reasons = [told, machine, owner?.catchUp.problem, host.problem].compactMap(\.self)
        return reasons.isEmpty ? nil : reasons.joined(separator: "; ")
    }

    /// `nil` if this node does not own the log.
    package var stageSnapshots: [StageSnapshot]? { owner?.owned.stages.snapshot() }

    package var snapshot: LogSnapshot {
        guard let owner else {
            let head = region.head
            let mirrored = max(head, mirrorTarget?.target.durable ?? head)
            return LogSnapshot(
                capacityBytes: region.ringBytes, head: head, mirrored: mirrored, usedBytes: mirrored - head)
        }
        return LogSnapshot(
            capacityBytes: region.ringBytes, head: owner.owned.destage.head, tail: owner.log.tail,
            durable: owner.log.durable, mirrored: owner.shipper.durable, acknowledged: owner.owned.acknowledged,
            usedBytes: owner.log.tail - owner.owned.destage.head, undestagedWrites: owner.owned.destage.undestagedWrites
        )
    }
}
