// The promise, under random deaths: whatever was acknowledged is read back, through the survivor and from the medium.

import AdminProtocol
import ClusterHarness
import Foundation
import LogModel
import TestSupport
import Testing

private let environment = ProcessInfo.processInfo.environment

extension Cluster {
    /// `TWINLOG_SEED=n` repeats a run's choices, `TWINLOG_ROUNDS=n` makes it longer.
    @Suite(.serialized) struct HistoryTests {
        enum Fault: String, CaseIterable {
            case killOwner, killMirror, freezeOwner, freezeMirror, killBoth, stopOwner, stopMirror, handover
        }

        let seed = environment["TWINLOG_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...UInt64(UInt32.max))
        let rounds = environment["TWINLOG_ROUNDS"].flatMap { Int($0) } ?? 12

        @Test func nothingAcknowledgedIsLostWhateverDies() async throws {  // S1, S8, S13, S14, S16, S23, S24
            print("history: TWINLOG_SEED=\(seed) TWINLOG_ROUNDS=\(rounds) repeats this")
            var options = LocalClusterOptions()
            options.logBytes = 4 << 20
            try await many(options, in: "/dev/shm", rounds: rounds)
        }

        /// Pools in ordinary files: every persist is an `msync`. And loops that look before they sleep.
        @Test func nothingAcknowledgedIsLostWithPoolsOnADisk() async throws {
            print("history: TWINLOG_SEED=\(seed) repeats this")
            var options = LocalClusterOptions()
            options.logBytes = 4 << 20
            options.poll = .always(micros: 100)
            try await many(options, in: NSTemporaryDirectory(), rounds: max(2, rounds / 6))
        }

        private func many(_ options: LocalClusterOptions, in parent: String, rounds: Int) async throws {
            var random = SplitMix64(seed: seed)
            var faults: [Fault] = []
            try await withCluster(options, in: parent) { cluster in
                let history = try await withHistory(cluster, seed: seed) { history in
                    for round in 0..<rounds {
                        if faults.isEmpty { faults = Fault.allCases.shuffled(using: &random) }
                        let fault = faults.removeLast()
                        try await Task.sleep(for: .milliseconds(Int.random(in: 0...400, using: &random)))
                        do {
                            try await inflict(fault, on: cluster, &random)
                        } catch {
                            throw HarnessError("seed \(seed), round \(round), \(fault): \(error)")
                        }
                        let before = history.acknowledgedWrites
                        try await cluster.wait("writing again after \(fault), seed \(seed), round \(round)") {
                            history.acknowledgedWrites > before + 10
                        }
                        guard history.violations.isEmpty else {
                            throw HarnessError("after \(fault), seed \(seed), round \(round): \(history.violations)")
                        }
                    }
                }
                try await verify(history, cluster)
            }
        }

        /// Ends with both nodes up and the group mirrored.
        private func inflict(_ fault: Fault, on cluster: LocalCluster, _ random: inout SplitMix64) async throws {
            let (owner, mirror) = try cluster.roles()
            let pause = Duration.milliseconds(Int.random(in: 0...1500, using: &random))
            switch fault {
            case .killOwner, .killMirror:
                let victim = fault == .killOwner ? owner : mirror
                cluster.kill(victim)
                try await Task.sleep(for: pause)
                try cluster.start(victim)
            case .freezeOwner:
                // Its partner fences it: the process ends by no doing of ours.
                try await cluster.freeze(owner)
                try await cluster.wait("fenced: \(owner)") { !cluster.isRunning(owner) }
                try cluster.start(owner)
            case .freezeMirror:
                try await cluster.freeze(mirror)
                try await Task.sleep(for: pause)
                cluster.signal(mirror, SIGCONT)
            case .killBoth:
                let order = [owner, mirror].shuffled(using: &random)
                for node in order { cluster.kill(node) }
                for node in order.shuffled(using: &random) {
                    try cluster.start(node)
                    try await Task.sleep(for: pause / 2)
                }
            case .stopOwner, .stopMirror:
                let victim = fault == .stopOwner ? owner : mirror
                guard cluster.stop(victim) == 0 else { throw HarnessError("\(victim) did not stop by itself") }
                try cluster.start(victim)
            case .handover:
                let answer = try cluster.ask(owner, .handover(group: "g0", to: mirror), timeoutMillis: 20_000)
                guard case .done = answer else { throw HarnessError("handover to \(mirror): \(answer)") }
            }
            try await cluster.waitUntilMirrored(seconds: 40)
        }
    }
}
