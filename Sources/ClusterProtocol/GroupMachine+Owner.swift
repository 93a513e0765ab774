// The published owner: keeps its lease, keeps its mirror, and says what an acknowledgement needs.
//
// The mirror's way:
//   absent ─ dial ─▶ dialing ─▶ attaching ─▶ catchingUp ─▶ requiring ─ swap ─▶ inSync
//   inSync ─ silence, a lost rail,
//            or nothing completed ─▶ lost ─ re-attached ─▶ requiring ─▶ inSync    (never counted out)
//                                     └─ not in time ─ swap ─▶ absent             (S13; `stall` waits in `lost`)

internal import Coordination
internal import LogModel

struct Owner: Sendable {
    enum Mirror: Sendable, Equatable {
        case absent(dialAt: Nanos)
        case dialing(since: Nanos)
        case attaching(since: Nanos)
        /// One copy is still enough while the mirror is far behind, or has completed nothing since it attached at `from`.
        case catchingUp(from: LSN)
        /// Acknowledgements need the mirror again; it joins when it has everything below `target` (S14).
        case requiring(target: LSN)
        /// In sync by the record as soon as the swap is won.
        case joining
        case inSync
        /// In sync by the record, but not reachable; acknowledgements wait.
        case lost(since: Nanos, redial: Redial)
        /// The swap that counts the mirror out is on its way; acknowledgements wait.
        case disqualifying
    }
    enum Redial: Sendable, Equatable { case at(Nanos), dialing(since: Nanos), attaching(since: Nanos) }

    var epoch: Epoch
    /// Up to this one the pool knows what the coordinator does: with less, nothing is acknowledged with one copy (S20).
    var notedEpoch: Epoch
    var incarnation: Incarnation
    var suspended: Bool
    var mirror: Mirror
    var lostSince: Nanos?
    /// What the attached mirror said of its copy.
    var mirrorCopy: MirrorContents?
    var localDurable = LSN.zero
    var mirrorDurable = LSN.zero
    /// The oldest request that the mirror has not completed, and since when it is the oldest.
    var pending: (request: UInt64, since: Nanos)?
    /// What a mirror did not do that was alive when it was lost; `nil` again when it is in sync.
    var stuck: String?
    /// The log's memory has failed and there is nobody to give the group to: nothing is acknowledged any more.
    var failure: String?
    /// Why the mirror refused last, which is reported once.
    var refusal: String?
    /// When it became the owner.
    var since: Nanos
    /// Since when it serves without a break. Before that the process may have been stopped, which is not the medium's doing.
    var servesSince: Nanos
    /// What keeps batches from the medium.
    var medium: MediumTrouble?
    /// Why the group stays here though the medium fails, as it was reported.
    var staysBecause: String?

    mutating func progressed(_ local: LSN, _ mirror: LSN, pending request: UInt64?, _ now: Nanos) {
        localDurable = local
        mirrorDurable = mirror
        if request != pending?.request { pending = request.map { ($0, now) } }
    }

    mutating func isInSync() {
        mirror = .inSync
        lostSince = nil
        stuck = nil
    }
}

extension GroupMachine {
    /// How far behind the mirror may be when acknowledgements begin to need it: what a rail carries in a few milliseconds.
    static var joinDistanceBytes: UInt64 { 4 << 20 }

    func leaseEnd() -> Nanos {
        guard let lastRenewal else { return 0 }
        return lastRenewal + settings.lease - settings.leaseMargin
    }

    /// Whether the owner may acknowledge, read and trim at `now` (S8, S17).
    public func ownershipValid(_ now: Nanos) -> Bool {
        switch role {
        case .owner(let owner): !owner.suspended && now < leaseEnd()
        case .handingOver(let handover): handover.step == .draining && now < leaseEnd()
        default: false
        }
    }

