// A medium that fails its owner, or hangs, while everything else is alive: the group is left to the partner, which writes
// what is in its mirror log (behaviour 2). What was on its way to the medium may be anywhere on it; the partner's log begins
// at or below that and is replayed whole (S9, S10).
//
// The medium is shared, so it may fail the partner too. The record remembers that the group was left for it until an owner
// has destaged everything, which only a handover tells; meanwhile an owner keeps the group for `mediumRest`.

internal import Coordination
internal import LogModel

extension GroupMachine {
    mutating func mediumEvent(_ trouble: MediumTrouble?, _ out: inout [Directive]) {
        switch role {
        case .owner(var owner):
            owner.medium = trouble
            if trouble == nil, owner.staysBecause != nil {
                owner.staysBecause = nil
                out.append(.report(Report(.mediumRecovered, "what was acknowledged reaches the medium again")))
            }
            role = .owner(owner)
        case .handingOver(var handover):
            handover.owner.medium = trouble
            role = .handingOver(handover)
        default: break
        }
    }

    /// Time passes; the lease holds, and the mirror's life was looked at.
    mutating func judgeMedium(_ now: Nanos, _ out: inout [Directive]) {
        guard case .owner(var owner) = role, !owner.suspended, let trouble = owner.medium,
            now >= max(trouble.since, owner.servesSince) + settings.mediumLimit
        else { return }
        if let obstacle = staysBecause(owner, trouble, now) {
            guard owner.staysBecause != obstacle else { return }
            owner.staysBecause = obstacle
            role = .owner(owner)
            let kind: EventKind = trouble.isFull ? .mediumFull : .mediumFailed
            let cause: Report.Cause? = obstacle == movedBefore ? .movedBefore : nil
            out.append(.report(Report(kind, cause: cause, "\(describe(trouble, now)); \(obstacle)")))
        } else if !isCoordinating {
            role = .handingOver(
                Handover(owner: owner, step: .releasing(since: now), toPeer: true, since: now, mediumFails: true))
            let reason = "\(describe(trouble, now)); \(settings.peer) holds everything and gets the group"
            out += [.report(Report(.mediumFailed, cause: .groupIsLeft, reason)), .releaseMedia]
        }
    }

    /// Why the partner cannot or shall not have the group because of the medium.
    private func staysBecause(_ owner: Owner, _ trouble: MediumTrouble, _ now: Nanos) -> String? {
        if trouble.isFull { return "it is full for whoever writes to it, so \(me) keeps the group and goes on trying" }
        guard owner.mirror == .inSync, owner.failure == nil, record?.isHolder(settings.peer) == true else {
            return "\(settings.peer) is not in sync, so \(me) keeps the group and goes on trying"
        }
        if let problem = peer.heartbeat.problem {
            return
                "\(settings.peer) could not serve it either (\(problem)), so \(me) keeps the group and goes on trying"
        }
        guard record?.leftForMedium == true, now < owner.since + settings.mediumRest else { return nil }
        return movedBefore
    }

    private var movedBefore: String {
        "the group was moved because of its medium before, so \(me) keeps it and goes on trying"
    }

    private func describe(_ trouble: MediumTrouble, _ now: Nanos) -> String {
        "\(trouble.reason), for \((now - min(now, trouble.since)) / 1_000_000_000) s now"
    }

    /// What an operator is told of a medium that fails.
    func mediumReason(_ now: Nanos) -> String? {
        switch role {
        case .owner(let owner):
            guard let trouble = owner.medium else { return nil }
            return describe(trouble, now) + (owner.staysBecause.map { "; \($0)" } ?? "")
        case .handingOver(let handover): return handover.owner.medium.map { describe($0, now) }
        default: return nil
        }
    }
}
