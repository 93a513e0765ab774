// From a claim that was won to publication, in S16's order and in no other: fence and confirm, lock the medium, seal the
// region, recover and replay all of it, open the log under a new incarnation, publish. Each step is tried again until it
// succeeds; a fence that cannot be confirmed holds everything up, and says so.
//
// A log that is in doubt is not what decides if there is another copy (S5), and a log that a crash ended always is: what it
// has lost of its end it does not know. An owner that restarts asks its partner: if that one lives and holds everything
// that was acknowledged, it gets the group, and its log is replayed; if it gives no sign of life within a lease, this log
// decides, and a torn tail is discarded. A corrupt log leaves the group to a partner that holds everything, however long that
// one takes to come.

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
    var end = LSN.zero
}

extension GroupMachine {
    mutating func beginRecovery(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        out.append(.report(Report("claimed", "claimed epoch \(record.epoch)")))
        let asksFirst = claimIsRestart && record.sources.contains(settings.peer)
        role = .recovering(Recovering(epoch: record.epoch, step: .fencing, asksFirst: asksFirst))
        perform(now, &out)
    }

    mutating func tickRecovering(_ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(let recovering) = role, now >= recovering.retryAt else { return }
        switch recovering.step {
        case .asking(let since): return ask(since, now, &out)
        // Under way only while the swap is: one that was refused without a change is made again.
        case .publishing, .givingAway: guard call == nil else { return }
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
        case .locking: out.append(.lockMedia)
        case .sealing: out.append(.sealRegion)
        case .replaying:
            out.append(record.setsAsideLog == true ? .setLogAside : .recover(askingFirst: recovering.asksFirst))
        case .asking: break
        case .opening:
            out.append(
                .openLog(Incarnation(recovering.epoch), logUUID: record.logUUID, start: recovering.end.alignedUp))
        case .publishing: recovering.underWay = swap(to: published(record), .publish, now, &out)
        case .releasing: out.append(.releaseMedia)
        case .givingAway:
            let given = givenAway(record, isSource: recovering.isSource, fencing: nil)
            recovering.underWay = swap(to: given, .giveAway, now, &out)
        }
        role = .recovering(recovering)
    }

    private func published(_ record: GroupRecord) -> GroupRecord {
        var published = record
        published.version += 1
        published.phase = .published
        published.inSync = [me]
        published.sources = []
        published.mustFence = []
        published.setsAsideLog = nil
        published.isNew = nil
        published.ownerProcess = settings.process
        published.pools[me.rawValue] = settings.pool
        return published
    }

    mutating func recoveryEvent(_ event: Event, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role, recovering.underWay else { return }
        recovering.underWay = false
        switch (recovering.step, event) {
        case (.fencing, .fenced): recovering.step = .locking
        case (.locking, .mediaLocked): recovering.step = .sealing
        case (.sealing, .sealed): recovering.step = .replaying
        case (.replaying, .recovered(let end)):
            recovering.end = end
            recovering.step = .opening
        case (.replaying, .tailInDoubt(let reason)):
            out.append(.report(Report("tail-in-doubt", "\(reason); \(settings.peer) is asked first")))
            recovering.step = .asking(since: now)
        case (.replaying, .logCorrupt(let reason)):
            return corrupt(reason, recovering, now, &out)
        case (_, .recoveryRefused(let reason)):
            role = .recovering(recovering)
            out.append(.releaseMedia)
            return block(reason, &out)
        case (.opening, .logOpened):
            if let record { local = LocalLog(logUUID: record.logUUID, incarnation: Incarnation(recovering.epoch)) }
            recovering.step = .publishing
        case (.releasing, .mediaReleased): recovering.step = .givingAway
        case (_, .stepFailed(let reason)):
            if recovering.problem != reason { out.append(.report(Report("takeover-waits", reason))) }
            recovering.problem = reason
            recovering.retryAt = now + settings.heartbeatInterval
            role = .recovering(recovering)
            return
        default: return
        }
        recovering.problem = nil
        role = .recovering(recovering)
        perform(now, &out)
    }

    /// Time passes after the partner was asked.
    private mutating func ask(_ since: Nanos, _ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(var recovering) = role else { return }
        if let seen = peer.lastSignOfLife, seen >= since {
            out.append(.report(Report("left-to-partner", "\(settings.peer) lives, and its log is replayed")))
            recovering.step = .releasing
        } else if now >= since + settings.lease {
            let reason =
                "\(settings.peer) gives no sign of life; the log here decides where it ends, and a torn tail is discarded"
            out.append(.report(Report("decided-alone", reason)))
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
        guard record?.sources.contains(settings.peer) == true else {
            out.append(.releaseMedia)
            return block(reason, &out)
        }
        var recovering = recovering
        out.append(.report(Report("log-corrupt", "\(reason); \(settings.peer) holds everything and gets the group")))
        recovering.isSource = false
        recovering.step = .releasing
        role = .recovering(recovering)
        perform(now, &out)
    }
}
