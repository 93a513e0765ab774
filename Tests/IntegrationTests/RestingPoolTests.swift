// A pool in use whose name or head somebody takes away.

import AdminProtocol
import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import Testing

extension Cluster {
    @Suite(.serialized) struct RestingPoolTests {
        @Test("O17: an owner whose pool loses its name says so and hands its groups over", arguments: ["rm", "mv"])
        func unnamed(_ command: String) async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 3))
                let pool = "\(cluster.folder)/run/\(owner).pool"
                try succeed("bash", "-c", command == "rm" ? "rm '\(pool)'" : "mv '\(pool)' '\(pool).moved'")
                try await cluster.wait("handed over") { cluster.group(at: mirror)?.isOwner == true }
                try await cluster.waitUntilMirrored()
                let after = try await cluster.connect(to: mirror)
                #expect(try await after.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 3))
                await after.disconnect()
                #expect(cluster.group(at: owner)?.status.reason?.contains("\(owner).pool") == true)
                let events = try twinlog(cluster, "events").output
                #expect(events.contains("pool-unnamed") && !events.contains("suspect"), "\(events)")
                guard command == "mv" else { return }
                try succeed("mv", pool + ".moved", pool)
                try await cluster.wait("named again") { cluster.group(at: owner)?.status.reason == nil }
            }
        }

        @Test("O17: two nodes whose pools have both lost their names do not pass a group to and fro")
        func bothUnnamed() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                func pool(_ node: String) -> String { "\(cluster.folder)/run/\(node).pool" }
                func count(_ kind: String) throws -> Int {
                    try twinlog(cluster, "events").output.components(separatedBy: kind).count - 1
                }
                for node in LocalCluster.nodes { try succeed("mv", pool(node), pool(node) + ".moved") }
                try await cluster.wait("given away and back") {
                    try count("handing-over") == 2 && cluster.owner() == owner
                }
                try await cluster.waitUntilMirrored()
                // A look that finds noise is one that finds no name as well.
                try succeed(
                    "dd", "if=/dev/urandom", "of=\(pool(owner)).moved", "bs=4096", "count=1", "conv=notrunc",
                    "status=none")
                try await cluster.wait("looked at again") { try count("pool-restored") == 1 }
                #expect(try cluster.roles() == (owner, mirror))
                #expect(try count("handing-over") == 2 && count("pool-unnamed") == 2)
                let status = try twinlog(cluster, "status").output
                for node in LocalCluster.nodes {
                    #expect(status.contains("\(node): \(pool(node)) is gone"), "\(status)")
                }
            }
        }

        @Test("O17: without a partner, a node whose pool has no name goes on serving and says so")
        func unnamedAlone() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                #expect(cluster.stop(mirror) == 0)
                let client = try await cluster.connect(to: owner)
                try succeed("rm", "\(cluster.folder)/run/\(owner).pool")
                try await cluster.wait("said") {
                    cluster.group(at: owner)?.status.reason?.contains("the pool has no name any more") == true
                }
                try await client.write(offset: 0, Stamp.block(0, stamp: 4))
                #expect(try await client.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 4))
                await client.disconnect()
                #expect(cluster.group(at: owner)?.isOwner == true)
            }
        }

        @Test("O17: noise over the head of a pool in use is written over from memory, and said")
        func noise() async throws {
            try await withCluster { cluster in
                let (owner, _) = try cluster.roles()
                let pool = "\(cluster.folder)/run/\(owner).pool"
                // Superblocks and directory.
                try succeed("dd", "if=/dev/urandom", "of=\(pool)", "bs=4096", "count=4", "conv=notrunc", "status=none")
                try await cluster.wait("written anew") {
                    try twinlog(cluster, "events").output.contains("pool-restored")
                }
                cluster.kill(owner)
                try cluster.start(owner)
                try await cluster.waitUntilMirrored()
            }
        }
    }
}
