import ClusterProtocol
import Coordination
import LogModel
import Testing

/// S17 from both sides: until when an owner serves, and from when a node claims.
struct RightToServeTests {
    private static let margin = Rig.lease / 10
    private static let dead = Rig.process(Rig.alpha)

    private func allowed(_ rig: Rig) -> Bool { rig.machine.authority.rule.allowed }

    /// The mirror's answer to what was asked then.
    private func granted(_ asked: Nanos) -> RailEvent { .said(Heartbeat(grants: asked)) }

    /// What the owner says with its heartbeat.
    private func asked(_ time: Nanos) -> RailEvent { .said(Heartbeat(asks: time)) }

    private func heartbeat(in directives: [Directive]) -> Heartbeat? {
        for case .rail(_, .sendHeartbeat(let heartbeat)) in directives { return heartbeat }
        return nil
    }

    // MARK: The owner

    @Test("S17: the lease counts from the start of its renewal, less a margin; then nothing is acknowledged")
    func lease() {
        let rig = Rig.mirrored()
        let started = rig.now
        rig.take(.renewed(startedAt: started, record: rig.machine.record), after: Rig.lease / 2)
        rig.now = started + Rig.lease - Self.margin - 1
        rig.take(.heard)
        #expect(rig.machine.authority.isValid(rig.now) && rig.machine.isServing)
        #expect(!rig.take(.tick).contains(.serving(.suspend)))
        rig.now += 1
        #expect(!rig.machine.authority.isValid(rig.now))
        #expect(rig.take(.tick).contains(.serving(.suspend)))
        #expect(!allowed(rig) && !rig.machine.isServing)
    }

    /// An owner, mirrored, whose lease lapses, and which renews it then; what it says to that.
    private func renewedAfterALapse(_ rig: Rig) -> [Directive] {
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.now += Rig.lease
        rig.take(.tick)
        return rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
    }

    @Test(
        "S17: a lease that lapsed is a right again once the record is swapped, which a claim on its way does not survive"
    )
    func lapse() throws {
        let rig = Rig.mirrored()
        let known = try #require(rig.machine.record)
        let said = renewedAfterALapse(rig)
        var same = known
        same.version += 1
        #expect(said.swap == same && !said.contains(.serving(.serve)))
        #expect(!rig.machine.authority.isValid(rig.now) && !allowed(rig))
        #expect(rig.machine.reason(rig.now)?.contains("waits for a swap") == true)
        #expect(rig.take(.swapped(.won)).contains(.serving(.serve)))
        #expect(rig.machine.authority.isValid(rig.now) && allowed(rig))
        // Once for the lapse.
        #expect(rig.pass(2 * Rig.lease, heard: true, renewing: rig.machine.record).swap == nil)
        #expect(rig.machine.authority.isValid(rig.now))
    }

    @Test("S17: a claim that was on its way during the lapse wins, or that swap does")
    func claimBehindALapse() throws {
        let rig = Rig.mirrored()
        #expect(renewedAfterALapse(rig).swap != nil)
        var claimed = try #require(rig.machine.record)
        claimed.version += 1
        claimed.epoch = claimed.epoch.next
        claimed.owner = Rig.beta
        claimed.phase = .claimed
        #expect(rig.take(.swapped(.lost(claimed))).contains(.serving(.stop)))
        #expect(!rig.machine.isOwner && !rig.machine.authority.isValid(rig.now))
    }

    @Test("S17: that swap is made again until its outcome is known; any other swap does as well")
    func lapseWithAnUnknownSwap() throws {
        let rig = Rig.mirrored()
        #expect(renewedAfterALapse(rig).swap != nil)
        rig.take(.swapped(.unknown("no answer")))
        #expect(!rig.machine.authority.isValid(rig.now))
        rig.pass(2 * Rig.heartbeat)
        #expect(rig.take(.recordRead(rig.machine.record)).swap != nil)
        rig.take(.swapped(.won))
        #expect(rig.machine.authority.isValid(rig.now))
        // The mirror's start was counted meanwhile.
        #expect(renewedAfterALapse(rig).swap != nil)
        var counted = try #require(rig.machine.record)
        counted.version += 1
        counted.members[Rig.beta]?.generation += 1
        rig.take(.swapped(.lost(counted)))
        #expect(rig.machine.authority.isValid(rig.now))
    }

    @Test("S17: a lapse while grants last costs one swap, and no service; of one that is alone not even that")
    func lapseBesideGrants() {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.now += Rig.lease
        rig.take(granted(rig.now))
        rig.take(.tick)
        let said = rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        #expect(said.swap != nil && rig.machine.isServing && allowed(rig))
        rig.take(.swapped(.won))
        let alone = Rig.owner()
        #expect(renewedAfterALapse(alone).swap == nil && alone.machine.isServing && allowed(alone))
    }

