import ClusterProtocol
import Coordination
import LogModel
import Testing

/// An owner with two mirrors: each has a way of its own, and an acknowledgement names those that must hold a write.
struct TwoMirrorsTests {
    private static let both = [Rig.beta, Rig.gamma]

    private func required(_ rig: Rig) -> [NodeID] { rig.machine.authority.rule.required.map { Self.both[$0] } }

    /// Both attached and in sync.
    private func mirrored() -> Rig {
        let rig = Rig.owner(partners: Self.both)
        for mirror in Self.both {
            rig.attach(mirror)
            rig.take(.swapped(.won))
        }
        return rig
    }

    /// Ticks under a lease that holds, while only `mirror` is heard; everything that the machine says.
    private func pass(_ rig: Rig, _ time: Nanos, hearing mirror: NodeID) -> [Directive] {
        var out: [Directive] = []
        for _ in 0..<(time / Rig.heartbeat) {
            rig.now += Rig.heartbeat
            out += rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
            out += rig.take(.rail(mirror, .heard))
            out += rig.take(.tick)
        }
        return out
    }

    @Test("S14: each mirror joins by a swap of its own, which leaves the other as it was")
    func bothAttach() throws {
        let rig = Rig.owner(partners: Self.both)
        #expect(required(rig).isEmpty && rig.machine.authority.rule.allowed)
        rig.attach(Rig.gamma)
        #expect(required(rig) == [Rig.gamma])
        rig.take(.swapped(.won))
        #expect(rig.machine.record?.holders == [Rig.alpha, Rig.gamma])
        #expect(rig.machine.state(rig.now) == .degraded, "one is not there yet")
        rig.attach(Rig.beta)
        rig.take(.swapped(.won))
        #expect(rig.machine.record?.holders == [Rig.alpha, Rig.beta, Rig.gamma])
        #expect(required(rig) == Self.both && rig.machine.authority.rule.allowed)
        #expect(rig.machine.state(rig.now) == .mirrored && rig.machine.reason(rig.now) == nil)
    }

    @Test("S1: a write is acknowledged only when every mirror that must hold it does")
    func everyMirrorHoldsIt() {
        let rule = mirrored().machine.authority.rule
        var acknowledgement = Acknowledgement(LSN(640))
        func moves(_ beta: UInt64?, _ gamma: UInt64?) -> Bool {
            acknowledgement.update(local: LSN(1280), by: rule) { [beta, gamma][$0].map { LSN($0) } }
        }
        #expect(!moves(1280, nil) && !moves(nil, 1280) && !moves(1280, 640))
        #expect(moves(1280, 960) && acknowledgement.acknowledged == LSN(960))
        #expect(moves(1280, 1280) && acknowledgement.acknowledged == LSN(1280))
    }

    @Test(
        "S13: of two mirrors the silent one is counted out, and nothing is acknowledged before; the other stays required"
    )
    func oneIsCountedOut() throws {
        let rig = mirrored()
        let out = pass(rig, Rig.timeout, hearing: Rig.beta)
        #expect(out.contains(.rail(Rig.gamma, .close)) && !out.contains(.rail(Rig.beta, .close)))
        #expect(
            required(rig) == Self.both && rig.machine.authority.rule.allowed, "it must hold every write until then"
        )
        let swap = try #require(pass(rig, Rig.timeout, hearing: Rig.beta).swap)
        #expect(swap.holders == [Rig.alpha, Rig.beta] && swap.epoch == Epoch(3))
        #expect(!rig.machine.authority.rule.allowed)
        rig.take(.swapped(.won))
        #expect(required(rig) == [Rig.beta] && rig.machine.authority.rule.allowed)
        // What beta holds is no copy too few, so acknowledgements need not wait for the pool to note the epoch (S20).
        #expect(rig.machine.isHeldTwice(rig.now))
    }

    @Test("S14: a mirror that comes back catches up beside one that is in sync")
    func oneComesBack() throws {
        let rig = mirrored()
        _ = pass(rig, 2 * Rig.timeout, hearing: Rig.beta)
        rig.take(.swapped(.won))
        let far = LSN(640 + 2 * GroupMachineDistance.bytes)
        rig.take(.progress(local: far, of: Rig.beta, durable: far, pending: nil))
        #expect(pass(rig, 2 * Rig.heartbeat, hearing: Rig.beta).contains(.rail(Rig.gamma, .dial)))
        rig.attach(Rig.gamma)
        #expect(required(rig) == [Rig.beta], "one that is far behind holds nothing up")
        let join = try #require(rig.take(.progress(local: far, of: Rig.gamma, durable: far, pending: nil)).swap)
        #expect(required(rig) == Self.both && join.holders == [Rig.alpha, Rig.beta, Rig.gamma])
        rig.take(.swapped(.won))
        #expect(rig.machine.state(rig.now) == .mirrored)
    }

    @Test("S16: a handover goes to a partner that is in sync, whichever that is")
    func handover() throws {
        let rig = Rig.owner(partners: Self.both)
        rig.attach(Rig.gamma)
        rig.take(.swapped(.won))
        rig.command(.handOver)
        rig.take(.drained)
        let given = try #require(rig.take(.mediaReleased).swap)
        #expect(given.owner == Rig.gamma && given.phase == .claimed && given.holders == [Rig.alpha, Rig.gamma])
    }

    @Test("S21: what a node says that is no partner changes nothing")
    func stranger() {
        let rig = mirrored()
        let stranger = NodeID("delta")
        #expect(rig.take(.rail(stranger, .down)) == [])
        #expect(rig.take(.progress(local: LSN(9999), of: stranger, durable: .zero, pending: nil)) == [])
        #expect(rig.machine.state(rig.now) == .mirrored)
    }
}
