// Until when an owner may serve, and when a node may claim: the two sides of S17. An owner has the right
//  - for a lease, from the start of a renewal at the coordinator, if the record was swapped since the first renewal after a lapse;
//  - while every other node that counts as in sync grants it: who granted claims nothing before the grant has ended;
//  - while it alone is in sync: nobody else claims without force, and a claim by force confirms the owner's end first (S16).
// So a coordinator that does not answer stops swaps, and nothing else.
//
// A lapse ends what a renewal says: a claim that was sent while the lease was over may be on its way, and a renewal does not stop it.
// A swap does, whoever makes it: the claim expects an older version. Who claims the newer one has asked for the owner's sign of life
// since it learned that version, so it has seen the renewal.
//
// An owner asks with each heartbeat and says when; a mirror answers with that time. The grant lasts for the owner from when it asked,
// less a margin, and for the mirror from when it answers: however long the messages are on their way, the owner's end comes first.

internal import Coordination
internal import LogModel

extension GroupMachine {
    // MARK: The owner

    /// Kept where anything changes that it depends on: it is asked for with every request.
    mutating func noteAuthority() {
        switch role {
        case .owner(let owner):
            authority = Authority(validUntil: owner.isSuspended ? 0 : rightEnd, rule: rule(owner))
            isSteady = areInSync(owner.mirrors)
        case .handingOver(let handover):
            authority = Authority(validUntil: handover.isDraining ? rightEnd : 0, rule: rule(handover.owner))
            isSteady = false
        case .starting, .blocked, .standby, .recovering, .stopped:
            authority = Authority(validUntil: 0, rule: .nothing(partners: partners.count))
            isSteady = false
        }
    }

    private func areInSync(_ mirrors: Members<MemberMachine>) -> Bool {
        (0..<mirrors.count).allSatisfy { index in
            if case .inSync = mirrors[index].state { true } else { false }
        }
    }

    /// When the right of this owner ends, by what it knows.
    var rightEnd: Nanos { max(isLeaseARight ? leaseEnd : 0, grantsEnd) }

    /// True if no claim from a lapse of the lease can come into effect any more: the record was swapped since its renewal.
    private var isLeaseARight: Bool { record.map { $0.version > renewalsFrom } ?? false }

    /// Once for each lapse: makes the renewed lease a right, if this owner needs one.
    mutating func secureLease(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner = role, now < leaseEnd, !isLeaseARight, grantsEnd < .max, var next = record else { return }
        next.version += 1
        swap(to: next, .barrier, now, &out)
    }

    /// When the lease ends that the coordinator renewed last; also how long a node may believe that the coordinator answers.
    var leaseEnd: Nanos {
        guard let lastRenewal else { return 0 }
        return lastRenewal + settings.lease - settings.leaseMargin
    }

    /// When the first grant ends of those that are needed: of every node that may count as in sync, by the record or by a swap whose
    /// outcome is not known.
    private var grantsEnd: Nanos {
        guard let members = record?.members else { return 0 }
        return swaps.open.reduce(grantsEnd(of: members)) { min($0, grantsEnd(of: $1.members)) }
    }

    private func grantsEnd(of members: [NodeID: GroupRecord.Member]) -> Nanos {
        var end = Nanos.max
        for (node, member) in members where member.role != .out && node != me {
            end = min(end, partners.index(of: node).map { partners[$0].grantEnd } ?? 0)
        }
        return end
    }

    /// A partner answers what this owner asked: it claims nothing for a lease from then.
    mutating func granted(by index: Int, asked: Nanos, _ now: Nanos, _ out: inout [Directive]) {
        guard asked <= now else { return }
        partners[index].granted(until: asked + settings.lease - settings.leaseMargin)
        resume(now, &out)
    }

    /// The right to serve is back.
    mutating func resume(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role, owner.isSuspended, now < rightEnd else { return }
        owner.service = .serving(since: now)
        role = .owner(owner)
        out += [
            .report(Report(.leaseRegained, "the right to serve is renewed; serving again")), .serving(.serve),
            .serving(.acknowledge),
        ]
    }

    mutating func suspendWithoutRight(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role, !owner.isSuspended, now >= rightEnd else { return }
        owner.service = .suspended
        role = .owner(owner)
        out += [.report(Report(.leaseLost, "\(missingRight(now)); nothing is acknowledged")), .serving(.suspend)]
    }

    /// Why there is no right to serve, for people.
    func missingRight(_ now: Nanos) -> String {
        now < leaseEnd
            ? "the lease lapsed and is renewed; serving waits for a swap of the group's record"
            : "neither the coordinator nor \(partnerNames) has renewed the right to serve"
    }

    // MARK: The others

    /// An owner asks that this node claim nothing for a while. Not granted by one that is about to, or whose claim may be on its way, be it
    /// an earlier process': once this start is counted, that one expects an older record.
    mutating func grant(to index: Int, asked: Nanos, _ now: Nanos, _ out: inout [Directive]) {
        let node = partners.node(index)
        guard case .standby = role, isStartConfirmed, record?.owner == node,
            !swaps.open.contains(where: { $0.owner == me })
        else { return }
        if case .takeOver = command { return }
        mayClaimFrom = max(mayClaimFrom, now + settings.lease)
        var heartbeat = heartbeat(now)
        heartbeat.grants = asked
        out.append(.rail(node, .sendHeartbeat(heartbeat)))
    }

    /// Whether this node may claim what a partner's process serves: it has granted nothing that lasts, or the process is known to be gone.
    func mayClaim(_ record: GroupRecord, _ now: Nanos) -> Bool {
        guard record.phase == .published, let owner = record.ownerProcess, let index = partners.index(of: owner.node)
        else {
            return true
        }
        return now >= mayClaimFrom || partners[index].deadProcess == owner
    }
}
