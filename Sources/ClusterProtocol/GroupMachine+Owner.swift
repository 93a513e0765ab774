// The published owner: keeps its mirrors, and says what an acknowledgement needs. MemberMachine has one mirror's way;
// the swaps that it asks for are made here.

internal import Coordination
internal import LogModel

extension GroupMachine {
    // MARK: The rule

    var rule: AcknowledgementRule {
        switch role {
        case .owner(let owner): rule(owner)
        case .handingOver(let handover): rule(handover.owner)
        case .starting, .blocked, .standby, .recovering, .stopped: .nothing(partners: partners.count)
        }
    }

    func rule(_ owner: Owner) -> AcknowledgementRule {
        guard !owner.isSuspended, owner.logFailure == nil else { return .nothing(partners: partners.count) }
        var rule = AcknowledgementRule(allowed: true, required: MemberSet())
        for index in 0..<owner.mirrors.count {
            switch owner.mirrors[index].need(isCounted: isCounted(index)) {
            case .none: break
            case .mustHold: rule.required.insert(index)
            case .mayNotBeGiven:
                rule.required.insert(index)
                rule.allowed = false
            }
        }
        // With one copy, only where that is wanted and the pool knows that nobody else counts (S13, S20).
        if rule.required.isEmpty { rule.allowed = settings.degradeOnMirrorLoss && owner.standing.isNoted }
        return rule
    }

    /// The record says that the partner holds everything that was acknowledged.
    private func isCounted(_ index: Int) -> Bool { record?.isHolder(partners.node(index)) == true }

    // MARK: Time

    mutating func becomeOwner(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        meetPartnersAnew(now)
        let isSuspended = now >= rightEnd
        role = .owner(
            Owner(
                epoch: record.epoch, service: isSuspended ? .suspended : .serving(since: now),
                partners: settings.partners, since: now))
        standing.epoch = max(standing.epoch, record.epoch)
        out.append(.report(Report(.published, "owner in epoch \(record.epoch)")))
        if !isSuspended { out.append(.serving(.serve)) }
        // The partner gave the group back to a node that is to stop: what is acknowledged is destaged, and the stop goes on.
        if command == .stop { return beginStop(now, &out) }
        finishCommand(refusal: nil, &out)
        tickOwner(now, &out)
    }

    mutating func tickOwner(_ now: Nanos, _ out: inout [Directive]) {
        suspendWithoutRight(now, &out)
        guard case .owner(var owner) = role else { return }
        for index in 0..<owner.mirrors.count {
            let around = surroundings(index, owner, now)
            owner.mirrors[index].tick(&partners[index], around, &out)
        }
        if !owner.standing.isNoted { out.append(.region(.noteEpoch(owner.standing.epoch))) }
        role = .owner(owner)
        settleMirrors(now, &out)
        secureLease(now, &out)
        judgeMedium(now, &out)
    }

    func surroundings(_ index: Int, _ owner: Owner, _ now: Nanos) -> MemberMachine.Surroundings {
        MemberMachine.Surroundings(
            node: partners.node(index), settings: settings, now: now, isCounted: isCounted(index),
            isLogSound: owner.logFailure == nil, heartbeat: heartbeat(askedAt: now))
    }

    mutating func epochNoted(_ epoch: Epoch, _ out: inout [Directive]) {
        standing.epoch = max(standing.epoch, epoch)
        switch role {
        case .owner(var owner):
            owner.standing.noted(epoch)
            role = .owner(owner)
        case .handingOver(var handover):
            handover.owner.standing.noted(epoch)
            role = .handingOver(handover)
        case .starting, .blocked, .standby, .recovering, .stopped: return
        }
        out.append(.serving(.acknowledge))
    }

    // MARK: The mirrors

    mutating func railUp(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        let around = surroundings(index, owner, now)
        owner.mirrors[index].railUp(owner.standing.epoch, around, &out)
        role = .owner(owner)
    }

    mutating func mirrorRailDown(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        let around = surroundings(index, owner, now)
        owner.mirrors[index].railDown(&partners[index], around, &out)
        role = .owner(owner)
    }

    /// Whose log is open: the owner, also while it drains before it gives the group away. Sessions move and attach all the while.
    private var ownerWithLog: Owner? {
        get {
            switch role {
            case .owner(let owner): owner
            case .handingOver(let handover): handover.isDraining ? handover.owner : nil
            case .starting, .blocked, .standby, .recovering, .stopped: nil
            }
        }
        set {
            guard let newValue else { return }
            switch role {
            case .owner: role = .owner(newValue)
            case .handingOver(var handover):
                handover.owner = newValue
                role = .handingOver(handover)
            case .starting, .blocked, .standby, .recovering, .stopped: break
            }
        }
    }

    mutating func mirrorSessionMoved(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        guard var owner = ownerWithLog else { return }
        let around = surroundings(index, owner, now)
        partners[index].railMoved()
        owner.mirrors[index].moved(&partners[index], owner.standing.epoch, around, &out)
        ownerWithLog = owner
    }

