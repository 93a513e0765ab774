// Not the owner: decide what the record means for this node, and watch the owner. Taking over begins here, with suspicion
// on the rail *and* at the coordinator (S16). An owner at whose host nobody listens is fenced before that: a confirmed death is worth
// both, and ends the wait for what this node has granted (S17).

internal import Coordination
internal import LogModel

extension GroupMachine {
    /// True if `node`'s log is complete: the record lists it in sync (S13, S14). For this node, its pool is also the recorded one and
    /// has the recorded log.
    func holds(_ node: NodeID, in record: GroupRecord) -> Bool {
        if record.replayed != nil { return true }
        return record.isHolder(node) && (node != me || isWhatIsKnown(in: record))
    }

    /// True if this node's copy is the recorded one: this pool, no older state of it, the log of the recorded opening (S20).
    func isWhatIsKnown(in record: GroupRecord) -> Bool {
        guard let member = record.members[me] else { return false }
        switch poolAge(in: record) {
        case .current, .notCounted: break
        // This node's own claim by force counted a copy that it had not begun yet. Whatever log is here is set aside.
        case .older where record.owner == me && record.setsAsideLog: return true
        case .unknownPool, .older, .coordinatorOlder: return false
        }
        guard let local else { return record.isNew || record.setsAsideLog }
        if member.incarnation == .none || local.incarnation == member.incarnation { return true }
        // Our unpublished claim opened it; everything of the recorded log is on the medium.
        return record.phase == .claimed && local.incarnation > member.incarnation
    }

    /// True while a claim by force has set this node's complete log aside and has not published: the group can be taken back (S9).
    func canTakeBack(_ record: GroupRecord) -> Bool {
        record.phase == .claimed && record.previousHolders.contains(me) && isWhatIsKnown(in: record)
    }

    /// Called with a fresh record while this node does not own the group.
    mutating func decide(_ now: Nanos, _ out: inout [Directive]) {
        guard let record else { return decideWithoutRecord(now, &out) }
        if let disagreement = disagreement(record) {
            return block(disagreement.reason, cause: disagreement.cause, &out)
        }
        standBy()
        guard record.owner == me else { return watch(now, &out) }
        if holds(me, in: record) {
            claim(record, now, &out)
        } else if let heir = partners.nodes.first(where: { holds($0, in: record) }) {
            out.append(
                .report(Report(.amnesia, "\(whatIsMissing(record)); its partner's log is complete and takes over")))
            let old = record.ownerProcess == settings.process ? nil : record.ownerProcess
            swap(to: givenAway(record, to: heir, isSource: false, fencing: old), .giveAway, now, &out)
        } else {
            let reason =
                "\(whatIsMissing(record)), and no other log is complete; bring back the right pool, or "
                + (wayBack ?? "decide with `twinlog takeover --force`")
            block(reason, &out)
        }
    }

    /// What an operator can do about a claim that was not published, where another log was complete before it.
    var wayBack: String? {
        record?.previousHolders.first { $0 != me }
            .map { "go back to \($0)'s log with `twinlog takeover --on \($0)`" }
    }

    /// Pool and coordinator cannot both be right.
    private func disagreement(_ record: GroupRecord) -> (reason: String, cause: Report.Cause?)? {
        let advice = "the coordinator has lost its memory; `twinlog forget-coordinator` makes the pool right"
        if let local, local.logUUID != record.logUUID {
            let reason =
                "this node's pool holds another log of the group (\(local.logUUID)) than the coordinator knows "
                + "(\(record.logUUID)): it is another cluster's, or another coordinator's; start this node with its own pool, or with none"
            return (reason, nil)
        }
        let seen = max(local?.incarnation ?? .none, Incarnation(standing.epoch))
        if seen > Incarnation(record.epoch) {
            return (
                "this node's pool has seen epoch \(seen), the coordinator only \(record.epoch): \(advice)",
                .coordinatorForgot
            )
        }
        // Of a copy that does not count, nothing is lost with its count.
        if case .coordinatorOlder = poolAge(in: record), let member = record.members[me], member.role != .out {
            return (
                "this node's pool was counted as generation \(standing.counted), the coordinator knows only "
                    + "\(member.generation): \(advice)", .coordinatorForgot
            )
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
        case .current, .notCounted, .coordinatorOlder: break
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
            return block(reason, cause: .coordinatorForgot, &out)
        }
        guard standing.epoch == .none else {
            let reason =
                "the coordinator has no record of the group, and this node's pool, which has seen epoch \(standing.epoch), has lost "
                + "its log; check the coordinator's path, or start with an empty pool to begin anew"
            return block(reason, &out)
        }
        standBy()
        guard me == settings.home else { return }
        let member = GroupRecord.Member(role: .owner, pool: settings.pool, generation: standing.generation)
        var record = GroupRecord(
            version: 1, group: settings.group, logUUID: freshLogUUID, owner: me, epoch: Epoch(1), phase: .claimed,
            members: [me: member], ownerProcess: settings.process)
        record.claim?.isNew = true
        swap(to: record, .claim(.takeover), now, &out)
    }

