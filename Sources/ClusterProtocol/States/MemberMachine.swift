// One mirror, as its owner sees it:
//   absent ─ dial ─▶ dialing ─▶ attaching ─▶ catchingUp ─▶ requiring ─▶ joining ─ swap ─▶ inSync
//   inSync ─ silence, a lost rail,
//            or nothing completed ─▶ lost ─ re-attached ─▶ requiring ─▶ inSync    (never counted out)
//                                     └─ not in time ─▶ disqualifying ─ swap ─▶ absent   (S13; `stall` waits in `lost`)
//   inSync ─ another rail ─▶ lost (moving), and on as above; called a loss only when the mirror is not attached there in time
//
// The swaps are the group's to make: `joining` and `disqualifying` ask for one, and wait for its outcome.

internal import Coordination
internal import LogModel

struct MemberMachine: Sendable {
    enum State: Sendable {
        case absent(dialAt: Nanos)
        case dialing(since: Nanos)
        case attaching(since: Nanos)
        /// One copy is still enough while the mirror is far behind, or has completed nothing since it attached at `from`.
        case catchingUp(MirrorContents, from: LSN)
        /// Acknowledgements need the mirror again; it joins when it has everything below `target` (S14). `lostSince`: the record has
        /// counted it all the while.
        case requiring(MirrorContents, target: LSN, lostSince: Nanos?)
        /// In sync by the record as soon as the swap is won.
        case joining(MirrorContents)
        case inSync
        /// In sync by the record, but not reachable; acknowledgements wait.
        case lost(since: Nanos, redial: Redial)
        /// The swap that counts the mirror out is on its way; acknowledgements wait.
        case disqualifying
    }

    enum Redial: Sendable {
        case at(Nanos), dialing(since: Nanos), attaching(since: Nanos)
        /// Attaching over another rail, which was up when the session left its own.
        case moving(since: Nanos)
    }

    /// What decides beside the mirror's own state.
    struct Surroundings {
        let node: NodeID
        let settings: GroupSettings
        let now: Nanos
        /// The record says that the mirror holds everything that was acknowledged.
        let isCounted: Bool
        let isLogSound: Bool
        let heartbeat: Heartbeat
    }

    /// How an acknowledgement depends on this mirror.
    enum Need: Sendable { case none, mustHold, mayNotBeGiven }

    private(set) var state: State
    /// Everything below is durable in its log.
    private(set) var durable = LSN.zero
    /// The oldest request that it has not completed, and since when it is the oldest.
    private var pending: (request: UInt64, since: Nanos)?
    /// What it did not do while it was alive when it was lost; `nil` again when it is in sync.
    private(set) var stuck: String?
    /// Why it refused last, which is reported once.
    private(set) var refusal: String?

    init(_ state: State) { self.state = state }

    /// How far behind a mirror may be when acknowledgements begin to need it: what a rail carries in a few milliseconds.
    static var joinDistanceBytes: UInt64 { 4 << 20 }

    // MARK: What it means to the group

    var isInSync: Bool {
        switch state {
        case .inSync: true
        case .absent, .dialing, .attaching, .catchingUp, .requiring, .joining, .lost, .disqualifying: false
        }
    }

    /// Acknowledgements wait for it, and it is there.
    var isRequired: Bool {
        switch state {
        case .inSync, .requiring: true
        case .absent, .dialing, .attaching, .catchingUp, .joining, .lost, .disqualifying: false
        }
    }

    /// Whom the record counts must hold a write, whatever the link is like (S13).
    func need(isCounted: @autoclosure () -> Bool) -> Need {
        switch state {
        case .absent, .dialing, .attaching, .catchingUp: isCounted() ? .mustHold : .none
        case .requiring, .joining, .inSync, .lost: .mustHold
        case .disqualifying: .mayNotBeGiven
        }
    }