    @Test("S17: who alone is in sync serves without end, whether the coordinator answers or not")
    func alone() {
        let rig = Rig.owner()
        rig.take(.unavailable("away"))
        rig.pass(100 * Rig.lease)
        #expect(rig.machine.authority.isValid(rig.now) && rig.machine.isServing && allowed(rig))
        #expect(!rig.machine.takeoverPossible(rig.now) && rig.machine.reason(rig.now) != nil)
    }

    @Test("S17: a mirror that answers grants the right, from when it was asked, less a margin")
    func grant() {
        let rig = Rig.mirrored()
        #expect(heartbeat(in: rig.take(.tick)) == Heartbeat(asks: rig.now))
        let asked = rig.now + Rig.lease
        rig.now = asked - 1
        rig.take(granted(asked))
        #expect(!rig.machine.authority.isValid(rig.now), "nothing can be granted that was not asked yet")
        rig.now = asked + Rig.lease / 2
        rig.take(granted(asked))
        rig.now = asked + Rig.lease - Self.margin - 1
        rig.take(.heard)
        #expect(rig.machine.authority.isValid(rig.now) && rig.machine.isServing && allowed(rig))
        #expect(!rig.take(.tick).contains(.serving(.suspend)))
        rig.take(granted(asked - 1))
        rig.now += 1
        #expect(!rig.machine.authority.isValid(rig.now))
        #expect(rig.take(.tick).contains(.serving(.suspend)) && !rig.machine.isServing)
        #expect(rig.take(granted(rig.now)).contains(.serving(.serve)))
        #expect(rig.machine.authority.isValid(rig.now) && allowed(rig))
    }

    @Test("S17: a grant lasts though the rail is lost, and a coordinator that does not answer stops swaps only")
    func withoutCoordinator() {
        let rig = Rig.mirrored()
        for _ in 0..<100 {
            rig.now += Rig.heartbeat
            rig.take(granted(rig.now))
            rig.take(.tick)
        }
        #expect(rig.machine.authority.isValid(rig.now) && rig.machine.state(rig.now) == .mirrored)
        #expect(!rig.machine.takeoverPossible(rig.now) && rig.machine.reason(rig.now)?.contains("wait for it") == true)
        let last = rig.now
        rig.take(.down)
        #expect(rig.machine.authority.isValid(rig.now), "what it holds may be read while the mirror claims nothing")
        rig.now = last + Rig.lease - Self.margin
        #expect(!rig.machine.authority.isValid(rig.now))
    }

    @Test("S17: whom a swap of unknown outcome may have put in sync must grant too")
    func joining() throws {
        let rig = Rig.owner()
        rig.now += 2 * Rig.lease
        #expect(rig.machine.authority.isValid(rig.now))
        rig.attach()
        #expect(!rig.machine.authority.isValid(rig.now), "the swap that puts the mirror in sync is on its way")
        rig.take(.swapped(.unknown("no answer")))
        #expect(!rig.machine.authority.isValid(rig.now))
        rig.take(granted(rig.now))
        #expect(rig.machine.authority.isValid(rig.now))
    }

    @Test("S17: each other node that counts grants")
    func twoMirrors() {
        let rig = Rig.owner(partners: [Rig.beta, Rig.gamma])
        rig.attach(Rig.beta)
        rig.take(.swapped(.won))
        rig.attach(Rig.gamma)
        rig.take(.swapped(.won))
        rig.now += 2 * Rig.lease
        rig.take(.rail(Rig.beta, granted(rig.now)))
        #expect(!rig.machine.authority.isValid(rig.now))
        rig.take(.rail(Rig.gamma, granted(rig.now)))
        #expect(rig.machine.authority.isValid(rig.now))
    }

    // MARK: The mirror

    @Test("S17: a mirror answers what was asked, and claims nothing for a lease from its answer")
    func claimsAfterItsGrant() {
        let rig = Rig.standby()
        rig.take(.up)
        let answer = heartbeat(in: rig.take(asked(77)))
        #expect(answer?.grants == 77 && answer?.asks == nil)
        let answeredAt = rig.now
        rig.presence = Presence(process: Self.dead, counter: 1, pool: Rig.pool(Rig.alpha))
        #expect(rig.pass(Rig.lease - Rig.heartbeat).swap == nil)
        #expect(rig.machine.mayClaimFrom == answeredAt + Rig.lease)
        #expect(rig.pass(Rig.lease).swap?.owner == Rig.beta)
    }