    mutating func block(_ reason: String, cause: Report.Cause? = nil, _ out: inout [Directive]) {
        let release: MediumRelease
        switch role {
        case .blocked: return
        case .standby(let standby):
            refuseWaiting(standby, &out)
            release = standby.release
        case .recovering(let recovering): release = recovering.release
        case .starting, .owner, .handingOver, .stopped: release = .complete
        }
        role = .blocked(Blocked(reason: reason, cause: cause, release: release))
        out.append(.report(Report(.blocked, cause: cause, reason)))
        finishCommand(refusal: reason, &out)
    }

    // MARK: Watching the owner

    /// The owner, as far as it is a partner; what is seen of another node is what is seen of the first.
    private var watched: Partner { (record?.owner).flatMap(partners.index).map { partners[$0] } ?? partners.first }

    /// The process that owns the group by the record is known to be gone. Not believed in the first lease after a start, unless this
    /// process has mirrored an owner: when both nodes were down, the owner's next process may be on its way, and may know more than this
    /// one and the coordinator.
    private func ownerIsKnownDead(_ now: Nanos) -> Bool {
        guard let owner = record?.ownerProcess, owner == watched.deadProcess else { return false }
        return hasMirrored || now >= startedAt + settings.lease
    }

    /// The owner says on a rail that it may not serve: it is alive, and of no use.
    private var ownerIsSuspended: Bool { watched.heartbeat.isSuspended }

    /// Nothing was heard on any rail for the timeout; or the owner says itself that it is of no use; or the rail is down and the owner's
    /// process is known to be gone.
    func railSilent(_ now: Nanos) -> Bool {
        if ownerIsSuspended { return true }
        if !watched.isRailUp && ownerIsKnownDead(now) { return true }
        return watched.isSilent(now, timeout: settings.heartbeatTimeout)
    }

    /// The coordinator has seen no sign of life for a whole lease, or the process is known to be gone. Not having heard from
    /// the coordinator itself says nothing about the owner. Nor does what it was asked before this node knew the record: the owner may
    /// have renewed its lease and swapped since (S17).
    func presenceStale(_ now: Nanos) -> Bool {
        let sameProcess = watched.presence == nil || watched.presence?.process == record?.ownerProcess
        if sameProcess && ownerIsKnownDead(now) { return true }
        return watched.presenceAskedAt >= max(watched.presenceSince + settings.lease, recordSince)
    }

    /// On every tick and sign of life as standby.
    mutating func watch(_ now: Nanos, _ out: inout [Directive]) {
        guard !finishHandover(now, &out) else { return }
        guard case .standby(let standby) = role, !isCoordinating else { return }
        if case .takeOver = command { return tryTakeover(now, &out) }
        guard let record else {
            if now >= swaps.retryAt { read(&out) }
            return
        }
        guard record.owner != me else {
            // A claim or a handover of this node's own group did not go through yet.
            if now >= swaps.retryAt { decide(now, &out) }
            return
        }
        guard enlist(record, now, &out), standby.release == .complete else { return }
        if giftIsOverdue(now), holds(me, in: record) { return takeBack(record, now, &out) }
        guard !standby.isFencing, holds(me, in: record), railSilent(now), presenceStale(now), mayClaim(record, now)
        else { return }
        let why =
            if watched.confirmation?.target == record.ownerProcess {
                "\(record.owner) is confirmed dead"
            } else if ownerIsSuspended {
                "\(record.owner) has lost its right to serve and is silent at the coordinator"
            } else {
                "\(record.owner) is silent on the rail and at the coordinator"
            }
        out.append(.report(Report(.suspect, "\(why); claiming epoch \(record.epoch.next)")))
        if case .handOver = command {
            finishCommand(
                refusal: "\(record.owner) fell silent before it had taken the group; \(me) claims it back", &out)
        }
        claim(record, now, &out)
    }

    /// A partner was given the group and does not claim it, though it may live. Nobody else writes to the medium meanwhile.
    func giftIsOverdue(_ now: Nanos) -> Bool {
        guard let record, record.owner != me, record.phase == .claimed, record.ownerProcess == nil else { return false }
        return now >= recordSince + 2 * settings.lease
    }

    private mutating func takeBack(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        let reason = "\(record.owner) was given the group and did not claim it; \(me) claims it back"
        out.append(.report(Report(.notTaken, reason)))
        if case .handOver = command { finishCommand(refusal: reason, &out) }
        claim(record, now, &out)
    }

    // MARK: An owner that listens no more

    /// Its host refuses what its process would accept. A firewall can say the same of a process that lives; then the fence ends a sound
    /// owner, and nothing is lost. So nobody is fenced by a node that could not take over at once.
    mutating func nobodyListens(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        guard case .standby(var standby) = role, standby.ending == nil, !isCoordinating,
            let process = processToEnd(now), process.node == partners.node(index)
        else { return }
        standby.ending = .asking(process)
        role = .standby(standby)
        read(&out)
    }

