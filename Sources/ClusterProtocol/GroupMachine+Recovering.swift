// From a claim that was won to publication, in S16's order and in no other: fence and confirm, lock the medium, seal the
// region, recover and replay all of it, open the log under a new incarnation, publish. Each step is tried again until it
// succeeds; a fence that cannot be confirmed holds everything up, and says so.
//
// A log that is in doubt is not what decides if there is another copy (S5), and a log that a crash ended always is: what it
// has lost of its end it does not know. An owner that restarts asks its partner: if that one lives and holds everything
// that was acknowledged, it gets the group, and its log is replayed; if it gives no sign of life within `doubtLimit`, this log
// decides, and a torn tail is discarded. A corrupt log leaves the group to a partner that holds everything, however long that
// one takes to come.
//
// A claim has a bound: one that is held up for `claimLimit` leaves the group to a partner that lives and holds everything too.

internal import Coordination
internal import LogModel

struct Recovering: Sendable {
    enum Step: Sendable {
        case fencing, locking, sealing, replaying, opening, publishing
        /// Where the log ended is in doubt: waiting for the partner's sign of life.
        case asking(since: Nanos)
        /// The partner gets the group: the medium first, then the swap.
        case releasing, givingAway

        /// The log here may still be given up: no swap of this claim is on its way.
        var isBeforePublication: Bool {
            switch self {
            case .opening, .asking: true
            default: false
            }
        }
    }
    var epoch: Epoch
    var step: Step
    /// The log here does not decide before the partner was asked.
    var asksFirst: Bool
    /// This log holds everything that was acknowledged, as far as it can tell.
    var isSource = true
    /// The step's directive is being carried out.
    var underWay = false
    var retryAt: Nanos = 0
    var problem: String?
    /// Since when the present step fails.
    var heldUpSince: Nanos?
    let since: Nanos
    var end = LSN.zero
    /// Confirmed dead by this node.
    var confirmed: [GroupRecord.Fence] = []
    /// Identities of the locked media.
    var media: [String: UUID128] = [:]
    /// Why the group is on its way to the partner, and whether that is for the partner to remember.
    var leavingBecause: String?
    var leavesForMedium = false

    var reason: String {
        problem ?? leavingBecause.map { "leaves the group: \($0)" } ?? "taking over in epoch \(epoch)"
    }
}

extension GroupMachine {
    mutating func beginRecovery(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        out.append(.report(Report(.claimed, "claimed epoch \(record.epoch)")))
        let asksFirst = claimIsRestart && record.isHolder(settings.peer)
        role = .recovering(Recovering(epoch: record.epoch, step: .fencing, asksFirst: asksFirst, since: now))
        perform(now, &out)
    }

    mutating func tickRecovering(_ now: Nanos, _ out: inout [Directive]) {
        recordDeaths(now, &out)
        saveConfirmations(now, &out)
        guard !giveBack(now, &out), case .recovering(let recovering) = role, now >= recovering.retryAt else { return }
        switch recovering.step {
        case .asking(let since): return ask(since, now, &out)
        // Under way only while the swap is: one that was refused without a change is made again.
        case .publishing, .givingAway: guard !isCoordinating else { return }
        default: guard !recovering.underWay else { return }
        }
        perform(now, &out)
    }

    /// Gives the directive of the step that is due.
    private mutating func perform(_ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role, let record else { return }
        recovering.underWay = true
        switch recovering.step {
        case .fencing: out.append(.fence(record.mustFence))
        case .locking: out.append(.lockMedia(expected: record.media))
        case .sealing: out.append(.sealRegion)
        case .replaying:
            let isSetAside = record.setsAsideLog || record.replayed != nil
            out.append(isSetAside ? .setLogAside : .recover(askingFirst: recovering.asksFirst))
        case .asking: break
        case .opening:
            let generation = record.members[me]?.generation ?? standing.generation
            out.append(
                .openLog(
                    Incarnation(recovering.epoch), logUUID: record.logUUID, start: recovering.end.alignedUp,
                    generation: generation))
        case .publishing: recovering.underWay = swap(to: published(record, recovering), .publish, now, &out)
        case .releasing: out.append(.releaseMedia)
        case .givingAway:
            var given = givenAway(record, isSource: recovering.isSource, fencing: nil)
            if recovering.leavesForMedium { given.leftForMedium = true }
            recovering.underWay = swap(to: given, .giveAway, now, &out)
        }
        role = .recovering(recovering)
    }

