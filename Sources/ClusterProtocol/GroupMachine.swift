// Every decision about one group on one node: who owns it, when it may be served, when the mirror counts, when to take
// over. Pure: events in, directives out; no clock, socket, thread or file. One machine runs per group and node, in
// production, in the unit tests and in the simulator.
//
// Invariants:
//  - at most one coordinator call is out; while a swap's outcome is unknown nothing is done that would be wrong in either case, and
//    a swap of the same version is won before it counts as failed (`Coordinator`);
//  - `serve` is given only as published owner under a lease (S16, S17); after a `mediaReleased` nothing is written to the medium;
//  - a group whose medium this process has not released is given away only with this process among those to fence (S16);
//  - acknowledgements with one copy are allowed only while the coordinator's record has no other node in sync, and that is
//    durable in this node's pool (S13, S20);
//  - a pool that has seen more than the coordinator, or less, is no source (S20);
//  - the mirror is put in sync only after acknowledgements require it and everything is durable there (S14).
//
// The parts: this file holds the state and the coordinator calls; GroupMachine+Standby waits and claims;
// +Recovering takes a claim to publication (S16); +Owner serves and keeps the mirror; +Medium judges a medium that fails;
// +Handover gives away and stops.

public import Coordination
public import LogModel

public struct GroupMachine: Sendable {
    public let settings: GroupSettings
    /// The last record read or won; `nil` before the first answer, and if there is none.
    public internal(set) var record: GroupRecord?
    /// Since when it is known.
    var recordSince: Nanos
    var role: Role = .starting
    var local: LocalLog?
    var standing = LocalStanding(generation: 0, counted: 0, epoch: .none)
    /// The coordinator has counted this start, and the pool is told so.
    var isStartConfirmed = false
    var call: CoordinatorCall?
    /// Swaps from the present record whose outcome is unknown.
    var unresolved: [Attempt] = []
    let startedAt: Nanos
    /// An owner's log was accepted here since the start.
    var hasMirrored = false
    /// When this machine last heard of anything at all, ticks included.
    var lastEventAt: Nanos
    /// Why this node could not take the group over: what it reaches of the media.
    var takeoverProblem: String?
    /// Not before this may the coordinator be asked again after a failure.
    var coordinatorRetryAt: Nanos = 0
    var coordinatorProblem: String?
    /// The group was given away while a call of the medium had not returned: this node could not lock the medium for itself, and
    /// would keep it from the partner, which can fence this process.
    var mediumIsOut = false
    var peer: PeerView
    var lastRenewal: Nanos?
    /// Under way, one at a time.
    var given: Given?
    var command: Command? { given?.command }
    /// An operator's word on a node's death, on its way into the record. Beside ``given``: a takeover may wait for just that.
    var confirming: Given?
    var waitingAttach: AttachRequest?
    /// The claim on its way is by a node whose own earlier process owned the group or claimed it.
    var claimIsRestart = false
    let freshLogUUID: UUID128

    /// `freshLogUUID` becomes the group's log identity if this machine creates the group.
    public init(settings: GroupSettings, freshLogUUID: UUID128, now: Nanos) {
        self.settings = settings
        self.freshLogUUID = freshLogUUID
        recordSince = now
        startedAt = now
        lastEventAt = now
        peer = PeerView(since: now)
    }

    enum Role: Sendable {
        case starting
        /// Nothing here can go on without an operator.
        case blocked(Block)
        case standby
        case recovering(Recovering)
        case owner(Owner)
        case handingOver(Handover)
        case stopped
    }

    /// What an operator has to decide.
    struct Block: Sendable, Equatable {
        var reason: String
        var cause: Report.Cause?
        /// The coordinator knows less than this node's pool does (S20): only then may it be told to forget what it knows.
        var coordinatorForgot: Bool { cause == .coordinatorForgot }
    }

    struct Given: Sendable {
        let command: Command
        let id: CommandID
        /// The record was read since it was given.
        var hasRead = false
    }

    enum Purpose: Sendable {
        case claim, publish, disqualify, join, giveAway
        /// The start of this node is counted.
        case enlist
        /// Processes are confirmed dead.
        case confirm
        /// The record as it is, so that an unknown swap can come into effect no more.
        case barrier
    }

    struct Attempt: Sendable {
        var record: GroupRecord
        var purpose: Purpose
    }

    enum CoordinatorCall: Sendable {
        case read
        case swap(Attempt)
    }

    /// What is known of the peer's life, on this node's clock.
    struct PeerView: Sendable {
        var railUp = false
        var lastHeard: Nanos
        var presence: Presence?
        var presenceSince: Nanos
        /// When a presence was last seen to take the place of another: only that says that somebody lives.
        var lastSignOfLife: Nanos?
        /// When the coordinator was asked for what is known.
        var presenceAskedAt: Nanos
        /// A process of the peer that is known to be gone.
        var deadProcess: ProcessIdentity?
        /// What it last said of itself, on the rail.
        var heartbeat = Heartbeat()

