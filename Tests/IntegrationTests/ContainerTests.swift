// Each node in a container of its own: process 1 of a PID namespace, a host name that changes with every start, no machine id.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import Glibc
import LogModel
import NBDClient
import Testing

private let canContain =
    (try? run("unshare", "--pid", "--fork", "--mount", "--mount-proc", "--uts", "true").code) == 0

extension Cluster {
    @Suite(.serialized, .enabled(if: canContain, "this user cannot give a process namespaces of its own"))
    struct ContainerTests {
        private func start(_ node: String, as host: String, _ cluster: LocalCluster) throws {
            let enter = "mount --bind /dev/null /etc/machine-id && hostname \(host) && exec \"$@\""
            try cluster.start(
                node,
                through: [
                    "/usr/bin/unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts",
                    "/bin/sh",
                    "-ec", enter, "sh",
                ])
        }

        /// The node's own process, below the one that made its namespaces.
        private func process(of node: String, _ cluster: LocalCluster) throws -> pid_t {
            let outer = try #require(cluster.processID(of: node))
            let children = try String(contentsOfFile: "/proc/\(outer)/task/\(outer)/children", encoding: .utf8)
            return try #require(pid_t(children.trimmingCharacters(in: .whitespaces)))
        }

        /// Sends the signal, and waits until the container has ended.
        private func end(_ node: String, by number: Int32, _ cluster: LocalCluster) async throws {
            #expect(Glibc.kill(try process(of: node, cluster), number) == 0)
            try await cluster.wait("\(node) has ended") { !cluster.isRunning(node) }
        }

        @Test(
            "S18, O7: containers that are started anew go on by themselves, after an orderly stop and after SIGKILL",
            arguments: [SIGTERM, SIGKILL])
        func startedAnew(_ number: Int32) async throws {
            try await withCluster(started: false) { cluster in
                for node in LocalCluster.nodes { try start(node, as: "\(node)-1", cluster) }
                try await cluster.waitUntilMirrored()
                let client = try await cluster.connect(to: try cluster.roles().owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 5))
                await client.disconnect()
                // The kernel may give the number of a namespace that is gone to the next one; none is gone while it is held.
                let namespaces = try LocalCluster.nodes.map { node in
                    try FileHandle(
                        forReadingFrom: URL(fileURLWithPath: "/proc/\(process(of: node, cluster))/ns/pid"))
                }
                for node in LocalCluster.nodes { try await end(node, by: number, cluster) }

                for node in LocalCluster.nodes { try start(node, as: "\(node)-2", cluster) }
                try await cluster.waitUntilMirrored()
                let again = try await cluster.connect(to: try cluster.roles().owner)
                #expect(try await again.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 5))
                await again.disconnect()
                let fences = try #require(try cluster.record()).fences
                #expect(fences.allSatisfy { $0.confirmed?.method == "pool" } && !fences.isEmpty, "\(fences)")
                for namespace in namespaces { try namespace.close() }
            }
        }

        @Test(
            "S18, O7: an owner whose container was killed and started anew tells its partner, which waits, of its end")
        func ownerStartedAnew() async throws {
            try await withCluster(started: false) { cluster in
                for node in LocalCluster.nodes { try start(node, as: "\(node)-1", cluster) }
                try await cluster.waitUntilMirrored()
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 7))
                await client.disconnect()
                let namespace = try FileHandle(
                    forReadingFrom: URL(fileURLWithPath: "/proc/\(process(of: owner, cluster))/ns/pid"))
                try await end(owner, by: SIGKILL, cluster)
                try await cluster.wait("waiting") {
                    cluster.group(at: mirror)?.status.reason?.contains("confirm-dead") == true
                }
                try start(owner, as: "\(owner)-2", cluster)
                try await cluster.waitUntilMirrored()
                #expect(cluster.owner() == mirror)
                let other = try await cluster.connect(to: mirror)
                #expect(try await other.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 7))
                await other.disconnect()
                let confirmation = try #require(try cluster.record()?.fences.first?.confirmed)
                #expect(confirmation.method == "pool" && confirmation.by == owner)
                try namespace.close()
            }
        }

        @Test("S18, O7: the partner's death in its own container is confirmed by nobody here, and said so")
        func partnerUnseen() async throws {
            try await withCluster(started: false) { cluster in
                for node in LocalCluster.nodes { try start(node, as: node, cluster) }
                try await cluster.waitUntilMirrored()
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 6))
                await client.disconnect()
                try await end(owner, by: SIGKILL, cluster)
                try await cluster.wait("told what to do") {
                    cluster.group(at: mirror)?.status.reason?.contains("twinlog confirm-dead \(owner)") == true
                }
                #expect(cluster.group(at: mirror)?.isOwner == false)
                #expect(try twinlog(cluster, "confirm-dead", owner, "--yes").code == 0)
                try await cluster.wait("taken over") { cluster.owner() == mirror }
                let other = try await cluster.connect(to: mirror)
                #expect(try await other.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 6))
                await other.disconnect()
            }
        }
    }
}
