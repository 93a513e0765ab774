// The day that twinlog-recover exists for: both servers are dead, in the middle of their work, and what is left is their
// pools and the medium.

import ClusterHarness
import Coordination
import Foundation
import LogModel
import Testing

extension Cluster {
    @Suite(.serialized) struct RecoverToolTests {
        private func replay(_ cluster: LocalCluster, _ node: String) throws -> Finished {
            try cluster.recover("replay", node, "--group", "g0", "--config", cluster.configurationPath)
        }

        /// Load until so many more writes are acknowledged.
        private func wait(_ cluster: LocalCluster, _ history: History, moreWrites: Int) async throws {
            let from = history.acknowledgedWrites
            try await cluster.wait("\(moreWrites) more writes") { history.acknowledgedWrites >= from + moreWrites }
        }

        /// Kills both servers under load, brings each pool to the medium in turn, and starts the cluster again. Answers how
        /// many records the logs held.
        private func killBothAndRecover(_ cluster: LocalCluster, seed: UInt64) async throws -> Int {
            let (owner, mirror) = try cluster.roles()
            let history = try await withHistory(cluster, seed: seed) { history in
                try await wait(cluster, history, moreWrites: 500)
                // While they live, nobody else looks into their pools.
                #expect(try replay(cluster, mirror).code == 5)
                try await cluster.waitUntilMirrored()
                cluster.signal(owner, SIGKILL)
                cluster.signal(mirror, SIGKILL)
                cluster.kill(owner)
                cluster.kill(mirror)
            }
            #expect(try cluster.record()?.inSync == [NodeID("alpha"), NodeID("beta")], "killed together")
            var records = 0
            for node in [mirror, owner] {
                records += try cluster.spoilMedium(whatIsInTheLogOf: node)
                let result = try replay(cluster, node)
                #expect(result.code == 0 || result.code == 1, "\(result.output)")
                try history.verify(medium: cluster.mediumPath())
                #expect(history.violations == [], "after \(node)'s pool")
            }
            for node in LocalCluster.nodes { try cluster.start(node) }
            try await cluster.waitUntilMirrored()
            try await verify(history, cluster)
            return records
        }

        @Test func bothServersDeadEitherPoolInSyncGivesTheMedium() async throws {  // S1, S10, S16
            var records = 0
            // Rarely everything is destaged at the moment of the kill; then there was nothing to rescue.
            for seed in 1...5 as ClosedRange<UInt64> where seed <= 2 || records == 0 {
                try await withCluster { cluster in records += try await killBothAndRecover(cluster, seed: seed) }
            }
            #expect(records > 0, "of five kills under load none left anything to rescue")
        }

        @Test func thePoolOutOfSyncIsRefusedAndTheOtherIsReplayed() async throws {  // S13
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 3) { history in
                    try await wait(cluster, history, moreWrites: 200)
                    cluster.kill(mirror)
                    try await cluster.wait("degraded") { try cluster.record()?.inSync == [NodeID(owner)] }
                    try await wait(cluster, history, moreWrites: 200)
                    cluster.kill(owner)
                }
                let before = try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath()))
                let refused = try replay(cluster, mirror)
                #expect(refused.code == 6 && refused.output.contains("out of sync"), "\(refused.output)")
                #expect(try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath())) == before)
                let result = try replay(cluster, owner)
                #expect(result.code == 0 || result.code == 1, "\(result.output)")
                try history.verify(medium: cluster.mediumPath())
                #expect(history.violations == [])
            }
        }
    }
}