        init(since now: Nanos) {
            lastHeard = now
            presenceSince = now
            presenceAskedAt = now
        }
    }

    var me: NodeID { settings.node }

    /// A call is out, or what became of one is not known: no swap can be made now.
    var isCoordinating: Bool { call != nil || !unresolved.isEmpty }

    /// The process that owns the group by the record is known to be gone. For the first lease after a start that is not looked at
    /// unless it has mirrored an owner: when both nodes were down, the owner's next process may be on its way, and may know what this
    /// one and the coordinator do not.
    func ownerIsKnownDead(_ now: Nanos) -> Bool {
        guard let owner = record?.ownerProcess, owner == peer.deadProcess else { return false }
        return hasMirrored || now >= startedAt + settings.lease
    }

    /// Takes one event at time `now` and appends what is to be done, in order.
    public mutating func handle(_ event: Event, now: Nanos, into out: inout [Directive]) {
        if now >= lastEventAt + settings.heartbeatTimeout { sleptUntil(now) }
        lastEventAt = now
        switch event {
        case .started(let local, let standing):
            self.local = local
            self.standing = standing
            read(&out)
        case .tick: tick(now, &out)
        case .recordRead(let record): answered(read: record, now, &out)
        case .swapped(let outcome): answered(swap: outcome, now, &out)
        case .coordinatorFailed(let reason):
            call = nil
            coordinatorFailed(reason, now)
        case .renewed(let startedAt, let record): renewed(startedAt, record, now, &out)
        case .recordChanged: read(&out)
        case .peerPresence(let presence, let deadProcess, let askedAt):
            peer.presenceAskedAt = askedAt
            if presence != peer.presence {
                if peer.presence != nil { peer.lastSignOfLife = now }
                peer.presence = presence
                peer.presenceSince = now
            }
            if let deadProcess { peer.deadProcess = deadProcess }
            if case .standby = role { watch(now, &out) }
        case .heard: peer.lastHeard = now
        case .peerSaid(let heartbeat):
            peer.lastHeard = now
            peer.heartbeat = heartbeat
        case .takeoverProblem(let problem):
            if let problem, problem != takeoverProblem { out.append(.report(Report(.takeoverImpossible, problem))) }
            if problem == nil, takeoverProblem != nil {
                out.append(.report(Report(.takeoverPossible, "this node reaches the media of the group")))
            }
            takeoverProblem = problem
        case .epochNoted(let epoch): epochNoted(epoch, now, &out)
        case .railUp:
            peer.railUp = true
            peer.lastHeard = now
            peer.heartbeat = Heartbeat()
            ownerRailUp(now, &out)
        case .railDown:
            peer.railUp = false
            peer.heartbeat = Heartbeat()
            ownerRailDown(now, &out)
        case .attachRequested(let request): attachRequested(request, now, &out)
        case .attached, .attachRefused, .progress: mirrorEvent(event, now, &out)
        case .medium(let trouble): mediumEvent(trouble, &out)
        case .fenced, .mediaLocked, .sealed, .recovered, .logOpened, .stepFailed, .recoveryRefused, .logCorrupt,
            .tailInDoubt:
            recoveryEvent(event, now, &out)
        case .logFailed(let reason): logFailed(reason, now, &out)
        case .drained, .evacuated: handoverEvent(event, now, &out)
        case .mediaReleased:
            mediumIsOut = false
            if case .recovering = role { recoveryEvent(event, now, &out) } else { handoverEvent(event, now, &out) }
        case .command(let command, let id): commanded(command, id, now, &out)
        }
    }

    /// Nothing came, not even ticks: this process, or the machine, was stopped. What the others were silent for meanwhile is its own
    /// absence, not theirs.
    private mutating func sleptUntil(_ now: Nanos) {
        peer.lastHeard = now
        peer.presenceSince = now
        guard case .owner(var owner) = role else { return }
        owner.servesSince = now
        owner.pending?.since = now
        role = .owner(owner)
    }

    mutating func tick(_ now: Nanos, _ out: inout [Directive]) {
        if !unresolved.isEmpty, now >= coordinatorRetryAt { read(&out) }
        // What could not be recorded when it was said, or lost to another swap.
        if confirming != nil { recordDeaths(now, &out) }
        switch role {
        case .starting: if now >= coordinatorRetryAt { read(&out) }
        // A decision whose swap was overtaken by another one, such as a partner's start, is made again.
        case .blocked: if command == .forgetCoordinator, !isCoordinating { forgetCoordinator(now, &out) }
        case .standby: watch(now, &out)
        case .recovering: tickRecovering(now, &out)
        case .owner: tickOwner(now, &out)
        case .handingOver: tickHandover(now, &out)
        case .stopped: break
        }
    }

    // MARK: The coordinator

    mutating func read(_ out: inout [Directive]) {
        guard call == nil else { return }
        call = .read
        out.append(.readRecord)
    }

