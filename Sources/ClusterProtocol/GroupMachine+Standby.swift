// Not the owner: decide what the record means for this node, let the owner mirror here, and watch it. Taking over begins
// here, with suspicion on the rail *and* at the coordinator (S16).

internal import Coordination
internal import LogModel

extension GroupMachine {
    /// Whether a node's log holds everything that was acknowledged, by the record (S13, S14) and, of this node, by its pool.
    func holds(_ node: NodeID, in record: GroupRecord) -> Bool {
        if record.replayed != nil { return true }
        return record.isHolder(node) && (node != me || isWhatIsKnown(in: record))
    }

    /// Whether this node's copy is the one that the record knows: this pool, no older state of it, and the log of the recorded opening
    /// (S20).
    func isWhatIsKnown(in record: GroupRecord) -> Bool {
        guard let member = record.members[me] else { return false }
        switch poolAge(in: record) {
        case .current, .notCounted: break
        case .unknownPool, .older, .coordinatorOlder: return false
        }
        guard let local else { return record.isNew || record.setsAsideLog }
        if member.incarnation == .none || local.incarnation == member.incarnation { return true }
        // Opened by a claim that was not published: what it took the place of is on the medium.
        return record.phase == .claimed && local.incarnation > member.incarnation
    }

    /// A claim by force gave up what this node holds, and has not published anything: it can be taken back (S9).
    func canTakeBack(_ record: GroupRecord) -> Bool {
        record.phase == .claimed && record.previousHolders.contains(me) && isWhatIsKnown(in: record)
    }

    /// Called with a fresh record while this node does not own the group.
    mutating func decide(_ now: Nanos, _ out: inout [Directive]) {
        guard let record else { return decideWithoutRecord(now, &out) }
        if let block = disagreement(record) { return self.block(block, &out) }
        role = .standby
        guard record.owner == me else { return watch(now, &out) }
        if holds(me, in: record) {
            claim(record, now, &out)
        } else if holds(settings.peer, in: record) {
            out.append(
                .report(Report(.amnesia, "\(whatIsMissing(record)); its partner's log is complete and takes over")))
            let old = record.ownerProcess == settings.process ? nil : record.ownerProcess
            swap(to: givenAway(record, isSource: false, fencing: old), .giveAway, now, &out)
        } else {
            let reason =
                "\(whatIsMissing(record)), and no other log is complete; bring back the right pool, or "
                + (wayBack ?? "decide with `twinlog takeover --force`")
            block(Block(reason: reason), &out)
        }
    }

    /// What an operator can do about a claim that was not published, where another log was complete before it.
    var wayBack: String? {
        record?.previousHolders.first { $0 != me }
            .map { "go back to \($0)'s log with `twinlog takeover --on \($0)`" }
    }

    /// Pool and coordinator cannot both be right.
    private func disagreement(_ record: GroupRecord) -> Block? {
        let advice = "the coordinator has lost its memory; `twinlog forget-coordinator` makes the pool right"
        if let local, local.logUUID != record.logUUID {
            return Block(
                reason:
                    "this node's pool holds another log of the group (\(local.logUUID)) than the coordinator knows "
                    + "(\(record.logUUID)): it is another cluster's, or another coordinator's; start this node with its own pool, or with none"
            )
        }
        let seen = max(local?.incarnation ?? .none, Incarnation(standing.epoch))
        if seen > Incarnation(record.epoch) {
            return Block(
                reason: "this node's pool has seen epoch \(seen), the coordinator only \(record.epoch): \(advice)",
                cause: .coordinatorForgot)
        }
        // Of a copy that does not count, nothing is lost with its count.
        if case .coordinatorOlder = poolAge(in: record), let member = record.members[me], member.role != .out {
            return Block(
                reason: "this node's pool was counted as generation \(standing.counted), the coordinator knows only "
                    + "\(member.generation): \(advice)", cause: .coordinatorForgot)
        }
        return nil
    }

    func whatIsMissing(_ record: GroupRecord) -> String {
        let member = record.members[me]
        switch poolAge(in: record) {
        case .unknownPool: return "this node's pool (\(settings.pool)) is not the one that the coordinator knows"
        case .older:
            return
                "this node's pool is an older copy: of generation \(standing.counted), the coordinator has counted \(member?.generation ?? 0)"
        default: break
        }
        guard let local else {
            return "this node's pool (\(settings.pool)) has no log of the group, though it should"
        }
        if let member, local.incarnation != member.incarnation, member.incarnation != .none {
            return
                "this node's pool is an older copy: its log was opened in epoch \(local.incarnation), the group's in epoch \(member.incarnation)"
        }
        return "this node's log is out of sync"
    }

