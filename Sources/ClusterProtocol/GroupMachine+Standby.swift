// Not the owner: decide what the record means for this node, let the owner mirror here, and watch it. Taking over begins
// here, with suspicion on the rail *and* at the coordinator (S16).

internal import Coordination
internal import LogModel

extension GroupMachine {
    /// Whether a node's log holds everything that was acknowledged, by the record (S13, S14) and, of this node, by its pool,
    /// which is the one that is known, with a log in it (S20).
    func holds(_ node: NodeID, pool: UUID128?, in record: GroupRecord) -> Bool {
        let holders = record.phase == .published ? record.inSync : record.sources
        guard holders.contains(node), let known = record.pools[node.rawValue] else { return false }
        if node == me && local == nil && record.isNew != true { return false }
        return pool == nil || known == pool
    }

    /// Called with a fresh record while this node does not own the group.
    mutating func decide(_ now: Nanos, _ out: inout [Directive]) {
        guard let record else { return decideWithoutRecord(now, &out) }
        if let local, local.logUUID != record.logUUID {
            return block(
                "this node's pool holds another log of the group (\(local.logUUID)) than the coordinator knows "
                    + "(\(record.logUUID)); `twinlog forget-coordinator` makes the pool right", &out)
        }
        if let local, local.incarnation > Incarnation(record.epoch) {
            return block(
                "this node's pool has seen epoch \(local.incarnation), the coordinator only \(record.epoch): the coordinator "
                    + "has lost its memory; `twinlog forget-coordinator` makes the pool right", &out)
        }
        role = .standby
        guard record.owner == me else { return watch(now, &out) }
        if holds(me, pool: settings.pool, in: record) {
            claim(record, now, &out)
        } else if holds(settings.peer, pool: nil, in: record) {
            out.append(
                .report(
                    Report(
                        "amnesia",
                        "\(whatIsMissing); its partner's log is complete and takes over")))
            let old = record.ownerProcess == settings.process ? nil : record.ownerProcess
            swap(to: givenAway(record, isSource: false, fencing: old), .giveAway, now, &out)
        } else {
            block(
                "\(whatIsMissing), and no other log is complete; bring back the old pool, or decide with "
                    + "`twinlog takeover --force`", &out)
        }
    }

    private var whatIsMissing: String {
        local == nil
            ? "this node's pool (\(settings.pool)) has no log of the group, which it owned"
            : "this node's pool (\(settings.pool)) is not the one that the coordinator knows"
    }

    private mutating func decideWithoutRecord(_ now: Nanos, _ out: inout [Directive]) {
        if let local {
            return block(
                "the coordinator has no record of the group, but this node's pool has seen epoch \(local.incarnation); "
                    + "check the coordinator's path, or make the pool right with `twinlog forget-coordinator`", &out)
        }
        role = .standby
        guard me == settings.home else { return }
        let record = GroupRecord(
            version: 1, group: settings.group, logUUID: freshLogUUID, owner: me, epoch: Epoch(1), phase: .claimed,
            inSync: [me], sources: [me], mustFence: [], ownerProcess: settings.process, isNew: true,
            pools: [me.rawValue: settings.pool])
        swap(to: record, .claim, now, &out)
    }

    mutating func block(_ reason: String, _ out: inout [Directive]) {
        if case .blocked(reason) = role { return }
        role = .blocked(reason)
        out.append(.report(Report("blocked", reason)))
        finishCommand(refusal: reason, &out)
    }

    // MARK: Watching the owner

    /// Nothing was heard on the rail for the timeout; or the rail is down and the owner's process is known to be gone.
    func railSilent(_ now: Nanos) -> Bool {
        if !peer.railUp && ownerProcessDead { return true }
        return now >= peer.lastHeard + settings.heartbeatTimeout
    }

    /// The coordinator has seen no sign of life for a whole lease, or the process is known to be gone. Not having heard from
    /// the coordinator itself says nothing about the peer.
    var presenceStale: Bool {
        let sameProcess = peer.presence == nil || peer.presence?.process == record?.ownerProcess
        if sameProcess && ownerProcessDead { return true }
        return peer.presenceAskedAt >= peer.presenceSince + settings.lease
    }

    /// On every tick and sign of life as standby.
    mutating func watch(_ now: Nanos, _ out: inout [Directive]) {
        guard !finishHandover(now, &out) else { return }
        guard case .standby = role, call == nil else { return }
        if case .takeOver = command { return tryTakeover(now, &out) }
        guard let record else {
            if now >= coordinatorRetryAt { read(&out) }
            return
        }
        if record.owner == me { return decideAgain(record, now, &out) }
        guard !mediumIsOut else { return }
        if giftIsOverdue(now), holds(me, pool: settings.pool, in: record) { return takeBack(record, now, &out) }
        guard holds(me, pool: settings.pool, in: record), railSilent(now), presenceStale else { return }
        out.append(
            .report(
                Report(
                    "suspect",
                    "\(record.owner) is silent on the rail and at the coordinator; claiming epoch \(record.epoch.next)")
            ))
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
        out.append(.report(Report("not-taken", reason)))
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
        claim.owner = me
        // By force a claim is made over a record that knows less than the pool (S20): nothing begins below what is here (S4).
        claim.epoch = max(record.epoch, Epoch(local?.incarnation.rawValue ?? 0)).next
        claim.phase = .claimed
        claim.sources = record.phase == .published ? record.inSync : record.sources
        if forced, !holds(me, pool: settings.pool, in: record) {
            claim.sources = [me]
            claim.setsAsideLog = true
        }
        claim.inSync = [me]
        if let old = record.ownerProcess, old != settings.process, !claim.mustFence.contains(old) {
            claim.mustFence.append(old)
        }
        // Who claimed over this process did not come to fence it.
        claim.mustFence.removeAll { $0 == settings.process }
        claim.ownerProcess = settings.process
        claim.pools[me.rawValue] = settings.pool
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
        given.sources = (record.phase == .published ? record.inSync : record.sources)
            .filter { isSource || $0 != me }
        given.inSync = [settings.peer]
        given.ownerProcess = nil
        if let process, !given.mustFence.contains(process) { given.mustFence.append(process) }
        return given
    }

    // MARK: The mirror's side of a session

    mutating func attachRequested(_ request: AttachRequest, _ now: Nanos, _ out: inout [Directive]) {
        peer.railUp = true
        peer.lastHeard = now
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
            answerWaitingAttach(&out)
        } else {
            read(&out)
        }
    }

    /// A region is opened only to the published owner of the record's own epoch (S12, S15). What is in sync by the record is
    /// what a takeover is made of: it is not begun anew before an owner has counted it out (S13).
    mutating func answerWaitingAttach(_ out: inout [Directive]) {
        guard let request = waitingAttach, call == nil else { return }
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
        let counts = record.inSync.contains(me) && record.pools[me.rawValue] == settings.pool
        if local == nil, counts {
            return out.append(
                .refuseAttach(
                    request, .lostLog,
                    "the log here is gone, though it counts as in sync: it must be counted out before it is begun anew")
            )
        }
        if let local, local.incarnation != request.incarnation, counts {
            return out.append(
                .refuseAttach(
                    request, .notReady,
                    "the log here is of incarnation \(local.incarnation) and counts as in sync; for incarnation "
                        + "\(request.incarnation) it would be begun anew. If it may be lost, start \(me) with an empty pool"
                ))
        }
        local = LocalLog(logUUID: request.logUUID, incarnation: request.incarnation)
        out.append(.acceptAttach(request))
    }
}