    /// The process that serves the group, if this node could take over from it at once, were it dead.
    private func processToEnd(_ now: Nanos) -> ProcessIdentity? {
        guard case .standby(let standby) = role, standby.release == .complete, command == nil, takeoverProblem == nil,
            let record, record.phase == .published, record.owner != me, let process = record.ownerProcess,
            process != watched.deadProcess, !watched.isRailUp, isStartConfirmed, holds(me, in: record),
            hasMirrored || now >= startedAt + settings.lease
        else { return nil }
        return process
    }

    /// The record was read after it was known that nobody listens, or could not be.
    mutating func endOwner(_ now: Nanos, isRead: Bool, _ out: inout [Directive]) {
        guard case .standby(var standby) = role, case .asking(let process) = standby.ending else { return }
        let isToEnd = isRead && !isCoordinating && processToEnd(now) == process
        standby.ending = isToEnd ? .fencing(process) : nil
        role = .standby(standby)
        guard isToEnd else { return }
        let reason =
            "the host of \(process.node) refuses connections where \(process.node) listens: its process is fenced, then claimed from"
        out += [.report(Report(.suspect, reason)), .step(.fence([process]))]
    }

    mutating func standbyStepEnded(_ answer: StepAnswer, _ now: Nanos, _ out: inout [Directive]) {
        guard case .standby(var standby) = role else { return }
        switch answer {
        case .mediaReleased:
            standby.release = .complete
            role = .standby(standby)
            return
        case .fenced(let confirmed, _):
            guard case .fencing(let process) = standby.ending else { return }
            standby.ending = nil
            if let fence = confirmed.first(where: { $0.target == process && $0.confirmed?.mayLive == false }),
                let index = partners.index(of: process.node)
            {
                partners[index].ended(fence)
            }
        case .failed: standby.ending = nil
        case .mediaLocked, .sealed, .recovered, .logOpened, .logCorrupt, .refused, .tailInDoubt, .mediumTaken, .drained,
            .evacuated:
            return
        }
        role = .standby(standby)
        watch(now, &out)
    }

    private func confirmation(of process: ProcessIdentity) -> GroupRecord.Fence? {
        partners.index(of: process.node).flatMap { partners[$0].confirmation }.flatMap {
            $0.target == process ? $0 : nil
        }
    }

    // MARK: Claims and gifts

    mutating func claim(_ record: GroupRecord, forced: Bool = false, _ now: Nanos, _ out: inout [Directive]) {
        var next = record
        next.version += 1
        // A forced claim may follow a record that knows less than the pool (S20): never begin below what is here (S4).
        next.epoch = max(record.epoch, Epoch(local?.incarnation.rawValue ?? 0), standing.epoch).next
        next.phase = .claimed
        next.owner = me
        var holders = record.holders
        if canTakeBack(record) {
            // A node that was only given the group is as complete: keep the way back to it.
            let complete = record.setsAsideLog ? [] : holders
            next.claim?.previousHolders = complete.filter { !record.previousHolders.contains($0) }
            holders = record.previousHolders
            next.claim?.setsAsideLog = false
        } else if record.replayed != nil {
            holders = [me]
        } else if forced, !holds(me, in: record) {
            // After an earlier forced claim the holders are not complete either: name those that were before it.
            let complete = record.setsAsideLog ? record.previousHolders : holders
            next.claim?.previousHolders = complete.filter { $0 != me }
            holders = [me]
            next.claim?.setsAsideLog = true
            // No incarnation: set aside whatever log is here, even one that an owner was about to begin anew.
            next.members[me] = GroupRecord.Member(role: .out, pool: settings.pool)
        }
        let generation = next.members[me]?.pool == settings.pool ? freshGeneration(in: record) : standing.generation
        next.members[me, default: GroupRecord.Member(role: .out, pool: settings.pool)].generation = generation
        next.setHolders(holders)
        if let old = record.ownerProcess, old != settings.process {
            next.fence(old)
            if let fence = confirmation(of: old), let confirmed = fence.confirmed { next.confirm(old, confirmed) }
        }
        // This process claims: it is nobody's to fence.
        next.fences.removeAll { $0.target == settings.process }
        guard next.fences.count <= GroupRecord.maximumFences else {
            return block(
                "\(next.mustFence.count) processes would have to be confirmed dead; if they are, say so with "
                    + "`twinlog confirm-dead NODE`", &out)
        }
        next.ownerProcess = settings.process
        let isRestart = record.owner == me && record.ownerProcess?.node == me
        swap(to: next, .claim(isRestart ? .restart : .takeover), now, &out)
    }

    /// The record by which this node gives the group to `heir`, which then claims it. `isSource`: the log here holds
    /// everything that was acknowledged. `fencing`: who may still write to the medium.
    func givenAway(
        _ record: GroupRecord, to heir: NodeID, isSource: Bool, fencing process: ProcessIdentity?
    ) -> GroupRecord {
        var given = record
        given.version += 1
        given.owner = heir
        given.epoch = record.epoch.next
        given.phase = .claimed
        given.setHolders(record.holders.filter { isSource || $0 != me })
        // If the partner's log turns out to be worse, an operator can come back to this one: it is judged anew then.
        if !isSource, record.isHolder(me) { given.claim?.previousHolders = [me] }
        given.ownerProcess = nil
        if let process { given.fence(process) }
        return given
    }
}
