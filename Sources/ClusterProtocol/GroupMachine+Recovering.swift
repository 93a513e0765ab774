// From a claim that was won to publication, in S16's order and in no other: fence and confirm, lock the medium, seal the
// region, recover and replay all of it, open the log under a new incarnation, publish. Each step is tried again until it
// succeeds; a fence that cannot be confirmed holds everything up, and says so.
//
// After a crash the log's end is uncertain. If an in-sync copy exists, that copy decides: an owner that restarts asks its
// partner, which gets the group if it lives and holds everything. If it gives no sign of life within `doubtLimit`, the log
// here decides, and a torn tail is discarded. A corrupt log leaves the group to a partner that holds everything, however
// long that one takes to come (S5).
//
// A claim has a bound: one that is held up for `claimLimit` leaves the group to a partner that lives and holds everything too.

internal import Coordination
internal import LogModel

extension GroupMachine {
    mutating func beginRecovery(
        _ record: GroupRecord, _ claim: Swaps.Claim, _ now: Nanos, _ out: inout [Directive]
    ) {
        out.append(.report(Report(.claimed, "claimed epoch \(record.epoch)")))
        let release: MediumRelease
        switch role {
        case .standby(let standby):
            refuseWaiting(standby, &out)
            release = standby.release
        case .blocked(let blocked): release = blocked.release
        case .starting, .recovering, .owner, .handingOver, .stopped: release = .complete
        }
        let asksFirst =
            switch claim {
            case .restart: completePartner != nil
            case .takeover: false
            }
        role = .recovering(Recovering(epoch: record.epoch, asksFirst: asksFirst, release: release, since: now))
        perform(now, &out)
    }

    /// The first partner whose log holds everything that was acknowledged, by the record.
    var completePartner: NodeID? { partners.nodes.first { record?.isHolder($0) == true } }

    mutating func tickRecovering(_ now: Nanos, _ out: inout [Directive]) {
        recordDeaths(now, &out)
        saveConfirmations(now, &out)
        guard !giveBack(now, &out), case .recovering(let recovering) = role else { return }
        switch (recovering.step, recovering.work) {
        case (.asking(let since), _): ask(since, now, &out)
        // Under way only while the swap is: one that was refused without a change is made again.
        case (.publishing, _), (.givingAway, _): if !isCoordinating { perform(now, &out) }
        case (.fencing, .due(let at)), (.locking, .due(let at)), (.sealing, .due(let at)), (.replaying, .due(let at)),
            (.opening, .due(let at)), (.releasing, .due(let at)):
            if now >= at { perform(now, &out) }
        case (.fencing, .underWay), (.locking, .underWay), (.sealing, .underWay), (.replaying, .underWay),
            (.opening, .underWay), (.releasing, .underWay):
            break
        }
    }

    /// Gives the directive of the step that is due.
    private mutating func perform(_ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role, let record else { return }
        recovering.work = .underWay
        switch recovering.step {
        case .fencing: out.append(.step(.fence(record.mustFence)))
        case .locking: out.append(.step(.lockMedia(expected: record.media)))
        case .sealing: out.append(.step(.sealRegion))
        case .replaying(let asksFirst):
            let isSetAside = record.setsAsideLog || record.replayed != nil
            out.append(.step(isSetAside ? .setLogAside : .recover(askingFirst: asksFirst)))
        case .asking: break
        case .opening(let end):
            let generation = record.members[me]?.generation ?? standing.generation
            out.append(
                .step(
                    .openLog(
                        Incarnation(recovering.epoch), logUUID: record.logUUID, start: end.alignedUp,
                        generation: generation)))
        case .publishing:
            if now < othersServeUntil(record, recovering) { break }
            if !swap(to: published(record, recovering), .publish, now, &out) { recovering.work = .due(at: now) }
        case .releasing: out.append(.step(.releaseMedia))
        case .givingAway(let leaving):
            var given = givenAway(record, to: leaving.heir, isSource: leaving.isSource, fencing: nil)
            if leaving.isForMedium { given.leftForMedium = true }
            if !swap(to: given, .giveAway, now, &out) { recovering.work = .due(at: now) }
        }
        role = .recovering(recovering)
    }

    // MARK: Owners that live on

    /// Who is kept from the medium and lives ends to serve with the last grant, which this node gave, and with its lease. One that was alone
    /// in sync needs neither, and serves without end (S17).
    private func isEnough(_ fence: GroupRecord.Fence) -> Bool {
        guard fence.confirmed?.mayLive == true, let record else { return true }
        return !record.setsAsideLog && record.replayed == nil
    }

