// The day that twinlog-recover exists for: both servers are dead, in the middle of their work, and what is left is their
// pools and the medium.

import ClusterHarness
import Coordination
import Foundation
import LogModel
import Testing

extension Cluster {
    @Suite(.serialized) struct RecoverToolTests {
        private func recover(_ command: String, _ cluster: LocalCluster, _ node: String, _ more: String...) throws
            -> Finished
        {
            let words = [builtBinaries() + "/twinlog-recover", command, "\(cluster.folder)/run/\(node).pool"] + more
            return try run("bash", "-c", words.map { "'\($0)'" }.joined(separator: " "))
        }

        private func replay(_ cluster: LocalCluster, _ node: String) throws -> Finished {
            try recover("replay", cluster, node, "--group", "g0", "--config", cluster.configurationPath)
        }

        /// Load until so many more writes are acknowledged.
        private func wait(_ cluster: LocalCluster, _ history: History, moreWrites: Int) async throws {
            let from = history.acknowledgedWrites
            try await cluster.wait("\(moreWrites) more writes") { history.acknowledgedWrites >= from + moreWrites }
        }

        @Test(arguments: [1, 2] as [UInt64])
        func bothServersDeadEitherPoolInSyncGivesTheMedium(seed: UInt64) async throws {  // S1, S10, S16
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: seed) { history in
                    try await wait(cluster, history, moreWrites: 500)
                    // While they live, nobody else looks into their pools.
                    #expect(try replay(cluster, mirror).code == 5)
                    cluster.signal(owner, SIGKILL)
                    cluster.signal(mirror, SIGKILL)
                    cluster.kill(owner)
                    cluster.kill(mirror)
                }
                let inSync = try #require(try cluster.record()).inSync
                #expect(inSync == [NodeID("alpha"), NodeID("beta")], "killed together")
                let before = try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath()))
                for node in [mirror, owner] {
                    let result = try replay(cluster, node)
                    #expect(result.code == 0 || result.code == 1, "\(result.output)")
                    try history.verify(medium: cluster.mediumPath())
                    #expect(history.violations == [], "after \(node)'s pool")
                }
                let after = try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath()))
                #expect(before != after, "under load there is always something that was not destaged yet")
                // And a cluster that comes back after all finds the same.
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                try await verify(history, cluster)
            }
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
