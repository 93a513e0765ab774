// Giving a group away on purpose, and stopping. The owner destages everything first, releases the medium, and only then
// swaps; so the partner finds nothing to fence and nothing to replay. Whatever goes wrong before the medium is released
// takes it back to serving; after that, the record decides, and claiming anew is always right. A medium that cannot be
// released, because a call of it does not return, is released by the end of this process, which the partner brings about.

internal import Coordination
internal import LogModel

struct Handover: Sendable {
    enum Step: Sendable, Equatable {
        case draining
        case releasing(since: Nanos)
        /// The release does not end: this process will be fenced, and its other groups leave it first.
        case evacuating(since: Nanos)
        case swapping
    }
    var owner: Owner
    var step: Step
    /// The mirror is in sync and gets the group; otherwise this is a stop with nobody to take over.
    var toPeer: Bool
    var since: Nanos
    /// This node's log holds everything that was acknowledged.
    var isSource = true
    /// Everything that was acknowledged is on the medium.
    var isDrained = false
    /// The medium does not take what is in the log.
    var mediumFails = false
    /// Nothing of this process writes to the medium any more.
    var isReleased = false
}

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
                "\(settings.peer) \(isTaken ? "claimed" : "was given") epoch \(record.epoch) and has not published it; "
                + "`twinlog status` and the events of \(settings.peer) (`takeover-waits`) say why. \(me) was told to take the "
                + "group over", &out)
    }

    // MARK: Handover and stop

    private mutating func beginHandover(_ now: Nanos, _ out: inout [Directive]) {
        if case .handingOver = role {
            return finishCommand(refusal: "\(me) gives the group to \(settings.peer) already", &out)
        }
        guard case .owner(let owner) = role else {
            return finishCommand(
                refusal: "\(me) does not own the group; \(record?.owner.rawValue ?? "nobody") does", &out)
        }
        guard case .inSync = owner.mirror, !owner.suspended else {
            return finishCommand(refusal: "\(settings.peer) is not in sync (\(state(now).rawValue))", &out)
        }
        if let problem = peer.heartbeat.problem {
            return finishCommand(refusal: "\(settings.peer) could not serve the group: \(problem)", &out)
        }
        out.append(.report(Report(.handingOver, "draining, then \(settings.peer) gets the group")))
        role = .handingOver(Handover(owner: owner, step: .draining, toPeer: true, since: now))
        out.append(.drain)
    }

    private mutating func beginStop(_ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner(let owner):
            let toPeer = owner.mirror == .inSync && !owner.suspended && peer.heartbeat.problem == nil
            role = .handingOver(Handover(owner: owner, step: .draining, toPeer: toPeer, since: now))
            out.append(.drain)
        case .recovering:
            out.append(.releaseMedia)
            stop(&out)
        case .handingOver: break  // goes on; `gaveAway` or its failure stops
        default: stop(&out)
        }
    }

    mutating func stop(_ out: inout [Directive]) {
        role = .stopped
        out += [.stopServing, .closeRail]
        finishCommand(refusal: nil, &out)
        out.append(.stopped)
    }

    mutating func tickHandover(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(let handover) = role else { return }
        if peer.railUp { out.append(.sendHeartbeat) }
        switch handover.step {
        case .draining:
            if now >= leaseEnd() { return abortHandover("the lease ran out while draining", now, &out) }
            if handover.toPeer && mirrorSilent(now) {
                return abortHandover("\(settings.peer) fell silent while draining", now, &out)
            }
            if !handover.toPeer && (acknowledgementRule.needsMirror || !acknowledgementRule.allowed) {
                leaveUndrained("\(settings.peer) is not there to acknowledge; the log is left as it is", now, &out)
            } else if now >= handover.since + (handover.toPeer ? Self.drainLimit : settings.drainAloneLimit) {
                let rest =
                    handover.toPeer ? "\(settings.peer) gets the group and replays its own" : "the log is left as it is"
                leaveUndrained("not everything in the log is on the medium in time; \(rest)", now, &out)
            }
        case .releasing(let since):
            if handover.toPeer && now >= since + settings.releaseLimit { evacuate(now, &out) }
        case .evacuating(let since):
            if now >= since + settings.evacuationLimit { handoverEvent(.evacuated, now, &out) }
        case .swapping: giveAway(now, &out)
        }
    }

    /// How long nobody is served for the sake of a partner that finds nothing to replay. What is acknowledged is in its log.
    static var drainLimit: Nanos { 10_000_000_000 }

    /// What waits for a mirror that does not come is not acknowledged, so it cannot be destaged; nor can anything while the
    /// medium fails. It stays in the log.
    private mutating func leaveUndrained(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(var handover) = role else { return }
        handover.step = .releasing(since: now)
        handover.mediumFails = handover.toPeer && handover.owner.medium != nil
        role = .handingOver(handover)
        out += [.report(Report(handover.toPeer ? .handoverUndrained : .stoppedUndrained, reason)), .releaseMedia]
    }

    mutating func handoverEvent(_ event: Event, _ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(var handover) = role else { return }
        switch (handover.step, event) {
        case (.draining, .drained):
            handover.isDrained = true
            handover.step = .releasing(since: now)
            role = .handingOver(handover)
            out.append(.releaseMedia)
        case (.releasing, .mediaReleased), (.evacuating, .mediaReleased), (.evacuating, .evacuated):
            guard handover.toPeer else { return stop(&out) }
            if case .mediaReleased = event { handover.isReleased = true }
            handover.step = .swapping
            role = .handingOver(handover)
            giveAway(now, &out)
        case (.swapping, .mediaReleased):
            handover.isReleased = true
            role = .handingOver(handover)
        default: return
        }
    }

    /// A call of the medium does not return, and may still write when it does. So the group is given away with this process
    /// among those that are fenced: the partner writes when it is confirmed dead (S16, S18). What else this process owns
    /// can leave it in order, and would have to wait for that confirmation otherwise.
    private mutating func evacuate(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(var handover) = role else { return }
        handover.step = .evacuating(since: now)
        role = .handingOver(handover)
        let reason =
            "\(hangs(handover)), so the medium is not released: \(settings.peer) gets the group and ends this process; its other "
            + "groups are handed over first. Restart \(me) then"
        out += [.report(Report(.releaseHangs, reason)), .evacuate]
    }

    private func hangs(_ handover: Handover) -> String {
        handover.owner.medium?.reason ?? "what is under way for the medium does not end"
    }

    mutating func giveAway(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(let handover) = role, let record, !isCoordinating else { return }
        var given = givenAway(
            record, isSource: handover.isSource, fencing: handover.isReleased ? nil : settings.process)
        if handover.isDrained {
            given.leftForMedium = false
        } else if handover.mediumFails {
            given.leftForMedium = true
        }
        swap(to: given, .giveAway, now, &out)
    }

    // MARK: A log that fails

    /// Its memory has failed under it (S26). The partner has everything that was acknowledged, and gets the group at once:
    /// nothing waits for a drain, which would read what is gone. Without a partner in sync nothing is acknowledged any more.
    mutating func logFailed(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner(let owner):
            let isAttached =
                switch owner.mirror {
                case .inSync, .requiring: true
                default: false
                }
            guard isAttached, !isCoordinating, record?.isHolder(settings.peer) == true else {
                return stall(owner, reason, &out)
            }
            out.append(.report(Report(.logFailed, "\(reason); \(settings.peer) holds everything and gets the group")))
            leaveToPeer(owner, now, &out)
        case .handingOver(let handover) where handover.step == .draining && handover.toPeer:
            leaveToPeer(handover.owner, now, &out)
        case .handingOver(var handover) where handover.step == .draining:
            handover.owner.failure = reason
            role = .handingOver(handover)
        case .recovering(let recovering) where recovering.step.isBeforePublication:
            if recovering.isSource { corrupt(reason, recovering, now, &out) }
        default: break
        }
    }

    private mutating func leaveToPeer(_ owner: Owner, _ now: Nanos, _ out: inout [Directive]) {
        role = .handingOver(
            Handover(owner: owner, step: .releasing(since: now), toPeer: true, since: now, isSource: false))
        out += [.closeRail, .releaseMedia]
    }

    private mutating func stall(_ owner: Owner, _ reason: String, _ out: inout [Directive]) {
        guard owner.failure == nil else { return }
        var owner = owner
        owner.failure = reason
        role = .owner(owner)
        if record?.isHolder(settings.peer) != true { out.append(.closeRail) }
        out.append(.report(Report(.logFailed, "\(reason); nothing is acknowledged any more")))
    }

    /// The peer is the owner now, by this node's swap.
    mutating func gaveAway(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(let handover) = role else {
            if case .recovering(let recovering) = role {
                role = .standby
                finishCommand(refusal: recovering.leavingBecause ?? "\(settings.peer) gets the group", &out)
            }
            peer = PeerView(since: now)
            return
        }
        out += [.report(Report(.handedOver, "\(settings.peer) gets the group")), .tellRecordChanged]
        out += [.stopServing, .closeRail]
        if command == .handOver, record?.mustFence.contains(settings.process) == true {
            finishCommand(
                refusal:
                    "\(hangs(handover)), so the medium is not released: \(settings.peer) ends this process of \(me) and "
                    + "has the group then; restart \(me)", &out)
        }
        role = .standby
        mediumIsOut = !handover.isReleased
        peer = PeerView(since: now)
    }

    /// After a handover: the command is done when the peer has published, so that clients find it serving. Answers whether
    /// a stop that is under way keeps this node from anything else.
    mutating func finishHandover(_ now: Nanos, _ out: inout [Directive]) -> Bool {
        guard case .standby = role, let record, record.owner == settings.peer else { return false }
        switch command {
        case .handOver:
            if record.phase == .published { finishCommand(refusal: nil, &out) }
            return false
        case .stop:
            // A peer that died before it published claims anew when it returns, and so may this node (S16).
            if record.phase == .published || (railSilent(now) && presenceStale(now)) || giftIsOverdue(now) {
                stop(&out)
            }
            return true
        default: return false
        }
    }

    /// Back to serving. Only while the medium is still held.
    mutating func abortHandover(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(var handover) = role, handover.step == .draining else { return }
        out.append(.report(Report(.handoverAborted, reason)))
        if command == .stop {
            // There is no partner to give the group to: destage what one copy may acknowledge, and stop.
            handover.toPeer = false
        }
        var owner = handover.owner
        if case .inSync = owner.mirror { mirrorGone(&owner, now, &out) }
        if command == .stop, now < leaseEnd() {
            handover.owner = owner
            role = .handingOver(handover)
            return
        }
        if command != .stop { finishCommand(refusal: reason, &out) }
        owner.suspended = now >= leaseEnd()
        role = .owner(owner)
        out.append(owner.suspended ? .suspend : .serve)
        out.append(.acknowledge)
        if command == .stop { stop(&out) }
    }

    // MARK: What an operator decides

    mutating func tryTakeover(_ now: Nanos, _ out: inout [Directive]) {
        guard case .takeOver(let force) = command else { return }
        let blocked = if case .blocked = role { true } else { false }
        switch role {
        case .standby, .blocked: break
        case .owner: return finishCommand(refusal: "\(me) owns the group already", &out)
        case .recovering: return  // done when published
        default: return finishCommand(refusal: "not possible while \(state(now).rawValue)", &out)
        }
        guard let record else {
            return finishCommand(refusal: "the coordinator has no record of the group", &out)
        }
        guard force || (!blocked && (holds(me, in: record) || canTakeBack(record))) else {
            // The owner may have put this node in sync a moment ago: nobody is refused by what this node remembers.
            if !blocked && given?.hasRead == false {
                guard !isCoordinating else { return }
                given?.hasRead = true
                return read(&out)
            }
            return finishCommand(
                refusal: "\(me) is not in sync: acknowledged writes that only \(record.owner) holds would be lost; "
                    + "--force takes over with the medium as it is, and sets the stale log here aside", &out)
        }
        guard !isCoordinating else { return }
        role = .standby
        claim(record, forced: force, now, &out)
    }

    /// Only where the coordinator knows less than the pool. A pool that is not the one it knows is not made right by that (S9).
    mutating func forgetCoordinator(_ now: Nanos, _ out: inout [Directive]) {
        guard case .blocked(let block) = role, block.coordinatorForgot, let local else {
            if case .blocked(let block) = role {
                return finishCommand(refusal: "not for this to decide: \(block.reason)", &out)
            }
            return finishCommand(refusal: "nothing to decide: the coordinator and this node's pool agree", &out)
        }
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
        if !swap(to: decided, .claim, now, &out) {
            finishCommand(refusal: "the coordinator is busy or does not answer; try again", &out)
        }
    }

    private func confirmation(by command: Command) -> (NodeID, GroupRecord.Fence.Confirmation)? {
        switch command {
        case .confirmDead(let node, let by, let at): (node, .init(method: "operator", by: by, at: at))
        case .predecessorsEnded(let at): (me, .init(method: "pool", by: me.rawValue, at: at))
        default: nil
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
        out.append(.tellRecordChanged)
        tickRecovering(now, &out)
    }
}
