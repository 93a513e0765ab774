// Random faults of hosts, from a seed: one or two at a time, ended after 0.2 to 3 seconds, again and again while clients write. The same
// seed makes the same choices; what the cluster does about them also depends on the machine's timing.

package import ClusterHarness
internal import Synchronization
internal import TestSupport

package final class Nemesis: Sendable {
    private let hosts: HostCluster
    private let history: History
    private let began = ContinuousClock.now
    private let state: Mutex<State>

    private struct State {
        var random: SplitMix64
        var faults = 0
        var longestGap = Duration.zero
        /// What was done in the round of the longest gap.
        var longestFaults: [HostFault] = []
        var timeline: [String] = []
    }

    package init(_ hosts: HostCluster, history: History, seed: UInt64) {
        self.hosts = hosts
        self.history = history
        state = Mutex(State(random: SplitMix64(seed: seed)))
    }

    package var faults: Int { state.withLock { $0.faults } }
    /// What was done, and when.
    package var timeline: String { state.withLock { $0.timeline.joined(separator: "\n") } }
    package var summary: String {
        let (faults, gap, longest) = state.withLock { ($0.faults, $0.longestGap, $0.longestFaults) }
        return
            "\(faults) faults, \(history.acknowledgedWrites) acknowledged writes, at most \(gap) without one (\(longest))"
    }

    /// Rounds of faults until `time` is over or there were so many; throws when the cluster does not come back, or a read was wrong.
    package func run(for time: Duration, faults limit: Int = .max) async throws {
        var rounds = 0
        while ContinuousClock.now - began < time, faults < limit {
            try await round()
            rounds += 1
            if rounds % 8 == 0 {
                try hosts.checkWithForeignClient(history)
                note("read by nbdcopy")
            }
            if rounds % 50 == 0 { print("nemesis: \(ContinuousClock.now - began): \(summary)") }
            guard history.violations.isEmpty else { throw HarnessError("\(history.violations)") }
        }
    }

    private func round() async throws {
        let chosen = choose()
        let roles = try roles()
        for (index, fault) in chosen.faults.enumerated() {
            if index > 0 { try await Task.sleep(for: chosen.between) }
            note("\(fault) (owner \(roles.owner), \(chosen.severity))")
            try hosts.inflict(fault, roles, chosen.severity)
        }
        try await Task.sleep(for: chosen.lasting)
        note("healed")
        try hosts.heal()
        try await hosts.recover(seconds: 90)
        let count = history.acknowledgedWrites
        try await hosts.cluster.wait("writing", seconds: 60) { history.acknowledgedWrites > count + 20 }
        let gap = history.takeLongestGap()
        state.withLock { state in
            state.faults += chosen.faults.count
            guard gap > state.longestGap else { return }
            state.longestGap = gap
            state.longestFaults = chosen.faults
        }
        note("mirrored and written; \(gap) without an acknowledgement")
    }

    private struct Choice {
        var faults: [HostFault]
        var severity: Severity
        var between: Duration
        var lasting: Duration
    }

    private func choose() -> Choice {
        state.withLock { state in
            let count = state.random.below(3) == 0 ? 2 : 1
            let faults = Array(HostFault.allCases.shuffled(using: &state.random).prefix(count))
            var severity = Severity()
            severity.lossPercent = 1 + Int(state.random.below(30))
            severity.kilobitsPerSecond = 128 << Int(state.random.below(8))
            return Choice(
                faults: faults, severity: severity,
                between: .milliseconds(Int64(state.random.below(1000))),
                lasting: .milliseconds(Int64(200 + state.random.below(2800))))
        }
    }

    private func roles() throws -> Roles {
        guard let owner = hosts.cluster.owner() else { throw HarnessError("nobody owns the group") }
        return Roles(owner: owner, mirror: LocalCluster.nodes.first { $0 != owner }!)
    }

    private func note(_ what: String) {
        let time = ContinuousClock.now - began
        state.withLock { $0.timeline.append("\(time): \(what)") }
    }
}