    private func aloneAndAlive(_ fence: GroupRecord.Fence) -> String {
        "\(fence.target.node) cannot write to the medium any more, but may live and serve what it holds, alone as it was: once it is off, "
            + "run `twinlog confirm-dead \(fence.target.node)`"
    }

    /// Until then an earlier owner that lives may answer its clients.
    private func othersServeUntil(_ record: GroupRecord, _ recovering: Recovering) -> Nanos {
        let fences = record.fences + recovering.confirmed
        guard fences.contains(where: { $0.confirmed?.mayLive == true }) else { return 0 }
        let lease = max(settings.lease, (record.leaseMillis ?? 0) * 1_000_000)
        return recovering.since + lease
    }

    private func published(_ record: GroupRecord, _ recovering: Recovering) -> GroupRecord {
        var published = record
        published.version += 1
        published.claim = nil
        for fence in recovering.confirmed { fence.confirmed.map { published.confirm(fence.target, $0) } }
        published.ownerProcess = settings.process
        published.leaseMillis = settings.lease / 1_000_000
        published.media.merge(recovering.media) { _, locked in locked }
        published.members[me]?.incarnation = Incarnation(recovering.epoch)
        published.setHolders([me])
        return published
    }

    /// What was confirmed stands in the record before this node can die of the next step: else each start of it would add one more
    /// process to those that must be confirmed.
    private mutating func saveConfirmations(_ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(let recovering) = role, var next = record, !isCoordinating else { return }
        let open = next.mustFence
        guard recovering.confirmed.contains(where: { open.contains($0.target) }) else { return }
        for fence in recovering.confirmed { fence.confirmed.map { next.confirm(fence.target, $0) } }
        next.version += 1
        swap(to: next, .confirm, now, &out)
    }

    // MARK: How steps end

    mutating func recoveryStepEnded(_ answer: StepAnswer, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role else { return }
        if case .mediaReleased = answer { recovering.release = .complete }
        role = .recovering(recovering)
        guard recovering.isUnderWay else { return }
        switch (answer, recovering.step) {
        case (.fenced(let dead, let problem), .fencing):
            let enough = dead.filter(isEnough)
            recovering.confirmed += enough
            role = .recovering(recovering)
            if let problem = problem ?? dead.first(where: { !isEnough($0) }).map(aloneAndAlive) {
                heldUp(problem, now, &out)
                return saveConfirmations(now, &out)
            }
            // The answer to a fence that was begun before the claim: its own is still to come (S16).
            let confirmed = recovering.confirmed.map(\.target)
            if record?.mustFence.contains(where: { !confirmed.contains($0) }) == true { return }
            goOn(with: .locking, now, &out)
        case (.mediaLocked(let media), .locking):
            recovering.media = media
            role = .recovering(recovering)
            goOn(with: .sealing, now, &out)
        case (.sealed, .sealing): goOn(with: .replaying(asksFirst: recovering.asksFirst), now, &out)
        case (.recovered(let end), .replaying): goOn(with: .opening(end: end), now, &out)
        case (.tailInDoubt(let reason), .replaying):
            let asked = completePartner?.rawValue ?? partnerNames
            out.append(.report(Report(.tailInDoubt, "\(reason); \(asked) is asked first")))
            goOn(with: .asking(since: now), now, &out)
        case (.logCorrupt(let reason), .replaying): corrupt(reason, now, &out)
        case (.logOpened, .opening):
            if let record { local = LocalLog(logUUID: record.logUUID, incarnation: Incarnation(recovering.epoch)) }
            goOn(with: .publishing, now, &out)
        case (.mediaReleased, .releasing(let leaving)): goOn(with: .givingAway(leaving), now, &out)
        case (.refused(let reason), _):
            out.append(.step(.releaseMedia))
            block(reason, &out)
        case (.mediumTaken(let reason), _): mediumTaken(reason, now, &out)
        case (.failed(let reason), _): heldUp(reason, now, &out)
        // Of another step than the present one.
        case (.fenced, _), (.mediaLocked, _), (.sealed, _), (.recovered, _), (.tailInDoubt, _), (.logCorrupt, _),
            (.logOpened, _), (.mediaReleased, _), (.drained, _), (.evacuated, _):
            break
        }
    }