    /// Acknowledgements wait for it, whether it is there or not.
    var isAwaited: Bool {
        switch state {
        case .requiring, .joining, .inSync, .lost: true
        case .absent, .dialing, .attaching, .catchingUp, .disqualifying: false
        }
    }

    /// It counts and is not there, and is not about to be attached on another rail in time.
    func isAway(_ now: Nanos, _ timeout: Nanos) -> Bool {
        switch state {
        case .lost(let since, .moving): now >= since + timeout
        case .lost, .disqualifying: true
        case .absent, .dialing, .attaching, .catchingUp, .requiring, .joining, .inSync: false
        }
    }

    // MARK: Time

    /// Its silence was this node's own absence.
    mutating func slept(until now: Nanos) { pending?.since = now }

    mutating func tick(_ partner: inout Partner, _ around: Surroundings, _ out: inout [Directive]) {
        // With the log's memory failed, only a mirror that counts already is of use: it can get the group.
        guard around.isLogSound || around.isCounted else { return }
        let now = around.now
        switch state {
        case .absent(let dialAt):
            guard now >= dialAt else { return }
            state = .dialing(since: now)
            out.append(.rail(around.node, .dial))
        case .dialing(let since), .attaching(let since):
            if now >= since + around.settings.heartbeatTimeout { gone(&partner, around, &out) }
        case .catchingUp, .requiring, .joining, .inSync: judgeLife(&partner, around, &out)
        case .lost(let since, let redial):
            if now >= since + around.settings.heartbeatTimeout, around.settings.degradeOnMirrorLoss, around.isLogSound {
                if case .moving = redial { reportLoss(around, &out) }
                state = .disqualifying
                return out.append(.rail(around.node, .close))
            }
            tickRedial(since, redial, around, &out)
        case .disqualifying: return
        }
        if partner.isRailUp { out.append(.rail(around.node, .sendHeartbeat(around.heartbeat))) }
    }

    private mutating func judgeLife(_ partner: inout Partner, _ around: Surroundings, _ out: inout [Directive]) {
        if partner.isSilent(around.now, timeout: around.settings.heartbeatTimeout) {
            stuck = nil
            gone(&partner, around, &out)
        } else if let pending, around.now >= pending.since + around.settings.completionLimit {
            stuck =
                "\(around.node) answers but has completed nothing for \((around.now - pending.since) / 1_000_000_000) s, "
                + "perhaps because its pool's disk hangs"
            gone(&partner, around, &out)
        }
    }

    private mutating func tickRedial(
        _ since: Nanos, _ redial: Redial, _ around: Surroundings, _ out: inout [Directive]
    ) {
        switch redial {
        case .at(let time):
            guard around.now >= time else { return }
            state = .lost(since: since, redial: .dialing(since: around.now))
            out.append(.rail(around.node, .dial))
        case .dialing(let began), .attaching(let began), .moving(let began):
            guard around.now >= began + around.settings.heartbeatTimeout else { return }
            if case .moving = redial { reportLoss(around, &out) }
            out.append(.rail(around.node, .close))
            state = .lost(since: since, redial: .at(around.now + around.settings.heartbeatInterval))
        }
    }

    // MARK: The rail

    /// The rail that was dialled is up.
    mutating func railUp(_ epoch: Epoch, _ around: Surroundings, _ out: inout [Directive]) {
        switch state {
        case .dialing: state = .attaching(since: around.now)
        case .lost(let since, .dialing): state = .lost(since: since, redial: .attaching(since: around.now))
        case .absent, .attaching, .catchingUp, .requiring, .joining, .inSync, .lost, .disqualifying:
            return out.append(.rail(around.node, .close))
        }
        out.append(.rail(around.node, .sendAttach(epoch: epoch, counts: around.isCounted)))
    }

