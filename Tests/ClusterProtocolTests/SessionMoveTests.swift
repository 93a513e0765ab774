// A session that moves to another rail: the mirror stays counted, and nothing is acknowledged that it has not said anew that it holds.

import ClusterProtocol
import Coordination
import LogModel
import Testing

struct SessionMoveTests {
    private let attach = RailDirective.sendAttach(epoch: Epoch(2), counts: true)
    private let contents = MirrorContents(pool: Rig.pool(Rig.beta), generation: 1, isKept: true)

    private func needs(_ rig: Rig) -> Bool { rig.machine.authority.rule.needsMirror }

    /// What a machine reports, which ``Rig/take(_:after:)`` leaves out.
    private func reports(_ rig: Rig, _ event: RailEvent) -> [EventKind] {
        var out: [Directive] = []
        rig.machine.handle(.rail(Rig.beta, event), now: rig.now, into: &out)
        return out.compactMap { if case .report(let report) = $0 { report.kind } else { nil } }
    }

    @Test(
        "S11, S14: a session that moves attaches anew at once; the mirror counts all the while, and is in sync when it holds everything"
    )
    func moves() {
        let rig = Rig.mirrored()
        rig.progress(local: LSN(1280), mirror: LSN(960), pending: 7)
        #expect(rig.take(.moved) == [.rail(Rig.beta, attach)])
        #expect(needs(rig) && rig.machine.state(rig.now) == .stalled)
        #expect(rig.pass(Rig.heartbeat, heard: true).swap == nil)
        rig.take(.attached(durable: LSN(960), contents))
        #expect(needs(rig) && rig.machine.state(rig.now) == .resyncing)
        #expect(rig.progress(local: LSN(1280), mirror: LSN(1280)) == [.serving(.acknowledge)])
        #expect(rig.machine.state(rig.now) == .mirrored && rig.machine.record?.inSync == [Rig.alpha, Rig.beta])
    }

    @Test("a move is no loss; it is one when the new rail ends too")
    func reported() {
        let rig = Rig.mirrored()
        #expect(reports(rig, .moved) == [])
        #expect(reports(rig, .down) == [.mirrorLost])
        #expect(reports(rig, .down) == [])
    }

    @Test(
        "S13: a move that does not end in time is a loss, and the mirror is counted out, however often the session moves again"
    )
    func tooLong() throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.take(.moved)
        rig.pass(Rig.timeout / 2, heard: true)
        #expect(rig.take(.moved) == [.rail(Rig.beta, attach)])
        #expect(rig.pass(Rig.timeout / 2 - Rig.heartbeat, heard: true).swap == nil)
        #expect(needs(rig))
        let out = try #require(rig.pass(Rig.heartbeat, heard: true).swap)
        #expect(out.inSync == [Rig.alpha] && out.epoch == Epoch(3))
        #expect(!rig.machine.authority.rule.allowed)
    }

    @Test(
        "a handover and a stop whose session moves while they drain go on, and give the group away",
        arguments: [Command.handOver, .stop])
    func movesWhileDraining(command: Command) throws {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.progress(local: LSN(1280), mirror: LSN(960), pending: 7)
        #expect(rig.command(command) == [.serving(.drain)])
        #expect(rig.take(.moved) == [.rail(Rig.beta, attach)])
        #expect(needs(rig) && rig.machine.authority.isValid(rig.now))
        #expect(rig.pass(Rig.heartbeat, heard: true, renewing: rig.machine.record).refusal == nil)
        rig.take(.attached(durable: LSN(960), contents))
        rig.progress(local: LSN(1280), mirror: LSN(1280))
        rig.pass(2 * Rig.timeout, heard: true, renewing: rig.machine.record)
        #expect(rig.take(.drained) == [.step(.releaseMedia)])
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Rig.beta && given.sources == [Rig.alpha, Rig.beta])
    }

    @Test(
        "a handover whose session is not attached in time on another rail, or comes back without its log, goes back to serving",
        arguments: [false, true])
    func doesNotAttachWhileDraining(comesBack: Bool) {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.handOver)
        rig.take(.moved)
        if comesBack {
            rig.take(
                .attached(durable: LSN(640), MirrorContents(pool: Rig.pool(Rig.beta), generation: 1, isKept: false)))
        }
        let out = rig.pass(Rig.timeout, heard: true, renewing: rig.machine.record)
        #expect(out.refusal != nil && out.contains(.serving(.serve)))
        #expect(rig.machine.isOwner && (comesBack || needs(rig)))
        #expect(out.swap?.inSync == [Rig.alpha] || !comesBack)
    }

    @Test("S13: a session that moved while a handover drained, and whose rail is lost then, is a mirror that is lost")
    func lostWhileDraining() {
        let rig = Rig.mirrored()
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.command(.handOver)
        rig.take(.moved)
        rig.take(.attached(durable: LSN(640), contents))
        let out = rig.take(.down)
        #expect(out.refusal != nil && needs(rig) && rig.machine.state(rig.now) == .stalled)
    }

    @Test("S13: a mirror that comes from one rail to the next without what it held is counted out")
    func withoutItsLog() {
        let rig = Rig.mirrored()
        rig.take(.moved)
        let empty = MirrorContents(pool: Rig.pool(Rig.beta), generation: 1, isKept: false)
        #expect(rig.take(.attached(durable: LSN(640), empty)) == [.rail(Rig.beta, .close)])
        #expect(rig.take(.tick, after: Rig.heartbeat).swap?.inSync == [Rig.alpha])
        #expect(!rig.machine.authority.rule.allowed)
    }

    @Test("a catch-up that moves begins anew, and needs nothing of the mirror")
    func catchingUp() {
        let rig = Rig.owner()
        rig.progress(local: LSN(64 << 20), mirror: .zero)
        rig.take(.up)
        rig.take(.attached(durable: LSN(640), MirrorContents(pool: Rig.pool(Rig.beta), isKept: false)))
        #expect(rig.take(.moved) == [.rail(Rig.beta, .sendAttach(epoch: Epoch(2), counts: false))])
        #expect(!needs(rig) && rig.machine.authority.rule.allowed)
    }

    @Test("a session that moves while the join is on its way is dialled anew when the swap is won")
    func joining() {
        let rig = Rig.owner()
        rig.attach()
        #expect(rig.take(.moved) == [.rail(Rig.beta, .close)])
        rig.take(.swapped(.won))
        #expect(needs(rig) && rig.machine.state(rig.now) == .stalled)
        #expect(rig.take(.tick, after: Rig.heartbeat).contains(onRail: .dial))
    }

    // MARK: The mirror

    @Test("S16: an owner that is heard on a rail that stands by is not suspected, whatever became of the session")
    func heardBeside() {
        let rig = Rig.standby()
        rig.take(.up)
        rig.take(.down)
        for _ in 0..<100 {
            rig.take(.heardBeside(isSuspended: false))
            #expect(rig.pass(Rig.heartbeat).swap == nil)
        }
        #expect(rig.pass(Rig.timeout + Rig.lease).swap?.owner == Rig.beta)
    }

    @Test("S16: an owner that says on a rail that stands by that it may not serve is of no use")
    func suspendedBeside() {
        let rig = Rig.standby()
        rig.take(.up)
        rig.take(.down)
        var claim: Bool { rig.pass(Rig.heartbeat).swap?.owner == Rig.beta }
        var isClaimed = false
        for _ in 0..<100 where !isClaimed {
            rig.take(.heardBeside(isSuspended: true))
            isClaimed = claim
        }
        #expect(isClaimed)
    }
}