    private mutating func decideWithoutRecord(_ now: Nanos, _ out: inout [Directive]) {
        if let local {
            let reason =
                "the coordinator has no record of the group, but this node's pool has seen epoch \(local.incarnation); "
                + "check the coordinator's path, or make the pool right with `twinlog forget-coordinator`"
            return block(Block(reason: reason, cause: .coordinatorForgot), &out)
        }
        guard standing.epoch == .none else {
            let reason =
                "the coordinator has no record of the group, and this node's pool, which has seen epoch \(standing.epoch), has lost "
                + "its log; check the coordinator's path, or start with an empty pool to begin anew"
            return block(Block(reason: reason), &out)
        }
        role = .standby
        guard me == settings.home else { return }
        let member = GroupRecord.Member(role: .owner, pool: settings.pool, generation: standing.generation)
        var record = GroupRecord(
            version: 1, group: settings.group, logUUID: freshLogUUID, owner: me, epoch: Epoch(1), phase: .claimed,
            members: [me: member], ownerProcess: settings.process)
        record.isNew = true
        swap(to: record, .claim, now, &out)
    }

    mutating func block(_ block: Block, _ out: inout [Directive]) {
        if case .blocked(block) = role { return }
        role = .blocked(block)
        out.append(.report(Report(.blocked, cause: block.cause, block.reason)))
        finishCommand(refusal: block.reason, &out)
    }

    // MARK: Watching the owner

    /// Nothing was heard on the rail for the timeout; or the owner says itself that it is of no use; or the rail is down and the owner's
    /// process is known to be gone.
    func railSilent(_ now: Nanos) -> Bool {
        if peer.railUp && peer.heartbeat.isSuspended { return true }
        if !peer.railUp && ownerIsKnownDead(now) { return true }
        return now >= peer.lastHeard + settings.heartbeatTimeout
    }

    /// The coordinator has seen no sign of life for a whole lease, or the process is known to be gone. Not having heard from
    /// the coordinator itself says nothing about the peer.
    func presenceStale(_ now: Nanos) -> Bool {
        let sameProcess = peer.presence == nil || peer.presence?.process == record?.ownerProcess
        if sameProcess && ownerIsKnownDead(now) { return true }
        return peer.presenceAskedAt >= peer.presenceSince + settings.lease
    }

    /// On every tick and sign of life as standby.
    mutating func watch(_ now: Nanos, _ out: inout [Directive]) {
        guard !finishHandover(now, &out) else { return }
        guard case .standby = role, !isCoordinating else { return }
        if case .takeOver = command { return tryTakeover(now, &out) }
        guard let record else {
            if now >= coordinatorRetryAt { read(&out) }
            return
        }
        if record.owner == me { return decideAgain(record, now, &out) }
        guard enlist(record, now, &out), !mediumIsOut else { return }
        if giftIsOverdue(now), holds(me, in: record) { return takeBack(record, now, &out) }
        guard holds(me, in: record), railSilent(now), presenceStale(now) else { return }
        let why =
            peer.railUp && peer.heartbeat.isSuspended
            ? "\(record.owner) has lost its right to serve and is silent at the coordinator"
            : "\(record.owner) is silent on the rail and at the coordinator"
        out.append(.report(Report(.suspect, "\(why); claiming epoch \(record.epoch.next)")))
        if case .handOver = command {
            finishCommand(
                refusal: "\(record.owner) fell silent before it had taken the group; \(me) claims it back", &out)
        }
        claim(record, now, &out)
    }

    /// The group was given to the peer, which lives, perhaps, but does not claim it. Nobody writes to the medium meanwhile, but
    /// for a call that does not return to this process, which cannot lock the medium anew before it does.
    func giftIsOverdue(_ now: Nanos) -> Bool {
        guard let record, record.owner == settings.peer, record.phase == .claimed, record.ownerProcess == nil else {
            return false
        }
        return now >= recordSince + 2 * settings.lease
    }

    private mutating func takeBack(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        let reason = "\(settings.peer) was given the group and did not claim it; \(me) claims it back"
        out.append(.report(Report(.notTaken, reason)))
        if case .handOver = command { finishCommand(refusal: reason, &out) }
        claim(record, now, &out)
    }

    /// A claim or a handover of this node's own group did not go through yet.
    private mutating func decideAgain(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        guard now >= coordinatorRetryAt else { return }
        decide(now, &out)
    }