    /// Answers whether the call could be made now.
    @discardableResult
    mutating func swap(to record: GroupRecord, _ purpose: Purpose, _ now: Nanos, _ out: inout [Directive]) -> Bool {
        guard !isCoordinating, now >= coordinatorRetryAt else { return false }
        call = .swap(Attempt(record: record, purpose: purpose))
        out.append(.swap(expecting: record.version - 1, to: record))
        return true
    }

    private mutating func answered(read record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        if case .swap = call { return }
        call = nil
        coordinatorProblem = nil
        settle(record, now, &out)
    }

    private mutating func answered(swap outcome: SwapOutcome, _ now: Nanos, _ out: inout [Directive]) {
        guard case .swap(let attempt) = call else { return }
        call = nil
        coordinatorProblem = nil
        switch outcome {
        case .won: settle(attempt.record, with: attempt, now, &out)
        case .lost(let record): settle(record, now, &out)
        case .unknown(let reason):
            unresolved.append(attempt)
            coordinatorFailed(reason, now)
        }
    }

    private mutating func coordinatorFailed(_ reason: String, _ now: Nanos) {
        coordinatorProblem = reason
        coordinatorRetryAt = now + settings.heartbeatInterval
    }

    /// The record is this: does it settle what became of the swaps that are open? While it is still the one that they began with,
    /// each may come into effect later; so one swap of the same version is won first, which changes nothing.
    private mutating func settle(
        _ record: GroupRecord?, with won: Attempt? = nil, _ now: Nanos, _ out: inout [Directive]
    ) {
        if let effective = won ?? unresolved.first(where: { $0.record == record }) {
            unresolved = []
            return inEffect(effective, now, &out)
        }
        if let open = unresolved.first, open.record.version == (record?.version ?? 0) + 1 {
            var barrier = record ?? open.record
            if record != nil { barrier.version += 1 }
            let attempt = Attempt(record: barrier, purpose: record == nil ? open.purpose : .barrier)
            call = .swap(attempt)
            return out.append(.swap(expecting: barrier.version - 1, to: barrier))
        }
        unresolved = []
        consider(record, now, &out)
    }

    /// This node's swap is in effect.
    private mutating func inEffect(_ attempt: Attempt, _ now: Nanos, _ out: inout [Directive]) {
        let record = attempt.record
        know(record, now, &out)
        switch attempt.purpose {
        case .claim: beginRecovery(record, now, &out)
        case .publish: becomeOwner(record, now, &out)
        case .disqualify: mirrorDisqualified(record, now, &out)
        case .join: mirrorJoined(now, &out)
        case .giveAway: gaveAway(now, &out)
        case .enlist, .barrier: consider(record, now, &out)
        case .confirm: deathsConfirmed(now, &out)
        }
        answerWaitingAttach(now, &out)
    }

    /// The record is this, by somebody else's doing or none.
    mutating func consider(_ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        know(record, now, &out)
        switch role {
        case .starting, .blocked, .standby: decide(now, &out)
        case .recovering(let recovering):
            guard record?.owner == me, record?.epoch == recovering.epoch, record?.phase == .claimed else {
                lostOwnership("another node claimed the group while this one was recovering it", now, &out)
                return
            }
            tickRecovering(now, &out)
        case .owner(let owner):
            guard record?.owner == me, record?.epoch == owner.epoch else {
                lostOwnership("the coordinator's record names another owner or epoch", now, &out)
                return
            }
            settleMirror(now, &out)
        case .handingOver(let handover):
            guard record?.owner == me, record?.epoch == handover.owner.epoch else {
                lostOwnership("the group was claimed during a handover", now, &out)
                return
            }
            if case .swapping = handover.step { giveAway(now, &out) }
        case .stopped: break
        }
        answerWaitingAttach(now, &out)
    }

    private mutating func know(_ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        if record != self.record { recordSince = now }
        self.record = record
        guard !isStartConfirmed, let record, case .current = poolAge(in: record) else { return }
        isStartConfirmed = true
        out.append(.confirmStart)
    }

    /// A renewal extends the lease only if the record, read after it, still says what this node believes (S17).
    private mutating func renewed(
        _ startedAt: Nanos, _ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]
    ) {
        var open = unresolved.map(\.record)
        if case .swap(let attempt) = call { open.append(attempt.record) }
        if !open.isEmpty {
            // Its own swap decides what this record means; until then only the unchanged record extends the lease.
            guard record == self.record || open.contains(where: { $0 == record }) else { return }
            lastRenewal = startedAt
        } else {
            lastRenewal = startedAt
            if record != self.record {
                consider(record, now, &out)
            } else if case .starting = role {
                consider(record, now, &out)
            }
        }
        resumeAfterRenewal(now, &out)
    }

    mutating func lostOwnership(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        out.append(.report(Report(.ownershipLost, reason)))
        out += [.stopServing, .closeRail, .releaseMedia]
        if command == .stop { return stop(&out) }
        finishCommand(refusal: reason, &out)
        role = .standby
        peer = PeerView(since: now)
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

    mutating func finishCommand(refusal: String?, _ out: inout [Directive]) {
        guard let given else { return }
        self.given = nil
        out.append(.commandDone(given.command, given.id, refusal: refusal))
    }
}