    /// The session goes on over another rail, which is up. The mirror is attached there anew: it shuts the old rail out before it
    /// answers, so nothing that is still on its way there is carried out beside what is posted again (S11, S12).
    mutating func moved(
        _ partner: inout Partner, _ epoch: Epoch, _ around: Surroundings, _ out: inout [Directive]
    ) {
        switch state {
        case .inSync: state = .lost(since: around.now, redial: .moving(since: around.now))
        case .requiring(_, _, let lostSince) where around.isCounted:
            state = .lost(since: lostSince ?? around.now, redial: .moving(since: around.now))
        case .lost(let since, .moving): state = .lost(since: since, redial: .moving(since: around.now))
        case .lost(let since, _): state = .lost(since: since, redial: .attaching(since: around.now))
        case .attaching, .catchingUp, .requiring: state = .attaching(since: around.now)
        // Nothing is asked of the new rail before the swap's outcome.
        case .absent, .dialing, .joining, .disqualifying: return gone(&partner, around, &out)
        }
        pending = nil
        out.append(.rail(around.node, .sendAttach(epoch: epoch, counts: around.isCounted)))
    }

    mutating func railDown(_ partner: inout Partner, _ around: Surroundings, _ out: inout [Directive]) {
        switch state {
        case .absent: break
        case .dialing, .attaching, .catchingUp, .requiring, .joining, .inSync, .lost, .disqualifying:
            gone(&partner, around, &out)
        }
    }

    /// The rail is down or silent, or the mirror does nothing. What follows depends on whether the record counts it.
    mutating func gone(_ partner: inout Partner, _ around: Surroundings, _ out: inout [Directive]) {
        out.append(.rail(around.node, .close))
        partner.railClosed()
        pending = nil
        switch state {
        case .joining, .disqualifying: break  // the swap's outcome decides
        case .lost(let since, .moving): lose(since: since, around, &out)
        case .lost(let since, _):
            state = .lost(since: since, redial: .at(around.now + around.settings.heartbeatInterval))
        // A mirror that comes and goes without ever catching up is counted out from its first loss.
        case .requiring(_, _, let lostSince): lose(since: lostSince ?? around.now, around, &out)
        case .absent, .dialing, .attaching, .catchingUp, .inSync: lose(since: around.now, around, &out)
        }
    }

    private mutating func lose(since: Nanos, _ around: Surroundings, _ out: inout [Directive]) {
        guard around.isCounted else {
            state = .absent(dialAt: around.now + around.settings.heartbeatInterval)
            return out.append(.serving(.acknowledge))
        }
        state = .lost(since: since, redial: .at(around.now))
        reportLoss(around, &out)
    }

    private func reportLoss(_ around: Surroundings, _ out: inout [Directive]) {
        let cause: Report.Cause? = stuck == nil ? nil : .mirrorIsStuck
        out.append(.report(Report(.mirrorLost, cause: cause, lossReason(around.node))))
    }

    // MARK: What it answers

    /// `known`: its copy as the record knows it. `local`: what is durable here.
    mutating func attached(
        durable: LSN, _ contents: MirrorContents, known: GroupRecord.Member?, local: LSN, _ around: Surroundings,
        _ out: inout [Directive]
    ) {
        switch state {
        case .attaching: state = .catchingUp(contents, from: durable)
        case .lost(let since, .attaching), .lost(let since, .moving):
            // A generation above the known one is counted: the mirror attaches only after that.
            guard contents.isKept, contents.pool == known?.pool, contents.generation >= known?.generation ?? 0 else {
                return countOut(around, &out)
            }
            state = .requiring(contents, target: local, lostSince: since)
        case .absent, .dialing, .catchingUp, .requiring, .joining, .inSync, .lost, .disqualifying: return
        }
        refusal = nil
        self.durable = durable
        out.append(.report(Report(.mirrorAttached, "\(around.node) holds the log up to \(durable)")))
    }

    mutating func refused(
        _ refusal: AttachRefusal, _ reason: String, _ partner: inout Partner, _ around: Surroundings,
        _ out: inout [Directive]
    ) {
        if self.refusal != reason {
            out.append(.report(Report(.attachRefused, "\(around.node) does not mirror: \(reason)")))
        }
        self.refusal = reason
        if refusal == .lostLog, case .lost = state {
            countOut(around, &out)
        } else {
            gone(&partner, around, &out)
        }
    }

