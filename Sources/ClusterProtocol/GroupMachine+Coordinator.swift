// What a group's machine asks of the coordinator, and what the answers mean. One call is out at a time.

internal import Coordination
internal import LogModel

/// The calls of the coordinator that are not settled.
struct Swaps: Sendable {
    /// What a swap is for, and which mirror it speaks of.
    enum Purpose: Sendable {
        case claim(Claim), publish, giveAway
        case disqualify(Int)
        case join(Int)
        /// The start of this node is counted.
        case enlist
        /// Processes are confirmed dead.
        case confirm
        /// The record as it is, so that an unknown swap, or a claim that is on its way, can come into effect no more.
        case barrier
    }

    enum Claim: Sendable {
        /// The claim follows our own restart, not a takeover.
        case restart
        case takeover
    }

    struct Attempt: Sendable {
        var record: GroupRecord
        var purpose: Purpose
    }

    enum Call: Sendable {
        case read
        case swap(Attempt)
    }

    var call: Call?
    /// Swaps from the present record whose outcome is unknown.
    var unresolved: [Attempt] = []
    /// Not before this may the coordinator be asked again after a failure.
    private(set) var retryAt: Nanos = 0
    private(set) var problem: String?

    var areUnresolved: Bool { !unresolved.isEmpty }

    /// Every record that may come into effect by this node's doing.
    var open: [GroupRecord] {
        switch call {
        case .swap(let attempt): unresolved.map(\.record) + [attempt.record]
        case .read, nil: unresolved.map(\.record)
        }
    }

    /// The coordinator answers.
    mutating func answered() {
        call = nil
        problem = nil
    }

    mutating func failed(_ reason: String, retryAt: Nanos) {
        call = nil
        problem = reason
        self.retryAt = retryAt
    }
}

extension GroupMachine {
    /// A call is out, or what became of one is not known: no swap can be made now.
    var isCoordinating: Bool { swaps.call != nil || swaps.areUnresolved }

    mutating func read(_ out: inout [Directive]) {
        guard swaps.call == nil else { return }
        swaps.call = .read
        out.append(.coordinator(.read))
    }

    /// Answers whether the call could be made now.
    @discardableResult
    mutating func swap(
        to record: GroupRecord, _ purpose: Swaps.Purpose, _ now: Nanos, _ out: inout [Directive]
    ) -> Bool {
        guard !isCoordinating, now >= swaps.retryAt else { return false }
        swaps.call = .swap(Swaps.Attempt(record: record, purpose: purpose))
        out.append(.coordinator(.swap(expecting: record.version - 1, to: record)))
        return true
    }

    // MARK: Answers

    mutating func coordinatorAnswered(_ answer: CoordinatorAnswer, _ now: Nanos, _ out: inout [Directive]) {
        switch answer {
        case .recordRead(let record): answered(read: record, now, &out)
        case .swapped(let outcome): answered(swap: outcome, now, &out)
        case .unavailable(let reason):
            swaps.failed(reason, retryAt: now + settings.heartbeatInterval)
            endOwner(now, isRead: false, &out)
        case .renewed(let startedAt, let record): renewed(startedAt, record, now, &out)
        case .presence(let node, let presence, let dead, let askedAt):
            guard let index = partners.index(of: node) else { return }
            partners[index].seen(presence, dead: dead, askedAt: askedAt, now)
            if case .standby = role { watch(now, &out) }
        }
    }

    private mutating func answered(read record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        if case .swap = swaps.call { return }
        swaps.answered()
        settle(record, now, &out)
        endOwner(now, isRead: true, &out)
    }

    private mutating func answered(swap outcome: SwapOutcome, _ now: Nanos, _ out: inout [Directive]) {
        guard case .swap(let attempt) = swaps.call else { return }
        swaps.answered()
        switch outcome {
        case .won: settle(attempt.record, with: attempt, now, &out)
        case .lost(let record): settle(record, now, &out)
        case .unknown(let reason):
            swaps.unresolved.append(attempt)
            swaps.failed(reason, retryAt: now + settings.heartbeatInterval)
        }
    }

    /// The record is this: does it settle what became of the swaps that are open? While it is still the one that they began with,
    /// each may come into effect later; so one swap of the same version is won first, which changes nothing.
    private mutating func settle(
        _ record: GroupRecord?, with won: Swaps.Attempt? = nil, _ now: Nanos, _ out: inout [Directive]
    ) {
        if let effective = won ?? swaps.unresolved.first(where: { $0.record == record }) {
            swaps.unresolved = []
            return inEffect(effective, now, &out)
        }
        if let open = swaps.unresolved.first, open.record.version == (record?.version ?? 0) + 1 {
            var barrier = record ?? open.record
            if record != nil { barrier.version += 1 }
            let purpose = record == nil ? open.purpose : .barrier
            swaps.call = .swap(Swaps.Attempt(record: barrier, purpose: purpose))
            return out.append(.coordinator(.swap(expecting: barrier.version - 1, to: barrier)))
        }
        swaps.unresolved = []
        consider(record, now, &out)
    }