    mutating func mirrorAttached(
        _ index: Int, _ durable: LSN, _ contents: MirrorContents, _ now: Nanos, _ out: inout [Directive]
    ) {
        guard var owner = ownerWithLog else { return }
        let around = surroundings(index, owner, now)
        owner.mirrors[index].attached(
            durable: durable, contents, known: record?.members[around.node], local: owner.durable, around, &out)
        ownerWithLog = owner
        advance(index, now, &out)
    }

    mutating func mirrorRefused(
        _ index: Int, _ refusal: AttachRefusal, _ reason: String, _ now: Nanos, _ out: inout [Directive]
    ) {
        guard var owner = ownerWithLog else { return }
        let around = surroundings(index, owner, now)
        owner.mirrors[index].refused(refusal, reason, &partners[index], around, &out)
        ownerWithLog = owner
        if refusal == .staleEpoch { read(&out) }
    }

    mutating func progressed(
        local: LSN, _ index: Int, durable: LSN, pending: UInt64?, _ now: Nanos, _ out: inout [Directive]
    ) {
        switch role {
        case .owner(var owner):
            owner.durable = local
            owner.mirrors[index].progressed(durable: durable, pending: pending, now)
            role = .owner(owner)
            advance(index, now, &out)
        case .handingOver(var handover):
            handover.owner.durable = local
            handover.owner.mirrors[index].progressed(durable: durable, pending: pending, now)
            role = .handingOver(handover)
        case .starting, .blocked, .standby, .recovering, .stopped: break
        }
    }

    private mutating func advance(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        owner.mirrors[index].advance(
            local: owner.durable, isCounted: isCounted(index), partners.node(index), &out)
        role = .owner(owner)
        if case .joining(let contents) = owner.mirrors[index].state { join(index, contents, now, &out) }
    }

    // MARK: Swaps of the in-sync set

    /// The swaps that the mirrors' states ask for, of which one can be on its way.
    mutating func settleMirrors(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(let owner) = role else { return }
        for index in 0..<owner.mirrors.count {
            switch owner.mirrors[index].state {
            case .disqualifying: disqualify(index, now, &out)
            case .joining(let contents): rejoin(index, contents, now, &out)
            case .absent, .dialing, .attaching, .catchingUp, .requiring, .inSync, .lost: break
            }
        }
    }

    /// A join that is not on its way: made again, or given up if the rail is gone meanwhile.
    private mutating func rejoin(
        _ index: Int, _ contents: MirrorContents, _ now: Nanos, _ out: inout [Directive]
    ) {
        guard !isCoordinating, case .owner(var owner) = role else { return }
        if partners[index].isRailUp { return join(index, contents, now, &out) }
        owner.mirrors[index].joinGivenUp(now)
        role = .owner(owner)
        out.append(.serving(.acknowledge))
    }

    private mutating func join(
        _ index: Int, _ copy: MirrorContents, _ now: Nanos, _ out: inout [Directive]
    ) {
        guard case .owner(let owner) = role, var next = record else { return }
        let node = partners.node(index)
        next.version += 1
        var member = next.members[node] ?? GroupRecord.Member(role: .out, pool: copy.pool)
        let isKnown = member.pool == copy.pool
        member.pool = copy.pool
        member.generation = isKnown ? max(member.generation, copy.generation) : copy.generation
        member.incarnation = owner.incarnation
        next.members[node] = member
        next.setHolders(holders(of: next, without: node) + [node])
        swap(to: next, .join(index), now, &out)
    }

    /// This node, and the partners that count without `node`.
    private func holders(of record: GroupRecord, without node: NodeID) -> [NodeID] {
        [me] + partners.nodes.filter { $0 != node && record.isHolder($0) }
    }

    mutating func mirrorJoined(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        let isRailUp = partners[index].isRailUp
        owner.mirrors[index].joined(isRailUp: isRailUp, partners.node(index), now, &out)
        role = .owner(owner)
        if isRailUp { out += onAllRails(.tellRecordChanged) }
        out.append(.serving(.acknowledge))
    }

    private mutating func disqualify(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        guard var next = record else { return }
        next.version += 1
        next.epoch = next.epoch.next
        next.setHolders(holders(of: next, without: partners.node(index)))
        swap(to: next, .disqualify(index), now, &out)
    }

    mutating func mirrorDisqualified(_ index: Int, _ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role else { return }
        owner.standing.raised(to: record.epoch)
        owner.mirrors[index].disqualified(dialAt: now + settings.heartbeatInterval)
        role = .owner(owner)
        let consequence = settings.degradeOnMirrorLoss ? "acknowledging with one copy" : "nothing is acknowledged"
        let reason = "\(partners.node(index)) is out of sync since epoch \(record.epoch); \(consequence)"
        out += [.report(Report(.degraded, reason)), .region(.noteEpoch(record.epoch))]
    }
}
