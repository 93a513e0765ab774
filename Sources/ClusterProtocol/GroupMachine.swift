// Every decision about one group on one node: who owns it, when it may be served, when a mirror counts, when to take
// over. Pure: events in, directives out; no clock, socket, thread or file. One machine runs per group and node, in
// production, in the unit tests and in the simulators.
//
// Invariants:
//  - at most one coordinator call is out; while a swap's outcome is unknown nothing is done that would be wrong in either case, and
//    a swap of the same version is won before it counts as failed (`Coordinator`);
//  - `serve` is given only as published owner with the right to (S16, S17); after a `mediaReleased` nothing is written to the medium;
//  - a group whose medium this process has not released is given away only with this process among those to fence (S16);
//  - acknowledgements with one copy are allowed only while the coordinator's record has no other node in sync, and that is
//    durable in this node's pool (S13, S20);
//  - a pool that has seen more than the coordinator, or less, is no source (S20);
//  - a mirror is put in sync only after acknowledgements require it and everything is durable there (S14).
//
// The parts: this file has the role and takes the events; States/ what each role knows; +Coordinator asks and swaps;
// +RightToServe says until when; +Standby waits and claims; +Attach lets an owner mirror here; +Recovering takes a claim to publication (S16); +Owner serves and keeps
// the mirrors; +Medium judges a medium that fails; +Handover gives away and stops; +Operator does what an operator decided.

public import Coordination
public import LogModel

public struct GroupMachine: Sendable {
    enum Role: Sendable {
        case starting
        /// Nothing here can go on without an operator.
        case blocked(Blocked)
        case standby(Standby)
        case recovering(Recovering)
        case owner(Owner)
        case handingOver(Handover)
        case stopped
    }

    /// An operator's word, until it is answered.
    struct Given: Sendable {
        let command: Command
        let id: CommandID
        /// The record was read since it was given.
        var hasRead = false
    }

    public let settings: GroupSettings
    let freshLogUUID: UUID128
    let startedAt: Nanos
    var role: Role = .starting
    var partners: Members<Partner>
    /// When this machine last heard of anything at all, ticks included.
    private var lastEventAt: Nanos

    // The coordinator.
    /// The last record read or won; `nil` before the first answer, and if there is none.
    public internal(set) var record: GroupRecord?
    /// Since when it is known.
    var recordSince: Nanos
    var swaps = Swaps()
    var lastRenewal: Nanos?
    /// Since when each renewal came before the end of the one before.
    var renewalsSince: Nanos
    /// The record's version after the first of those renewals. Only a later version makes them a right to serve (S17).
    var renewalsFrom: UInt64 = 0

    // The right to serve (S17).
    /// This node claims nothing that a partner's living process owns before: it has granted so, or an earlier process of it may have.
    public internal(set) var mayClaimFrom: Nanos

    // This node's pool.
    var local: LocalLog?
    var standing = LocalStanding(generation: 0, counted: 0, epoch: .none)
    /// The coordinator has counted this start, and the pool is told so.
    var isStartConfirmed = false
    /// An owner's log was accepted here since the start.
    var hasMirrored = false
    /// Why this node could not take the group over: what it reaches of the media.
    var takeoverProblem: String?

    // Operators.
    /// Under way, one at a time.
    var given: Given?
    var command: Command? { given?.command }
    /// A word on a node's death, on its way into the record. Beside ``given``: a takeover may wait for just that.
    var confirming: Given?

    /// What the owner may do, until the next event.
    public internal(set) var authority: Authority
    /// Every mirror of this owner is in sync: how far it is decides nothing but whether it is stuck, which ticks look at.
    public internal(set) var isSteady = false

    /// `freshLogUUID` becomes the group's log identity if this machine creates the group.
    public init(settings: GroupSettings, freshLogUUID: UUID128, now: Nanos) {
        self.settings = settings
        self.freshLogUUID = freshLogUUID
        recordSince = now
        renewalsSince = now
        startedAt = now
        lastEventAt = now
        mayClaimFrom = now + settings.lease
        partners = Members(settings.partners) { _ in Partner(since: now) }
        authority = Authority(validUntil: 0, rule: .nothing(partners: settings.partners.count))
    }

    var me: NodeID { settings.node }

    /// For people.
    var partnerNames: String { partners.nodes.map(\.rawValue).joined(separator: " and ") }