    private mutating func goOn(with step: Recovering.Step, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role else { return }
        recovering.go(to: step)
        role = .recovering(recovering)
        perform(now, &out)
        saveConfirmations(now, &out)
    }

    /// The step is tried again.
    private mutating func heldUp(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role else { return }
        if recovering.obstacle?.reason != reason { out.append(.report(Report(.takeoverWaits, reason))) }
        recovering.heldUp(reason, now, retryAt: now + settings.heartbeatInterval)
        role = .recovering(recovering)
    }

    // MARK: Leaving the group to a partner

    /// A claim that cannot go on leaves the group to a partner that lives, holds everything and knows no reason against it; once, and
    /// then not for `mediumRest`. Answers whether it does.
    private mutating func giveBack(_ now: Nanos, _ out: inout [Directive]) -> Bool {
        guard case .recovering(let recovering) = role, let obstacle = recovering.obstacle, let record,
            now >= obstacle.since + settings.claimLimit, !recovering.isUnderWay, !isCoordinating,
            !record.leftForMedium || now >= recovering.since + settings.mediumRest,
            let heir = partners.nodes.first(where: { record.isHolder($0) && livesAndCouldServe($0, now) })
        else { return false }
        let reason = "\(obstacle.reason); \(heir) holds everything and gets the group"
        out.append(.report(Report(.claimGivenBack, reason)))
        let isSource = recovering.leaving?.isSource ?? true
        leave(Recovering.Leaving(heir: heir, reason: reason, isSource: isSource, isForMedium: true), now, &out)
        return true
    }

    private func livesAndCouldServe(_ node: NodeID, _ now: Nanos) -> Bool {
        guard let index = partners.index(of: node), let seen = partners[index].lastSignOfLife else { return false }
        return now < seen + 2 * settings.lease && partners[index].announcedProblem(settings.group) == nil
    }

    private mutating func leave(_ leaving: Recovering.Leaving, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role else { return }
        recovering.go(to: .releasing(leaving))
        role = .recovering(recovering)
        perform(now, &out)
    }

    /// Time passes after the partners were asked. A partner that came back since decides, if it could serve the group.
    private mutating func ask(_ since: Nanos, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role, let record else { return }
        for index in 0..<partners.count where record.isHolder(partners.node(index)) {
            let obstacle = partners[index].announcedProblem(settings.group)
            guard let seen = partners[index].lastSignOfLife, seen >= since, obstacle == nil else { continue }
            let reason = "\(partners.node(index)) lives, and its log is replayed"
            out.append(.report(Report(.leftToPartner, reason)))
            let leaving = Recovering.Leaving(
                heir: partners.node(index), reason: "the log here is in doubt: \(reason)")
            return leave(leaving, now, &out)
        }
        guard now >= since + settings.doubtLimit else { return }
        let absence = partners.nodes.map(absence).joined(separator: ", ")
        let reason = "\(absence); the log here decides where it ends, and a torn tail is discarded"
        out.append(.report(Report(.decidedAlone, reason)))
        recovering.go(to: .replaying(asksFirst: false))
        role = .recovering(recovering)
        perform(now, &out)
    }

    private func absence(_ node: NodeID) -> String {
        let obstacle = partners.index(of: node).flatMap { partners[$0].announcedProblem(settings.group) }
        return "\(node) " + (obstacle.map { "could not serve the group (\($0))" } ?? "gives no sign of life")
    }

    /// The log here is corrupt, or its memory fails: it does not count any more, and another complete one decides.
    private mutating func corrupt(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard let heir = completePartner else {
            out.append(.step(.releaseMedia))
            let way = wayBack.map { "\($0); " } ?? ""
            return block(
                "\(reason); \(way)`twinlog-recover heal` or `replay --salvage` bring out what is sound",
                cause: .logIsCorrupt, &out)
        }
        out.append(.report(Report(.logCorrupt, "\(reason); \(heir) holds everything and gets the group")))
        leave(Recovering.Leaving(heir: heir, reason: reason, isSource: false), now, &out)
    }

    /// Its memory fails after the log was read and before it is used: no swap of this claim is on its way.
    mutating func recoveringLogFailed(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(let recovering) = role else { return }
        switch recovering.step {
        case .asking, .opening: corrupt(reason, now, &out)
        case .fencing, .locking, .sealing, .replaying, .publishing, .releasing, .givingAway: break
        }
    }
}
