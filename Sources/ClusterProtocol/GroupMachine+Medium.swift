// A medium that fails its owner, or hangs, while everything else is alive: the group is left to the partner, which writes
// what is in its mirror log (behaviour 2). What was on its way to the medium may be anywhere on it; the partner's log begins
// at or below that and is replayed whole (S9, S10).
//
// The medium is shared, so it may fail the partner too. The record remembers that the group was left for it until an owner
// has destaged everything, which only a handover tells; meanwhile an owner keeps the group for `mediumRest`.

internal import Coordination
internal import LogModel

extension GroupMachine {
    mutating func mediumTrouble(_ trouble: MediumTrouble?, _ out: inout [Directive]) {
        switch role {
        case .owner(var owner):
            if trouble == nil, owner.medium.stays != nil {
                out.append(.report(Report(.mediumRecovered, "what was acknowledged reaches the medium again")))
            }
            owner.medium.seen(trouble)
            role = .owner(owner)
        case .handingOver(var handover):
            handover.owner.medium.seen(trouble)
            role = .handingOver(handover)
        case .starting, .blocked, .standby, .recovering, .stopped: break
        }
    }

    /// Another node has the medium, so another claim was won, or the medium's host has forgotten this one (S18). Nothing is tried again: the
    /// record says whose the group is, and if it is still this node's, a new claim takes the medium anew.
    mutating func mediumTaken(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner, .recovering, .handingOver: lostOwnership(reason, now, &out)
        case .starting, .blocked, .standby, .stopped: break
        }
    }

    /// Time passes; the lease holds, and the mirrors' lives were looked at.
    mutating func judgeMedium(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role, case .serving(let servesSince) = owner.service,
            case .failing(let trouble, let stays) = owner.medium,
            now >= max(trouble.since, servesSince) + settings.mediumLimit
        else { return }
        switch judgement(owner, trouble, now) {
        case .stays(let obstacle):
            guard stays != obstacle else { return }
            owner.medium = .failing(trouble, stays: obstacle)
            role = .owner(owner)
            let kind: EventKind = trouble.isFull ? .mediumFull : .mediumFailed
            let reason = "\(describe(trouble, now)); \(obstacle.reason)"
            out.append(.report(Report(kind, cause: obstacle.cause, reason)))
        case .leaves(let heir):
            guard !isCoordinating else { return }
            let gift = Handover.Gift(heir: heir, legacy: .mediumFails)
            role = .handingOver(Handover(owner: owner, step: .releasing(gift, since: now)))
            let reason = "\(describe(trouble, now)); \(heir) holds everything and gets the group"
            out += [.report(Report(.mediumFailed, cause: .groupIsLeft, reason)), .step(.releaseMedia)]
        }
    }

    private enum Judgement { case stays(Owner.Obstacle), leaves(to: NodeID) }

    /// Whether a partner can and shall have the group because of the medium.
    private func judgement(_ owner: Owner, _ trouble: MediumTrouble, _ now: Nanos) -> Judgement {
        func stays(_ reason: String, _ cause: Report.Cause? = nil) -> Judgement {
            .stays(Owner.Obstacle(reason: reason, cause: cause))
        }
        if trouble.isFull {
            return stays("it is full for whoever writes to it, so \(me) keeps the group and goes on trying")
        }
        // One that catches up over another rail is as good: the check of what it lacks may be what hangs.
        guard let heir = completeMirror(owner), owner.logFailure == nil else {
            return stays("\(partnerNames) is not in sync, so \(me) keeps the group and goes on trying")
        }
        if let problem = problem(of: heir) {
            return stays("\(heir) could not serve it either (\(problem)), so \(me) keeps the group and goes on trying")
        }
        // If both nodes fail, moving only drops clients.
        if record?.leftForMedium == true, now < owner.since + settings.mediumRest {
            return stays(
                "the group was moved because of its medium before, so \(me) keeps it and goes on trying", .movedBefore)
        }
        return .leaves(to: heir)
    }

    /// Why a partner could not take the group over, as it says on its rail.
    func problem(of node: NodeID) -> String? { partners.index(of: node).flatMap { partners[$0].heartbeat.problem } }

    private func describe(_ trouble: MediumTrouble, _ now: Nanos) -> String {
        "\(trouble.reason), for \((now - min(now, trouble.since)) / 1_000_000_000) s now"
    }

    /// What an operator is told of a medium that fails.
    func mediumReason(_ now: Nanos) -> String? {
        switch role {
        case .owner(let owner):
            guard let trouble = owner.medium.trouble else { return nil }
            return describe(trouble, now) + (owner.medium.stays.map { "; \($0.reason)" } ?? "")
        case .handingOver(let handover): return handover.owner.medium.trouble.map { describe($0, now) }
        case .starting, .blocked, .standby, .recovering, .stopped: return nil
        }
    }
}