    @Test("S17: suspicion is not enough while a grant lasts; the owner's certain death is")
    func deathEndsAGrant() {
        let rig = Rig.standby()
        rig.take(.up)
        let seen = Presence(process: Self.dead, counter: 1, pool: Rig.pool(Rig.alpha))
        rig.take(.presence(of: rig.peer, seen, deadProcess: nil, askedAt: rig.now))
        for _ in 0..<Rig.lease / Rig.heartbeat { rig.take(.heard, after: Rig.heartbeat) }
        rig.take(asked(77))
        rig.take(.said(Heartbeat(isSuspended: true)))
        // Silent at the coordinator for a lease, and of no use by its own word.
        #expect(rig.take(.presence(of: rig.peer, seen, deadProcess: nil, askedAt: rig.now)).swap == nil)
        rig.take(.down)
        #expect(
            rig.take(.presence(of: rig.peer, seen, deadProcess: Self.dead, askedAt: rig.now)).swap?.owner == Rig.beta)
    }

    @Test("S17: an earlier process of this node may have granted: an operator's takeover waits for that too")
    func afterAStart() {
        let rig = Rig(Rig.beta)
        rig.start(local: LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5)), Rig.record())
        #expect(rig.command(.takeOver(force: false)) == [])
        #expect(rig.pass(Rig.lease - Rig.heartbeat).swap == nil)
        #expect(rig.pass(Rig.heartbeat).swap?.owner == Rig.beta)
    }

    @Test("S17: who is about to claim, or whose claim may be on its way, grants nothing")
    func noGrantBesideAClaim() {
        let rig = Rig.standby()
        rig.take(.up)
        #expect(heartbeat(in: rig.take(asked(77)))?.grants == 77)
        #expect(rig.command(.takeOver(force: false)) == [])
        #expect(heartbeat(in: rig.take(asked(78))) == nil, "an operator's takeover waits for the grant's end")
        #expect(rig.pass(Rig.lease).swap?.owner == Rig.beta)
        #expect(heartbeat(in: rig.take(asked(79))) == nil)
        rig.take(.swapped(.unknown("no answer")))
        #expect(heartbeat(in: rig.take(asked(80))) == nil)
        rig.take(.recordRead(rig.machine.record))
        rig.take(.swapped(.lost(Rig.record(version: 11))))
        #expect(rig.command(.takeOver(force: false), id: 2).refusal != nil)
    }

    @Test(
        "S17: a claim that may have reached the coordinator is granted nothing beside, though the owner is heard again")
    func noGrantBesideASuspicion() {
        let rig = Rig.standby()
        rig.presence = Presence(process: Self.dead, counter: 1, pool: Rig.pool(Rig.alpha))
        #expect(rig.pass(2 * Rig.lease).swap?.owner == Rig.beta)
        rig.take(.up)
        #expect(heartbeat(in: rig.take(asked(77))) == nil)
        rig.take(.swapped(.unknown("no answer")))
        #expect(heartbeat(in: rig.take(asked(78))) == nil)
        // The one that settles it is won: the claim can come into effect no more.
        #expect(rig.take(.recordRead(rig.machine.record)).swap != nil)
        #expect(heartbeat(in: rig.take(asked(79))) == nil)
        rig.take(.swapped(.won))
        #expect(heartbeat(in: rig.take(asked(80)))?.grants == 80)
    }

    @Test("S17: a node grants nothing before its start is counted: a claim of its earlier process may be on its way")
    func noGrantBeforeTheStartCounts() {
        let rig = Rig(Rig.beta)
        let local = LocalLog(logUUID: Rig.logUUID, incarnation: Incarnation(5))
        let said = rig.start(local: local, generation: 3, counted: 1, Rig.record())
        #expect(said.swap?.members[Rig.beta]?.generation == 3)
        rig.take(.up)
        #expect(heartbeat(in: rig.take(asked(78))) == nil)
        rig.take(.swapped(.won))
        #expect(heartbeat(in: rig.take(asked(79)))?.grants == 79)
    }

    @Test("S17: what the coordinator said of the owner before this node knew the record is no ground for a claim")
    func claimsOnFreshSigns() {
        let rig = Rig.standby()
        rig.presence = Presence(process: Self.dead, counter: 1, pool: Rig.pool(Rig.alpha))
        for _ in 0..<2 * Rig.lease / Rig.heartbeat {
            rig.take(.heard, after: Rig.heartbeat)
            rig.take(.presence(of: rig.peer, rig.presence, deadProcess: nil, askedAt: rig.now))
        }
        // Its owner has renewed its lease and swapped since.
        rig.take(.renewed(startedAt: rig.now, record: Rig.record(version: 12)), after: 1)
        #expect(rig.pass(2 * Rig.timeout, asking: false).swap == nil)
        #expect(rig.pass(Rig.heartbeat).swap?.owner == Rig.beta)
    }

    @Test("S17: an owner by nobody's record is granted nothing")
    func noGrantToAStranger() {
        let rig = Rig.standby(Rig.record(owner: Rig.beta, epoch: 6, phase: .claimed))
        rig.take(.up)
        #expect(heartbeat(in: rig.take(asked(77))) == nil)
    }
}
