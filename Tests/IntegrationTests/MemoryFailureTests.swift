// Memory of a pool fails under a running node (S26). A page that the pool's file has lost raises the same signal as one with an
// uncorrectable error.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import LogModel
import Testing

extension Cluster {
    @Suite(.serialized) struct MemoryFailureTests {
        private static let options: LocalClusterOptions = {
            var options = LocalClusterOptions.patient
            options.logBytes = 4 << 20
            return options
        }()

        /// Cuts the node's pool in the middle of its ring, which the load soon meets.
        private func failMemory(_ cluster: LocalCluster, of node: String) throws {
            let firstRing: UInt64 = 16384 + 8192
            guard truncate("\(cluster.folder)/run/\(node).pool", off_t(firstRing + (2 << 20))) == 0 else {
                throw HarnessError("\(node)'s pool could not be cut")
            }
        }

        private func events(_ cluster: LocalCluster, _ node: String, _ kind: String) throws -> [NodeEvent] {
            guard case .events(let events) = try cluster.ask(node, .events(after: 0, wait: false)) else { return [] }
            return events.filter { $0.kind == kind }
        }

        @Test func theOwnersMemoryFailsAndItsPartnerGoesOn() async throws {
            try await withCluster(Self.options) { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 31) { history in
                    try await cluster.wait("writing") { history.acknowledgedWrites > 100 }
                    try failMemory(cluster, of: owner)
                    try await cluster.wait("given to \(mirror)") { cluster.group(at: mirror)?.isOwner == true }
                    let before = history.acknowledgedWrites
                    try await cluster.wait("writing") { history.acknowledgedWrites > before + 100 }
                }
                #expect(cluster.isRunning(owner), "a fault costs memory, not the process")
                let failed = try events(cluster, owner, "memory-failed")
                #expect(failed.first?.message.contains("\(owner).pool") == true, "\(failed)")
                #expect(failed.first?.message.contains("LSN") == true, "\(failed)")
                #expect(cluster.state()?.state == "degraded", "memory that fails mirrors nothing")
                #expect(try events(cluster, mirror, "attach-refused").count < 10)
                try await verify(history, cluster)
            }
        }

        @Test func theMirrorsMemoryFailsAndItIsCountedOut() async throws {  // S11, S13
            try await withCluster(Self.options) { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 32) { history in
                    try await cluster.wait("writing") { history.acknowledgedWrites > 100 }
                    try failMemory(cluster, of: mirror)
                    try await cluster.wait("counted out") { try cluster.record()?.inSync == [NodeID(owner)] }
                    let before = history.acknowledgedWrites
                    try await cluster.wait("writing") { history.acknowledgedWrites > before + 100 }
                }
                #expect(cluster.isRunning(mirror))
                #expect(try events(cluster, mirror, "memory-failed").isEmpty == false)
                try await verify(history, cluster)
            }
        }
    }
}
