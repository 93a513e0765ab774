import ClusterProtocol
import Coordination
import LogModel
import Testing

/// What pool and coordinator know of each other: an older copy of either is not believed (S20).
struct KnownCopyTests {
    private static let alpha = Rig.alpha
    private static let beta = Rig.beta
    private static let local = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5))

    /// `member`'s copy as the record knows it.
    private func record(
        of node: NodeID = Rig.alpha, generation: UInt64, owner: NodeID = Rig.alpha, holders: [NodeID]? = nil
    ) -> GroupRecord {
        var record = Rig.record(owner: owner, holders: holders ?? [Self.alpha, Self.beta])
        record.members[node]?.generation = generation
        return record
    }

    // MARK: Every start counts

    @Test("S20: a standby's start is counted at the coordinator, and then confirmed in its pool")
    func counted() throws {
        let rig = Rig(Self.beta)
        let out = rig.start(local: Self.local, generation: 4, record(of: Self.beta, generation: 3))
        let swap = try #require(out.swap)
        #expect(swap.version == 11 && swap.epoch == Epoch(5) && swap.members[Self.beta]?.generation == 4)
        #expect(swap.holders == [Self.alpha, Self.beta] && swap.owner == Self.alpha)
        var directives: [Directive] = []
        rig.machine.handle(.coordinator(.swapped(.won)), now: rig.now, into: &directives)
        #expect(directives.contains(.region(.confirmStart)))
        #expect(rig.pass(Rig.lease, heard: true).swap == nil, "once")
    }

    @Test("S20: an owner's restart is counted by its claim")
    func countedByClaim() throws {
        let rig = Rig(Self.alpha, pid: 2)
        let claim = try #require(rig.start(local: Self.local, generation: 4, record(generation: 3)).swap)
        #expect(claim.members[Self.alpha]?.generation == 4 && claim.phase == .claimed)
    }

    @Test("S20: a mirror answers an owner only when its start is counted")
    func countedBeforeItMirrors() {
        let rig = Rig(Self.beta)
        let record = record(of: Self.beta, generation: 3)
        let enlisting = rig.start(local: Self.local, generation: 4, record)
        let request = AttachRequest(
            group: GroupID("g0"), from: Self.alpha, epoch: Epoch(5), logUUID: Rig.logUUID, incarnation: Incarnation(5),
            head: .zero, acknowledged: .zero, ringBytes: 1 << 20)
        #expect(enlisting.swap != nil)
        #expect(rig.take(.attachRequested(request)) == [])
        #expect(rig.take(.swapped(.won)) == [.rail(Rig.alpha, .acceptAttach(request, generation: 4))])
    }

    @Test("S20: nor when its start could not be counted before")
    func countedBeforeItMirrorsAfterAFailure() {
        let rig = Rig(Self.beta)
        let enlisting = rig.start(local: Self.local, generation: 4, record(of: Self.beta, generation: 3))
        rig.take(.unavailable("away"))
        let request = AttachRequest(
            group: GroupID("g0"), from: Self.alpha, epoch: Epoch(5), logUUID: Rig.logUUID, incarnation: Incarnation(5),
            head: .zero, acknowledged: .zero, ringBytes: 1 << 20)
        let out = rig.take(.attachRequested(request), after: Rig.heartbeat)
        #expect(out.count == 1 && out.swap != nil && out.swap == enlisting.swap)
        #expect(rig.take(.swapped(.won)) == [.rail(Rig.alpha, .acceptAttach(request, generation: 4))])
    }

    // MARK: An older copy of a pool

    @Test("S20: a copy of the start before counts on by a step of its own, and is not taken for the start that was")
    func copyOfTheStartBefore() {
        // What was cut while it was counted is the start that the coordinator knows; or it was not counted yet.
        for (known, isSource) in [(UInt64(9), true), (4, true), (7, false), (12, false)] {
            let rig = Rig(Self.beta)
            var out = rig.start(local: Self.local, generation: 9, counted: 4, record(of: Self.beta, generation: known))
            if out.swap != nil { out = rig.take(.swapped(.won)) }
            #expect((rig.pass(5 * Rig.lease).swap?.owner == Self.beta) == isSource)
        }
    }

    @Test("S20, A6, O15: an owner with an older copy of its pool leaves the group to its partner")
    func olderPoolOfTheOwner() throws {
        let rig = Rig(Self.alpha, pid: 2)
        let out = rig.start(local: Self.local, generation: 4, record(generation: 7))
        let given = try #require(out.swap)
        #expect(given.owner == Self.beta && given.holders == [Self.beta])
    }

    @Test("S20, O15: alone it serves nothing, and says what it is")
    func olderPoolAlone() {
        let rig = Rig(Self.alpha, pid: 2)
        #expect(rig.start(local: Self.local, generation: 4, record(generation: 7, holders: [Self.alpha])).swap == nil)
        #expect(rig.machine.state(rig.now) == .unavailable)
        let reason = rig.machine.reason(rig.now) ?? ""
        #expect(reason.contains("older copy") && reason.contains("generation 3") && reason.contains("counted 7"))
        #expect(rig.command(.forgetCoordinator).refusal?.contains("older copy") == true, "A11, S9")
    }

    @Test(
        "S20, A6: a standby with an older copy of its pool, or of its log, takes nothing over",
        arguments: [true, false])
    func olderPoolOfTheMirror(isOfAnOlderOpening: Bool) {
        let rig = Rig(Self.beta)
        let known = record(of: Self.beta, generation: isOfAnOlderOpening ? 4 : 7)
        let log = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(isOfAnOlderOpening ? 3 : 5))
        rig.start(local: log, generation: 4, known)
        #expect(rig.pass(5 * Rig.lease).swap == nil)
        #expect(!rig.machine.takeoverPossible(rig.now) && rig.machine.state(rig.now) == .unavailable)
    }

    @Test(
        "S13, S20, A6: an older copy that counts as in sync is counted out before it is begun anew, above what was counted"
    )
    func olderCopyIsBegunAnew() throws {
        let rig = Rig(Self.beta)
        let known = record(of: Self.beta, generation: 7)
        rig.start(local: Self.local, generation: 4, known)
        let request = AttachRequest(
            group: GroupID("g0"), from: Self.alpha, epoch: Epoch(5), logUUID: Rig.logUUID, incarnation: Incarnation(5),
            head: .zero, acknowledged: .zero, ringBytes: 1 << 20)
        #expect(rig.take(.attachRequested(request)).attachRefusal == .lostLog)
        var out = known
        out.version += 1
        out.epoch = out.epoch.next
        out.setHolders([Self.alpha])
        var again = request
        again.epoch = out.epoch
        rig.take(.attachRequested(again))
        #expect(rig.take(.recordRead(out)) == [.rail(Rig.alpha, .acceptAttach(again, generation: 8))])
    }

    @Test("S14, S20: a mirror joins with its pool, its generation and the log's opening")
    func joinsWithAll() throws {
        let rig = Rig.owner()
        rig.take(.up)
        let copy = MirrorContents(pool: Rig.pool(Self.beta), generation: 6, isKept: false)
        let swap = try #require(rig.take(.attached(durable: LSN(640), copy)).swap)
        let member = try #require(swap.members[Self.beta])
        #expect(member.role == .inSync && member.generation == 6 && member.incarnation == Incarnation(2))
    }

    @Test(
        "S20: a mirror that comes back as an older start of its pool is counted out",
        arguments: [(6, false), (7, true), (8, true)])
    func comesBackOlder(generation: UInt64, isKnown: Bool) throws {
        let rig = Rig.owner()
        rig.take(.up)
        let copy = MirrorContents(pool: Rig.pool(Self.beta), generation: 7, isKept: false)
        rig.take(.attached(durable: LSN(640), copy))
        rig.take(.swapped(.won))
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.take(.down)
        rig.take(.tick)
        rig.attach(kept: true, generation: generation)
        rig.take(.tick)
        #expect((rig.machine.state(rig.now) == .mirrored) == isKnown)
    }

    // MARK: An older coordinator

    @Test(
        "S20, A5: a pool that has seen a later epoch, or a later start, refuses the coordinator",
        arguments: [(6, 3), (5, 9)])
    func olderCoordinator(epoch: UInt64, generation: UInt64) throws {
        let rig = Rig(Self.alpha, pid: 2)
        let out = rig.start(local: Self.local, generation: generation, seen: epoch, record(generation: 3))
        #expect(out.swap == nil && rig.machine.state(rig.now) == .unavailable)
        #expect(rig.machine.reason(rig.now)?.contains("lost its memory") == true)
        let decided = try #require(rig.command(.forgetCoordinator).swap)
        #expect(decided.epoch > Epoch(epoch) && decided.holders == [Self.alpha])
        #expect(decided.members[Self.alpha]?.generation == generation)
        #expect(decided.mustFence == [Rig.process(Self.alpha, 1)])
    }

    @Test("S20: a decision that was overtaken by the count of the partner's start is made again, and answered")
    func decisionOvertaken() throws {
        let rig = Rig(Self.alpha, pid: 2)
        rig.start(local: Self.local, generation: 4, seen: 6, record(generation: 3))
        #expect(rig.command(.forgetCoordinator).swap?.version == 11)
        var counted = record(generation: 3)
        counted.version += 1
        counted.members[Self.beta]?.generation = 2
        #expect(rig.take(.swapped(.lost(counted))) == [])
        let again = try #require(rig.take(.tick, after: Rig.heartbeat).swap)
        #expect(again.version == 12 && again.holders == [Self.alpha])
        rig.take(.swapped(.won))
        rig.take(.renewed(startedAt: rig.now, record: again))
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed, .recovered(end: LSN(640)), .logOpened] {
            rig.take(answer)
        }
        #expect(
            rig.take(.swapped(.won)).contains(.commandDone(.forgetCoordinator, CommandID(rawValue: 1), refusal: nil)))
    }

    @Test("A11: what is blocked for another reason is not decided by forgetting the coordinator")
    func forgetOnlyWhatWasForgotten() {
        let rig = Rig(Self.alpha, pid: 2, pool: UUID128(high: 9, low: 9))
        #expect(rig.start(local: Self.local, record(generation: 1, holders: [Self.alpha])).swap == nil)
        #expect(rig.command(.forgetCoordinator).refusal?.contains("not the one that the coordinator knows") == true)
    }

    @Test("S20: a standby whose pool is not the counted one does not say that the group is mirrored")
    func standbyWithAnotherPool() {
        let rig = Rig(Self.beta, pool: UUID128(high: 9, low: 9))
        rig.start(Rig.record())
        rig.take(.heard)
        #expect(rig.machine.state(rig.now) == .degraded)
        #expect(rig.machine.reason(rig.now)?.contains("is not the one that the coordinator knows") == true)
    }

    @Test(
        "S20: a copy that is begun anew has one generation, however often its owner attaches before it has counted it")
    func attachedTwiceBeforeItIsCounted() throws {
        let rig = Rig(Self.beta)
        let record = record(of: Self.beta, generation: 9, holders: [Self.alpha])
        rig.start(local: Self.local, generation: 4, record)
        let request = AttachRequest(
            group: GroupID("g0"), from: Self.alpha, epoch: Epoch(5), logUUID: Rig.logUUID, incarnation: Incarnation(5),
            head: .zero, acknowledged: .zero, ringBytes: 1 << 20)
        for _ in 1...2 {
            #expect(rig.take(.attachRequested(request)) == [.rail(Rig.alpha, .acceptAttach(request, generation: 10))])
        }

        var joined = record
        joined.version += 1
        joined.members[Self.beta]?.generation = 10
        joined.members[Self.beta]?.incarnation = Incarnation(5)
        joined.setHolders([Self.alpha, Self.beta])
        rig.take(.recordChanged)
        rig.take(.recordRead(joined))
        rig.take(.heard)
        #expect(rig.machine.state(rig.now) == .mirrored)
    }

    // MARK: A claim by force

    @Test("A7: who was complete takes back without force what a forced claim has not published, and replays its log")
    func takenBack() throws {
        let stale = Rig(Self.beta)
        stale.start(local: Self.local, record(generation: 1, holders: [Self.alpha]))
        stale.now += Rig.lease
        let forced = try #require(stale.command(.takeOver(force: true)).swap)
        #expect(forced.setsAsideLog && forced.previousHolders == [Self.alpha] && forced.holders == [Self.beta])
        for force in [false, true] {
            let complete = Rig(Self.alpha, pid: 2)
            complete.start(local: Self.local, forced)
            let back = try #require(complete.command(.takeOver(force: force)).swap)
            #expect(!back.setsAsideLog && back.holders == [Self.alpha] && back.previousHolders.isEmpty)
            complete.take(.swapped(.won))
            for answer in [Rig.fenced, .mediaLocked([:])] { complete.take(answer) }
            #expect(complete.take(.sealed) == [.step(.recover(askingFirst: false))])
        }
    }

    /// The group is given to beta because of what alpha's log is like.
    private func givenAway() -> GroupRecord {
        var given = Rig.record(owner: Self.beta, epoch: 6, phase: .claimed, holders: [Self.beta], incarnation: 5)
        given.claim?.previousHolders = [Self.alpha]
        given.ownerProcess = nil
        return given
    }

    @Test(
        "S9, A7: who gave the group away without its log and claims it by force sets its log aside in every later start"
    )
    func forcedByWhoGaveAway() throws {
        let another = UUID128(high: 9, low: 9)
        let older = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(3))
        let forcing = Rig(Self.alpha, pid: 2, pool: another)
        forcing.start(local: older, givenAway())
        let forced = try #require(forcing.command(.takeOver(force: true)).swap)
        #expect(forced.setsAsideLog && forced.previousHolders == [Self.beta] && forced.holders == [Self.alpha])

        let again = Rig(Self.alpha, pid: 3, pool: another)
        let claim = try #require(again.start(local: older, forced).swap)
        #expect(claim.setsAsideLog && claim.previousHolders == [Self.beta])
        again.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { again.take(answer) }
        #expect(again.take(.sealed) == [.step(.setLogAside)], "the older log would be written over newer data")
    }

    @Test("A7: a claim by force goes on after a restart, though an owner was about to begin the log here anew")
    func forcedWhileTheMirrorIsPrepared() throws {
        let record = Rig.record(owner: Self.beta, holders: [Self.beta])
        let older = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(3))
        let forcing = Rig(Self.alpha)
        forcing.start(local: older, record)
        let request = AttachRequest(
            group: GroupID("g0"), from: Self.beta, epoch: Epoch(5), logUUID: Rig.logUUID, incarnation: Incarnation(5),
            head: .zero, acknowledged: .zero, ringBytes: 1 << 20)
        forcing.take(.attachRequested(request))
        forcing.take(.recordRead(record))
        forcing.now += Rig.lease
        let forced = try #require(forcing.command(.takeOver(force: true)).swap)

        // The region was never prepared.
        let again = Rig(Self.alpha, pid: 2)
        #expect(again.start(local: older, forced).swap?.setsAsideLog == true)
    }

    @Test(
        "A7: a claim by force of a node with an older copy of its pool goes on after a restart, and sets its log aside")
    func forcedWithAnOlderCopy() throws {
        var record = Rig.record(owner: Self.beta, holders: [Self.beta])
        record.members[Self.alpha]?.generation = 9
        let older = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(3))
        let forcing = Rig(Self.alpha)
        forcing.start(local: older, generation: 5, record)
        forcing.now += Rig.lease
        let forced = try #require(forcing.command(.takeOver(force: true)).swap)
        #expect(forced.members[Self.alpha]?.generation == 10)

        // It ended before its log was opened, so the pool knows nothing of the claim.
        let again = Rig(Self.alpha, pid: 2)
        let claim = try #require(again.start(local: older, generation: 5, forced).swap)
        #expect(claim.setsAsideLog && claim.owner == Self.alpha && claim.previousHolders == [Self.beta])
        again.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { again.take(answer) }
        #expect(again.take(.sealed) == [.step(.setLogAside)])

        let another = Rig(Self.alpha, pid: 3, pool: UUID128(high: 9, low: 9))
        #expect(another.start(local: older, generation: 5, forced).swap == nil, "of another pool nobody decided that")
    }

    @Test("A7: who takes back what it gave away does not make the other complete log worthless")
    func backAndForth() throws {
        let first = Rig(Self.alpha, pid: 2)
        first.start(local: Self.local, givenAway())
        let back = try #require(first.command(.takeOver(force: false)).swap)
        #expect(!back.setsAsideLog && back.holders == [Self.alpha] && back.previousHolders == [Self.beta])

        first.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed] { first.take(answer) }
        first.take(.logCorrupt("it is corrupt"))
        #expect(first.machine.reason(first.now)?.contains("`twinlog takeover --on beta`") == true)

        let second = Rig(Self.beta)
        second.start(local: Self.local, back)
        let claim = try #require(second.command(.takeOver(force: false)).swap)
        #expect(!claim.setsAsideLog && claim.holders == [Self.beta] && claim.previousHolders == [Self.alpha])
    }

    @Test("A4: of a log that the recovery tool wrote to the medium no copy counts: whoever claims sets its own aside")
    func replayed() throws {
        var record = record(generation: 1)
        record.phase = .claimed
        record.setHolders([])
        record.ownerProcess = nil
        record.claim?.replayed = GroupRecord.Replayed(node: Self.alpha, end: LSN(640), at: "now")
        for node in [Self.alpha, Self.beta] {
            let rig = Rig(node)
            var out = rig.start(local: Self.local, record)
            if out.swap == nil { out = rig.pass(3 * Rig.lease) }
            let claim = try #require(out.swap)
            #expect(claim.owner == node && claim.holders == [node])
            rig.take(.swapped(.won))
            for answer in [Rig.fenced, .mediaLocked([:])] { rig.take(answer) }
            #expect(rig.take(.sealed) == [.step(.setLogAside)])
            rig.take(.recovered(end: LSN(640)))
            #expect(rig.take(.logOpened).swap?.replayed == nil)
        }
    }
}
