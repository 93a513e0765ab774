import ClusterProtocol
import Coordination
import LogModel
import Testing

/// Behaviour 2: a medium that fails its owner, or hangs, is the partner's business.
struct MediumTests {
    private static let alpha = Rig.alpha
    private static let beta = Rig.beta
    private static let error = "vol0.img: write at 0 failed: Input/output error"

    /// Time passes while the medium fails since now; everything that the machine says.
    @discardableResult
    private func fail(
        _ rig: Rig, for time: Nanos, isLogFull: Bool = false, heard: Bool = true
    ) -> [Directive] {
        let trouble = MediumTrouble(since: rig.now, reason: Self.error, isLogFull: isLogFull)
        var out: [Directive] = []
        let end = rig.now + time
        while rig.now < end {
            out += rig.take(.trouble(trouble))
            out += rig.pass(Rig.heartbeat, heard: heard, renewing: rig.machine.record)
        }
        return out
    }

    private var limit: Nanos { Rig.mirrored().machine.settings.mediumLimit }

    @Test("claims 2, 10: a medium that fails for long costs its owner the group, which the partner gets undrained")
    func failsLong() throws {
        let rig = Rig.mirrored()
        #expect(!fail(rig, for: limit - Rig.heartbeat).contains(.step(.releaseMedia)))
        #expect(rig.machine.state(rig.now) == .mirrored && rig.machine.takeoverPossible(rig.now))
        #expect(rig.machine.reason(rig.now)?.contains(Self.error) == true)
        let since = rig.now - limit
        rig.take(.trouble(MediumTrouble(since: since, reason: Self.error, isLogFull: false)))
        #expect(rig.pass(Rig.heartbeat, heard: true, renewing: rig.machine.record).contains(.step(.releaseMedia)))
        #expect(!rig.machine.authority.isValid(rig.now) && !rig.machine.isServing)
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Self.beta && given.phase == .claimed && given.ownerProcess == nil)
        #expect(given.sources == [Self.alpha, Self.beta] && given.mustFence == [] && given.leftForMedium == true)
        #expect(rig.take(.swapped(.won)).contains(.serving(.stop)))
        #expect(!rig.machine.isOwner)
    }

    @Test("a medium that fails for a short while does not")
    func failsShort() {
        let rig = Rig.mirrored()
        for _ in 0..<3 {
            #expect(!fail(rig, for: limit - Rig.heartbeat).contains(.step(.releaseMedia)))
            rig.take(.trouble(nil))
            #expect(rig.machine.reason(rig.now) == nil)
        }
        #expect(rig.machine.state(rig.now) == .mirrored)
    }

    @Test("without a partner in sync it is tried on and said; with one it is given away, though late")
    func nobodyInSync() {
        let rig = Rig.owner()
        #expect(!fail(rig, for: 3 * limit, heard: false).contains(.step(.releaseMedia)))
        #expect(rig.machine.state(rig.now) == .degraded && rig.machine.authority.rule.allowed)
        #expect(rig.machine.reason(rig.now)?.contains(Self.error) == true)
        #expect(rig.machine.reason(rig.now)?.contains("for 45 s") == true)
        fail(rig, for: Rig.heartbeat, isLogFull: true, heard: false)
        #expect(rig.machine.state(rig.now) == .stalled)
        rig.pass(Rig.timeout, renewing: rig.machine.record)
        while !rig.take(.tick, after: Rig.heartbeat).contains(onRail: .dial) {}
        rig.attach()
        rig.take(.trouble(MediumTrouble(since: rig.now - 4 * limit, reason: Self.error, isLogFull: true)))
        rig.take(.swapped(.won))
        #expect(rig.pass(Rig.heartbeat, heard: true, renewing: rig.machine.record).contains(.step(.releaseMedia)))
    }

    @Test(
        "a partner that the record counts and that is attached on another rail anew gets it, though what it lacks is never shipped"
    )
    func partnerMoved() {
        let rig = Rig.mirrored()
        rig.progress(local: LSN(1280), mirror: LSN(960), pending: 7)
        rig.take(.moved)
        let contents = MirrorContents(pool: Rig.pool(Self.beta), generation: 1, isKept: true)
        rig.take(.attached(durable: LSN(960), contents))
        #expect(rig.machine.state(rig.now) == .resyncing)
        #expect(fail(rig, for: limit + Rig.heartbeat).contains(.step(.releaseMedia)))
    }

    @Test("S17: what lasts as long as the process was stopped is not the medium's doing")
    func stoppedMeanwhile() {
        let rig = Rig.mirrored()
        let since = rig.now
        rig.take(.heard, after: 2 * limit)
        #expect(rig.take(.tick).contains(.serving(.suspend)))
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.take(.trouble(MediumTrouble(since: since, reason: Self.error, isLogFull: false)))
        #expect(!rig.take(.tick).contains(.step(.releaseMedia)))
    }

    // MARK: No ping-pong

    /// Alpha gave the group to beta because of the medium, and beta has published.
    private func receiver(leftForMedium: Bool) -> Rig {
        let rig = Rig(Self.beta)
        var given = Rig.record(
            owner: Self.beta, epoch: 6, phase: .claimed, holders: [Self.alpha, Self.beta], incarnation: 5)
        given.ownerProcess = nil
        given.leftForMedium = leftForMedium
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), given)
        rig.take(.swapped(.won))
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.takeOver()
        rig.take(.up)
        rig.take(.attached(durable: LSN(640), MirrorContents(pool: Rig.pool(Self.alpha), isKept: false)))
        rig.take(.swapped(.won))
        precondition(rig.machine.state(rig.now) == .mirrored)
        return rig
    }

    @Test("who was given the group because of the medium keeps it for a long while when it fails there too")
    func noPingPong() throws {
        let rig = receiver(leftForMedium: true)
        let rest = rig.machine.settings.mediumRest
        #expect(!fail(rig, for: rest - Rig.heartbeat).contains(.step(.releaseMedia)))
        #expect(rig.machine.reason(rig.now)?.contains("before") == true)
        #expect(fail(rig, for: limit + Rig.heartbeat).contains(.step(.releaseMedia)))
        #expect(try #require(rig.take(.mediaReleased).swap).leftForMedium == true)
        #expect(receiver(leftForMedium: false).machine.record?.leftForMedium == false)
        #expect(fail(receiver(leftForMedium: false), for: limit + Rig.heartbeat).contains(.step(.releaseMedia)))
    }

    @Test("an owner that destages everything when it hands over has shown that the medium takes it")
    func aDrainShowsThatItCanWrite() throws {
        let rig = receiver(leftForMedium: true)
        rig.command(.handOver)
        rig.take(.drained)
        #expect(try #require(rig.take(.mediaReleased).swap).leftForMedium == false)
    }

    @Test("a handover that the medium did not let drain is no such proof; one that was only slow says nothing of it")
    func anUndrainedHandover() throws {
        for isFailing in [true, false] {
            let rig = Rig.mirrored()
            rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
            rig.command(.handOver)
            if isFailing { rig.take(.trouble(MediumTrouble(since: rig.now, reason: "fails", isLogFull: false))) }
            rig.pass(11_000 * millis, heard: true, renewing: rig.machine.record)
            #expect(try #require(rig.take(.mediaReleased).swap).leftForMedium == isFailing)
        }
    }

    // MARK: A release that hangs

    @Test(
        "S16, S18: a medium that is not released is given away with this process among those to fence, the others first"
    )
    func releaseHangs() throws {
        let rig = Rig.mirrored()
        #expect(fail(rig, for: limit + Rig.heartbeat).contains(.step(.releaseMedia)))
        let record = rig.machine.record
        #expect(!rig.pass(4800 * millis, heard: true, renewing: record).contains(.step(.evacuate)))
        #expect(rig.pass(200 * millis, heard: true, renewing: record).contains(.step(.evacuate)))
        let given = try #require(rig.take(.evacuated).swap)
        #expect(given.owner == Self.beta && given.ownerProcess == nil && given.phase == .claimed)
        #expect(given.mustFence == [Rig.process(Self.alpha)] && given.sources == [Self.alpha, Self.beta])
        rig.take(.swapped(.won))
        #expect(!rig.machine.isOwner)

        let taker = Rig(Self.beta)
        taker.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(2)), given)
        let fence = taker.take(.swapped(.won))
        #expect(fence == [.step(.fence([Rig.process(Self.alpha)]))])
    }

    @Test("other groups that do not leave in time are left behind")
    func evacuationHangs() throws {
        let rig = Rig.mirrored()
        fail(rig, for: limit + Rig.heartbeat)
        let said = rig.pass(11_000 * millis, heard: true, renewing: rig.machine.record)
        #expect(try #require(said.swap).mustFence == [Rig.process(Self.alpha)])
    }

    @Test("a release that ends after all needs no fence")
    func releaseEndsLate() throws {
        let rig = Rig.mirrored()
        fail(rig, for: limit + Rig.heartbeat)
        #expect(rig.pass(6000 * millis, heard: true, renewing: rig.machine.record).contains(.step(.evacuate)))
        #expect(try #require(rig.take(.mediaReleased).swap).mustFence == [])
    }

    @Test("an operator's handover that the medium keeps from ending ends too")
    func handoverHangs() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.handOver)
        let said = rig.pass(15_200 * millis, heard: true, renewing: rig.machine.record)
        #expect(said.contains(.step(.releaseMedia)) && said.contains(.step(.evacuate)))
        #expect(try #require(rig.take(.evacuated).swap).mustFence == [Rig.process(Self.alpha)])
        #expect(rig.take(.swapped(.won)).refusal?.contains("ends this process") == true)
    }

    @Test(
        "a group that was given away hanging, and is not taken, is claimed back when the call returns, and not before")
    func notTaken() throws {
        let rig = Rig.mirrored()
        fail(rig, for: limit + Rig.heartbeat)
        rig.pass(6000 * millis, heard: true, renewing: rig.machine.record)
        rig.take(.evacuated)
        rig.take(.swapped(.won))
        // The partner may come at any time, and can fence this process; a claim would shut it out.
        #expect(rig.pass(20 * Rig.lease).swap == nil)
        rig.take(.mediaReleased)
        let claim = try #require(rig.pass(2 * Rig.lease).swap)
        #expect(claim.owner == Self.alpha && claim.mustFence == [])
        rig.take(.swapped(.won))
        #expect(rig.take(Rig.fenced) == [.step(.lockMedia(expected: [:]))])
    }

    // MARK: The watch

    @Test("a call that does not return is told after a while, a failure at once, and since the first one")
    func watch() {
        var watch = MediumWatch()
        let second: Nanos = 1000 * millis
        watch.observe(call: 1, now: 0)
        watch.observe(call: 1, now: 4 * second)
        #expect(watch.trouble(callText: "a flush", isLogFull: false, now: 4 * second) == nil)
        watch.observe(call: 2, now: 5 * second)
        #expect(watch.trouble(callText: "a flush", isLogFull: false, now: 5 * second) == nil)
        let hung = watch.trouble(callText: "a flush", isLogFull: true, now: 10 * second)
        #expect(hung == MediumTrouble(since: 5 * second, reason: "a flush does not return", isLogFull: true))
        watch.observe(call: nil, now: 11 * second)
        #expect(watch.trouble(callText: nil, isLogFull: false, now: 20 * second) == nil)
        watch.failed("first", now: 21 * second)
        watch.failed("second", now: 22 * second)
        let failed = watch.trouble(callText: nil, isLogFull: false, now: 22 * second)
        #expect(failed == MediumTrouble(since: 21 * second, reason: "second", isLogFull: false))
        watch.cleared()
        #expect(watch.trouble(callText: nil, isLogFull: false, now: 23 * second) == nil)
    }

    @Test("C5: the time that a medium was only full for does not count against its path")
    func watchFull() {
        var watch = MediumWatch()
        let second: Nanos = 1000 * millis
        watch.failed("no space", isFull: true, now: 10 * second)
        watch.failed("no space", isFull: true, now: 40 * second)
        let full = watch.trouble(callText: nil, isLogFull: false, now: 40 * second)
        #expect(full == MediumTrouble(since: 10 * second, reason: "no space", isLogFull: false, isFull: true))
        watch.failed("broken", now: 50 * second)
        let broken = watch.trouble(callText: nil, isLogFull: false, now: 50 * second)
        #expect(broken == MediumTrouble(since: 50 * second, reason: "broken", isLogFull: false))
    }

    @Test(
        "S18: an owner whose medium another node has taken stops and releases it at once; the record says whose the group is"
    )
    func taken() throws {
        let rig = Rig.mirrored()
        let record = try #require(rig.machine.record)
        let out = rig.take(.taken("taken"))
        #expect(out.contains(.serving(.stop)) && out.contains(.step(.releaseMedia)))
        #expect(!rig.machine.isServing && !rig.machine.authority.isValid(rig.now))
        // Whoever took it claimed before: this node's own claim is lost to that.
        #expect(out.swap?.version == record.version + 1 && out.swap?.owner == Self.alpha)
        var claimed = Rig.record(owner: Self.beta, epoch: record.epoch.rawValue + 1, version: record.version + 1)
        claimed.phase = .claimed
        #expect(rig.take(.swapped(.lost(claimed))).swap == nil)
        #expect(!rig.machine.isOwner && rig.machine.record?.owner == Self.beta)
    }

    @Test("S18: a claim whose medium another node has taken begins anew, and does not go on with what it held")
    func takenWhileRecovering() throws {
        let owner = Rig.mirrored()
        #expect(owner.take(.taken("taken")).swap != nil)
        #expect(owner.take(.swapped(.won)).contains { if case .step(.fence) = $0 { true } else { false } })
        owner.take(Rig.fenced)
        let out = owner.take(.mediumTaken("taken again"))
        #expect(out.contains(.step(.releaseMedia)) && out.swap?.phase == .claimed)
    }
}
