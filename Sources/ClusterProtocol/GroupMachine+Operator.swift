// What an operator decides: commands on a group, one at a time, and words on a node's death beside them.

internal import Coordination
internal import LogModel

extension GroupMachine {
    mutating func commanded(_ command: Command, _ id: CommandID, _ now: Nanos, _ out: inout [Directive]) {
        if command == .stop, let earlier = self.command, earlier != .stop {
            finishCommand(refusal: "the node is stopping", &out)
        }
        if confirmation(by: command) != nil { return confirmDead(command, id, now, &out) }
        if case .takeOver = command { endStrandedHandover(&out) }
        guard given == nil else {
            return out.append(.commandDone(command, id, refusal: "another command on this group is not done yet"))
        }
        given = Given(command: command, id: id)
        switch command {
        case .handOver: beginHandover(now, &out)
        case .takeOver: tryTakeover(now, &out)
        case .forgetCoordinator: forgetCoordinator(now, &out)
        case .stop: beginStop(now, &out)
        case .confirmDead, .predecessorsEnded: break
        }
    }

    /// The group is given away, and the partner does not publish it: its medium is not there, it cannot lock it, it hangs.
    /// Waiting for it must not keep an operator from taking the group back.
    private mutating func endStrandedHandover(_ out: inout [Directive]) {
        guard case .handOver = command, case .standby = role, let record else { return }
        let isTaken = record.ownerProcess != nil
        finishCommand(
            refusal:
                "\(record.owner) \(isTaken ? "claimed" : "was given") epoch \(record.epoch) and has not published it; "
                + "`twinlog status` and the events of \(record.owner) (`takeover-waits`) say why. \(me) was told to take the "
                + "group over", &out)
    }

    // MARK: Decisions

    /// A decision that waits for what this node has granted, or whose swap was overtaken by another one.
    mutating func tickBlocked(_ now: Nanos, _ out: inout [Directive]) {
        guard !isCoordinating else { return }
        switch command {
        case .forgetCoordinator: forgetCoordinator(now, &out)
        case .takeOver: tryTakeover(now, &out)
        case .handOver, .stop, .confirmDead, .predecessorsEnded, nil: break
        }
    }

    mutating func tryTakeover(_ now: Nanos, _ out: inout [Directive]) {
        guard case .takeOver(let force) = command else { return }
        let isBlocked: Bool
        switch role {
        case .standby: isBlocked = false
        case .blocked: isBlocked = true
        case .owner: return finishCommand(refusal: "\(me) owns the group already", &out)
        case .recovering: return  // done when published
        case .starting, .handingOver, .stopped:
            return finishCommand(refusal: "not possible while \(state(now).rawValue)", &out)
        }
        guard let record else {
            return finishCommand(refusal: "the coordinator has no record of the group", &out)
        }
        guard force || (!isBlocked && (holds(me, in: record) || canTakeBack(record))) else {
            // The owner may have put this node in sync a moment ago: nobody is refused by what this node remembers.
            if !isBlocked && given?.hasRead == false {
                guard !isCoordinating else { return }
                given?.hasRead = true
                return read(&out)
            }
            return finishCommand(
                refusal: "\(me) is not in sync: acknowledged writes that only \(record.owner) holds would be lost; "
                    + "--force takes over with the medium as it is, and sets the stale log here aside", &out)
        }
        guard !isCoordinating, mayClaim(record, now) else { return }
        standBy()
        claim(record, forced: force, now, &out)
    }

    /// Only where the coordinator knows less than the pool. A pool that is not the one it knows is not made right by that (S9).
    mutating func forgetCoordinator(_ now: Nanos, _ out: inout [Directive]) {
        guard case .blocked(let blocked) = role else {
            return finishCommand(refusal: "nothing to decide: the coordinator and this node's pool agree", &out)
        }
        guard blocked.cause == .coordinatorForgot, let local else {
            return finishCommand(refusal: "not for this to decide: \(blocked.reason)", &out)
        }
        if let record, !mayClaim(record, now) { return }
        let epoch = max(record?.epoch ?? .none, Epoch(local.incarnation.rawValue), standing.epoch).next
        var members = record?.members ?? [:]
        members[me] = GroupRecord.Member(
            role: .out, pool: settings.pool, generation: standing.generation, incarnation: local.incarnation)
        var decided = GroupRecord(
            version: (record?.version ?? 0) + 1, group: settings.group, logUUID: local.logUUID, owner: me, epoch: epoch,
            phase: .claimed, members: members, fences: record?.fences ?? [], ownerProcess: settings.process)
        decided.setHolders([me])
        decided.media = record?.media ?? [:]
        if let old = record?.ownerProcess, old != settings.process { decided.fence(old) }
        if !swap(to: decided, .claim(.takeover), now, &out) {
            finishCommand(refusal: "the coordinator is busy or does not answer; try again", &out)
        }
    }

    private func confirmation(by command: Command) -> (NodeID, GroupRecord.Fence.Confirmation)? {
        switch command {
        case .confirmDead(let node, let by, let at): (node, .init(method: "operator", by: by, at: at))
        case .predecessorsEnded(let at): (me, .init(method: "pool", by: me.rawValue, at: at))
        case .handOver, .takeOver, .forgetCoordinator, .stop: nil
        }
    }

    private mutating func confirmDead(_ command: Command, _ id: CommandID, _ now: Nanos, _ out: inout [Directive]) {
        guard confirming == nil else {
            return out.append(.commandDone(command, id, refusal: "another confirmation is not recorded yet"))
        }
        confirming = Given(command: command, id: id)
        recordDeaths(now, &out)
    }

    /// Until the record has it.
    mutating func recordDeaths(_ now: Nanos, _ out: inout [Directive]) {
        guard let confirming, let (node, confirmation) = confirmation(by: confirming.command), !isCoordinating else {
            return
        }
        if case .starting = role { return }
        // Whatever is said of this node: this process lives.
        let dead = record?.mustFence.filter { $0.node == node && $0 != settings.process } ?? []
        guard var next = record, !dead.isEmpty else {
            self.confirming = nil
            let refusal =
                confirming.hasRead
                ? nil : "nothing waits for the end of a process of \(node): a takeover that needs it says so"
            return out.append(.commandDone(confirming.command, confirming.id, refusal: refusal))
        }
        for process in dead { next.confirm(process, confirmation) }
        next.version += 1
        // From now on its absence from the record is this command's success.
        if swap(to: next, .confirm, now, &out) { self.confirming?.hasRead = true }
    }

    /// Processes are confirmed dead in the record: what waited for it goes on.
    mutating func deathsConfirmed(_ now: Nanos, _ out: inout [Directive]) {
        recordDeaths(now, &out)
        out += onAllRails(.tellRecordChanged)
        tickRecovering(now, &out)
    }
}
