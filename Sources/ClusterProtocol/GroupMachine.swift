// Every decision about one group on one node: who owns it, when it may be served, when the mirror counts, when to take
// over. Pure: events in, directives out; no clock, socket, thread or file. One machine runs per group and node, in
// production, in the unit tests and in the simulator.
//
// Invariants:
//  - at most one coordinator call is out; a swap whose outcome is unknown is followed by a read before anything else;
//  - `serve` is given only as published owner under a lease (S16, S17); after a `mediaReleased` nothing is written to the medium;
//  - a group whose medium this process has not released is given away only with this process among those to fence (S16);
//  - acknowledgements with one copy are allowed only while the coordinator's record has no other node in sync (S13);
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
    var call: CoordinatorCall?
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
    var waitingAttach: AttachRequest?
    /// The claim on its way is by a node whose own earlier process owned the group or claimed it.
    var claimIsRestart = false
    let freshLogUUID: UUID128

    /// `freshLogUUID` becomes the group's log identity if this machine creates the group.
    public init(settings: GroupSettings, freshLogUUID: UUID128, now: Nanos) {
        self.settings = settings
        self.freshLogUUID = freshLogUUID
        recordSince = now
        peer = PeerView(since: now)
    }

    enum Role: Sendable {
        case starting
        /// Nothing here can go on without an operator; the reason is for them.
        case blocked(String)
        case standby
        case recovering(Recovering)
        case owner(Owner)
        case handingOver(Handover)
        case stopped
    }

    struct Given: Sendable {
        let command: Command
        let id: CommandID
        /// The record was read since it was given.
        var hasRead = false
    }

    enum Purpose: Sendable { case claim, publish, disqualify, join, giveAway }

    enum CoordinatorCall: Sendable {
        case read
        case swap(GroupRecord, Purpose)
        /// A swap failed without an answer; the record tells what became of it.
        case verify(GroupRecord, Purpose, asked: Bool)
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

        init(since now: Nanos) {
            lastHeard = now
            presenceSince = now
            presenceAskedAt = now
        }
    }

    var me: NodeID { settings.node }

    /// The process that owns the group by the record is known to be gone.
    var ownerProcessDead: Bool { record?.ownerProcess != nil && record?.ownerProcess == peer.deadProcess }

    /// Takes one event at time `now` and appends what is to be done, in order.
    public mutating func handle(_ event: Event, now: Nanos, into out: inout [Directive]) {
        switch event {
        case .started(let local):
            self.local = local
            read(&out)
        case .tick: tick(now, &out)
        case .recordRead(let record): answered(read: record, now, &out)
        case .swapped(let outcome): answered(swap: outcome, now, &out)
        case .coordinatorFailed(let reason): coordinatorFailed(reason, now)
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
        case .railUp:
            peer.railUp = true
            peer.lastHeard = now
            ownerRailUp(now, &out)
        case .railDown:
            peer.railUp = false
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

    mutating func tick(_ now: Nanos, _ out: inout [Directive]) {
        if case .verify(let record, let purpose, false) = call, now >= coordinatorRetryAt {
            call = .verify(record, purpose, asked: true)
            out.append(.readRecord)
        }
        switch role {
        case .starting: if now >= coordinatorRetryAt { read(&out) }
        case .blocked: break
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
        guard call == nil, now >= coordinatorRetryAt else { return false }
        call = .swap(record, purpose)
        out.append(.swap(expecting: record.version - 1, to: record))
        return true
    }

    private mutating func answered(read record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        let answered = call
        call = nil
        coordinatorProblem = nil
        if case .verify(let wanted, let purpose, _) = answered, record == wanted {
            won(wanted, purpose, now, &out)
        } else {
            consider(record, now, &out)
        }
    }

    private mutating func answered(swap outcome: SwapOutcome, _ now: Nanos, _ out: inout [Directive]) {
        guard case .swap(let wanted, let purpose) = call else { return }
        call = nil
        coordinatorProblem = nil
        switch outcome {
        case .won: won(wanted, purpose, now, &out)
        case .lost(let record): consider(record, now, &out)
        }
    }

    private mutating func coordinatorFailed(_ reason: String, _ now: Nanos) {
        coordinatorProblem = reason
        coordinatorRetryAt = now + settings.heartbeatInterval
        switch call {
        case .swap(let wanted, let purpose), .verify(let wanted, let purpose, _):
            call = .verify(wanted, purpose, asked: false)
        case .read, nil: call = nil
        }
    }

    /// This node's swap is in effect.
    private mutating func won(_ record: GroupRecord, _ purpose: Purpose, _ now: Nanos, _ out: inout [Directive]) {
        know(record, now)
        switch purpose {
        case .claim: beginRecovery(record, now, &out)
        case .publish: becomeOwner(record, now, &out)
        case .disqualify: mirrorDisqualified(record, now, &out)
        case .join: mirrorJoined(now, &out)
        case .giveAway: gaveAway(now, &out)
        }
        answerWaitingAttach(&out)
    }

    /// The record is this, by somebody else's doing or none.
    mutating func consider(_ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]) {
        know(record, now)
        switch role {
        case .starting, .blocked, .standby: decide(now, &out)
        case .recovering(let recovering):
            guard record?.owner == me, record?.epoch == recovering.epoch, record?.phase == .claimed else {
                lostOwnership("another node claimed the group while this one was recovering it", now, &out)
                return
            }
        case .owner(let owner):
            guard record?.owner == me, record?.epoch == owner.epoch else {
                lostOwnership("the coordinator's record names another owner or epoch", now, &out)
                return
            }
        case .handingOver(let handover):
            guard record?.owner == me, record?.epoch == handover.owner.epoch else {
                lostOwnership("the group was claimed during a handover", now, &out)
                return
            }
        case .stopped: break
        }
        answerWaitingAttach(&out)
    }

    private mutating func know(_ record: GroupRecord?, _ now: Nanos) {
        if record != self.record { recordSince = now }
        self.record = record
    }

    /// A renewal extends the lease only if the record, read after it, still says what this node believes (S17).
    private mutating func renewed(
        _ startedAt: Nanos, _ record: GroupRecord?, _ now: Nanos, _ out: inout [Directive]
    ) {
        switch call {
        case .swap(let wanted, _), .verify(let wanted, _, _):
            // Its own swap decides what this record means; until then only the unchanged record extends the lease.
            guard record == self.record || record == wanted else { return }
            lastRenewal = startedAt
        case .read, nil:
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
        out.append(.report(Report("ownership-lost", reason)))
        out += [.stopServing, .closeRail, .releaseMedia]
        if command == .stop { return stop(&out) }
        finishCommand(refusal: reason, &out)
        role = .standby
        peer = PeerView(since: now)
        decide(now, &out)
    }

    mutating func finishCommand(refusal: String?, _ out: inout [Directive]) {
        guard let given else { return }
        self.given = nil
        out.append(.commandDone(given.command, given.id, refusal: refusal))
    }
}
