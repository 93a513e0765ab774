// What an operator sees of a machine.

public import Coordination
public import LogModel

extension GroupMachine {
    public func state(_ now: Nanos) -> GroupState {
        switch role {
        case .starting: .starting
        case .blocked: .unavailable
        case .standby: standbyState(now)
        case .recovering(let recovering):
            switch recovering.step {
            case .fencing, .locking: .fencing
            default: .replaying
            }
        case .owner(let owner): ownerState(owner)
        case .handingOver: .handingOver
        case .stopped: .stopped
        }
    }

    private func standbyState(_ now: Nanos) -> GroupState {
        guard let record else { return .starting }
        if record.phase == .claimed { return presenceStale(now) ? .unavailable : .replaying }
        guard presenceStale(now), railSilent(now) else { return holds(me, in: record) ? .mirrored : .degraded }
        return holds(me, in: record) ? .suspecting : .unavailable
    }

    private func ownerState(_ owner: Owner) -> GroupState {
        if owner.suspended || owner.failure != nil || owner.medium?.isLogFull == true { return .stalled }
        return switch owner.mirror {
        case .absent, .dialing, .attaching: settings.degradeOnMirrorLoss ? .degraded : .stalled
        case .catchingUp, .requiring, .joining: .resyncing
        case .inSync: .mirrored
        case .lost, .disqualifying: .stalled
        }
    }

    /// Why the group is not `mirrored`, or what keeps it from its medium, for a person; `nil` if all is well. There is one whenever
    /// no takeover is possible.
    public func reason(_ now: Nanos) -> String? {
        let reasons = [
            coordinatorProblem.map { "the coordinator does not answer: \($0)" }, roleReason(now), mediumReason(now),
        ].compactMap(\.self)
        return reasons.isEmpty ? nil : reasons.joined(separator: "; ")
    }

    private func roleReason(_ now: Nanos) -> String? {
        switch role {
        case .starting: "waiting for the coordinator"
        case .blocked(let block): block.reason
        case .recovering(let recovering): recovering.reason
        case .handingOver(let handover): handover.toPeer ? "handing over to \(settings.peer)" : "stopping"
        case .stopped: "stopped"
        case .standby: standbyReason(now)
        case .owner(let owner): ownerReason(owner)
        }
    }

    private func standbyReason(_ now: Nanos) -> String? {
        guard let record else { return "waiting for \(settings.home) to create the group" }
        let holds = holds(me, in: record)
        // Who does not hear the coordinator does not hear the owner's signs of life there either.
        if presenceStale(now), coordinatorProblem == nil {
            return "\(record.owner) gives no sign of life" + (holds ? "" : ", and the log here is out of sync")
        }
        if record.phase == .claimed { return "\(record.owner) takes over in epoch \(record.epoch)" }
        return holds ? takeoverProblem : whatIsMissing(record)
    }

    private func ownerReason(_ owner: Owner) -> String? {
        if let failure = owner.failure { return failure }
        if owner.suspended { return "the lease ran out and could not be renewed" }
        return switch owner.mirror {
        case .inSync: peer.heartbeat.problem.map { "\(settings.peer) could not take over: \($0)" }
        case .absent, .dialing, .attaching: absence(owner)
        case .catchingUp, .requiring, .joining:
            "\(settings.peer) is catching up" + (owner.stuck.map { "; before, \($0)" } ?? "")
        case .lost: lossReason(owner)
        case .disqualifying: "\(settings.peer) is being counted out at the coordinator"
        }
    }

    private func absence(_ owner: Owner) -> String {
        let refused = owner.refusal.map { "does not mirror (\($0))" } ?? "does not mirror"
        let consequence = settings.degradeOnMirrorLoss ? "acknowledging with one copy" : "nothing is acknowledged"
        return "\(settings.peer) \(refused): \(consequence)"
    }

    /// Why the mirror is lost that the record counts as in sync.
    func lossReason(_ owner: Owner) -> String {
        let refusal = owner.refusal.map { "\(settings.peer) does not mirror (\($0))" }
        return (owner.stuck ?? refusal ?? "\(settings.peer) is silent or its rail is down") + "; acknowledgements wait"
    }

    /// Whether the partner could take over now without loss: it takes a copy that holds everything, and a coordinator.
    public func takeoverPossible(_ now: Nanos) -> Bool {
        // An owner whose lease could not be renewed has no coordinator either.
        if case .owner(let owner) = role, owner.suspended { return false }
        let problem = isOwner ? peer.heartbeat.problem : takeoverProblem
        return coordinatorProblem == nil && problem == nil && isHeldTwice(now)
    }

    /// Whether the partner holds everything that is acknowledged, so that nothing would be lost with the owner.
    public func isHeldTwice(_ now: Nanos) -> Bool {
        switch role {
        case .owner(let owner):
            return owner.mirror == .inSync
        case .handingOver(let handover): return handover.toPeer
        case .standby:
            guard let record, record.phase == .published else { return false }
            return holds(me, in: record) && !(presenceStale(now) && railSilent(now))
        default: return false
        }
    }

    public var isOwner: Bool {
        switch role {
        case .owner, .handingOver: true
        default: false
        }
    }

    /// Whether the process was this node on this boot of the host, and had this pool, as far as the record knows: one that lived would
    /// hold the pool's lock (S18).
    public func isPredecessor(_ process: ProcessIdentity) -> Bool {
        process.node == me && process != settings.process && process.bootID == settings.process.bootID
            && record?.members[me]?.pool == settings.pool
    }

    /// The highest epoch that this node knows of; `nil` if it knows of none.
    public var epochSeen: Epoch? {
        let seen = max(record?.epoch ?? .none, standing.epoch)
        return seen == .none ? nil : seen
    }

    /// Whether clients' requests are accepted now.
    public var isServing: Bool { if case .owner(let owner) = role { !owner.suspended } else { false } }

    public var isStopped: Bool { if case .stopped = role { true } else { false } }

    /// What this node says of itself to its peer.
    public var heartbeat: Heartbeat {
        let isSuspended = if case .owner(let owner) = role { owner.suspended } else { false }
        return Heartbeat(isSuspended: isSuspended, problem: takeoverProblem)
    }

    /// Why this node could not take the group over, if it is to say so at the coordinator.
    public var problemToAnnounce: String? { isOwner ? nil : takeoverProblem }

    /// The incarnation that this node writes, if it owns the group.
    public var incarnation: Incarnation? {
        switch role {
        case .owner(let owner): owner.incarnation
        case .handingOver(let handover): handover.owner.incarnation
        default: nil
        }
    }
}