    mutating func claim(_ record: GroupRecord, forced: Bool = false, _ now: Nanos, _ out: inout [Directive]) {
        var claim = record
        claim.version += 1
        // By force a claim is made over a record that knows less than the pool (S20): nothing begins below what is here (S4).
        claim.epoch = max(record.epoch, Epoch(local?.incarnation.rawValue ?? 0), standing.epoch).next
        claim.phase = .claimed
        claim.owner = me
        var holders = record.holders
        if canTakeBack(record) {
            // Whoever was only given the group is as complete: an operator can still go back there.
            claim.previousHolders = record.setsAsideLog ? [] : holders.filter { !record.previousHolders.contains($0) }
            holders = record.previousHolders
            claim.setsAsideLog = false
        } else if record.replayed != nil {
            holders = [me]
        } else if forced, !holds(me, in: record) {
            // An earlier claim by force has put a log among the holders that is not complete. Nor is this node's.
            let complete = record.setsAsideLog ? record.previousHolders : holders
            claim.previousHolders = complete.filter { $0 != me }
            holders = [me]
            claim.setsAsideLog = true
            // Of no incarnation: whatever log is here is set aside, also one that an owner was about to begin anew.
            claim.members[me] = GroupRecord.Member(role: .out, pool: settings.pool)
        }
        let generation = claim.members[me]?.pool == settings.pool ? freshGeneration(in: record) : standing.generation
        claim.members[me, default: GroupRecord.Member(role: .out, pool: settings.pool)].generation = generation
        claim.setHolders(holders)
        if let old = record.ownerProcess, old != settings.process { claim.fence(old) }
        // We are alive, so nobody fenced us: drop ourselves.
        claim.fences.removeAll { $0.target == settings.process }
        guard claim.fences.count <= GroupRecord.maximumFences else {
            return block(
                Block(
                    reason:
                        "\(claim.mustFence.count) processes would have to be confirmed dead; if they are, say so with "
                        + "`twinlog confirm-dead NODE`"), &out)
        }
        claim.ownerProcess = settings.process
        claimIsRestart = record.owner == me && record.ownerProcess?.node == me
        swap(to: claim, .claim, now, &out)
    }

    /// The record by which this node gives the group to its peer, which then claims it. `isSource`: the log here holds
    /// everything that was acknowledged. `fencing`: who may still write to the medium.
    func givenAway(_ record: GroupRecord, isSource: Bool, fencing process: ProcessIdentity?) -> GroupRecord {
        var given = record
        given.version += 1
        given.owner = settings.peer
        given.epoch = record.epoch.next
        given.phase = .claimed
        given.setHolders(record.holders.filter { isSource || $0 != me })
        // If the partner's log turns out to be worse, an operator can come back to this one: it is judged anew then.
        if !isSource, record.isHolder(me) { given.previousHolders = [me] }
        given.ownerProcess = nil
        if let process { given.fence(process) }
        return given
    }

    // MARK: The mirror's side of a session

    mutating func attachRequested(_ request: AttachRequest, _ now: Nanos, _ out: inout [Directive]) {
        guard case .standby = role else {
            let reason = "this node is not a standby of the group now (\(state(now).rawValue))"
            out.append(.refuseAttach(request, .notReady, reason))
            if let record, request.epoch > record.epoch { read(&out) }
            return
        }
        waitingAttach = request
        // A log that would be begun anew is lost: whether it counts is asked of the coordinator first.
        let isKept = local?.incarnation == request.incarnation
        if let record,
            record.epoch > request.epoch || (record.epoch == request.epoch && record.phase == .published && isKept)
        {
            answerWaitingAttach(now, &out)
        } else {
            read(&out)
        }
    }

    /// A region is opened only to the published owner of the record's own epoch (S12, S15), and only once this start is counted. What
    /// is in sync by the record is what a takeover is made of: it is not begun anew before an owner has counted it out (S13).
    mutating func answerWaitingAttach(_ now: Nanos, _ out: inout [Directive]) {
        guard let request = waitingAttach, !isCoordinating else { return }
        waitingAttach = nil
        guard case .standby = role, let record else {
            return out.append(.refuseAttach(request, .notReady, "the coordinator has not answered yet"))
        }
        guard record.owner == request.from, record.epoch == request.epoch, record.phase == .published else {
            return out.append(
                .refuseAttach(
                    request, .staleEpoch,
                    "the coordinator says \(record.owner) \(record.phase.rawValue) epoch \(record.epoch), not \(request.from) epoch \(request.epoch)"
                ))
        }
        guard record.logUUID == request.logUUID, request.incarnation <= Incarnation(record.epoch) else {
            return out.append(.refuseAttach(request, .staleEpoch, "the log is not the one that the coordinator knows"))
        }
        guard enlist(record, now, &out) else {
            waitingAttach = request
            return
        }
        if let member = record.members[me], member.role != .out, member.pool == settings.pool {
            guard isWhatIsKnown(in: record), local != nil else {
                let reason =
                    "\(whatIsMissing(record)), though it counts as in sync: it must be counted out before it is begun anew"
                return out.append(.refuseAttach(request, .lostLog, reason))
            }
            guard local?.incarnation == request.incarnation else {
                let reason =
                    "the log here, of epoch \(member.incarnation), counts as in sync; for one of epoch \(request.incarnation) it would be begun anew"
                return out.append(.refuseAttach(request, .notReady, reason))
            }
        }
        let generation = freshGeneration(in: record)
        standing.generation = generation
        standing.epoch = max(standing.epoch, request.epoch)
        local = LocalLog(logUUID: request.logUUID, incarnation: request.incarnation)
        hasMirrored = true
        out.append(.acceptAttach(request, generation: generation))
    }
}
