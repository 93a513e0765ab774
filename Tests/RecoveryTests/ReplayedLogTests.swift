// What the coordinator is told of a log that is on the medium, and what becomes of a swap that is lost or of which nobody
// knows.

import Coordination
import LogModel
import RecordSupport
import Synchronization
import Testing

@testable import Recovery

/// Answers swaps as it is told, in turn; then as a coordinator does.
private final class ScriptedCoordinator: Coordinator {
    enum Answer {
        /// In effect, and the answer is lost on its way.
        case unknownThoughApplied
        /// Not in effect; a repetition may be.
        case unknown
    }

    private struct State {
        var record: GroupRecord
        var answers: [Answer]
        var swaps = 0
    }
    private let state: Mutex<State>

    init(_ record: GroupRecord, _ answers: [Answer] = []) { state = Mutex(State(record: record, answers: answers)) }

    var record: GroupRecord { state.withLock { $0.record } }
    var swaps: Int { state.withLock { $0.swaps } }

    func read(_ group: GroupID) -> GroupRecord? { record }

    func swap(expecting expected: UInt64, to record: GroupRecord) -> SwapOutcome {
        state.withLock { state in
            state.swaps += 1
            let answer = state.answers.isEmpty ? nil : state.answers.removeFirst()
            if answer == .unknown { return .unknown("no answer") }
            guard state.record.version == expected else { return .lost(state.record) }
            state.record = record
            return answer == .unknownThoughApplied ? .unknown("no answer") : .won
        }
    }

    func announce(_ presence: Presence) {}
    func presence(of node: NodeID) -> Presence? { nil }
}

struct ReplayedLogTests {
    private static let alpha = NodeID("alpha")
    private static let beta = NodeID("beta")
    private static let replayed = GroupRecord.Replayed(node: alpha, end: LSN(640), at: "2026-01-01T00:00:00Z")

    private static func process(_ node: NodeID) -> ProcessIdentity {
        ProcessIdentity(node: node, pid: 7, startTicks: 9, bootID: "boot")
    }

    private static let record = GroupRecord(
        version: 4, group: GroupID("g0"), logUUID: logUUID, owner: beta, epoch: Epoch(6), phase: .published,
        holders: [alpha, beta], ownerProcess: process(beta),
        pools: ["alpha": poolUUID, "beta": UUID128(high: 9, low: 9)], incarnation: Incarnation(5))

    @Test("A4: of the new record no log counts, and the last owner is to be fenced")
    func successor() throws {
        let coordinator = ScriptedCoordinator(Self.record)
        guard case .told(let next) = try ReplayedLog.tell(coordinator, replacing: Self.record, by: Self.replayed) else {
            Issue.record("not told")
            return
        }
        #expect(coordinator.record == next && next.version == 5 && next.epoch == Epoch(7) && next.phase == .claimed)
        #expect(next.holders.isEmpty && next.sources.isEmpty && next.previousHolders.isEmpty && !next.setsAsideLog)
        #expect(next.ownerProcess == nil && next.mustFence == [Self.process(Self.beta)] && next.owner == Self.beta)
        #expect(next.replayed == Self.replayed)
        // Whose copy is known stays known.
        #expect(next.members[Self.alpha]?.incarnation == Incarnation(5))
    }

    @Test("A4: the record of a claim by force, which is not published, is replaced too")
    func afterAForcedClaim() throws {
        var claim = Self.record
        claim.phase = .claimed
        claim.setHolders([Self.beta])
        claim.claim?.previousHolders = [Self.alpha]
        claim.claim?.setsAsideLog = true
        claim.fence(Self.process(Self.alpha))
        let next = ReplayedLog.successor(of: claim, Self.replayed)
        #expect(next.previousHolders.isEmpty && !next.setsAsideLog && next.holders.isEmpty)
        #expect(Set(next.mustFence.map(\.node)) == [Self.alpha, Self.beta])
    }

    @Test("A2, A4: a swap of unknown outcome is made again until it is known", arguments: [true, false])
    func unknownThenKnown(isApplied: Bool) throws {
        let answer: ScriptedCoordinator.Answer = isApplied ? .unknownThoughApplied : .unknown
        let coordinator = ScriptedCoordinator(Self.record, [answer])
        let outcome = try ReplayedLog.tell(coordinator, replacing: Self.record, by: Self.replayed)
        #expect(outcome == .told(ReplayedLog.successor(of: Self.record, Self.replayed)))
        #expect(coordinator.swaps == 2 && coordinator.record.version == 5)
    }

    @Test("A2, A4: a swap of which nobody knows is told as such, after a bounded number of attempts")
    func neverKnown() throws {
        let coordinator = ScriptedCoordinator(Self.record, Array(repeating: .unknown, count: 100))
        let outcome = try ReplayedLog.tell(coordinator, replacing: Self.record, by: Self.replayed)
        #expect(outcome == .unknown("no answer") && coordinator.swaps == ReplayedLog.attempts)
    }

    @Test("A4: a node that swapped first is told of, and nothing is replaced")
    func overtaken() throws {
        var claim = Self.record
        claim.version += 1
        let coordinator = ScriptedCoordinator(claim)
        #expect(
            try ReplayedLog.tell(coordinator, replacing: Self.record, by: Self.replayed) == .overtaken(claim))
        #expect(coordinator.record == claim)
    }
}