    private func published(_ record: GroupRecord, _ recovering: Recovering) -> GroupRecord {
        var published = record
        published.version += 1
        published.phase = .published
        for fence in recovering.confirmed { fence.confirmed.map { published.confirm(fence.target, $0) } }
        published.setsAsideLog = false
        published.isNew = false
        published.replayed = nil
        published.previousHolders = []
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

    /// A claim that cannot go on leaves the group to a partner that lives, holds everything and knows no reason against it; once, and
    /// then not for `mediumRest`. Answers whether it does.
    private mutating func giveBack(_ now: Nanos, _ out: inout [Directive]) -> Bool {
        guard case .recovering(var recovering) = role, let since = recovering.heldUpSince, let record,
            now >= since + settings.claimLimit, !recovering.underWay, !isCoordinating,
            record.isHolder(settings.peer), peer.presence?.problems?[settings.group.rawValue] == nil,
            let seen = peer.lastSignOfLife, now < seen + 2 * settings.lease,
            !record.leftForMedium || now >= recovering.since + settings.mediumRest
        else { return false }
        let reason =
            "\(recovering.problem ?? "the claim does not go on"); \(settings.peer) holds everything and gets the group"
        out.append(.report(Report(.claimGivenBack, reason)))
        recovering.leavingBecause = reason
        recovering.leavesForMedium = true
        recovering.heldUpSince = nil
        recovering.step = .releasing
        role = .recovering(recovering)
        perform(now, &out)
        return true
    }

    mutating func recoveryEvent(_ event: Event, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role, recovering.underWay else { return }
        recovering.underWay = false
        switch (recovering.step, event) {
        case (.fencing, .fenced(let dead, let problem)):
            recovering.confirmed += dead
            if let problem {
                role = .recovering(recovering)
                heldUp(problem, now, &out)
                return saveConfirmations(now, &out)
            }
            recovering.step = .locking
        case (.locking, .mediaLocked(let media)):
            recovering.media = media
            recovering.step = .sealing
        case (.sealing, .sealed): recovering.step = .replaying
        case (.replaying, .recovered(let end)):
            recovering.end = end
            recovering.step = .opening
        case (.replaying, .tailInDoubt(let reason)):
            out.append(.report(Report(.tailInDoubt, "\(reason); \(settings.peer) is asked first")))
            recovering.step = .asking(since: now)
        case (.replaying, .logCorrupt(let reason)):
            return corrupt(reason, recovering, now, &out)
        case (_, .recoveryRefused(let reason)):
            role = .recovering(recovering)
            out.append(.releaseMedia)
            return block(Block(reason: reason), &out)
        case (.opening, .logOpened):
            if let record { local = LocalLog(logUUID: record.logUUID, incarnation: Incarnation(recovering.epoch)) }
            recovering.step = .publishing
        case (.releasing, .mediaReleased): recovering.step = .givingAway
        case (_, .stepFailed(let reason)):
            role = .recovering(recovering)
            return heldUp(reason, now, &out)
        default: return
        }
        recovering.problem = nil
        recovering.heldUpSince = nil
        role = .recovering(recovering)
        perform(now, &out)
        saveConfirmations(now, &out)
    }

    /// The step is tried again.
    private mutating func heldUp(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role else { return }
        if recovering.problem != reason { out.append(.report(Report(.takeoverWaits, reason))) }
        recovering.problem = reason
        recovering.heldUpSince = recovering.heldUpSince ?? now
        recovering.retryAt = now + settings.heartbeatInterval
        role = .recovering(recovering)
    }

    /// Time passes after the partner was asked.
    private mutating func ask(_ since: Nanos, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role else { return }
        let obstacle = peer.presence?.problems?[settings.group.rawValue]
        if let seen = peer.lastSignOfLife, seen >= since, obstacle == nil {
            let reason = "\(settings.peer) lives, and its log is replayed"
            out.append(.report(Report(.leftToPartner, reason)))
            recovering.leavingBecause = "the log here is in doubt: \(reason)"
            recovering.step = .releasing
        } else if now >= since + settings.doubtLimit {
            let absence = obstacle.map { "could not serve the group (\($0))" } ?? "gives no sign of life"
            let reason =
                "\(settings.peer) \(absence); the log here decides where it ends, and a torn tail is discarded"
            out.append(.report(Report(.decidedAlone, reason)))
            recovering.asksFirst = false
            recovering.step = .replaying
        } else {
            return
        }
        role = .recovering(recovering)
        perform(now, &out)
    }

    /// The log here is corrupt, or its memory fails: it does not count any more, and another complete one decides.
    mutating func corrupt(
        _ reason: String, _ recovering: Recovering, _ now: Nanos, _ out: inout [Directive]
    ) {
        role = .recovering(recovering)
        guard record?.isHolder(settings.peer) == true else {
            out.append(.releaseMedia)
            let way = wayBack.map { "\($0); " } ?? ""
            return block(
                Block(
                    reason: "\(reason); \(way)`twinlog-recover heal` or `replay --salvage` bring out what is sound",
                    cause: .logIsCorrupt), &out)
        }
        var recovering = recovering
        out.append(.report(Report(.logCorrupt, "\(reason); \(settings.peer) holds everything and gets the group")))
        recovering.isSource = false
        recovering.leavingBecause = reason
        recovering.step = .releasing
        role = .recovering(recovering)
        perform(now, &out)
    }
}