    // MARK: Events

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
        case .coordinator(let answer): coordinatorAnswered(answer, now, &out)
        case .rail(let node, let event):
            guard let index = partners.index(of: node) else { return }
            railSaid(event, index, now, &out)
        case .progress(let local, let node, let durable, let pending):
            guard let index = partners.index(of: node) else { return }
            progressed(local: local, index, durable: durable, pending: pending, now, &out)
        case .step(let answer): stepEnded(answer, now, &out)
        case .medium(.trouble(let trouble)): mediumTrouble(trouble, &out)
        case .medium(.takeoverProblem(let problem)): takeoverProblemIs(problem, &out)
        case .medium(.taken(let reason)): mediumTaken(reason, now, &out)
        case .region(.epochNoted(let epoch)): epochNoted(epoch, &out)
        case .region(.memoryFailed(let reason)): logFailed(reason, now, &out)
        case .command(let command, let id): commanded(command, id, now, &out)
        }
        // These come with every write, and mostly change nothing.
        switch event {
        case .progress where out.isEmpty, .rail(_, .heard): return
        default: noteAuthority()
        }
    }

    /// Nothing came, not even ticks: this process, or the machine, was stopped. What the others were silent for meanwhile is its own
    /// absence, not theirs.
    private mutating func sleptUntil(_ now: Nanos) {
        for index in 0..<partners.count {
            partners[index].lastHeard = now
            partners[index].presenceSince = now
        }
        guard case .owner(var owner) = role else { return }
        if !owner.isSuspended { owner.service = .serving(since: now) }
        for index in 0..<owner.mirrors.count { owner.mirrors[index].slept(until: now) }
        role = .owner(owner)
    }

    private mutating func tick(_ now: Nanos, _ out: inout [Directive]) {
        if swaps.areUnresolved, now >= swaps.retryAt { read(&out) }
        // What could not be recorded when it was said, or lost to another swap.
        if confirming != nil { recordDeaths(now, &out) }
        switch role {
        case .starting: if now >= swaps.retryAt { read(&out) }
        case .blocked: tickBlocked(now, &out)
        case .standby: watch(now, &out)
        case .recovering: tickRecovering(now, &out)
        case .owner: tickOwner(now, &out)
        case .handingOver: tickHandover(now, &out)
        case .stopped: break
        }
    }

    private mutating func railSaid(_ event: RailEvent, _ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        switch event {
        case .up:
            partners[index].railUp(now)
            railUp(index, now, &out)
        case .down:
            partners[index].railDown()
            railDown(index, now, &out)
        case .nobodyListens: nobodyListens(index, now, &out)
        case .moved: sessionMoved(index, now, &out)
        case .heard: partners[index].lastHeard = now
        case .heardBeside(let isSuspended): partners[index].heardBeside(isSuspended: isSuspended, now)
        case .said(let heartbeat):
            partners[index].said(heartbeat, now)
            if let asked = heartbeat.asks { grant(to: index, asked: asked, now, &out) }
            if let asked = heartbeat.grants { granted(by: index, asked: asked, now, &out) }
        case .recordChanged: read(&out)
        case .attachRequested(let request): attachRequested(request, now, &out)
        case .attached(let durable, let contents): mirrorAttached(index, durable, contents, now, &out)
        case .attachRefused(let refusal, let reason): mirrorRefused(index, refusal, reason, now, &out)
        }
    }

    private mutating func railDown(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner: mirrorRailDown(index, now, &out)
        case .handingOver: abortHandover("the rail to \(partners.node(index)) was lost", now, &out)
        case .standby: watch(now, &out)
        case .starting, .blocked, .recovering, .stopped: break
        }
    }

    private mutating func sessionMoved(_ index: Int, _ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner, .handingOver: mirrorSessionMoved(index, now, &out)
        case .standby, .starting, .blocked, .recovering, .stopped: out.append(.rail(partners.node(index), .close))
        }
    }

    private mutating func stepEnded(_ answer: StepAnswer, _ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .recovering: recoveryStepEnded(answer, now, &out)
        case .handingOver: handoverStepEnded(answer, now, &out)
        case .standby: standbyStepEnded(answer, now, &out)
        case .blocked(var blocked):
            guard case .mediaReleased = answer else { return }
            blocked.release = .complete
            role = .blocked(blocked)
        // A step that was given up.
        case .starting, .owner, .stopped: break
        }
    }

    private mutating func takeoverProblemIs(_ problem: String?, _ out: inout [Directive]) {
        if let problem, problem != takeoverProblem { out.append(.report(Report(.takeoverImpossible, problem))) }
        if problem == nil, takeoverProblem != nil {
            out.append(.report(Report(.takeoverPossible, "this node reaches the media of the group")))
        }
        takeoverProblem = problem
    }

    // MARK: Common to the roles

    /// Not the owner any more, or not yet. What waits as standby goes on waiting.
    mutating func standBy() {
        switch role {
        case .standby: break
        case .blocked(let blocked): role = .standby(Standby(release: blocked.release))
        case .recovering(let recovering): role = .standby(Standby(release: recovering.release))
        case .starting, .owner, .handingOver, .stopped: role = .standby(Standby())
        }
    }

    /// What was known of the partners was of another role.
    mutating func meetPartnersAnew(_ now: Nanos) {
        partners = Members(settings.partners) { _ in Partner(since: now) }
    }

    func onAllRails(_ directive: RailDirective) -> [Directive] { partners.nodes.map { .rail($0, directive) } }

    mutating func finishCommand(refusal: String?, _ out: inout [Directive]) {
        guard let given else { return }
        self.given = nil
        out.append(.commandDone(given.command, given.id, refusal: refusal))
    }
}
