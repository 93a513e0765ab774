// Giving a group away on purpose, and stopping. The owner destages everything first, releases the medium, and only then
// swaps; so the partner finds nothing to fence and nothing to replay. Whatever goes wrong before the medium is released
// takes it back to serving; after that, the record decides, and claiming anew is always right. A medium that cannot be
// released, because a call of it does not return, is released by the end of this process, which the partner brings about.

internal import Coordination
internal import LogModel

extension GroupMachine {
    /// How long nobody is served for the sake of a partner that finds nothing to replay. What is acknowledged is in its log.
    static var drainLimit: Nanos { 10_000_000_000 }

    mutating func beginHandover(_ now: Nanos, _ out: inout [Directive]) {
        if case .handingOver = role {
            return finishCommand(refusal: "\(me) gives the group to \(partnerNames) already", &out)
        }
        guard case .owner(let owner) = role else {
            return finishCommand(
                refusal: "\(me) does not own the group; \(record?.owner.rawValue ?? "nobody") does", &out)
        }
        guard let heir = owner.heir, !owner.isSuspended else {
            return finishCommand(refusal: "\(partnerNames) is not in sync (\(state(now).rawValue))", &out)
        }
        if let problem = problem(of: heir) {
            return finishCommand(refusal: "\(heir) could not serve the group: \(problem)", &out)
        }
        out.append(.report(Report(.handingOver, "draining, then \(heir) gets the group")))
        drain(owner, to: .partner(heir), now, &out)
    }

