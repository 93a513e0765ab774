import ClusterProtocol
import Coordination
import LogModel
import Testing

/// A published owner: its lease, its mirror, handing over and stopping.
struct OwnerTests {
    private func needs(_ rig: Rig) -> Bool { rig.machine.authority.rule.needsMirror }
    private func allowed(_ rig: Rig) -> Bool { rig.machine.authority.rule.allowed }

    // MARK: The record

    @Test("S15: a renewal that finds another owner ends this one")
    func overtaken() {
        let rig = Rig.mirrored()
        let theirs = Rig.record(
            owner: Rig.beta, epoch: 9, phase: .claimed, holders: [Rig.alpha, Rig.beta], version: 20)
        #expect(
            rig.take(.renewed(startedAt: rig.now, record: theirs)) == [
                .serving(.stop), .rail(Rig.beta, .close), .step(.releaseMedia),
            ])
        #expect(!rig.machine.authority.isValid(rig.now) && !allowed(rig) && !rig.machine.isOwner)
    }

    // MARK: Gaining the mirror

    @Test("S14: acknowledgements need the mirror again, then it has everything, then the swap; only then is it in sync")
    func catchUp() throws {
        let rig = Rig.owner()
        let far = GroupMachineDistance.bytes * 2
        rig.progress(local: LSN(640 + far), mirror: .zero)
        rig.take(.up)
        rig.take(.attached(durable: LSN(640), MirrorContents(pool: Rig.pool(Rig.beta), isKept: false)))
        #expect(allowed(rig) && !needs(rig))
        #expect(rig.progress(local: LSN(640 + far), mirror: LSN(640 + far / 2 - 64)) == [])
        #expect(!needs(rig))
        #expect(rig.progress(local: LSN(640 + far), mirror: LSN(640 + far / 2)) == [.serving(.acknowledge)])
        #expect(needs(rig))
        let join = try #require(rig.progress(local: LSN(700 + far), mirror: LSN(640 + far)).swap)
        #expect(join.inSync == [Rig.alpha, Rig.beta] && join.phase == .published && join.epoch == Epoch(2))
        #expect(rig.machine.state(rig.now) == .resyncing && needs(rig))
        rig.take(.swapped(.won))
        #expect(rig.machine.state(rig.now) == .mirrored && needs(rig) && allowed(rig))
    }

    @Test("A2, S13: whom the record counts must hold what is acknowledged, though the owner's link does not say so")
    func countedByTheRecord() throws {
        let rig = Rig.owner()
        #expect(allowed(rig) && !needs(rig))
        var late = try #require(rig.machine.record)
        late.version += 1
        late.members[Rig.beta] = GroupRecord.Member(role: .inSync, pool: Rig.pool(Rig.beta), generation: 1)
        rig.take(.renewed(startedAt: rig.now, record: late))
        #expect(rig.machine.record == late && rig.machine.isOwner)
        #expect(needs(rig))
    }

    @Test func aJoinWhoseRailIsLostIsNotMadeAgain() {
        let rig = Rig.owner()
        rig.attach()
        rig.take(.down)
        #expect(needs(rig))
        rig.take(.swapped(.unknown("no answer")))
        let unchanged = rig.machine.record
        rig.take(.tick, after: Rig.heartbeat)
        // It may still put the mirror in sync: acknowledgements wait until it cannot any more (S13).
        #expect(rig.take(.recordRead(unchanged)).swap?.holders == [Rig.alpha] && needs(rig))
        #expect(rig.take(.swapped(.won)).swap == nil && rig.take(.tick, after: Rig.heartbeat).swap == nil)
        #expect(!needs(rig) && allowed(rig))
    }

    // MARK: Losing the mirror

    @Test("S13: a lost mirror is counted out by a swap that raises the epoch before one copy is enough")
    func degrade() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.take(.down)
        #expect(rig.machine.state(rig.now) == .stalled && needs(rig))
        #expect(rig.pass(Rig.timeout - Rig.heartbeat).swap == nil)
        #expect(needs(rig))
        let out = try #require(rig.pass(Rig.heartbeat).swap)
        #expect(out.inSync == [Rig.alpha] && out.epoch == Epoch(3))
        #expect(!allowed(rig))
        // S20: nor before the pool knows what the coordinator does.
        #expect(rig.take(.swapped(.won)).contains(.region(.noteEpoch(Epoch(3)))) && !allowed(rig))
        #expect(rig.take(.epochNoted(Epoch(2))).contains(.serving(.acknowledge)) && !allowed(rig))
        #expect(rig.take(.tick, after: Rig.heartbeat).contains(.region(.noteEpoch(Epoch(3)))))
        #expect(rig.take(.epochNoted(Epoch(3))).contains(.serving(.acknowledge)))
        #expect(allowed(rig) && !needs(rig) && rig.machine.state(rig.now) == .degraded)
    }

    @Test("S13: while the coordinator does not answer, a lost mirror stops acknowledgements")
    func degradeWithoutCoordinator() {
        let rig = Rig.mirrored()
        rig.take(.down)
        #expect(rig.pass(Rig.timeout).swap != nil)
        rig.take(.unavailable("away"))
        rig.pass(Rig.timeout)
        #expect(!allowed(rig))
    }

    @Test("S20: without the coordinator nothing can be taken over; what is held twice stays so")
    func noTakeoverWithoutCoordinator() throws {
        let rig = Rig.mirrored()
        #expect(rig.machine.takeoverPossible(rig.now) && rig.machine.isHeldTwice(rig.now))
        rig.take(.unavailable("away"))
        #expect(!rig.machine.takeoverPossible(rig.now) && rig.machine.isHeldTwice(rig.now))
        #expect(rig.machine.reason(rig.now)?.contains("away") == true)
        rig.take(.recordRead(rig.machine.record))
        #expect(rig.machine.takeoverPossible(rig.now))
        // Nor does anything answer where the lease runs out.
        rig.take(.heard, after: Rig.lease)
        rig.take(.tick)
        #expect(rig.machine.isHeldTwice(rig.now) && !rig.machine.takeoverPossible(rig.now))
    }

    @Test("on-mirror-loss: stall never counts the mirror out and never acknowledges with one copy")
    func stall() {
        let rig = Rig.mirrored(degrades: false)
        rig.take(.down)
        #expect(rig.pass(20 * Rig.timeout, renewing: rig.machine.record).swap == nil)
        #expect(needs(rig) && rig.machine.state(rig.now) == .stalled)
        let alone = Rig.owner(degrades: false)
        #expect(!allowed(alone))
    }

    @Test func silenceLosesTheMirrorAsADeadRailDoes() {
        let rig = Rig.mirrored()
        #expect(!rig.pass(Rig.timeout - Rig.heartbeat).contains(onRail: .close))
        #expect(rig.pass(Rig.heartbeat).contains(onRail: .close))
        #expect(rig.machine.state(rig.now) == .stalled)
    }

    @Test("A mirror that comes back with its log in time is in sync without a swap, once it has everything")
    func comesBack() {
        let rig = Rig.mirrored()
        rig.progress(local: LSN(1280), mirror: LSN(640))
        #expect(rig.take(.down).contains(onRail: .close))
        #expect(rig.take(.tick).contains(onRail: .dial))
        #expect(rig.take(.up) == [.rail(Rig.beta, .sendAttach(epoch: Epoch(2), counts: true))])
        rig.take(.attached(durable: LSN(640), MirrorContents(pool: Rig.pool(Rig.beta), generation: 1, isKept: true)))
        #expect(rig.machine.state(rig.now) == .resyncing && needs(rig))
        #expect(rig.progress(local: LSN(1280), mirror: LSN(1280)).swap == nil)
        #expect(rig.machine.state(rig.now) == .mirrored)
    }

    @Test(
        "S20: a mirror that comes back without its log, or with another pool, is counted out first",
        arguments: [(false, Rig.pool(Rig.beta)), (true, UUID128(high: 9, low: 9))])
    func comesBackEmpty(isKept: Bool, pool: UUID128) {
        let rig = Rig.mirrored()
        rig.take(.down)
        rig.take(.tick)
        rig.take(.up)
        rig.take(.attached(durable: LSN(640), MirrorContents(pool: pool, isKept: isKept)))
        #expect(!allowed(rig))
        #expect(rig.take(.tick).swap?.inSync == [Rig.alpha])
    }

    @Test("A mirror that comes and goes is counted out from its first loss")
    func flapping() {
        let rig = Rig.mirrored()
        rig.progress(local: LSN(1280), mirror: LSN(640))
        rig.take(.down)
        var swap: GroupRecord?
        for _ in 0..<40 where swap == nil {
            swap = rig.take(.tick, after: Rig.heartbeat / 2).swap
            rig.take(.up)
            rig.take(.attached(durable: LSN(640), MirrorContents(pool: Rig.pool(Rig.beta), isKept: true)))
            rig.take(.down)
        }
        #expect(swap?.inSync == [Rig.alpha])
    }

    @Test func aRefusalForAStaleEpochSendsTheOwnerToTheRecord() {
        let rig = Rig.owner()
        rig.take(.up)
        #expect(rig.take(.attachRefused(.staleEpoch, "newer")).contains(.coordinator(.read)))
    }

    @Test("O23: a mirror that answers and refuses is not called silent", arguments: [true, false])
    func refusalsOwnWords(degrades: Bool) {
        let rig = Rig.mirrored(degrades: degrades)
        rig.take(.down)
        #expect(rig.machine.reason(rig.now)?.contains("silent") == true)
        rig.take(.tick)
        rig.take(.up)
        rig.take(.attachRefused(.notReady, "its pool is full"))
        let reason = rig.machine.reason(rig.now) ?? ""
        #expect(reason.contains("its pool is full") && !reason.contains("silent"), "\(reason)")
    }

    @Test("O23: a standby says who takes over, and where its own log is no copy")
    func standbyReasons() {
        let claimed = Rig(Rig.alpha)
        let log = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5))
        claimed.start(local: log, Rig.record(owner: Rig.beta, phase: .claimed, holders: [Rig.beta]))
        #expect(!claimed.machine.takeoverPossible(claimed.now))
        #expect(claimed.machine.reason(claimed.now)?.contains("beta takes over in epoch") == true)
        let stale = Rig.standby(Rig.record(holders: [Rig.alpha]))
        #expect(!stale.machine.takeoverPossible(stale.now))
        #expect(stale.machine.reason(stale.now)?.contains("out of sync") == true)
    }

    // MARK: A mirror that completes nothing

    /// Alive on its rail, while its oldest request waits.
    private func wait(_ rig: Rig, _ time: Nanos, pending: UInt64?) -> [Directive] {
        var out: [Directive] = []
        let end = rig.now + time
        while rig.now < end {
            out += rig.progress(local: LSN(1280), mirror: LSN(640), pending: pending)
            out += rig.pass(Rig.heartbeat, heard: true, renewing: rig.machine.record)
        }
        return out
    }

    @Test("S13: a mirror that lives and completes nothing is lost as a silent one is, and is counted out")
    func completesNothing() throws {
        let rig = Rig.mirrored()
        let limit = rig.machine.settings.completionLimit
        #expect(limit >= 10 * Rig.timeout)
        #expect(!wait(rig, limit - Rig.heartbeat, pending: 1).contains(onRail: .close))
        #expect(rig.machine.state(rig.now) == .mirrored)
        // Something is completed, however late: the next one has as long.
        #expect(!wait(rig, limit - Rig.heartbeat, pending: 2).contains(onRail: .close))
        #expect(wait(rig, 2 * Rig.heartbeat, pending: 2).contains(onRail: .close))
        #expect(rig.machine.state(rig.now) == .stalled && needs(rig) && !rig.machine.isHeldTwice(rig.now))
        #expect(rig.machine.reason(rig.now)?.contains("completed nothing") == true)
        let out = try #require(wait(rig, 2 * Rig.timeout, pending: nil).swap)
        #expect(out.inSync == [Rig.alpha] && out.epoch == Epoch(3))
        rig.take(.swapped(.won))
        rig.take(.epochNoted(Epoch(3)))
        #expect(allowed(rig) && !needs(rig))
    }

    @Test func aMirrorWithNothingToCompleteIsNotLost() {
        let rig = Rig.mirrored()
        #expect(!wait(rig, 3 * rig.machine.settings.completionLimit, pending: nil).contains(onRail: .close))
        #expect(rig.machine.state(rig.now) == .mirrored)
    }

    @Test("S13: a mirror that completes nothing is counted out though it attaches whenever it is asked")
    func completesNothingAndAttaches() {
        let rig = Rig.mirrored()
        var swap: GroupRecord?
        let end = rig.now + 3 * rig.machine.settings.completionLimit
        while swap == nil, rig.now < end {
            let out = wait(rig, Rig.heartbeat, pending: 1)
            swap = out.swap
            if out.contains(onRail: .dial) { rig.attach(kept: true) }
        }
        #expect(swap?.inSync == [Rig.alpha])
    }

    @Test("A mirror that was counted out is not needed again before it has completed something")
    func comesBackAndCompletesNothing() {
        let rig = Rig.owner()
        rig.progress(local: LSN(1280), mirror: LSN(640))
        rig.attach(kept: true)
        #expect(!wait(rig, rig.machine.settings.completionLimit - Rig.heartbeat, pending: 1).contains(onRail: .close))
        #expect(allowed(rig) && !needs(rig))
        #expect(wait(rig, 2 * Rig.heartbeat, pending: 1).contains(onRail: .close))
        #expect(allowed(rig) && !needs(rig))
        rig.attach(kept: true)
        rig.progress(local: LSN(1344), mirror: LSN(704), pending: 2)
        #expect(needs(rig))
    }

    @Test("on-mirror-loss: stall waits for a mirror that completes nothing, and says so")
    func stallsForAMirrorThatCompletesNothing() {
        let rig = Rig.mirrored(degrades: false)
        #expect(wait(rig, 2 * rig.machine.settings.completionLimit, pending: 1).swap == nil)
        #expect(needs(rig) && rig.machine.state(rig.now) == .stalled)
        #expect(rig.machine.reason(rig.now)?.contains("completed nothing") == true)
    }

    // MARK: Handover and stop

    @Test("A handover drains, then releases the medium, then swaps; the partner finds nobody to fence")
    func handOver() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(rig.command(.handOver) == [.serving(.drain)])
        #expect(!rig.machine.isServing && rig.machine.authority.isValid(rig.now))
        #expect(rig.take(.drained) == [.step(.releaseMedia)])
        #expect(!rig.machine.authority.isValid(rig.now))
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Rig.beta && given.phase == .claimed && given.epoch == Epoch(3))
        #expect(given.sources == [Rig.alpha, Rig.beta] && given.ownerProcess == nil && given.mustFence.isEmpty)
        let won = rig.take(.swapped(.won))
        #expect(won.contains(onRail: .tellRecordChanged) && won.contains(.serving(.stop)))
        #expect(!rig.machine.isOwner)
        // Done only when the partner serves.
        #expect(!won.contains(.commandDone(.handOver, CommandID(rawValue: 1), refusal: nil)))
        #expect(
            rig.take(.recordRead(published(given))) == [.commandDone(.handOver, CommandID(rawValue: 1), refusal: nil)])
    }

    private func published(_ claim: GroupRecord) -> GroupRecord {
        var record = claim
        record.version += 1
        record.phase = .published
        record.setHolders([claim.owner])
        return record
    }

    @Test func aHandoverWhosePartnerFallsSilentIsTakenBack() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.handOver)
        rig.take(.drained)
        rig.take(.mediaReleased)
        rig.take(.swapped(.won))
        let back = rig.pass(5_000_000_000)
        #expect(back.refusal != nil && back.swap?.owner == Rig.alpha)
    }

    /// An owner whose group its partner was given and has claimed, and that lives but does not publish.
    private func givenAndStranded() throws -> (rig: Rig, claimed: GroupRecord) {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.handOver, id: 1)
        for answer in [StepAnswer.drained, .mediaReleased] { rig.take(answer) }
        rig.take(.swapped(.won))
        var claimed = try #require(rig.machine.record)
        claimed.version += 1
        claimed.epoch = claimed.epoch.next
        claimed.ownerProcess = Rig.process(Rig.beta)
        return (rig, claimed)
    }

    @Test(
        "a takeover takes the place of a handover whose partner claims and does not publish", arguments: [true, false])
    func takesAStrandedGroupBack(hasHeardOfTheClaim: Bool) throws {
        let (rig, claimed) = try givenAndStranded()
        if hasHeardOfTheClaim {
            rig.take(.recordRead(claimed))
            for counter in 1...UInt64(100) {
                rig.presence = Presence(process: Rig.process(Rig.beta), counter: counter, pool: Rig.pool(Rig.beta))
                #expect(rig.pass(Rig.heartbeat) == [], "it lives, and nothing is done by itself")
            }
        }
        var out = rig.command(.takeOver(force: false), id: 2)
        guard case .commandDone(.handOver, CommandID(rawValue: 1), let refusal?) = out.first else {
            return #expect(Bool(false), "the handover is not ended: \(out)")
        }
        #expect(refusal.contains("beta") && refusal.contains("not published"))
        if !hasHeardOfTheClaim {
            #expect(out.swap != nil)
            out = rig.take(.swapped(.lost(claimed)))
        }
        let back = try #require(out.swap)
        #expect(back.owner == Rig.alpha && back.epoch == claimed.epoch.next && back.phase == .claimed)
        #expect(back.sources == [Rig.alpha, Rig.beta] && back.mustFence == [Rig.process(Rig.beta)])
        #expect(rig.take(.swapped(.won)) == [.step(.fence([Rig.process(Rig.beta)]))])
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed, .recovered(end: LSN(640)), .logOpened] {
            rig.take(answer)
        }
        let done = rig.take(.swapped(.won))
        #expect(done.contains(.commandDone(.takeOver(force: false), CommandID(rawValue: 2), refusal: nil)))
        #expect(rig.machine.isOwner)
    }

    @Test func aHandoverWhosePartnerPublishesIsNotUndoneByATakeover() throws {
        let (rig, claimed) = try givenAndStranded()
        rig.command(.takeOver(force: false), id: 2)
        let out = rig.take(.swapped(.lost(published(claimed))))
        #expect(out == [.coordinator(.read)])
        let last = rig.take(.recordRead(rig.machine.record))
        #expect(last.swap == nil && last.refusal?.contains("not in sync") == true)
    }

    @Test func aStopWhosePartnerFallsSilentEndsWithoutClaiming() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.stop)
        rig.take(.drained)
        rig.take(.mediaReleased)
        rig.take(.swapped(.won))
        let last = rig.pass(5_000_000_000)
        #expect(last.contains(.stopped) && last.swap == nil)
    }

    @Test func aHandoverToAMirrorThatIsNotInSyncIsRefused() {
        let rig = Rig.owner()
        #expect(rig.command(.handOver).refusal != nil)
        #expect(rig.machine.isServing)
    }

    @Test func aHandoverWhoseMirrorIsLostGoesBackToServing() {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.handOver)
        let aborted = rig.take(.down)
        #expect(aborted.contains(.serving(.serve)) && aborted.refusal != nil)
        #expect(rig.machine.isServing && needs(rig))
        #expect(rig.take(.drained) == [])
    }

    @Test func aSecondCommandIsRefusedWhileTheFirstIsNotDone() {
        let rig = Rig.mirrored()
        rig.command(.handOver)
        #expect(rig.command(.takeOver(force: false)).refusal?.contains("another command") == true)
    }

    @Test func ofTwoEqualCommandsEachHearsOfItself() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.handOver, id: 1)
        guard case .commandDone(.handOver, CommandID(rawValue: 2), .some) = rig.command(.handOver, id: 2).first else {
            return #expect(Bool(false), "the second is not refused")
        }
        for answer in [StepAnswer.drained, .mediaReleased] { rig.take(answer) }
        rig.take(.swapped(.won))
        let record = try #require(rig.machine.record)
        #expect(
            rig.take(.recordRead(published(record))) == [.commandDone(.handOver, CommandID(rawValue: 1), refusal: nil)])
    }

    @Test func stoppingAMirroredOwnerHandsOver() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(rig.command(.stop) == [.serving(.drain)])
        rig.take(.drained)
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Rig.beta)
        #expect(!rig.take(.swapped(.won)).contains(.stopped), "the partner does not serve yet")
        #expect(rig.take(.recordRead(published(given))).contains(.stopped))
        #expect(rig.machine.isStopped)
    }

    @Test("A stop that finds the mirror lost ends and leaves the log as it is")
    func stopWithoutMirror() {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.take(.down)
        #expect(rig.command(.stop) == [.serving(.drain)])
        #expect(rig.take(.tick).contains(.step(.releaseMedia)))
        #expect(rig.take(.drained) == [])
        #expect(rig.take(.mediaReleased).contains(.stopped))
    }

    @Test("A stop that loses its mirror while it drains ends too")
    func stopLosesMirror() {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.stop)
        rig.take(.down)
        #expect(rig.take(.tick).contains(.step(.releaseMedia)))
        #expect(rig.take(.mediaReleased).contains(.stopped))
    }

    @Test("A stop with nobody to take over ends though the log does not reach the medium, and leaves it as it is")
    func stopThatCannotDrain() {
        let rig = Rig.owner()
        rig.take(.trouble(MediumTrouble(since: rig.now, reason: "it fails", isLogFull: false)))
        #expect(rig.command(.stop) == [.serving(.drain)])
        let limit = rig.machine.settings.drainAloneLimit
        #expect(!rig.pass(limit - 10 * Rig.heartbeat, renewing: rig.machine.record).contains(.step(.releaseMedia)))
        #expect(rig.pass(20 * Rig.heartbeat, renewing: rig.machine.record).contains(.step(.releaseMedia)))
        #expect(rig.take(.mediaReleased).contains(.stopped))
    }

    @Test("A stop whose group is claimed by the partner meanwhile ends too")
    func stopOvertaken() {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.stop)
        let theirs = Rig.record(
            owner: Rig.beta, epoch: 9, phase: .claimed, holders: [Rig.beta], version: 20)
        let out = rig.take(.renewed(startedAt: rig.now, record: theirs))
        #expect(out.contains(.step(.releaseMedia)) && out.contains(.stopped))
    }

    @Test("A stop goes on when the partner gives the group back, and ends")
    func stopIsGivenTheGroupBack() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.stop)
        rig.take(.drained)
        var back = try #require(rig.take(.mediaReleased).swap)
        rig.take(.swapped(.won))
        back.version += 2
        back.epoch = back.epoch.next.next
        back.owner = Rig.alpha
        #expect(rig.take(.recordRead(back)).swap?.owner == Rig.alpha)
        rig.take(.swapped(.won))
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed, .recovered(end: LSN(640)), .logOpened] {
            rig.take(answer)
        }
        #expect(rig.take(.swapped(.won)).contains(.serving(.drain)), "it does not stay the owner")
        rig.pass(2 * Rig.heartbeat, renewing: rig.machine.record)
        #expect(rig.take(.drained).contains(.step(.releaseMedia)))
        #expect(rig.take(.mediaReleased).contains(.stopped))
    }

    @Test func stoppingAnOwnerThatOneCopyIsEnoughForDrainsFirst() {
        let rig = Rig.owner()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(rig.command(.stop) == [.serving(.drain)])
        #expect(rig.take(.tick) == [])
        #expect(rig.take(.drained) == [.step(.releaseMedia)])
        #expect(rig.take(.mediaReleased).contains(.stopped))
    }

    @Test func stoppingAStandbyIsDoneAtOnce() {
        let rig = Rig.standby()
        #expect(rig.command(.stop).contains(.stopped))
    }
}

/// How far behind a mirror may be when acknowledgements begin to need it (documented in GroupMachine+Owner).
enum GroupMachineDistance {
    static let bytes: UInt64 = 4 << 20
}
