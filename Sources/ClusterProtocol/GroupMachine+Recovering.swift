// From a claim that was won to publication, in S16's order and in no other: fence and confirm, lock the medium, seal the
// region, recover and replay all of it, open the log under a new incarnation, publish. Each step is tried again until it
// succeeds; a fence that cannot be confirmed holds everything up, and says so.

internal import Coordination
internal import LogModel

struct Recovering: Sendable {
    enum Step: Sendable { case fencing, locking, sealing, replaying, opening, publishing }
    var epoch: Epoch
    var step: Step
    /// The step's directive is being carried out.
    var underWay = false
    var retryAt: Nanos = 0
    var problem: String?
    var end = LSN.zero
}

extension GroupMachine {
    mutating func beginRecovery(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) {
        out.append(.report(Report("claimed", "claimed epoch \(record.epoch)")))
        role = .recovering(Recovering(epoch: record.epoch, step: .fencing))
        perform(now, &out)
    }

    mutating func tickRecovering(_ now: Nanos, _ out: inout [Directive]) {
        guard case .recovering(let recovering) = role, now >= recovering.retryAt else { return }
        // A publication is under way only while its swap is: one that was refused without a change is made again.
        guard !recovering.underWay || (recovering.step == .publishing && call == nil) else { return }
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
        case .replaying: out.append(.recover)
        case .opening:
            let start = LSN((recovering.end.rawValue + LSN.alignment - 1) / LSN.alignment * LSN.alignment)
            out.append(.openLog(Incarnation(recovering.epoch), logUUID: record.logUUID, start: start))
        case .publishing:
            var published = record
            published.version += 1
            published.phase = .published
            published.inSync = [me]
            published.sources = []
            published.mustFence = []
            published.ownerProcess = settings.process
            published.pools[me.rawValue] = settings.pool
            recovering.underWay = swap(to: published, .publish, now, &out)
        }
        role = .recovering(recovering)
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
        case (.opening, .logOpened):
            if let record { local = LocalLog(logUUID: record.logUUID, incarnation: Incarnation(recovering.epoch)) }
            recovering.step = .publishing
        case (_, .stepFailed(let reason)):
            if recovering.problem != reason { out.append(.report(Report("takeover-waits", reason))) }
            recovering.problem = reason
            recovering.retryAt = now + settings.heartbeatInterval
            role = .recovering(recovering)
            return
        case (_, .recoveryRefused(let reason)):
            role = .recovering(recovering)
            out.append(.releaseMedia)
            return block(reason, &out)
        default: return
        }
        recovering.problem = nil
        role = .recovering(recovering)
        perform(now, &out)
    }
}
