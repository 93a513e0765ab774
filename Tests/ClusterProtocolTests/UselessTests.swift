import ClusterProtocol
import Coordination
import LogModel
import Testing

/// Alive but of no use is not alive: claims that do not end, owners that may not serve, observers that slept (S16, S17).
struct UselessTests {
    private static let alpha = Rig.alpha
    private static let beta = Rig.beta
    private static let dead = Rig.process(Rig.alpha)

    private func presence(_ counter: UInt64, problems: [String: String]? = nil) -> Presence {
        Presence(
            process: Rig.process(Self.beta), counter: counter, pool: Rig.pool(Self.beta), problems: problems)
    }

    /// Alpha, restarted, has claimed and cannot lock its medium; its partner lives for so long.
    private func stuck(for time: Nanos, leftBefore: Bool = false, problems: [String: String]? = nil) -> (
        Rig, [Directive]
    ) {
        let rig = Rig(Self.alpha, pid: 2)
        var record = Rig.record()
        record.leftForMedium = leftBefore
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), record)
        rig.take(.swapped(.won))
        rig.take(Rig.fenced)
        var out: [Directive] = []
        let end = rig.now + time
        var counter: UInt64 = 0
        while rig.now < end {
            counter += 1
            rig.presence = presence(counter, problems: problems)
            rig.take(.failed("vol0.img: does not exist"))
            out += rig.pass(Rig.heartbeat)
        }
        return (rig, out)
    }

    @Test("C3: a claim that does not go on is given back to a partner that holds everything; once")
    func givenBack() throws {
        let limit: Nanos = 15_000 * millis
        #expect(!stuck(for: limit - 2 * Rig.heartbeat).1.contains(.step(.releaseMedia)))
        let (rig, out) = stuck(for: limit + 3 * Rig.heartbeat)
        #expect(out.contains(.step(.releaseMedia)))
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Self.beta && given.holders == [Self.alpha, Self.beta] && given.leftForMedium)
        #expect(given.phase == .claimed && given.ownerProcess == nil)
        #expect(!stuck(for: 4 * limit, leftBefore: true).1.contains(.step(.releaseMedia)))
        #expect(stuck(for: 605_000 * millis, leftBefore: true).1.contains(.step(.releaseMedia)))
    }

    @Test("C3: not to one that says that it could not serve it either")
    func notToAnEquallyBlindPartner() {
        #expect(
            !stuck(for: 60_000 * millis, problems: ["g0": "vol0.img: does not exist"]).1.contains(.step(.releaseMedia)))
        #expect(
            stuck(for: 60_000 * millis, problems: ["g1": "vol1.img: does not exist"]).1.contains(.step(.releaseMedia)))
    }

    @Test("C3: a log in doubt is not left to a partner that could not serve it; it decides alone in the end")
    func doubtBesideABlindPartner() {
        let rig = Rig(Self.alpha, pid: 2)
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), Rig.record())
        rig.take(.swapped(.won))
        for answer in [Rig.fenced, .mediaLocked([:]), .sealed, .tailInDoubt("ends at 640")] {
            rig.take(answer)
        }
        var out: [Directive] = []
        for counter in 1...UInt64(400) where !out.contains(.step(.recover(askingFirst: false))) {
            rig.presence = presence(counter, problems: ["g0": "vol0.img: does not exist"])
            out += rig.pass(Rig.heartbeat)
            #expect(!out.contains(.step(.releaseMedia)))
        }
        #expect(out.contains(.step(.recover(askingFirst: false))))
    }

    @Test("C3: what a standby could not take over is no possible takeover, on both nodes, and no handover")
    func problemIsSaid() {
        let standby = Rig.standby()
        standby.take(.takeoverProblem("vol0.img: does not exist"))
        #expect(!standby.machine.takeoverPossible(standby.now))
        #expect(standby.machine.heartbeat(standby.now).problem == "vol0.img: does not exist")
        #expect(standby.machine.reason(standby.now) == "vol0.img: does not exist")
        let owner = Rig.mirrored()
        #expect(owner.machine.takeoverPossible(owner.now))
        owner.take(.said(standby.machine.heartbeat(standby.now)))
        #expect(!owner.machine.takeoverPossible(owner.now) && owner.machine.isHeldTwice(owner.now))
        #expect(owner.machine.reason(owner.now)?.contains("beta could not take over: vol0.img") == true)
        #expect(owner.command(.handOver).refusal?.contains("vol0.img") == true)
        owner.take(.said(Heartbeat()))
        #expect(owner.machine.takeoverPossible(owner.now))
    }

    @Test(
        "S16: a standby that the coordinator does not answer is no possible takeover, on both nodes, until it answers again"
    )
    func noCoordinatorIsSaid() {
        let standby = Rig.standby()
        let owner = Rig.mirrored()
        func isPossible() -> [Bool] {
            owner.take(.said(standby.machine.heartbeat(standby.now)))
            return [standby, owner].map { $0.machine.takeoverPossible($0.now) }
        }
        standby.pass(Rig.heartbeat, heard: true, renewing: standby.machine.record)
        #expect(isPossible() == [true, true])
        standby.pass(Rig.lease, heard: true, asking: false)
        #expect(isPossible() == [false, false])
        #expect(standby.machine.reason(standby.now) == "the coordinator does not answer beta")
        #expect(owner.machine.reason(owner.now)?.contains("the coordinator does not answer beta") == true)
        standby.pass(Rig.heartbeat, heard: true, renewing: standby.machine.record)
        #expect(isPossible() == [true, true])
        standby.pass(Rig.lease, asking: false)
        #expect(standby.machine.state(standby.now) == .suspecting, "nobody tells it of the owner")
    }

    @Test(
        "C4: an owner that says that it lost its right to serve is as good as silent, once the coordinator has not seen it"
    )
    func suspendedOwner() {
        let rig = Rig.standby()
        rig.take(.up)
        var out: [Directive] = []
        for _ in 0..<50 {
            rig.take(.said(Heartbeat(isSuspended: true)))
            out += rig.pass(Rig.heartbeat, heard: true)
        }
        #expect(out.swap?.owner == Self.beta)
        let served = Rig.standby()
        served.take(.up)
        for _ in 0..<50 {
            served.take(.said(Heartbeat()))
            #expect(served.pass(Rig.heartbeat, heard: true).swap == nil)
        }
    }

    @Test("C4: a suspended owner says so")
    func saysSo() {
        let rig = Rig.mirrored()
        #expect(!rig.machine.heartbeat(rig.now).isSuspended)
        rig.pass(2 * Rig.lease, heard: true)
        #expect(rig.machine.heartbeat(rig.now).isSuspended && !rig.machine.isServing)
    }

    @Test("C7, S16: who slept takes its own gap for its own, not for the owner's silence")
    func ownSleep() {
        let rig = Rig.standby()
        rig.take(.up)
        rig.pass(Rig.timeout, heard: true)
        rig.now += 10 * Rig.lease
        // What it asks the coordinator when it wakes is answered before its first tick.
        #expect(rig.take(.presence(of: rig.peer, nil, deadProcess: nil, askedAt: rig.now)).swap == nil)
        #expect(rig.take(.tick).swap == nil)
        #expect(rig.pass(Rig.lease - 2 * Rig.heartbeat).swap == nil)
        #expect(rig.pass(Rig.lease).swap?.owner == Self.beta, "then the owner's own silence")
    }

    @Test("C7: an owner that slept does not take its mirror for silent, nor its medium for stuck")
    func ownersSleep() {
        let rig = Rig.mirrored()
        rig.take(.trouble(MediumTrouble(since: rig.now, reason: "a write failed", isLogFull: false)))
        rig.now += 60_000 * millis
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        let out = rig.take(.tick)
        #expect(!out.contains(onRail: .close) && !out.contains(.step(.releaseMedia)))
    }

    @Test("C5: a full medium keeps the group where it is, and its reads with it")
    func fullMedium() {
        let rig = Rig.mirrored()
        let trouble = MediumTrouble(since: rig.now, reason: "vol0.img: no space", isLogFull: false, isFull: true)
        rig.take(.trouble(trouble))
        let out = rig.pass(60_000 * millis, heard: true, renewing: rig.machine.record)
        #expect(!out.contains(.step(.releaseMedia)) && rig.machine.isServing)
        #expect(rig.machine.reason(rig.now)?.contains("full for whoever writes") == true)
    }

    // MARK: Fences

    @Test("C1: what was confirmed dead stands in the record before anything else can fail, and is not fenced again")
    func confirmationsAreRecorded() throws {
        var record = Rig.record()
        for pid in Int32(2)...200 {
            let rig = Rig(Self.alpha, pid: pid)
            let local = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5))
            let claim = try #require(rig.start(local: local, record).swap)
            #expect(claim.mustFence == [Rig.process(Self.alpha, pid - 1)] && claim.fences.count <= 10)
            rig.take(.swapped(.won))
            let confirmation = GroupRecord.Fence.Confirmation(method: "process", by: "alpha", at: "now")
            let dead = GroupRecord.Fence(target: Rig.process(Self.alpha, pid - 1), confirmed: confirmation)
            var out: [Directive] = []
            rig.machine.handle(.step(.fenced([dead], problem: nil)), now: rig.now, into: &out)
            #expect(out.contains(.step(.lockMedia(expected: [:]))), "the takeover does not wait for it")
            record = try #require(out.swap)
            #expect(record.mustFence.isEmpty && record.fences.last?.confirmed == confirmation)
        }
    }

    @Test("C2: of several processes each is confirmed for itself")
    func confirmedApart() throws {
        let rig = Rig(Self.alpha, pid: 2)
        let record = Rig.record(phase: .claimed, mustFence: [Rig.process(Self.beta, 7)])
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), record)
        rig.take(.swapped(.won))
        let confirmation = GroupRecord.Fence.Confirmation(method: "process", by: "alpha", at: "now")
        var out: [Directive] = []
        rig.machine.handle(
            .step(.fenced([GroupRecord.Fence(target: Self.dead, confirmed: confirmation)], problem: "runs elsewhere")),
            now: rig.now, into: &out)
        #expect(out.swap?.mustFence == [Rig.process(Self.beta, 7)])
        rig.take(.swapped(.won))
        #expect(rig.pass(2 * Rig.heartbeat).contains(.step(.fence([Rig.process(Self.beta, 7)]))))
    }

    @Test("C2, S18: an operator's word confirms what no fence can, and stands in the record with who and when")
    func confirmDead() throws {
        let rig = Rig.standby()
        rig.take(.presence(of: rig.peer, nil, deadProcess: Self.dead, askedAt: rig.now))
        rig.take(.swapped(.won))
        rig.take(.fenced([], problem: "runs elsewhere"))
        #expect(rig.command(.confirmDead(Self.beta, by: "ann", at: "noon"), id: 7).refusal != nil)
        let swap = try #require(rig.command(.confirmDead(Self.alpha, by: "ann", at: "noon"), id: 8).swap)
        #expect(swap.mustFence.isEmpty)
        #expect(
            swap.fences.last?.confirmed == GroupRecord.Fence.Confirmation(method: "operator", by: "ann", at: "noon"))
        let done = rig.take(.swapped(.won), after: Rig.heartbeat)
        let command = Command.confirmDead(Self.alpha, by: "ann", at: "noon")
        #expect(done.contains(.commandDone(command, CommandID(rawValue: 8), refusal: nil)))
        #expect(done.contains(.step(.fence([]))), "the takeover goes on at once")
    }

    @Test(
        "S18, O7: a node that was started anew confirms the end of its earlier processes to whoever waits, and never its own"
    )
    func predecessorsEnded() throws {
        let rig = Rig(Self.beta, pid: 2)
        let (earlier, present) = (Rig.process(Self.beta, 1), Rig.process(Self.beta, 2))
        let record = Rig.record(phase: .claimed, mustFence: [earlier, present])
        let local = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5))
        if rig.start(local: local, record).swap != nil { rig.take(.swapped(.won)) }
        let swap = try #require(rig.command(.predecessorsEnded(at: "noon"), id: 7).swap)
        #expect(swap.mustFence == [present])
        let confirmation = GroupRecord.Fence.Confirmation(method: "pool", by: "beta", at: "noon")
        #expect(swap.fences.first { $0.target == earlier }?.confirmed == confirmation)
        rig.take(.swapped(.won))
        #expect(rig.command(.confirmDead(Self.beta, by: "ann", at: "noon"), id: 8).refusal != nil, "it lives")
    }

    @Test("S18, O7: only a process of this node, this boot and this pool would hold the pool's lock if it lived")
    func predecessors() {
        let rig = Rig(Self.beta, pid: 2)
        let local = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5))
        rig.start(local: local, Rig.record())
        let earlier = Rig.process(Self.beta, 1)
        #expect(rig.machine.isPredecessor(earlier))
        #expect(!rig.machine.isPredecessor(Rig.process(Self.beta, 2)), "this very process")
        #expect(!rig.machine.isPredecessor(Rig.process(Self.alpha, 1)))
        var before = earlier
        before.bootID = "another boot"
        #expect(!rig.machine.isPredecessor(before))
        let other = Rig(Self.beta, pid: 2, pool: UUID128(high: 9, low: 9))
        other.start(local: local, Rig.record())
        #expect(!other.machine.isPredecessor(earlier), "it had another pool")
    }

    @Test(
        "S18, O7: a confirmation that a standby could not record at once is recorded later", arguments: [true, false])
    func confirmedLater(isByOperator: Bool) throws {
        let command: Command =
            isByOperator ? .confirmDead(Self.beta, by: "ann", at: "noon") : .predecessorsEnded(at: "noon")
        let earlier = Rig.process(Self.beta, 1)
        let record = Rig.record(phase: .claimed, mustFence: [earlier])
        let rig = Rig(Self.beta, pid: 2)
        if rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), record).swap != nil {
            rig.take(.swapped(.won))
        }
        // The coordinator is being asked.
        #expect(rig.take(.recordChanged).contains(.coordinator(.read)))
        #expect(rig.command(command, id: 7) == [])
        rig.take(.recordRead(rig.machine.record))
        let first = try #require(rig.take(.tick).swap)
        #expect(first.mustFence == [])
        // The taker was quicker with something else.
        var other = try #require(rig.machine.record)
        other.version += 1
        #expect(rig.take(.swapped(.lost(other))).refusal == nil)
        let second = try #require(rig.take(.tick).swap)
        #expect(second.version == other.version + 1 && second.mustFence == [])
        #expect(rig.take(.swapped(.won)).contains(.commandDone(command, CommandID(rawValue: 7), refusal: nil)))
    }
}
