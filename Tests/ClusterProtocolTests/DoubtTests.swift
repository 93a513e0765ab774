import ClusterProtocol
import Coordination
import LogModel
import Testing

/// S5: a log that is in doubt does not decide where there is another copy.
struct DoubtTests {
    private static let alpha = Rig.alpha
    private static let beta = Rig.beta

    /// Alpha's second process, which has claimed and is about to replay what the first one left.
    private func restarted(_ record: GroupRecord = Rig.record()) -> (rig: Rig, directives: [Directive]) {
        let rig = Rig(Self.alpha, pid: 2)
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), record)
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { rig.take(answer) }
        return (rig, rig.take(.sealed))
    }

    private func presence(_ counter: UInt64) -> Presence {
        Presence(process: Rig.process(Self.beta), counter: counter, pool: Rig.pool(Self.beta))
    }

    @Test("S5: an owner that restarts leaves its log's end to its partner, which lives and holds everything")
    func leavesItsEndToThePartner() throws {
        let (rig, directives) = restarted()
        #expect(directives == [.step(.recover(askingFirst: true))])
        rig.take(.presence(of: rig.peer, presence(1), deadProcess: nil, askedAt: rig.now))
        #expect(rig.take(.tailInDoubt("torn at 640")) == [])
        // What was there before is no sign of life: a file outlives its writer.
        rig.take(.presence(of: rig.peer, presence(1), deadProcess: nil, askedAt: rig.now))
        #expect(rig.take(.tick, after: Rig.heartbeat) == [])
        rig.take(.presence(of: rig.peer, presence(2), deadProcess: nil, askedAt: rig.now))
        #expect(rig.take(.tick, after: Rig.heartbeat) == [.step(.releaseMedia)])
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Self.beta && given.phase == .claimed && given.epoch == Epoch(7))
        #expect(given.sources == [Self.alpha, Self.beta] && given.ownerProcess == nil)
        rig.take(.swapped(.won))
        #expect(!rig.machine.isOwner && !rig.machine.isServing)
    }

    @Test("S5: the log decides alone if the partner gives no sign of life while it is in doubt, and not before")
    func decidesAlone() {
        let (rig, _) = restarted()
        rig.presence = presence(1)
        rig.take(.presence(of: rig.peer, presence(1), deadProcess: nil, askedAt: rig.now))
        rig.take(.tailInDoubt("torn at 640"))
        #expect(rig.pass(rig.machine.settings.doubtLimit - Rig.heartbeat) == [])
        #expect(rig.pass(Rig.heartbeat) == [.step(.recover(askingFirst: false))])
        #expect(
            rig.take(.recovered(end: LSN(640))) == [
                .step(.openLog(Incarnation(6), logUUID: Rig.logUUID, start: LSN(640), generation: 1))
            ])
    }

    @Test("there is nobody to ask: a taker, and an owner whose partner was out of sync, decide at once")
    func nobodyToAsk() {
        #expect(restarted(Rig.record(holders: [Self.alpha])).directives == [.step(.recover(askingFirst: false))])
        let taker = Rig.standby()
        taker.take(.presence(of: taker.peer, nil, deadProcess: Rig.process(Self.alpha), askedAt: taker.now))
        taker.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { taker.take(answer) }
        #expect(taker.take(.sealed) == [.step(.recover(askingFirst: false))])
    }

    @Test("S5: a corrupt log counts no more, and the partner's decides, however long it takes to come")
    func leavesACorruptLogToThePartner() throws {
        let (rig, _) = restarted()
        #expect(rig.take(.logCorrupt("corrupt at 640")) == [.step(.releaseMedia)])
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Self.beta && given.sources == [Self.beta])
        rig.take(.swapped(.won))
        #expect(rig.pass(20 * Rig.lease).swap == nil)
        #expect(!rig.machine.isServing)
    }

    @Test("S5: a corrupt log that is the only one left blocks the group until an operator decides")
    func blocksWithTheOnlyCopyCorrupt() {
        let (rig, _) = restarted(Rig.record(holders: [Self.alpha]))
        #expect(rig.take(.logCorrupt("corrupt at 640")) == [.step(.releaseMedia)])
        #expect(rig.machine.state(rig.now) == .unavailable)
        #expect(rig.machine.reason(rig.now)?.contains("corrupt at 640") == true)
    }

    @Test("a partner that lives and does not claim what it was given does not keep it for ever")
    func takesBackWhatIsNotTaken() throws {
        let (rig, _) = restarted()
        rig.take(.presence(of: rig.peer, presence(1), deadProcess: nil, askedAt: rig.now))
        rig.take(.tailInDoubt("torn at 640"))
        rig.take(.presence(of: rig.peer, presence(2), deadProcess: nil, askedAt: rig.now))
        rig.take(.tick)
        rig.take(.mediaReleased)
        rig.take(.swapped(.won))
        var swap: GroupRecord?
        var counter: UInt64 = 2
        let given = rig.now
        while swap == nil, rig.now < given + 10 * Rig.lease {
            counter += 1
            rig.presence = presence(counter)
            swap = rig.pass(Rig.heartbeat).swap
        }
        #expect(rig.now >= given + 2 * Rig.lease)
        let claim = try #require(swap)
        #expect(claim.owner == Self.alpha && claim.sources == [Self.alpha, Self.beta] && claim.mustFence.isEmpty)
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:])] { rig.take(answer) }
        #expect(rig.take(.sealed) == [.step(.recover(askingFirst: false))], "it was asked, and did not answer")
    }

    // MARK: S20

    /// Alpha, whose pool is the one that is known, with nothing in it.
    private func emptied(_ record: GroupRecord) -> Rig {
        let rig = Rig(Self.alpha, pid: 2)
        rig.start(local: nil, record)
        return rig
    }

    @Test("S20: an owner whose pool has lost its log gives the group to the partner that holds everything")
    func emptiedBesideThePartner() throws {
        let rig = Rig(Self.alpha, pid: 2)
        rig.take(.started(local: nil, Rig.standing))
        let given = try #require(rig.take(.recordRead(Rig.record())).swap)
        #expect(given.owner == Self.beta && given.ownerProcess == nil && given.phase == .claimed)
        rig.take(.swapped(.won))
        #expect(rig.pass(20 * Rig.lease).swap == nil && !rig.machine.isServing)
    }

    @Test("S20: without another copy it waits for an operator, who may go on with the medium as it is")
    func emptiedAlone() throws {
        let rig = emptied(Rig.record(holders: [Self.alpha]))
        #expect(rig.machine.state(rig.now) == .unavailable)
        #expect(rig.machine.reason(rig.now)?.contains("no log") == true)
        let claim = try #require(rig.command(.takeOver(force: true)).swap)
        #expect(claim.setsAsideLog == true && claim.sources == [Self.alpha])
    }

    @Test("S20: a mirror whose pool has lost its log does not take over, whatever the record says")
    func emptiedMirror() {
        let rig = Rig(Self.beta, pid: 2)
        rig.start(local: nil, Rig.record())
        rig.take(.presence(of: rig.peer, nil, deadProcess: Rig.process(Self.alpha), askedAt: rig.now))
        #expect(rig.pass(20 * Rig.lease).swap == nil)
        #expect(rig.machine.state(rig.now) == .unavailable && !rig.machine.takeoverPossible(rig.now))
    }

    @Test("S13, S20: such a mirror's log is begun anew when its owner has counted it out, and not before")
    func emptiedMirrorIsAttached() throws {
        let request = AttachRequest(
            group: GroupID("g0"), from: Self.alpha, epoch: Epoch(5), logUUID: Rig.logUUID, incarnation: Incarnation(5),
            head: LSN(640), acknowledged: LSN(640), ringBytes: 1 << 20)
        let rig = Rig(Self.beta, pid: 2)
        rig.start(local: nil, Rig.record())
        rig.take(.up)
        rig.take(.attachRequested(request))
        #expect(rig.take(.recordRead(Rig.record())).attachRefusal == .lostLog)
        rig.take(.attachRequested(request))
        #expect(
            rig.take(.recordRead(Rig.record(holders: [Self.alpha]))).contains(
                .rail(Rig.alpha, .acceptAttach(request, generation: 1))))

        for degrades in [true, false] {
            let owner = Rig.mirrored(degrades: degrades)
            owner.take(.down)
            #expect(owner.take(.tick).contains(onRail: .dial))
            owner.take(.up)
            #expect(owner.take(.attachRefused(.lostLog, "gone")).contains(onRail: .close))
            #expect(owner.take(.tick).swap?.inSync == [Self.alpha])
        }
    }

    @Test("a new group's owner may restart before it has published; from then on it is not new")
    func newGroup() throws {
        let first = Rig(Self.alpha)
        first.take(.started(local: nil, Rig.standing))
        let created = try #require(first.take(.recordRead(nil)).swap)
        #expect(created.isNew == true && created.phase == .claimed)
        let again = Rig(Self.alpha, pid: 2)
        again.take(.started(local: nil, Rig.standing))
        let claim = try #require(again.take(.recordRead(created)).swap)
        #expect(claim.isNew == true && claim.owner == Self.alpha && claim.epoch == Epoch(2))
        again.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed, .recovered(end: .zero)] {
            again.take(answer)
        }
        #expect(try #require(again.take(.logOpened).swap).isNew == false)
    }

    // MARK: S26

    @Test("S26: an owner whose memory fails gives the group to its mirror at once, and counts as a source no more")
    func memoryFails() throws {
        let rig = Rig.mirrored()
        #expect(rig.take(.memoryFailed("failed")) == [.rail(Rig.beta, .close), .step(.releaseMedia)])
        #expect(!rig.machine.isServing && !rig.machine.authority.isValid(rig.now))
        #expect(rig.take(.memoryFailed("failed")) == [], "it is said with every tick")
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Self.beta && given.sources == [Self.beta] && given.phase == .claimed)
        rig.take(.swapped(.won))
        #expect(rig.pass(20 * Rig.lease).swap == nil)
    }

    @Test("S26: without a mirror in sync nothing is acknowledged any more, and nobody joins")
    func memoryFailsAlone() {
        let rig = Rig.owner()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(rig.machine.authority.rule.allowed)
        #expect(rig.take(.memoryFailed("failed")) == [.rail(Rig.beta, .close)])
        #expect(!rig.machine.authority.rule.allowed)
        #expect(rig.machine.state(rig.now) == .stalled && rig.machine.reason(rig.now) == "failed")
        #expect(!rig.pass(5 * Rig.lease, renewing: rig.machine.record).contains(onRail: .dial))
    }

    @Test("S26: a mirror that is in sync, but away, is waited for and not counted out")
    func memoryFailsWithTheMirrorAway() {
        let rig = Rig.mirrored()
        rig.take(.down)
        rig.take(.memoryFailed("failed"))
        #expect(!rig.machine.authority.rule.allowed)
        let waiting = rig.pass(5 * Rig.timeout, renewing: rig.machine.record)
        #expect(waiting.swap == nil && waiting.contains(onRail: .dial))
        rig.take(.tick, after: Rig.heartbeat)
        for _ in 0..<20 where !rig.take(.tick, after: Rig.heartbeat).contains(onRail: .dial) {}
        rig.attach(kept: true)
        #expect(rig.take(.memoryFailed("failed")).contains(.step(.releaseMedia)))
    }

    @Test("S26: memory that fails during a handover does not wait for the drain")
    func memoryFailsInAHandover() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(rig.command(.handOver) == [.serving(.drain)])
        #expect(rig.take(.memoryFailed("failed")).contains(.step(.releaseMedia)))
        #expect(try #require(rig.take(.mediaReleased).swap).sources == [Self.beta])
    }

    @Test(
        "a handover whose drain does not end, because the medium fails, is made without it: the partner replays its log"
    )
    func undrainedHandover() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(rig.command(.handOver) == [.serving(.drain)])
        let record = rig.machine.record
        #expect(!rig.pass(9900 * millis, heard: true, renewing: record).contains(.step(.releaseMedia)))
        #expect(rig.pass(200 * millis, heard: true, renewing: record).contains(.step(.releaseMedia)))
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Self.beta && given.sources == [Self.alpha, Self.beta])
    }
}