    /// What an acknowledgement needs now.
    public var acknowledgementRule: (allowed: Bool, needsMirror: Bool) {
        let owner: Owner
        switch role {
        case .owner(let current): owner = current
        case .handingOver(let handover): owner = handover.owner
        default: return (false, true)
        }
        if owner.suspended || owner.failure != nil { return (false, true) }
        // Whom the record counts must hold it, whatever the link is like (S13).
        let isCounted = record?.isHolder(settings.peer) == true
        return switch owner.mirror {
        case .absent, .dialing, .attaching, .catchingUp:
            isCounted ? (true, true) : (settings.degradeOnMirrorLoss && owner.notedEpoch >= owner.epoch, false)
        case .requiring, .joining, .inSync, .lost: (true, true)
        case .disqualifying: (false, true)
        }
    }

    mutating func epochNoted(_ epoch: Epoch, _ now: Nanos, _ out: inout [Directive]) {
        standing.epoch = max(standing.epoch, epoch)
        switch role {
        case .owner(var owner):
            owner.notedEpoch = max(owner.notedEpoch, epoch)
            role = .owner(owner)
        case .handingOver(var handover):
            handover.owner.notedEpoch = max(handover.owner.notedEpoch, epoch)
            role = .handingOver(handover)
        default: return
        }
        out.append(.acknowledge)
    }

    mutating func becomeOwner(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        let suspended = now >= leaseEnd()
        role = .owner(
            Owner(
                epoch: record.epoch, notedEpoch: record.epoch, incarnation: Incarnation(record.epoch),
                suspended: suspended, mirror: .absent(dialAt: now), since: now, servesSince: now))
        standing.epoch = max(standing.epoch, record.epoch)
        peer = PeerView(since: now)
        out.append(.report(Report(.published, "owner in epoch \(record.epoch)")))
        if !suspended { out.append(.serve) }
        finishCommand(refusal: nil, &out)
        tickOwner(now, &out)
    }

    mutating func resumeAfterRenewal(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role, owner.suspended, now < leaseEnd() else { return }
        owner.suspended = false
        owner.servesSince = now
        role = .owner(owner)
        out += [.report(Report(.leaseRegained, "the lease is renewed; serving again")), .serve, .acknowledge]
    }

    mutating func tickOwner(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        if !owner.suspended && now >= leaseEnd() {
            owner.suspended = true
            role = .owner(owner)
            out += [
                .report(Report(.leaseLost, "the lease ran out before it could be renewed; nothing is acknowledged")),
                .suspend,
            ]
        }
        tickMirror(&owner, now, &out)
        if owner.notedEpoch < owner.epoch { out.append(.noteEpoch(owner.epoch)) }
        role = .owner(owner)
        settleMirror(now, &out)
        judgeMedium(now, &out)
    }

    /// The swap that the mirror's state asks for, if it is not on its way.
    mutating func settleMirror(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(let owner) = role else { return }
        if case .disqualifying = owner.mirror { disqualify(now, &out) }
        if case .joining = owner.mirror { rejoin(now, &out) }
    }

    /// A join that is not on its way: made again, or given up if the rail is gone meanwhile.
    private mutating func rejoin(_ now: Nanos, _ out: inout [Directive]) {
        guard !isCoordinating, case .owner(var owner) = role else { return }
        if peer.railUp { return join(now, &out) }
        owner.mirror = .absent(dialAt: now)
        role = .owner(owner)
        out.append(.acknowledge)
    }

    func mirrorSilent(_ now: Nanos) -> Bool { now >= peer.lastHeard + settings.heartbeatTimeout }

    /// Time's part of the mirror's way. Does not make coordinator calls.
    mutating func tickMirror(_ owner: inout Owner, _ now: Nanos, _ out: inout [Directive]) {
        // With the log's memory failed, only a mirror that counts already is of use: it can get the group.
        guard owner.failure == nil || record?.isHolder(settings.peer) == true else { return }
        switch owner.mirror {
        case .absent(let dialAt):
            guard now >= dialAt else { return }
            owner.mirror = .dialing(since: now)
            out.append(.dial)
        case .dialing(let since), .attaching(let since):
            guard now >= since + settings.heartbeatTimeout else { break }
            mirrorGone(&owner, now, &out)
        case .catchingUp, .requiring, .joining, .inSync:
            if mirrorSilent(now) {
                owner.stuck = nil
                mirrorGone(&owner, now, &out)
            } else if let pending = owner.pending, now >= pending.since + settings.completionLimit {
                owner.stuck =
                    "\(settings.peer) answers but has completed nothing for \((now - pending.since) / 1_000_000_000) s, "
                    + "perhaps because its pool's disk hangs"
                mirrorGone(&owner, now, &out)
            }
        case .lost(let since, let redial):
            if now >= since + settings.heartbeatTimeout && settings.degradeOnMirrorLoss && owner.failure == nil {
                owner.mirror = .disqualifying
                out.append(.closeRail)
                return
            }
            tickRedial(&owner, since, redial, now, &out)
        case .disqualifying: return
        }
        if peer.railUp { out.append(.sendHeartbeat) }
    }

