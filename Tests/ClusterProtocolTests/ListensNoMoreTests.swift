import ClusterProtocol
import Coordination
import LogModel
import Testing

/// An owner's host refuses connections where its process listens: the process is fenced, and a confirmed death ends every wait.
struct ListensNoMoreTests {
    private static let owner = Rig.process(Rig.alpha)

    private static func confirmed(_ method: String = "agent") -> StepAnswer {
        let confirmation = GroupRecord.Fence.Confirmation(method: method, by: "beta", at: "now")
        return .fenced([GroupRecord.Fence(target: owner, confirmed: confirmation)], problem: nil)
    }

    /// A mirror that has just granted, and whose rails end; what it says when nobody listens.
    private static func mirror() -> Rig {
        let rig = Rig.standby()
        rig.take(.up)
        rig.take(.said(Heartbeat(asks: 77)))
        rig.presence = Presence(process: owner, counter: 1, pool: Rig.pool(Rig.alpha))
        rig.take(.presence(of: rig.peer, rig.presence, deadProcess: nil, askedAt: rig.now))
        return rig
    }

    @Test("S16, S17: it is fenced at once, and claimed from once it is confirmed dead, though a grant lasts")
    func atOnce() throws {
        let rig = Self.mirror()
        #expect(rig.take(.down) == [])
        #expect(rig.take(.nobodyListens) == [.coordinator(.read)])
        #expect(rig.take(.recordRead(rig.machine.record)) == [.step(.fence([Self.owner]))])
        #expect(rig.pass(Rig.heartbeat).swap == nil)
        let claim = try #require(rig.take(Self.confirmed()).swap)
        #expect(claim.owner == Rig.beta && claim.phase == .claimed && claim.mustFence.isEmpty)
        #expect(claim.fences.contains { $0.target == Self.owner && $0.confirmed?.method == "agent" })
        #expect(rig.take(.swapped(.won)) == [.step(.fence([]))])
        #expect(rig.take(.fenced([], problem: nil)) == [.step(.lockMedia(expected: [:]))])
    }

    @Test("S17: a fence that confirms no death ends no wait")
    func unconfirmed() {
        for answer in [.fenced([], problem: "no answer"), .failed("no thread"), Self.confirmed("reservation")] {
            let rig = Self.mirror()
            rig.take(.down)
            rig.take(.nobodyListens)
            rig.take(.recordRead(rig.machine.record))
            #expect(rig.take(answer) == [])
            #expect(rig.pass(Rig.lease - 2 * Rig.heartbeat).swap == nil)
            #expect(rig.pass(Rig.lease).swap?.mustFence == [Self.owner])
        }
    }

    @Test("S16: nobody is fenced while any rail is up, or by a node that could not take over at once")
    func notFenced() {
        let heard = Self.mirror()
        #expect(heard.take(.nobodyListens) == [])

        let cutOff = Self.mirror()
        cutOff.take(.down)
        cutOff.take(.nobodyListens)
        #expect(cutOff.take(.unavailable("no quorum")) == [])
        #expect(cutOff.take(.tick) == [])

        let outOfSync = Rig.standby(Rig.record(holders: [Rig.alpha]))
        #expect(outOfSync.take(.nobodyListens) == [])

        let withoutMedia = Self.mirror()
        withoutMedia.take(.takeoverProblem("no such file"))
        withoutMedia.take(.down)
        #expect(withoutMedia.take(.nobodyListens) == [])
    }

    @Test("S16: a record that names another owner by then, or a rail that is up again, stops it")
    func overtaken() {
        let moved = Self.mirror()
        moved.take(.down)
        moved.take(.nobodyListens)
        var other = Rig.record(epoch: 6, version: 12)
        other.ownerProcess = Rig.process(Rig.alpha, 2)
        #expect(moved.take(.recordRead(other)) == [])

        let back = Self.mirror()
        back.take(.down)
        back.take(.nobodyListens)
        back.take(.up)
        #expect(back.take(.recordRead(back.machine.record)) == [])
    }

    @Test("S16: an answer to a fence from before the claim does not stand for the claim's own")
    func answersApart() throws {
        let rig = Self.mirror()
        rig.take(.down)
        rig.take(.nobodyListens)
        rig.take(.recordRead(rig.machine.record))
        // An operator takes over meanwhile; an earlier taker is to be fenced too.
        rig.pass(Rig.lease)
        var record = Rig.record(epoch: 7, phase: .claimed, mustFence: [Self.owner], version: 14, incarnation: 5)
        record.ownerProcess = Rig.process(Rig.alpha, 2)
        rig.take(.renewed(startedAt: rig.now, record: record))
        let claim = try #require(rig.command(.takeOver(force: false)).swap)
        #expect(claim.mustFence == [Self.owner, Rig.process(Rig.alpha, 2)])
        rig.take(.swapped(.won))
        #expect(!rig.take(Self.confirmed()).contains(.step(.lockMedia(expected: [:]))))
        #expect(rig.take(Rig.fenced).contains(.step(.lockMedia(expected: [:]))))
    }
}
