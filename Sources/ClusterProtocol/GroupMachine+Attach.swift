// The mirror's side of a session: an owner asks to write its log here. A region is opened only to the published owner of the
// record's own epoch (S12, S15), so the record may have to be read before the answer.

internal import Coordination
internal import LogModel

extension GroupMachine {
    mutating func attachRequested(_ request: AttachRequest, _ now: Nanos, _ out: inout [Directive]) {
        guard case .standby(var standby) = role else {
            let reason = "this node is not a standby of the group now (\(state(now).rawValue))"
            refuse(request, .notReady, reason, &out)
            if let record, request.epoch > record.epoch { read(&out) }
            return
        }
        standby.waitingAttach = request
        role = .standby(standby)
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
        guard case .standby(var standby) = role, let request = standby.waitingAttach, !isCoordinating else { return }
        guard let record else {
            return refuseWaiting(.notReady, "the coordinator has no record of the group", &out)
        }
        guard record.owner == request.from, record.epoch == request.epoch, record.phase == .published else {
            let known = "\(record.owner) \(record.phase.rawValue) epoch \(record.epoch)"
            let reason = "the coordinator says \(known), not \(request.from) epoch \(request.epoch)"
            return refuseWaiting(.staleEpoch, reason, &out)
        }
        guard record.logUUID == request.logUUID, request.incarnation <= Incarnation(record.epoch) else {
            return refuseWaiting(.staleEpoch, "the log is not the one that the coordinator knows", &out)
        }
        guard enlist(record, now, &out) else { return }
        if let refusal = lossOfCounted(request, in: record) { return refuseWaiting(refusal.0, refusal.1, &out) }
        standby.waitingAttach = nil
        role = .standby(standby)
        let generation = freshGeneration(in: record)
        standing.generation = generation
        standing.epoch = max(standing.epoch, request.epoch)
        local = LocalLog(logUUID: request.logUUID, incarnation: request.incarnation)
        hasMirrored = true
        out.append(.rail(request.from, .acceptAttach(request, generation: generation)))
    }

    /// Why mirroring `request` would begin a log anew that the record counts.
    private func lossOfCounted(_ request: AttachRequest, in record: GroupRecord) -> (AttachRefusal, String)? {
        guard let member = record.members[me], member.role != .out, member.pool == settings.pool else { return nil }
        guard isWhatIsKnown(in: record), local != nil else {
            let reason =
                "\(whatIsMissing(record)), though it counts as in sync: it must be counted out before it is begun anew"
            return (.lostLog, reason)
        }
        guard local?.incarnation == request.incarnation else {
            let reason =
                "the log here, of epoch \(member.incarnation), counts as in sync; for one of epoch \(request.incarnation) it would be begun anew"
            return (.notReady, reason)
        }
        return nil
    }

    private mutating func refuseWaiting(_ refusal: AttachRefusal, _ reason: String, _ out: inout [Directive]) {
        guard case .standby(var standby) = role, let request = standby.waitingAttach else { return }
        standby.waitingAttach = nil
        role = .standby(standby)
        refuse(request, refusal, reason, &out)
    }

    /// This node is about to leave `standby`: an owner that waits there need not wait longer.
    func refuseWaiting(_ standby: Standby, _ out: inout [Directive]) {
        guard let request = standby.waitingAttach else { return }
        refuse(request, .notReady, "this node is not a standby of the group any more", &out)
    }

    private func refuse(
        _ request: AttachRequest, _ refusal: AttachRefusal, _ reason: String, _ out: inout [Directive]
    ) {
        out.append(.rail(request.from, .refuseAttach(request, refusal, reason)))
    }
}