    private mutating func tickRedial(
        _ owner: inout Owner, _ since: Nanos, _ redial: Owner.Redial, _ now: Nanos, _ out: inout [Directive]
    ) {
        switch redial {
        case .at(let time):
            guard now >= time else { return }
            owner.mirror = .lost(since: since, redial: .dialing(since: now))
            out.append(.dial)
        case .dialing(let began), .attaching(let began):
            guard now >= began + settings.heartbeatTimeout else { return }
            out.append(.closeRail)
            owner.mirror = .lost(since: since, redial: .at(now + settings.heartbeatInterval))
        }
    }

    /// The rail is down or silent, or the mirror does nothing. What follows depends on whether the record counts the mirror in.
    mutating func mirrorGone(_ owner: inout Owner, _ now: Nanos, _ out: inout [Directive]) {
        out.append(.closeRail)
        peer.railUp = false
        owner.pending = nil
        switch owner.mirror {
        case .joining, .disqualifying: return  // the swap's outcome decides
        case .lost(let since, _):
            owner.mirror = .lost(since: since, redial: .at(now + settings.heartbeatInterval))
        default:
            if record?.isHolder(settings.peer) == true {
                // A mirror that comes and goes without ever catching up is counted out from its first loss.
                owner.lostSince = owner.lostSince ?? now
                owner.mirror = .lost(since: owner.lostSince ?? now, redial: .at(now))
                let cause: Report.Cause? = owner.stuck == nil ? nil : .mirrorIsStuck
                out.append(.report(Report(.mirrorLost, cause: cause, lossReason(owner))))
            } else {
                owner.mirror = .absent(dialAt: now + settings.heartbeatInterval)
                out.append(.acknowledge)
            }
        }
    }

    mutating func ownerRailUp(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        switch owner.mirror {
        case .dialing: owner.mirror = .attaching(since: now)
        case .lost(let since, .dialing): owner.mirror = .lost(since: since, redial: .attaching(since: now))
        default: return out.append(.closeRail)
        }
        out.append(.sendAttach(epoch: owner.epoch, counts: record?.isHolder(settings.peer) == true))
        role = .owner(owner)
    }

