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
            case .sealing, .replaying, .asking, .opening, .publishing, .releasing, .givingAway: .replaying
            }
        case .owner(let owner): ownerState(owner)
        case .handingOver: .handingOver
        case .stopped: .stopped
        }
    }

    private func standbyState(_ now: Nanos) -> GroupState {
        guard let record else { return .starting }
        if record.phase == .claimed { return presenceStale(now) ? .unavailable : .replaying }
        guard ownerUnheard(now) else { return holds(me, in: record) ? .mirrored : .degraded }
        return holds(me, in: record) ? .suspecting : .unavailable
    }

    /// That of the mirror which is furthest from being in sync.
    private func ownerState(_ owner: Owner) -> GroupState {
        if owner.isSuspended || owner.logFailure != nil || owner.medium.trouble?.isLogFull == true { return .stalled }
        let states = (0..<owner.mirrors.count).map {
            owner.mirrors[$0].groupState(degrades: settings.degradeOnMirrorLoss)
        }
        let worstFirst: [GroupState] = [.stalled, .degraded, .resyncing]
        return worstFirst.first(where: states.contains) ?? .mirrored
    }

    /// Why the group is not `mirrored`, or what keeps it from its medium, for a person; `nil` if all is well. There is one whenever
    /// no takeover is possible.
    public func reason(_ now: Nanos) -> String? {
        let reasons = [coordinatorReason(now), roleReason(now), mediumReason(now)].compactMap(\.self)
        return reasons.isEmpty ? nil : reasons.joined(separator: "; ")
    }

    private func coordinatorReason(_ now: Nanos) -> String? {
        if let problem = swaps.problem { return "the coordinator does not answer: \(problem)" }
        // Who does not serve is not asked about its lease; who is suspended has this for its reason.
        guard isServing, !coordinatorAnswers(now) else { return nil }
        return "the coordinator has not renewed the lease: takeovers and changes of the mirrors wait for it"
    }

    /// Whether the lease that the coordinator renewed last still runs.
    public func coordinatorAnswers(_ now: Nanos) -> Bool { now < leaseEnd }

    /// Since when it answers, or when it answered last.
    public func coordinatorSince(_ now: Nanos) -> Nanos {
        coordinatorAnswers(now) ? renewalsSince : lastRenewal ?? startedAt
    }

    private func roleReason(_ now: Nanos) -> String? {
        switch role {
        case .starting: "waiting for the coordinator"
        case .blocked(let blocked): blocked.reason
        case .recovering(let recovering): recovering.reason
        case .handingOver(let handover): handover.heir.map { "handing over to \($0)" } ?? "stopping"
        case .stopped: "stopped"
        case .standby: standbyReason(now)
        case .owner(let owner): ownerReason(owner, now)
        }
    }

    private func standbyReason(_ now: Nanos) -> String? {
        guard let record else { return "waiting for \(settings.home) to create the group" }
        let holds = holds(me, in: record)
        // Who does not hear the coordinator does not hear the owner's signs of life there either.
        if presenceStale(now), railSilent(now), swaps.problem == nil {
            return "\(record.owner) gives no sign of life" + (holds ? "" : ", and the log here is out of sync")
        }
        if record.phase == .claimed { return "\(record.owner) takes over in epoch \(record.epoch)" }
        return holds ? obstacleHere(now) : whatIsMissing(record)
    }

    private func ownerReason(_ owner: Owner, _ now: Nanos) -> String? {
        if let failure = owner.logFailure { return failure }
        if owner.isSuspended { return missingRight(now) }
        let reasons = (0..<owner.mirrors.count).compactMap { index in
            owner.mirrors[index].reason(
                partners.node(index), problem: partners[index].heartbeat.problem,
                degrades: settings.degradeOnMirrorLoss)
        }
        return reasons.isEmpty ? nil : reasons.joined(separator: "; ")
    }

    /// Whether the partner could take over now without loss: it takes a copy that holds everything, and a coordinator.
    public func takeoverPossible(_ now: Nanos) -> Bool {
        // An owner whose lease could not be renewed cannot tell whether anybody has a coordinator.
        if case .owner = role, !coordinatorAnswers(now) { return false }
        return swaps.problem == nil && obstacleToTakeover(now) == nil && isHeldTwice(now)
    }

    /// What the node that would take over says against it.
    private func obstacleToTakeover(_ now: Nanos) -> String? {
        switch role {
        case .owner(let owner): owner.heir.flatMap(problem)
        case .handingOver(let handover): handover.heir.flatMap(problem)
        case .starting, .blocked, .standby, .recovering, .stopped: obstacleHere(now)
        }
    }

    /// Why this node could not take the group over: what it reaches of the media, or that it has no coordinator to claim at (S16).
    private func obstacleHere(_ now: Nanos) -> String? {
        if let takeoverProblem { return takeoverProblem }
        guard coordinatorIsSilent(now) else { return nil }
        return "the coordinator does not answer \(me)"
    }

    /// Whether the coordinator answered this process before, and not for a lease now.
    private func coordinatorIsSilent(_ now: Nanos) -> Bool { lastRenewal != nil && !coordinatorAnswers(now) }

    /// As standby: whether neither the rail nor the coordinator tells of the owner.
    private func ownerUnheard(_ now: Nanos) -> Bool {
        railSilent(now) && (presenceStale(now) || coordinatorIsSilent(now))
    }

    /// Whether the partner holds everything that is acknowledged, so that nothing would be lost with the owner.
    public func isHeldTwice(_ now: Nanos) -> Bool {
        switch role {
        case .owner(let owner):
            return owner.heir != nil
        case .handingOver(let handover): return handover.heir != nil
        case .standby:
            guard let record, record.phase == .published else { return false }
            return holds(me, in: record) && !ownerUnheard(now)
        case .starting, .blocked, .recovering, .stopped: return false
        }
    }

    public var isOwner: Bool {
        switch role {
        case .owner, .handingOver: true
        case .starting, .blocked, .standby, .recovering, .stopped: false
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
    public var isServing: Bool { if case .owner(let owner) = role { !owner.isSuspended } else { false } }

    public var isStopped: Bool { if case .stopped = role { true } else { false } }

    /// What this node says of itself to its peer.
    public func heartbeat(_ now: Nanos) -> Heartbeat {
        let isSuspended = if case .owner(let owner) = role { owner.isSuspended } else { false }
        return Heartbeat(isSuspended: isSuspended, problem: isOwner ? takeoverProblem : obstacleHere(now))
    }

    /// As owner: what it says, and that it asks for a grant.
    func heartbeat(askedAt now: Nanos) -> Heartbeat {
        var heartbeat = heartbeat(now)
        heartbeat.asks = now
        return heartbeat
    }

    /// Why this node could not take the group over, if it is to say so at the coordinator.
    public var problemToAnnounce: String? { isOwner ? nil : takeoverProblem }

    /// The incarnation that this node writes, if it owns the group.
    public var incarnation: Incarnation? {
        switch role {
        case .owner(let owner): owner.incarnation
        case .handingOver(let handover): handover.owner.incarnation
        case .starting, .blocked, .standby, .recovering, .stopped: nil
        }
    }
}
