// Media that are not what a node takes them for, with real processes, each in the world that it sees: said by both nodes before
// anybody dies, and never served.

import AdminProtocol
import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import Testing

/// Mounts of its own for one process. Root in a container has none.
private let hasNamespaces = (try? run("unshare", "-m", "true").code) == 0

extension Cluster {
    @Suite(.serialized, .enabled(if: hasNamespaces, "this user cannot give a process mounts of its own"))
    struct MediaTests {
        private let bytes = ByteBuffer(repeating: 0x5A, count: 4096)

        /// Runs the node where `script` has mounted other things; the script runs in the folder of the media.
        private func start(_ node: String, after script: String, _ cluster: LocalCluster) throws {
            let enter = "cd \(cluster.folder)/run && \(script) && exec \"$@\""
            try cluster.start(node, through: ["/usr/bin/unshare", "-m", "/bin/sh", "-ec", enter, "sh"])
        }

        /// Both nodes say that the group could not be taken over, and why.
        private func bothSay(_ reason: String, of group: String, _ cluster: LocalCluster) async throws {
            for node in LocalCluster.nodes {
                try await cluster.wait("\(node) says of \(group): \(reason)", seconds: 30) {
                    guard let status = cluster.group(group, at: node)?.status else { return false }
                    return !status.takeoverPossible && status.reason?.contains(reason) == true
                }
            }
        }

        private func write(_ value: UInt8, to volume: String, at node: String, _ cluster: LocalCluster) async throws {
            let client = try await cluster.connect(to: node, volume: volume)
            try await client.write(offset: 0, ByteBuffer(repeating: value, count: 4096))
            await client.disconnect()
        }

        private func read(_ volume: String, at node: String, _ cluster: LocalCluster) async throws -> UInt8? {
            let client = try await cluster.connect(to: node, volume: volume)
            let bytes = try await client.read(offset: 0, length: 4096)
            await client.disconnect()
            return bytes.readableBytesView.first
        }

        @Test(
            "O9, S18: two media exchanged on one node: both say so, and after the owner's death no volume has another's bytes"
        )
        func exchanged() async throws {
            var options = LocalClusterOptions.patient
            options.crossed = true
            try await withCluster(options) { cluster in
                try await cluster.waitUntilMirrored("g1")
                for (volume, group, value) in [("vol0", "g0", 7), ("vol1", "g1", 8)] as [(String, String, UInt8)] {
                    let owner = try #require(cluster.owner(of: group))
                    try await write(value, to: volume, at: owner, cluster)
                    try cluster.drain(group)
                }
                cluster.stop("beta")
                try start(
                    "beta",
                    after:
                        "touch x && mount --bind vol0.img x && mount --bind vol1.img vol0.img && mount --bind x vol1.img",
                    cluster)
                try await bothSay("vol0.img: is vol1's medium (id ", of: "g0", cluster)
                try await bothSay("vol1.img: is vol0's medium (id ", of: "g1", cluster)
                cluster.kill("alpha")
                try await cluster.wait("beta cannot lock the medium", seconds: 30) {
                    cluster.group(at: "beta")?.status.state == "fencing"
                        && cluster.group(at: "beta")?.status.reason?.contains("is vol1's medium") == true
                }
                for volume in ["vol0", "vol1"] {
                    await #expect(throws: (any Error).self) { try await cluster.connect(to: "beta", volume: volume) }
                }
                cluster.kill("beta")
                for node in LocalCluster.nodes { try cluster.start(node) }
                for (volume, group, value) in [("vol0", "g0", 7), ("vol1", "g1", 8)] as [(String, String, UInt8)] {
                    try await cluster.waitUntilMirrored(group, seconds: 40)
                    let owner = try #require(cluster.owner(of: group))
                    #expect(try await read(volume, at: owner, cluster) == value)
                }
            }
        }

        @Test(
            "A9, C3: a standby below whose mount point lies an empty file says so, and a restarted owner serves again")
        func unmounted() async throws {
            try await withCluster { cluster in
                try await write(7, to: "vol0", at: "alpha", cluster)
                try cluster.drain()
                cluster.stop("beta")
                try start(
                    "beta", after: "truncate -s \(64 << 20) below && mount --bind below vol0.img", cluster)
                try await bothSay("vol0.img: has no identity, vol0's medium has ", of: "g0", cluster)
                try await write(9, to: "vol0", at: "alpha", cluster)
                cluster.kill("alpha")
                try cluster.start("alpha")
                try await cluster.wait("alpha serves", seconds: 60) { cluster.group(at: "alpha")?.isOwner == true }
                #expect(try await read("vol0", at: "alpha", cluster) == 9)
                let below = try Data(contentsOf: URL(fileURLWithPath: cluster.folder + "/run/below"))
                #expect(below.allSatisfy { $0 == 0 }, "nothing was written to what is not the medium")
            }
        }

        @Test("O21, S18: a medium that is cut under its owner is said by both, and not made longer again")
        func cut() async throws {
            try await withCluster { cluster in
                let (owner, _) = try cluster.roles()
                try await write(7, to: "vol0", at: owner, cluster)
                try cluster.drain()
                try #require(truncate(cluster.mediumPath(), 1 << 20) == 0)
                try await bothSay("is 1048576 bytes, but the configuration says 67108864", of: "g0", cluster)
                let client = try await cluster.connect(to: owner)
                await #expect(throws: (any Error).self) { try await client.read(offset: 2 << 20, length: 4096) }
                try await client.write(offset: 32 << 20, bytes)
                try await cluster.wait("the owner says what keeps its batches", seconds: 30) {
                    cluster.group(at: owner)?.status.reason?.contains("was cut to 1048576 bytes") == true
                }
                let size = try FileManager.default.attributesOfItem(atPath: cluster.mediumPath())[.size]
                #expect(size as? Int == 1 << 20)
                await client.disconnect()
            }
        }
    }
}
