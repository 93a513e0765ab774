// A running pair takes a changed file: one node is restarted after the other, and clients of what both know go on.

import AdminProtocol
import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import TestSupport
import Testing

extension Cluster {
    struct RollingChangeTests {
        private static let mebibyte: UInt64 = 1 << 20

        private func change(_ cluster: LocalCluster, _ old: String, _ new: String) throws {
            let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
            try #require(text.contains(old))
            try text.replacing(old, with: new).write(
                toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
        }

        private func restart(_ node: String, _ cluster: LocalCluster) async throws {
            #expect(cluster.stop(node) == 0)
            try cluster.start(node)
            try await cluster.waitUntilMirrored(seconds: 40)
        }

        private func size(of volume: String, at node: String, _ cluster: LocalCluster) async throws -> UInt64 {
            let client = try await cluster.connect(to: node, volume: volume)
            await client.disconnect()
            return client.sizeBytes
        }

        @Test(
            "S1, S27: a volume is added and one grows, node by node, under load: the pair mirrors, and nothing is lost")
        func nodeByNode() async throws {
            try await withCluster { cluster in
                let (first, second) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 27) { history in
                    try succeed("truncate", "--size=1M", cluster.mediumPath("vol7"))
                    try change(
                        cluster, "{medium: run/vol0.img, size: \(64 * Self.mebibyte)}",
                        """
                        {medium: run/vol0.img, size: 96MiB}
                              vol7: {medium: run/vol7.img, size: 1MiB}
                        """)
                    let checked = try twinlog(cluster, "check-config", "--node", second)
                    #expect(checked.code == 0 && checked.output.contains("each group goes on with what both know"))
                    try await restart(second, cluster)
                    #expect(cluster.owner() == first)
                    #expect(cluster.group(at: first)?.status.takeoverPossible == true)
                    #expect(cluster.group(at: first)?.status.reason?.contains("volumes.vol0.size") == true)
                    #expect(try await size(of: "vol0", at: first, cluster) == 64 * Self.mebibyte)

                    #expect(cluster.stop(first) == 0)
                    try await cluster.wait("\(second) serves alone", seconds: 30) {
                        cluster.group(at: second)?.status.state == "degraded"
                    }
                    // What only one node knew when they last met is not served: the other could not take it over.
                    let early = await #expect(throws: (any Error).self) {
                        try await size(of: "vol7", at: second, cluster)
                    }
                    #expect("\(early, default: "")".contains("the configuration of \(first) does not have it"))
                    try cluster.start(first)
                    try await cluster.waitUntilMirrored(seconds: 40)
                    #expect(cluster.group(at: second)?.status.reason == nil)
                    #expect(try await size(of: "vol7", at: second, cluster) == Self.mebibyte)
                    #expect(try await size(of: "vol0", at: second, cluster) == 64 * Self.mebibyte)

                    #expect(try twinlog(cluster, "handover", "g0", "--to", first).code == 0)
                    try await cluster.waitUntilMirrored(seconds: 40)
                    #expect(try await size(of: "vol0", at: first, cluster) == 96 * Self.mebibyte)
                    let client = try await cluster.connect(to: first)
                    try await client.write(
                        offset: 96 * Self.mebibyte - 4096, ByteBuffer(repeating: 0x27, count: 4096))
                    await client.disconnect()
                    let before = history.acknowledgedWrites
                    try await cluster.wait("the clients go on") { history.acknowledgedWrites > before + 10 }
                }
                try await verify(history, cluster)

                // Whoever takes over now has all of it.
                cluster.kill(first)
                try await cluster.wait("\(second) took over", seconds: 30) { cluster.owner() == second }
                let client = try await cluster.connect(to: second)
                let bytes = try await client.read(offset: 96 * Self.mebibyte - 4096, length: 4096)
                #expect(bytes.readableBytesView.allSatisfy { $0 == 0x27 })
                await client.disconnect()
            }
        }

        @Test(
            "S27: a change that cannot be taken node by node is refused, with the key and both values, and the pair serves alone"
        )
        func notNodeByNode() async throws {
            try await withCluster { cluster in
                let (first, second) = try cluster.roles()
                #expect(cluster.stop(second) == 0)
                try change(cluster, "lease: 3000ms", "lease: 4s")
                try cluster.start(second)
                try await cluster.wait("\(first) says what differs", seconds: 30) {
                    guard let status = cluster.group(at: first)?.status else { return false }
                    let values = [first: "'3000ms'", second: "'4000ms'"]
                    let said = "lease is \(values["alpha"]!) on alpha and \(values["beta"]!) on beta"
                    return !status.takeoverPossible && status.reason?.contains(said) == true
                }
                #expect(cluster.owner() == first)
            }
        }
    }
}