    mutating func beginStop(_ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner(let owner):
            guard let heir = owner.heir, !owner.isSuspended, problem(of: heir) == nil else {
                return drain(owner, to: .nobody, now, &out)
            }
            drain(owner, to: .partner(heir), now, &out)
        case .recovering:
            out.append(.step(.releaseMedia))
            stop(&out)
        case .handingOver: break  // goes on; `gaveAway` or its failure stops
        case .starting, .blocked, .standby, .stopped: stop(&out)
        }
    }

    private mutating func drain(
        _ owner: Owner, to destination: Handover.Destination, _ now: Nanos, _ out: inout [Directive]
    ) {
        role = .handingOver(Handover(owner: owner, step: .draining(destination, since: now)))
        out.append(.serving(.drain))
    }

    mutating func stop(_ out: inout [Directive]) {
        role = .stopped
        out.append(.serving(.stop))
        out += onAllRails(.close)
        finishCommand(refusal: nil, &out)
        out.append(.stopped)
    }

    // MARK: Time

    mutating func tickHandover(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(let handover) = role else { return }
        for index in 0..<partners.count where partners[index].isRailUp {
            out.append(.rail(partners.node(index), .sendHeartbeat(heartbeat(askedAt: now))))
        }
        switch handover.step {
        case .draining(let destination, let since): tickDrain(handover.owner, destination, since, now, &out)
        case .releasingAlone: break
        case .releasing(let gift, let since):
            if now >= since + settings.releaseLimit { evacuate(handover, gift, now, &out) }
        case .evacuating(let gift, let since):
            if now >= since + settings.evacuationLimit { offer(gift, release: .awaited, now, &out) }
        case .swapping: giveAway(now, &out)
        }
    }

    private mutating func tickDrain(
        _ owner: Owner, _ destination: Handover.Destination, _ since: Nanos, _ now: Nanos, _ out: inout [Directive]
    ) {
        if now >= rightEnd { return abortHandover("the right to serve ended while draining", now, &out) }
        switch destination {
        case .partner(let heir):
            if let index = partners.index(of: heir),
                partners[index].isSilent(now, timeout: settings.heartbeatTimeout)
            {
                return abortHandover("\(heir) fell silent while draining", now, &out)
            }
            if let index = partners.index(of: heir), owner.mirrors[index].isAway(now, settings.heartbeatTimeout) {
                return abortHandover("\(heir) was not attached in time on another rail", now, &out)
            }
            guard now >= since + Self.drainLimit else { return }
            let rest = "\(heir) gets the group and replays its own"
            leaveUndrained("not everything in the log is on the medium in time; \(rest)", now, &out)
        case .nobody:
            // What waits for a mirror that does not come is not acknowledged, so it cannot be destaged.
            if rule.needsMirror || !rule.allowed {
                let reason = "\(partnerNames) is not there to acknowledge; the log is left as it is"
                return leaveUndrained(reason, now, &out)
            }
            guard now >= since + settings.drainAloneLimit else { return }
            leaveUndrained(
                "not everything in the log is on the medium in time; the log is left as it is", now, &out)
        }
    }

    /// What is not on the medium stays in the log.
    private mutating func leaveUndrained(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(var handover) = role, case .draining(let destination, _) = handover.step else { return }
        let kind: EventKind
        switch destination {
        case .partner(let heir):
            let legacy: Handover.Legacy = handover.owner.medium.trouble == nil ? .undrained : .mediumFails
            handover.step = .releasing(Handover.Gift(heir: heir, legacy: legacy), since: now)
            kind = .handoverUndrained
        case .nobody:
            handover.step = .releasingAlone
            kind = .stoppedUndrained
        }
        role = .handingOver(handover)
        out += [.report(Report(kind, reason)), .step(.releaseMedia)]
    }

    /// A call of the medium does not return, and may still write when it does. So the group is given away with this process
    /// among those that are fenced: the partner writes when it is confirmed dead (S16, S18). What else this process owns
    /// can leave it in order, and would have to wait for that confirmation otherwise.
    private mutating func evacuate(
        _ handover: Handover, _ gift: Handover.Gift, _ now: Nanos, _ out: inout [Directive]
    ) {
        role = .handingOver(Handover(owner: handover.owner, step: .evacuating(gift, since: now)))
        let reason =
            "\(hangs(handover)), so the medium is not released: \(gift.heir) gets the group and ends this process; its other "
            + "groups are handed over first. Restart \(me) then"
        out += [.report(Report(.releaseHangs, reason)), .step(.evacuate)]
    }

    private func hangs(_ handover: Handover) -> String {
        handover.owner.medium.trouble?.reason ?? "what is under way for the medium does not end"
    }

    // MARK: How steps end

    mutating func handoverStepEnded(_ answer: StepAnswer, _ now: Nanos, _ out: inout [Directive]) {
        switch answer {
        case .drained: drained(now, &out)
        case .mediaReleased: mediaReleased(now, &out)
        case .evacuated: evacuated(now, &out)
        // Of a takeover that was over before; or the release failed, which ``GroupSettings/releaseLimit`` bounds.
        case .fenced, .mediaLocked, .sealed, .recovered, .logOpened, .failed, .logCorrupt, .refused, .tailInDoubt,
            .mediumTaken:
            break
        }
    }

    private mutating func drained(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(var handover) = role, case .draining(let destination, _) = handover.step else { return }
        switch destination {
        case .partner(let heir):
            handover.step = .releasing(Handover.Gift(heir: heir, legacy: .drained), since: now)
        case .nobody: handover.step = .releasingAlone
        }
        role = .handingOver(handover)
        out.append(.step(.releaseMedia))
    }

    private mutating func mediaReleased(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(var handover) = role else { return }
        switch handover.step {
        case .draining: break
        case .releasingAlone: stop(&out)
        case .releasing(let gift, _), .evacuating(let gift, _): offer(gift, release: .complete, now, &out)
        case .swapping(let gift, _):
            handover.step = .swapping(gift, release: .complete)
            role = .handingOver(handover)
        }
    }

    private mutating func evacuated(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(let handover) = role, case .evacuating(let gift, _) = handover.step else { return }
        offer(gift, release: .awaited, now, &out)
    }

    private mutating func offer(
        _ gift: Handover.Gift, release: MediumRelease, _ now: Nanos, _ out: inout [Directive]
    ) {
        guard case .handingOver(var handover) = role else { return }
        handover.step = .swapping(gift, release: release)
        role = .handingOver(handover)
        giveAway(now, &out)
    }

    // MARK: The swap

    /// Makes the swap, if it is due and not on its way.
    mutating func giveAway(_ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(let handover) = role, case .swapping(let gift, let release) = handover.step,
            let record, !isCoordinating
        else { return }
        let writer = release == .complete ? nil : settings.process
        var given = givenAway(record, to: gift.heir, isSource: gift.legacy.isSource, fencing: writer)
        switch gift.legacy {
        case .drained: given.leftForMedium = false
        case .mediumFails: given.leftForMedium = true
        case .undrained, .logFailed: break
        }
        swap(to: given, .giveAway, now, &out)
    }

    /// `heir` is the owner now, by this node's swap.
    mutating func gaveAway(to heir: NodeID, _ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .handingOver(let handover): handedOver(handover, to: heir, &out)
        case .recovering(let recovering):
            standBy()
            finishCommand(refusal: recovering.leaving?.reason ?? "\(heir) gets the group", &out)
        case .starting, .blocked, .standby, .owner, .stopped: break
        }
        meetPartnersAnew(now)
    }

    private mutating func handedOver(_ handover: Handover, to heir: NodeID, _ out: inout [Directive]) {
        out.append(.report(Report(.handedOver, "\(heir) gets the group")))
        out += onAllRails(.tellRecordChanged)
        out.append(.serving(.stop))
        out += onAllRails(.close)
        if command == .handOver, record?.mustFence.contains(settings.process) == true {
            finishCommand(
                refusal:
                    "\(hangs(handover)), so the medium is not released: \(heir) ends this process of \(me) and "
                    + "has the group then; restart \(me)", &out)
        }
        role = .standby(Standby(release: handover.release))
    }

    /// After a handover: the command is done when the partner has published, so that clients find it serving. Answers whether
    /// a stop that is under way keeps this node from anything else.
    mutating func finishHandover(_ now: Nanos, _ out: inout [Directive]) -> Bool {
        guard case .standby = role, let record, record.owner != me else { return false }
        switch command {
        case .handOver:
            if record.phase == .published { finishCommand(refusal: nil, &out) }
            return false
        case .stop:
            // A partner that died before it published claims anew when it returns, and so may this node (S16).
            if record.phase == .published || (railSilent(now) && presenceStale(now)) || giftIsOverdue(now) {
                stop(&out)
            }
            return true
        case .takeOver, .forgetCoordinator, .confirmDead, .predecessorsEnded, nil: return false
        }
    }

    // MARK: Back to serving

    /// Only while the medium is still held.
    mutating func abortHandover(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        guard case .handingOver(let handover) = role, case .draining(_, let since) = handover.step else { return }
        out.append(.report(Report(.handoverAborted, reason)))
        var owner = handover.owner
        for index in 0..<owner.mirrors.count where owner.mirrors[index].isAwaited {
            let around = surroundings(index, owner, now)
            owner.mirrors[index].gone(&partners[index], around, &out)
        }
        if command == .stop, now < rightEnd {
            // There is no partner to give the group to: destage what one copy may acknowledge, and stop.
            role = .handingOver(Handover(owner: owner, step: .draining(.nobody, since: since)))
            return
        }
        if command != .stop { finishCommand(refusal: reason, &out) }
        if now >= rightEnd { owner.service = .suspended }
        role = .owner(owner)
        out += [.serving(owner.isSuspended ? .suspend : .serve), .serving(.acknowledge)]
        if command == .stop { stop(&out) }
    }

    // MARK: A log that fails

    /// Its memory has failed under it (S26). A partner has everything that was acknowledged, and gets the group at once:
    /// nothing waits for a drain, which would read what is gone. Without a partner in sync nothing is acknowledged any more.
    mutating func logFailed(_ reason: String, _ now: Nanos, _ out: inout [Directive]) {
        switch role {
        case .owner(let owner):
            guard !isCoordinating, let heir = completeMirror(owner) else { return stall(owner, reason, &out) }
            out.append(.report(Report(.logFailed, "\(reason); \(heir) holds everything and gets the group")))
            leaveFailedLog(owner, to: heir, now, &out)
        case .handingOver(var handover):
            switch handover.step {
            case .draining(.partner(let heir), _): leaveFailedLog(handover.owner, to: heir, now, &out)
            case .draining(.nobody, _):
                handover.owner.logFailure = reason
                role = .handingOver(handover)
            case .releasingAlone, .releasing, .evacuating, .swapping: break
            }
        case .recovering: recoveringLogFailed(reason, now, &out)
        case .starting, .blocked, .standby, .stopped: break
        }
    }

    /// A mirror that is there, and that the record counts: it holds everything that was acknowledged.
    func completeMirror(_ owner: Owner) -> NodeID? {
        (0..<owner.mirrors.count)
            .first { owner.mirrors[$0].isRequired && record?.isHolder(partners.node($0)) == true }
            .map(partners.node)
    }

    private mutating func leaveFailedLog(
        _ owner: Owner, to heir: NodeID, _ now: Nanos, _ out: inout [Directive]
    ) {
        let gift = Handover.Gift(heir: heir, legacy: .logFailed)
        role = .handingOver(Handover(owner: owner, step: .releasing(gift, since: now)))
        out += onAllRails(.close)
        out.append(.step(.releaseMedia))
    }

    private mutating func stall(_ owner: Owner, _ reason: String, _ out: inout [Directive]) {
        guard owner.logFailure == nil else { return }
        var owner = owner
        owner.logFailure = reason
        role = .owner(owner)
        for node in partners.nodes where record?.isHolder(node) != true { out.append(.rail(node, .close)) }
        out.append(.report(Report(.logFailed, "\(reason); nothing is acknowledged any more")))
    }
}