    /// The mirror's memory of what was acknowledged is gone, or older: that comes before anything else (S13, S20).
    private mutating func countOut(_ around: Surroundings, _ out: inout [Directive]) {
        out += [
            .rail(around.node, .close), .report(Report(.mirrorAmnesia, "\(around.node) came back without its log")),
        ]
        state = .disqualifying
    }

    mutating func progressed(durable: LSN, pending request: UInt64?, _ now: Nanos) {
        self.durable = durable
        if request != pending?.request { pending = request.map { ($0, now) } }
    }

    /// From catching up to being required, and on to being in sync or asking for it. `local`: what is durable here.
    mutating func advance(
        local: LSN, isCounted: @autoclosure () -> Bool, _ node: NodeID, _ out: inout [Directive]
    ) {
        // One that holds everything has nothing to complete.
        if case .catchingUp(let contents, let from) = state,
            durable.rawValue + Self.joinDistanceBytes >= local.rawValue, durable > from || durable >= local
        {
            state = .requiring(contents, target: local, lostSince: nil)
            out.append(.serving(.acknowledge))
        }
        if case .requiring(let contents, let target, _) = state, durable >= target {
            if isCounted() { becomeInSync(node, &out) } else { state = .joining(contents) }
            out.append(.serving(.acknowledge))
        }
    }

    private mutating func becomeInSync(_ node: NodeID, _ out: inout [Directive]) {
        state = .inSync
        stuck = nil
        out.append(.report(Report(.mirrored, "\(node) is in sync")))
    }

    // MARK: The swaps

    /// The join that was asked for is not on its way, and the rail is gone meanwhile.
    mutating func joinGivenUp(_ now: Nanos) { state = .absent(dialAt: now) }

    /// The record counts it now.
    mutating func joined(isRailUp: Bool, _ node: NodeID, _ now: Nanos, _ out: inout [Directive]) {
        if isRailUp {
            becomeInSync(node, &out)
        } else {
            state = .lost(since: now, redial: .at(now))
        }
    }

    /// The record does not count it any more.
    mutating func disqualified(dialAt: Nanos) { state = .absent(dialAt: dialAt) }

    // MARK: For people

    func groupState(degrades: Bool) -> GroupState {
        switch state {
        case .absent, .dialing, .attaching: degrades ? .degraded : .stalled
        case .catchingUp, .requiring, .joining: .resyncing
        case .inSync: .mirrored
        case .lost, .disqualifying: .stalled
        }
    }

    /// Why the group is not mirrored by it, or could not be taken over by it; `nil` if all is well.
    func reason(_ node: NodeID, problem: String?, degrades: Bool) -> String? {
        switch state {
        case .inSync: problem.map { "\(node) could not take over: \($0)" }
        case .absent, .dialing, .attaching: absence(node, degrades: degrades)
        case .catchingUp, .requiring, .joining:
            "\(node) is catching up" + (stuck.map { "; before, \($0)" } ?? "")
        case .lost(_, .moving): "the session with \(node) moves to another rail; acknowledgements wait"
        case .lost: lossReason(node)
        case .disqualifying: "\(node) is being counted out at the coordinator"
        }
    }

    private func absence(_ node: NodeID, degrades: Bool) -> String {
        let refused = refusal.map { "does not mirror (\($0))" } ?? "does not mirror"
        return "\(node) \(refused): \(degrades ? "acknowledging with one copy" : "nothing is acknowledged")"
    }

    /// Why it is lost though the record counts it.
    private func lossReason(_ node: NodeID) -> String {
        let refused = refusal.map { "\(node) does not mirror (\($0))" }
        return (stuck ?? refused ?? "\(node) is silent or its rail is down") + "; acknowledgements wait"
    }
}
