// The fence over several media: confirmed by all of those that the two nodes share, or by none (S18).

import Coordination
import FenceReservation
import LogModel
import SCSICommands
import Synchronization
import Testing

struct ReservationFenceTests {
    private static let nodes = ["alpha", "beta", "gamma"].map { NodeID($0) }
    private static let (alpha, beta) = (nodes[0], nodes[1])
    private let units = [FakeUnit(), FakeUnit(), FakeUnit()]

    /// Of beta: the first two media are shared with alpha, the third with gamma.
    private var fence: ReservationFence {
        ReservationFence(
            zip(units, [Self.alpha, Self.alpha, Self.nodes[2]]).map { unit, other in
                ReservationFence.SharedMedium(nodes: [Self.beta, other]) { () throws(SCSIError) in unit.initiator("b") }
            }, by: Self.beta, of: Self.nodes, cluster: "test")
    }

    private func process(_ node: NodeID) -> ProcessIdentity {
        ProcessIdentity(node: node, pid: 1, startTicks: 1, bootID: "another")
    }

    private func takeAll(by node: NodeID) throws {
        for unit in units {
            _ = try ExclusiveHold.take(
                unit.initiator("a"), as: KeyHolder(node, of: "test"), of: Self.nodes.map { KeyHolder($0, of: "test") })
        }
    }

    private func hasKeys(of node: NodeID) -> [Bool] {
        units.map { unit in
            unit.keys.contains { KeyHolder(node, of: "test").initiatorName.hasSuffix(String($0 >> 16, radix: 16)) }
        }
    }

    @Test("S18: a node is shut out of every medium that it shares with this one, and of no other")
    func shutOut() throws {
        try takeAll(by: Self.alpha)
        let confirmed = try fence.confirmDead(process(Self.alpha), by: Self.beta)
        #expect(confirmed.method == "reservation" && confirmed.by == "beta")
        #expect(hasKeys(of: Self.alpha) == [false, false, true])
        #expect(hasKeys(of: Self.beta) == [true, true, false])
    }

    @Test(
        "S18: one medium of two that does not confirm, and nothing is confirmed; what to type is said",
        arguments: [0, 1])
    func oneOfTwo(lying: Int) throws {
        try takeAll(by: Self.alpha)
        units[lying].lie { initiator, command, _ in
            initiator == "b" && command[0] == 0x5F && (4...5).contains(command[1]) ? .nothing : nil
        }
        let error = try #require(throws: FenceError.self) {
            _ = try fence.confirmDead(process(Self.alpha), by: Self.beta)
        }
        #expect(error.message.contains("twinlog confirm-dead alpha"))
        units[lying].state.withLock { $0.lie = nil }
        _ = try fence.confirmDead(process(Self.alpha), by: Self.beta)
        #expect(hasKeys(of: Self.alpha) == [false, false, true])
    }

    @Test("S18: a node that shares no medium cannot be shut out of any")
    func nothingShared() throws {
        let fence = ReservationFence([], by: Self.beta, of: Self.nodes, cluster: "test")
        #expect(throws: FenceError.self) { try fence.confirmDead(process(Self.alpha), by: Self.beta) }
    }
}