    /// This node's swap is in effect.
    private mutating func inEffect(_ attempt: Swaps.Attempt, _ now: Nanos, _ out: inout [Directive]) {
        let record = attempt.record
        know(record, now, &out)
        switch attempt.purpose {
        case .claim(let claim): beginRecovery(record, claim, now, &out)
        case .publish: becomeOwner(record, now, &out)
        case .disqualify(let index): mirrorDisqualified(index, record, now, &out)
        case .join(let index): mirrorJoined(index, now, &out)
        case .giveAway: gaveAway(to: record.owner, now, &out)
        case .enlist, .barrier: consider(record, now, &out)
        case .confirm: deathsConfirmed(now, &out)
        }
        resume(now, &out)
        answerWaitingAttach(now, &out)
    }

    /// The record is this, by somebody else's doing or none.
    private mutating func consider(_ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        know(record, now, &out)
        switch role {
        case .starting, .blocked, .standby: decide(now, &out)
        case .recovering(let recovering):
            guard isMine(record, epoch: recovering.epoch), record?.phase == .claimed else {
                return lostOwnership("another node claimed the group while this one was recovering it", now, &out)
            }
            tickRecovering(now, &out)
        case .owner(let owner):
            guard isMine(record, epoch: owner.standing.epoch) else {
                return lostOwnership("the coordinator's record names another owner or epoch", now, &out)
            }
            settleMirrors(now, &out)
            secureLease(now, &out)
            resume(now, &out)
        case .handingOver(let handover):
            guard isMine(record, epoch: handover.owner.standing.epoch) else {
                return lostOwnership("the group was claimed during a handover", now, &out)
            }
            giveAway(now, &out)
        case .stopped: break
        }
        answerWaitingAttach(now, &out)
    }

    private func isMine(_ record: GroupRecord?, epoch: Epoch) -> Bool { record?.owner == me && record?.epoch == epoch }

    private mutating func know(_ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        if record != self.record { recordSince = now }
        self.record = record
        // A coordinator that has forgotten what it knew.
        renewalsFrom = min(renewalsFrom, record?.version ?? 0)
        guard !isStartConfirmed, let record, case .current = poolAge(in: record) else { return }
        isStartConfirmed = true
        out.append(.region(.confirmStart))
    }

    /// A renewal extends the lease only if the record, read after it, still says what this node believes (S17).
    private mutating func renewed(
        _ startedAt: Nanos, _ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]
    ) {
        let open = swaps.open
        // This node's own swap decides what the record means; until then only the unchanged record extends the lease.
        guard open.isEmpty || record == self.record || open.contains(where: { $0 == record }) else { return }
        if !coordinatorAnswers(now) {
            renewalsSince = startedAt
            renewalsFrom = record?.version ?? 0
        }
        lastRenewal = startedAt
        let isStarting = if case .starting = role { true } else { false }
        if open.isEmpty, record != self.record || isStarting { consider(record, now, &out) }
        secureLease(now, &out)
        resume(now, &out)
    }

    mutating func lostOwnership(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        out.append(.report(Report(.ownershipLost, reason)))
        out.append(.serving(.stop))
        out += onAllRails(.close)
        out.append(.step(.releaseMedia))
        if command == .stop { return stop(&out) }
        finishCommand(refusal: reason, &out)
        standBy()
        meetPartnersAnew(now)
        decide(now, &out)
    }

    // MARK: What the pool and the coordinator know of each other (S20)

    enum PoolAge: Sendable { case unknownPool, current, notCounted, older, coordinatorOlder }

    /// This node's pool beside what the record knows of it.
    func poolAge(in record: GroupRecord) -> PoolAge {
        guard let member = record.members[me], member.pool == settings.pool else { return .unknownPool }
        if member.generation == standing.generation { return .current }
        if member.generation == standing.counted { return .notCounted }
        // Each start counts by a step of its own: what another start of this pool was counted as is none of the two.
        return member.generation < standing.counted ? .coordinatorOlder : .older
    }

    /// The generation of this node's copy once it is begun anew: above everything that was counted for it. It stays the same until it is
    /// counted: the swap that counts it may be on its way.
    func freshGeneration(in record: GroupRecord) -> UInt64 {
        guard case .older = poolAge(in: record), let member = record.members[me] else { return standing.generation }
        return max(member.generation + 1, standing.generation)
    }

    /// Has this start counted at the coordinator, if nothing else does; answers whether it is.
    mutating func enlist(_ record: GroupRecord, _ now: Nanos, _ out: inout [Directive]) -> Bool {
        switch poolAge(in: record) {
        case .notCounted, .coordinatorOlder: break
        case .unknownPool, .current, .older: return true
        }
        var next = record
        next.version += 1
        next.members[me]?.generation = standing.generation
        swap(to: next, .enlist, now, &out)
        return false
    }
}
