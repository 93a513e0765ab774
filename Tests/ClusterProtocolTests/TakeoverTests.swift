import ClusterProtocol
import Coordination
import LogModel
import Testing

/// From a node's start, or an owner's silence, to publication.
struct TakeoverTests {
    private static let alpha = Rig.alpha
    private static let beta = Rig.beta
    private static let dead = Rig.process(Rig.alpha)

    // MARK: Start

    @Test func onlyTheHomeNodeCreatesTheRecord() throws {
        let home = Rig(Self.alpha)
        let created = try #require(home.start(nil).swap)
        #expect(created.version == 1 && created.epoch == Epoch(1) && created.phase == .claimed)
        #expect(created.owner == Self.alpha && created.inSync == [Self.alpha] && created.logUUID == Rig.logUUID)
        let other = Rig(Self.beta)
        #expect(other.start(nil) == [])
        #expect(other.pass(5 * Rig.lease).swap == nil)
    }

    @Test("S19: an owner that restarts wins a swap before anything else, and fences the process that it was")
    func restart() throws {
        let rig = Rig(Self.alpha, pid: 2)
        let directives = rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), Rig.record())
        let claim = try #require(directives.swap)
        #expect(directives.count == 1)
        #expect(claim.epoch == Epoch(6) && claim.version == 11 && claim.phase == .claimed)
        #expect(claim.sources == [Self.alpha, Self.beta] && claim.mustFence == [Self.dead])
        #expect(rig.take(.swapped(.won)) == [.step(.fence([Self.dead]))])
    }

    @Test("S19: a node whose group was published by its partner meanwhile claims nothing")
    func overtaken() {
        let rig = Rig(Self.alpha, pid: 2)
        let record = Rig.record(owner: Self.beta, epoch: 6, holders: [Self.beta])
        #expect(rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), record) == [])
        #expect(rig.pass(5 * Rig.lease).swap == nil)
        #expect(rig.machine.state(rig.now) == .unavailable)
    }

    @Test("S19: while the coordinator does not answer, a node waits and serves nothing")
    func coordinatorUnknown() {
        let rig = Rig(Self.alpha)
        #expect(rig.take(.started(local: nil, Rig.standing)) == [.coordinator(.read)])
        #expect(rig.take(.unavailable("away")) == [])
        #expect(rig.take(.tick) == [])
        #expect(rig.take(.tick, after: Rig.heartbeat) == [.coordinator(.read)])
        #expect(!rig.machine.isServing)
    }

    // MARK: S16

    @Test("S16: fence, lock, seal, recover, open, publish, serve, in this order, each after the one before is done")
    func order() throws {
        let rig = Rig.standby()
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        let claim = try #require(
            rig.machine.record.map { _ in rig.take(.down) }.flatMap { _ in rig.machine.record })
        #expect(claim.version == 10)
        #expect(rig.take(.swapped(.won)) == [.step(.fence([Self.dead]))])
        #expect(rig.take(.sealed) == [] && rig.take(.recovered(end: LSN(64))) == [])
        #expect(rig.take(Rig.fenced) == [.step(.lockMedia(expected: [:]))])
        #expect(rig.take(.mediaLocked([:])) == [.step(.sealRegion)])
        #expect(rig.take(.sealed) == [.step(.recover(askingFirst: false))])
        #expect(
            rig.take(.recovered(end: LSN(100))) == [
                .step(.openLog(Incarnation(6), logUUID: Rig.logUUID, start: LSN(128), generation: 1))
            ])
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        let published = try #require(rig.take(.logOpened).swap)
        #expect(published.phase == .published && published.epoch == Epoch(6) && published.inSync == [Self.beta])
        #expect(
            published.mustFence.isEmpty && published.sources.isEmpty && published.ownerProcess == Rig.process(Self.beta)
        )
        #expect(!rig.machine.isServing)
        #expect(rig.take(.swapped(.won)).contains(.serving(.serve)))
        #expect(rig.machine.isServing)
    }

    @Test("S16: a fence that is not confirmed blocks the takeover and is tried again")
    func fenceFails() {
        let rig = Rig.standby()
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        rig.take(.swapped(.won))
        #expect(rig.take(.fenced([], problem: "still alive")) == [])
        #expect(rig.machine.state(rig.now) == .fencing && rig.machine.reason(rig.now) == "still alive")
        #expect(rig.take(.tick) == [])
        #expect(rig.take(.tick, after: Rig.heartbeat) == [.step(.fence([Self.dead]))])
    }

    private static let shutOut: StepAnswer = {
        let reserved = GroupRecord.Fence.Confirmation(
            method: GroupRecord.Fence.Confirmation.reservation, by: "test", at: "now")
        return .fenced([GroupRecord.Fence(target: Self.dead, confirmed: reserved)], problem: nil)
    }()

    @Test("S17, S18: of an owner that was kept from the medium, and may live, a claim is published a lease later")
    func shutOutAndAlive() {
        let rig = Rig.standby()
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        rig.take(.swapped(.won))
        let won = rig.now
        for answer in [Self.shutOut, .mediaLocked([:]), .sealed, .recovered(end: LSN(100))] { rig.take(answer) }
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(rig.take(.logOpened).swap == nil)
        while rig.now + Rig.heartbeat < won + Rig.lease {
            #expect(rig.take(.tick, after: Rig.heartbeat).swap == nil)
            rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        }
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record), after: Rig.heartbeat)
        #expect(rig.take(.tick).swap?.phase == .published)
    }

    @Test("S17, S18: of an owner that was alone in sync a reservation confirms nothing: it must be seen dead")
    func shutOutAndAlone() throws {
        let rig = Rig(Self.beta)
        rig.start(local: nil, Rig.record(holders: [Self.alpha]))
        rig.now += Rig.lease
        let forced = try #require(rig.command(.takeOver(force: true)).swap)
        #expect(forced.setsAsideLog)
        rig.take(.swapped(.won))
        rig.take(Self.shutOut)
        #expect(rig.machine.state(rig.now) == .fencing)
        #expect(rig.machine.reason(rig.now)?.contains("run `twinlog confirm-dead alpha`") == true)
        rig.take(.tick, after: Rig.heartbeat)
        #expect(rig.take(Rig.fenced) == [.step(.lockMedia(expected: [:]))])
    }

    @Test("S20: a group that was published is not new to whoever claims it: a medium that is missing is not made anew")
    func publishedIsNotNew() throws {
        let rig = Rig.standby()
        let claim = try #require(
            rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)).swap)
        #expect(claim.phase == .claimed && !claim.isNew)
    }

    @Test("S5: a corrupt log is not stepped over: the node blocks and lets go of the medium")
    func corrupt() {
        let rig = Rig.standby()
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed] { rig.take(answer) }
        #expect(rig.take(.refused("hole")) == [.step(.releaseMedia)])
        #expect(rig.machine.state(rig.now) == .unavailable && rig.machine.reason(rig.now) == "hole")
    }

    @Test("S16: who claims after a claim that was not finished fences both, and finds the same sources")
    func claimAnew() throws {
        let first = Rig.record(
            epoch: 6, phase: .claimed, holders: [Self.alpha, Self.beta],
            mustFence: [Rig.process(Self.beta, 9)], incarnation: 5)
        let rig = Rig.standby(first)
        let claim = try #require(rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)).swap)
        #expect(claim.sources == [Self.alpha, Self.beta] && claim.epoch == Epoch(7))
        #expect(claim.mustFence == [Rig.process(Self.beta, 9), Self.dead])
    }

    @Test("S15: a claim that another node overtook ends, and the medium is let go of")
    func overtakenWhileRecovering() {
        let rig = Rig.standby()
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { rig.take(answer) }
        let theirs = Rig.record(
            epoch: 7, phase: .claimed, holders: [Self.alpha, Self.beta], version: 12)
        #expect(
            rig.take(.renewed(startedAt: rig.now, record: theirs)) == [
                .serving(.stop), .rail(Rig.alpha, .close), .step(.releaseMedia),
            ])
        #expect(rig.take(.sealed) == [])
    }

    // MARK: Suspicion

    @Test("S16: silence on the rail alone is not enough, nor is silence at the coordinator alone")
    func suspicion() throws {
        let rig = Rig.standby()
        for counter in 1...60 {
            rig.presence = Presence(process: Self.dead, counter: UInt64(counter), pool: Rig.pool(Self.alpha))
            #expect(rig.pass(Rig.heartbeat).swap == nil)
        }
        #expect(rig.pass(3 * Rig.lease, heard: true).swap == nil)
        #expect(rig.pass(Rig.timeout - Rig.heartbeat).swap == nil)
        let claim = try #require(rig.pass(2 * Rig.heartbeat).swap)
        #expect(claim.owner == Self.beta && claim.epoch == Epoch(6) && claim.mustFence == [Self.dead])
    }

    @Test("S16: a coordinator that does not answer, or whose answer is old, says nothing about the owner")
    func noNewsOfTheOwner() {
        let rig = Rig.standby()
        let asked = rig.now
        #expect(rig.pass(10 * Rig.lease, asking: false).swap == nil)
        #expect(rig.take(.presence(of: rig.peer, nil, deadProcess: nil, askedAt: asked)).swap == nil)
        #expect(rig.take(.presence(of: rig.peer, nil, deadProcess: nil, askedAt: rig.now)).swap != nil)
    }

    @Test func anOwnerWhoseProcessIsGoneIsReplacedAtOnce() {
        let rig = Rig.standby()
        #expect(
            rig.take(.presence(of: rig.peer, nil, deadProcess: Rig.process(Self.alpha, 99), askedAt: rig.now)).swap
                == nil)
        #expect(
            rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)).swap?.owner == Self.beta)
    }

    @Test("S13: a mirror out of sync never takes over by itself, and not by command without force")
    func stale() throws {
        let rig = Rig.standby(Rig.record(holders: [Self.alpha]))
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        #expect(rig.pass(10 * Rig.lease).swap == nil)
        #expect(rig.machine.state(rig.now) == .unavailable && !rig.machine.takeoverPossible(rig.now))
        #expect(rig.command(.takeOver(force: false)) == [.coordinator(.read)])
        let refused = rig.take(.recordRead(rig.machine.record))
        #expect(refused.swap == nil && refused.refusal?.contains("not in sync") == true)
        let forced = try #require(rig.command(.takeOver(force: true)).swap)
        #expect(forced.sources == [Self.beta] && forced.mustFence == [Self.dead])
        // S9: what is on the medium may be newer than this log.
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { rig.take(answer) }
        #expect(rig.take(.sealed) == [.step(.setLogAside)])
        rig.take(.recovered(end: LSN(640)))
        #expect(rig.take(.logOpened).swap?.setsAsideLog == false)
    }

    @Test("a mirror that was put in sync a moment ago takes over by command, though it has not heard of it yet")
    func justJoined() throws {
        let rig = Rig.standby(Rig.record(holders: [Self.alpha]))
        #expect(rig.command(.takeOver(force: false)) == [.coordinator(.read)])
        let claim = try #require(rig.take(.recordRead(Rig.record(version: 11))).swap)
        #expect(claim.owner == Self.beta && claim.sources == [Self.alpha, Self.beta])
    }

    @Test("S9: a taker by force that died before it published sets its log aside again, and does not replay it")
    func forcedAndCut() throws {
        let rig = Rig(Self.beta, pid: 2)
        var record = Rig.record(owner: Self.beta, epoch: 6, phase: .claimed, holders: [Self.beta], incarnation: 5)
        record.claim?.setsAsideLog = true
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), record)
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { rig.take(answer) }
        #expect(rig.take(.sealed) == [.step(.setLogAside)])
    }

    @Test("S20: a mirror with another pool than the coordinator knows is not in sync, whatever the record says")
    func otherPool() {
        let rig = Rig(Self.beta, pool: UUID128(high: 9, low: 9))
        rig.start(Rig.record())
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        #expect(rig.pass(10 * Rig.lease).swap == nil)
    }

    // MARK: S20

    @Test("S20: an owner that lost its pool gives the group to the partner that has everything")
    func amnesia() throws {
        let rig = Rig(Self.alpha, pid: 2, pool: UUID128(high: 9, low: 9))
        let given = try #require(rig.start(Rig.record()).swap)
        #expect(given.owner == Self.beta && given.phase == .claimed && given.sources == [Self.beta])
        #expect(given.mustFence == [Self.dead] && given.epoch == Epoch(6))
    }

    @Test("S20: an owner that lost the only complete copy blocks")
    func amnesiaWithoutPartner() {
        let rig = Rig(Self.alpha, pid: 2, pool: UUID128(high: 9, low: 9))
        #expect(rig.start(Rig.record(holders: [Self.alpha])) == [])
        #expect(rig.machine.state(rig.now) == .unavailable)
    }

    @Test(
        "S20: a coordinator that knows less than the pool is refused until an operator decides",
        arguments: [Rig.record(epoch: 4), nil])
    func coordinatorForgot(record: GroupRecord?) throws {
        let rig = Rig(Self.alpha, pid: 2)
        #expect(rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), record) == [])
        #expect(rig.machine.state(rig.now) == .unavailable)
        let decided = try #require(rig.command(.forgetCoordinator).swap)
        #expect(decided.epoch == Epoch(6) && decided.version == (record?.version ?? 0) + 1)
        #expect(decided.owner == Self.alpha && decided.phase == .claimed && decided.sources == [Self.alpha])
    }

    @Test("S4, S20: a forced claim over a coordinator that knows less is of a later epoch than the log here")
    func forcedOverForgetfulCoordinator() throws {
        let rig = Rig(Self.beta)
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(9)), Rig.record(epoch: 4))
        #expect(rig.machine.state(rig.now) == .unavailable)
        #expect(rig.command(.takeOver(force: false)).refusal != nil)
        rig.now += Rig.lease
        let claim = try #require(rig.command(.takeOver(force: true)).swap)
        #expect(claim.epoch == Epoch(10) && claim.owner == Self.beta)
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed] { rig.take(answer) }
        let start = LSN(640)
        #expect(
            rig.take(.recovered(end: start)) == [
                .step(.openLog(Incarnation(10), logUUID: Rig.logUUID, start: start, generation: 1))
            ])
    }

    @Test("S20: a pool with another log of the group blocks")
    func otherLog() {
        let rig = Rig(Self.beta)
        #expect(rig.start(local: LocalLog(logUUID: .zero, incarnation: Incarnation(1)), Rig.record()) == [])
        #expect(rig.machine.state(rig.now) == .unavailable)
    }

    // MARK: The coordinator's answers

    @Test("A swap without an answer is looked up before anything else: won if the record is the wanted one")
    func unknownOutcomeWon() throws {
        let rig = Rig.standby()
        let claim = try #require(rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)).swap)
        #expect(rig.take(.swapped(.unknown("no answer"))) == [])
        #expect(rig.take(.tick) == [])
        #expect(rig.take(.tick, after: Rig.heartbeat) == [.coordinator(.read)])
        #expect(rig.take(.tick, after: Rig.heartbeat) == [])
        #expect(rig.take(.recordRead(claim)) == [.step(.fence([Self.dead]))])
    }

    /// A claim whose outcome is unknown; the record is still the old one, so a swap that changes nothing is on its way.
    private func barred() throws -> (rig: Rig, claim: GroupRecord, barrier: GroupRecord) {
        let rig = Rig.standby()
        let claim = try #require(rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)).swap)
        rig.take(.swapped(.unknown("no answer")))
        rig.take(.tick, after: Rig.heartbeat)
        let barrier = try #require(rig.take(.recordRead(Rig.record())).swap)
        #expect(barrier == Rig.record(version: 11))
        return (rig, claim, barrier)
    }

    @Test("A2: a swap of unknown outcome counts as failed only when another of the same version is won")
    func unknownOutcomeBarred() throws {
        let (rig, _, _) = try barred()
        let again = try #require(rig.take(.swapped(.won)).swap)
        #expect(again.owner == Self.beta && again.version == 12)
        #expect(rig.take(.swapped(.won)) == [.step(.fence([Self.dead]))])
    }

    @Test("A2: a swap of unknown outcome that came into effect late is won; its barrier has lost")
    func unknownOutcomeLate() throws {
        let (rig, claim, _) = try barred()
        #expect(rig.take(.swapped(.lost(claim))) == [.step(.fence([Self.dead]))])
    }

    @Test(
        "A2: a barrier of unknown outcome itself is looked up with the swap that it is for", arguments: [true, false])
    func barrierUnknown(hasClaimWon: Bool) throws {
        let (rig, claim, barrier) = try barred()
        #expect(rig.take(.swapped(.unknown("no answer"))) == [])
        #expect(rig.take(.tick, after: Rig.heartbeat) == [.coordinator(.read)])
        let out = rig.take(.recordRead(hasClaimWon ? claim : barrier))
        if hasClaimWon {
            #expect(out == [.step(.fence([Self.dead]))])
        } else {
            #expect(out.swap?.version == 12 && out.swap?.owner == Self.beta)
        }
    }

    @Test("A swap of unknown outcome that was overtaken is given up")
    func unknownOutcomeOvertaken() throws {
        let (rig, _, _) = try barred()
        let theirs = Rig.record(epoch: 6, holders: [Self.alpha], version: 11)
        #expect(rig.take(.swapped(.lost(theirs))) == [])
        #expect(rig.machine.record == theirs)
    }

    @Test("A swap that failed was not made: it is made again without a question")
    func failedSwap() {
        let rig = Rig.standby()
        let claim = rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)).swap
        #expect(rig.take(.unavailable("away")) == [])
        #expect(rig.take(.tick, after: Rig.heartbeat).swap == claim)
    }

    @Test func atMostOneCoordinatorCallIsOut() {
        let rig = Rig.standby()
        #expect(rig.take(.recordChanged) == [.coordinator(.read)])
        #expect(rig.take(.recordChanged) == [])
        #expect(rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)) == [])
        #expect(rig.take(.recordRead(Rig.record())).swap != nil)
    }

    // MARK: Letting the owner in

    private func request(epoch: UInt64, incarnation: UInt64 = 5, from: NodeID = Rig.alpha, log: UUID128 = Rig.logUUID)
        -> AttachRequest
    {
        AttachRequest(
            group: GroupID("g0"), from: from, epoch: Epoch(epoch), logUUID: log, incarnation: Incarnation(incarnation),
            head: .zero, acknowledged: .zero, ringBytes: 1 << 20)
    }

    @Test(
        "the death of an owner is acted on at once by who mirrored it, and after a lease by who has only started",
        arguments: [true, false])
    func deathSoonAfterTheStart(mirrors: Bool) {
        let rig = Rig(Self.beta)
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), Rig.record())
        if mirrors { rig.take(.attachRequested(request(epoch: 5))) }
        let claim = rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now)).swap
        #expect((claim?.owner == Self.beta) == mirrors)
        #expect(mirrors || rig.take(.tick, after: Rig.lease).swap?.owner == Self.beta)
    }

    @Test("S12, S15: only the published owner of the record's own epoch may write the region")
    func attach() {
        let rig = Rig.standby()
        #expect(
            rig.take(.attachRequested(request(epoch: 5))) == [
                .rail(Rig.alpha, .acceptAttach(request(epoch: 5), generation: 1))
            ])
        #expect(rig.take(.attachRequested(request(epoch: 4))).attachRefusal == .staleEpoch)
        let other = request(epoch: 5, log: .zero)
        #expect(rig.take(.attachRequested(other)).attachRefusal == .staleEpoch)
    }

    @Test(
        "S13: while this log counts as in sync, it is not begun anew for another incarnation of it",
        arguments: [UInt64(3), 5])
    func attachOfAnotherIncarnation(incarnation: UInt64) {
        let record = Rig.record(epoch: 6, incarnation: 4)
        let rig = Rig(Self.beta)
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(4)), record)
        let other = request(epoch: 6, incarnation: incarnation)
        // What would be lost is asked of the coordinator first.
        #expect(rig.take(.attachRequested(other)) == [.coordinator(.read)])
        #expect(rig.take(.recordRead(record)).attachRefusal == .notReady)
        let same = request(epoch: 6, incarnation: 4)
        #expect(rig.take(.attachRequested(same)) == [.rail(Rig.alpha, .acceptAttach(same, generation: 1))])
        // Counted out, or another pool than the one that was in sync: nobody needs what is here.
        rig.take(.attachRequested(request(epoch: 7, incarnation: 5)))
        let counted = Rig.record(epoch: 7, holders: [Self.alpha], version: 11)
        #expect(
            rig.take(.recordRead(counted)) == [
                .rail(Rig.alpha, .acceptAttach(request(epoch: 7, incarnation: 5), generation: 1))
            ])
        let stranger = Rig(Self.beta, pool: UUID128(high: 9, low: 9))
        stranger.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(4)), record)
        stranger.take(.attachRequested(other))
        #expect(stranger.take(.recordRead(record)) == [.rail(Rig.alpha, .acceptAttach(other, generation: 1))])
    }

    @Test("A newer epoch than this node knows is looked up before it is answered")
    func attachOfNewerEpoch() {
        let rig = Rig.standby()
        #expect(rig.take(.attachRequested(request(epoch: 6))) == [.coordinator(.read)])
        #expect(
            rig.take(.recordRead(Rig.record(epoch: 6, version: 11, incarnation: 5))) == [
                .rail(Rig.alpha, .acceptAttach(request(epoch: 6), generation: 1))
            ])
    }

    @Test("S12: while it takes over, a node lets nobody write its region")
    func attachWhileRecovering() {
        let rig = Rig.standby()
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        rig.take(.swapped(.won))
        #expect(rig.take(.attachRequested(request(epoch: 5))).attachRefusal == .notReady)
    }
}