    mutating func ownerRailDown(_ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner(var owner):
            if case .absent = owner.mirror { return }
            mirrorGone(&owner, now, &out)
            role = .owner(owner)
        case .handingOver: abortHandover("the rail to \(settings.peer) was lost", now, &out)
        case .standby: watch(now, &out)
        default: break
        }
    }

    // MARK: What the mirror answers

    mutating func mirrorEvent(_ event: Event, _ now: Nanos, _ out: inout [Directive]) {
        if case .handingOver(var handover) = role, case .progress(let local, let mirror, let pending) = event {
            handover.owner.progressed(local, mirror, pending: pending, now)
            role = .handingOver(handover)
            return
        }
        guard case .owner(var owner) = role else { return }
        switch event {
        case .attached(let durable, let kept): attached(&owner, durable: durable, kept: kept, now, &out)
        case .attachRefused(let refusal, let reason):
            if owner.refusal != reason {
                out.append(.report(Report(.attachRefused, "\(settings.peer) does not mirror: \(reason)")))
            }
            owner.refusal = reason
            if refusal == .lostLog, case .lost = owner.mirror {
                countOut(&owner, &out)
            } else {
                mirrorGone(&owner, now, &out)
            }
            role = .owner(owner)
            if refusal == .staleEpoch { read(&out) }
            return
        case .progress(let local, let mirror, let pending): owner.progressed(local, mirror, pending: pending, now)
        default: return
        }
        advanceMirror(&owner, &out)
        role = .owner(owner)
        if case .joining = owner.mirror { join(now, &out) }
    }

    /// The mirror's memory of what was acknowledged is gone, or older: that comes before anything else (S13, S20).
    private func countOut(_ owner: inout Owner, _ out: inout [Directive]) {
        out += [.closeRail, .report(Report(.mirrorAmnesia, "\(settings.peer) came back without its log"))]
        owner.mirror = .disqualifying
    }

    private func attached(
        _ owner: inout Owner, durable: LSN, kept: MirrorContents, _ now: Nanos, _ out: inout [Directive]
    ) {
        switch owner.mirror {
        case .attaching: owner.mirror = .catchingUp(from: durable)
        case .lost(_, .attaching):
            // A generation above the known one is counted: the mirror attaches only after that.
            let known = record?.members[settings.peer]
            guard kept.isKept, kept.pool == known?.pool, kept.generation >= known?.generation ?? 0 else {
                return countOut(&owner, &out)
            }
            owner.mirror = .requiring(target: owner.localDurable)
        default: return
        }
        owner.refusal = nil
        owner.mirrorCopy = kept
        owner.mirrorDurable = durable
        out.append(.report(Report(.mirrorAttached, "\(settings.peer) holds the log up to \(durable)")))
    }

    private func advanceMirror(_ owner: inout Owner, _ out: inout [Directive]) {
        // One that holds everything has nothing to complete.
        if case .catchingUp(let from) = owner.mirror,
            owner.mirrorDurable.rawValue + Self.joinDistanceBytes >= owner.localDurable.rawValue,
            owner.mirrorDurable > from || owner.mirrorDurable >= owner.localDurable
        {
            owner.mirror = .requiring(target: owner.localDurable)
            out.append(.acknowledge)
        }
        if case .requiring(let target) = owner.mirror, owner.mirrorDurable >= target {
            if record?.isHolder(settings.peer) == true {
                owner.isInSync()
                out.append(.report(Report(.mirrored, "\(settings.peer) is in sync")))
            } else {
                owner.mirror = .joining
            }
            out.append(.acknowledge)
        }
    }

    // MARK: Swaps of the in-sync set

    private mutating func join(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(let owner) = role, var next = record, let copy = owner.mirrorCopy else { return }
        next.version += 1
        var member = next.members[settings.peer] ?? GroupRecord.Member(role: .out, pool: copy.pool)
        let isKnown = member.pool == copy.pool
        member.pool = copy.pool
        member.generation = isKnown ? max(member.generation, copy.generation) : copy.generation
        member.incarnation = owner.incarnation
        next.members[settings.peer] = member
        next.setHolders([me, settings.peer])
        swap(to: next, .join, now, &out)
    }

    mutating func mirrorJoined(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        if peer.railUp {
            owner.isInSync()
            out.append(.report(Report(.mirrored, "\(settings.peer) is in sync")))
            out.append(.tellRecordChanged)
        } else {
            owner.lostSince = now
            owner.mirror = .lost(since: now, redial: .at(now))
        }
        role = .owner(owner)
        out.append(.acknowledge)
    }

    private mutating func disqualify(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner = role, var next = record else { return }
        next.version += 1
        next.epoch = next.epoch.next
        next.setHolders([me])
        swap(to: next, .disqualify, now, &out)
    }

    mutating func mirrorDisqualified(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        owner.epoch = record.epoch
        owner.lostSince = nil
        owner.mirror = .absent(dialAt: now + settings.heartbeatInterval)
        role = .owner(owner)
        let consequence = settings.degradeOnMirrorLoss ? "acknowledging with one copy" : "nothing is acknowledged"
        out += [
            .report(
                Report(.degraded, "\(settings.peer) is out of sync since epoch \(record.epoch); \(consequence)")),
            .noteEpoch(record.epoch),
        ]
    }
}
