// Older copies of what a cluster stands on, put back in its place: a pool, the coordinator's directory; and decisions of an operator
// that can be taken back. Nobody may believe them, and a command leads out of each (S9, S13, S20).

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import LogModel
import NBDClient
import NIOCore
import StorageMedium
import Testing

extension Cluster {
    @Suite(.serialized) struct KnownCopyTests {
        private let first = ByteBuffer(repeating: 1, count: 4096)
        private let second = ByteBuffer(repeating: 2, count: 4096)

        private func write(_ payload: ByteBuffer, _ cluster: LocalCluster, at node: String) async throws {
            let client = try await cluster.connect(to: node)
            try await client.write(offset: 0, payload)
            await client.disconnect()
        }

        private func read(_ cluster: LocalCluster, at node: String) async throws -> ByteBuffer {
            let client = try await cluster.connect(to: node)
            let found = try await client.read(offset: 0, length: 4096)
            await client.disconnect()
            return found
        }

        /// At once: the partner of one that is dead claims within a tenth of a second.
        private func killBoth(_ cluster: LocalCluster) {
            for node in LocalCluster.nodes { cluster.signal(node, SIGKILL) }
            for node in LocalCluster.nodes { cluster.kill(node) }
        }

        private func pool(_ cluster: LocalCluster, _ node: String) -> String { "\(cluster.folder)/run/\(node).pool" }

        private func replace(_ path: String, by other: String) throws {
            try FileManager.default.removeItem(atPath: path)
            try FileManager.default.moveItem(atPath: other, toPath: path)
        }

        private func events(_ cluster: LocalCluster, _ node: String) throws -> [String] {
            guard case .events(let events) = try cluster.ask(node, .events(after: 0, wait: false)) else { return [] }
            return events.map { "\($0.kind): \($0.message)" }
        }

        @Test(
            "S20, A6: an older copy of a node's pool is known by its start, and begun anew",
            arguments: ["owner", "mirror"])
        func olderPool(of role: String) async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let victim = role == "owner" ? owner : mirror
                try await write(first, cluster, at: owner)
                killBoth(cluster)
                try FileManager.default.copyItem(atPath: pool(cluster, victim), toPath: pool(cluster, victim) + ".old")
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                let later = try cluster.roles()
                try await write(second, cluster, at: later.owner)
                killBoth(cluster)
                try replace(pool(cluster, victim), by: pool(cluster, victim) + ".old")
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                #expect(try await read(cluster, at: try cluster.roles().owner) == second)
                let told = try LocalCluster.nodes.flatMap { try events(cluster, $0) }
                #expect(told.contains { $0.contains("older copy") }, "\(told)")
            }
        }

        @Test("S20, O15: yesterday's copy of the owner's own pool, alone, serves nothing and says what it is")
        func olderPoolAlone() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                try await write(first, cluster, at: owner)
                killBoth(cluster)
                try FileManager.default.copyItem(atPath: pool(cluster, owner), toPath: pool(cluster, owner) + ".old")
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                let now = try cluster.roles().owner
                if now != owner { #expect(try twinlog(cluster, "handover", "g0", "--to", owner).code == 0) }
                try await write(second, cluster, at: owner)
                try cluster.drain()
                cluster.stop(mirror)
                try await cluster.wait("degraded") { try cluster.record()?.inSync == [NodeID(owner)] }
                cluster.kill(owner)
                try replace(pool(cluster, owner), by: pool(cluster, owner) + ".old")
                try cluster.start(owner)
                try await cluster.wait("refused") {
                    cluster.group(at: owner)?.status.reason?.contains("older copy") == true
                }
                #expect(cluster.owner() == nil)
                let refused = try twinlog(cluster, "forget-coordinator", "g0", "--on", owner, "--yes")
                #expect(refused.code == 1 && refused.output.contains("older copy"), "\(refused.output)")
                let medium = try FileHandle(forReadingFrom: URL(fileURLWithPath: cluster.mediumPath()))
                #expect(try medium.read(upToCount: 4096) == Data(repeating: 2, count: 4096), "S9")
            }
        }

        @Test(
            "S20, A5: a coordinator that has forgotten that a mirror was counted out is refused; the operator decides")
        func olderCoordinator() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let coordinator = cluster.folder + "/run/coordinator"
                try await write(first, cluster, at: owner)
                try FileManager.default.copyItem(atPath: coordinator, toPath: coordinator + ".old")
                cluster.kill(mirror)
                try await cluster.wait("degraded") { try cluster.record()?.inSync == [NodeID(owner)] }
                try await write(second, cluster, at: owner)
                cluster.kill(owner)
                try FileManager.default.removeItem(atPath: coordinator)
                try FileManager.default.moveItem(atPath: coordinator + ".old", toPath: coordinator)
                try cluster.start(owner)
                try await cluster.wait("refused") {
                    cluster.group(at: owner)?.status.reason?.contains("lost its memory") == true
                }
                try cluster.start(mirror)
                try await cluster.wait("answering") { cluster.group(at: mirror) != nil }
                #expect(cluster.owner() == nil)
                let decided = try twinlog(cluster, "forget-coordinator", "g0", "--on", owner, "--yes")
                #expect(decided.code == 0, "\(decided.output)")
                try await cluster.waitUntilMirrored()
                #expect(try await read(cluster, at: try cluster.roles().owner) == second)
            }
        }

        @Test("S9, A7: a takeover by force that was not published is taken back without force by whoever was complete")
        func forcedAndTakenBack() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                cluster.kill(mirror)
                try await cluster.wait("degraded") { try cluster.record()?.inSync == [NodeID(owner)] }
                try await write(second, cluster, at: owner)
                cluster.kill(owner)
                let medium = try FileMedium.open(
                    path: cluster.mediumPath(), sizeBytes: 64 << 20, createIfMissing: false)
                try medium.lock()
                try cluster.start(mirror)
                try await cluster.wait("unavailable") { cluster.group(at: mirror)?.status.state == "unavailable" }
                let forced = try run(
                    "timeout", "3", builtBinaries() + "/twinlog", "--config", cluster.configurationPath, "takeover",
                    "g0",
                    "--on", mirror, "--force")
                #expect(
                    forced.output.contains("how many is unknown") && forced.output.contains(owner), "\(forced.output)")
                try await cluster.wait("claimed by force") { try cluster.record()?.setsAsideLog == true }
                cluster.kill(mirror)
                try medium.unlock()
                try cluster.start(owner)
                try await cluster.wait("up") { cluster.group(at: owner) != nil }
                let back = try twinlog(cluster, "takeover", "g0", "--on", owner)
                #expect(back.code == 0, "\(back.output)")
                #expect(try await read(cluster, at: owner) == second)
            }
        }

        @Test("S18, C2: an operator's word ends the wait for a process that no fence reaches")
        func confirmedDead() async throws {
            try await withCluster { cluster in
                try await write(second, cluster, at: try cluster.roles().owner)
                killBoth(cluster)
                // As when the hosts were rebooted under other names.
                var record = try #require(try cluster.record())
                let owner = try #require(record.ownerProcess).node.rawValue
                let mirror = LocalCluster.partner(of: owner)
                record.version += 1
                record.ownerProcess?.bootID = "00000000-0000-0000-0000-000000000001"
                record.ownerProcess?.hostID = "another host"
                let coordinator = try FileCoordinator(directory: cluster.folder + "/run/coordinator")
                #expect(try coordinator.swap(expecting: record.version - 1, to: record) == .won)
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.wait("waiting") { cluster.state()?.reason?.contains("confirm-dead \(owner)") == true }
                #expect(try twinlog(cluster, "confirm-dead", mirror, "--yes").code == 1)
                let confirmed = try twinlog(cluster, "confirm-dead", owner, "--yes")
                #expect(confirmed.code == 0, "\(confirmed.output)")
                try await cluster.waitUntilMirrored()
                #expect(try await read(cluster, at: try cluster.roles().owner) == second)
                let fence = try #require(try cluster.record()?.fences.first { $0.target.hostID == "another host" })
                #expect(fence.confirmed?.method == "operator" && fence.confirmed?.by.contains("@") == true)
            }
        }

        @Test("C6, O16: with `stall`, a mirror that lost its log is counted out, begun anew, and the group goes on")
        func lostLog() async throws {
            var options = LocalClusterOptions.patient
            options.onMirrorLoss = "stall"
            try await withCluster(options) { cluster in
                let (owner, mirror) = try cluster.roles()
                try await write(first, cluster, at: owner)
                cluster.kill(mirror)
                let file = try FileHandle(forUpdating: URL(fileURLWithPath: pool(cluster, mirror)))
                try file.seek(toOffset: 16384)
                try file.write(contentsOf: Data(repeating: 0, count: 8192))
                try file.close()
                try cluster.start(mirror)
                try await write(second, cluster, at: owner)
                try await cluster.waitUntilMirrored()
                #expect(try events(cluster, owner).contains { $0.hasPrefix("mirror-amnesia") })
            }
        }

        @Test("C1: claims that are never published do not make the record unreadable")
        func claimsWithoutEnd() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                try await write(second, cluster, at: owner)
                killBoth(cluster)
                let medium = cluster.mediumPath()
                try #require(rename(medium, medium + ".away") == 0)
                for _ in 0..<12 {
                    let before = try #require(try cluster.record()).epoch
                    try cluster.start(owner)
                    try await cluster.wait("claimed") {
                        guard let record = try cluster.record() else { return false }
                        return record.epoch > before && record.mustFence.isEmpty
                    }
                    cluster.kill(owner)
                }
                let record = try #require(try cluster.record())
                #expect(record.fences.count <= 10, "\(record.fences.count) processes stand in the record")
                try #require(rename(medium + ".away", medium) == 0)
                try cluster.start(mirror)
                try cluster.start(owner)
                try await cluster.waitUntilMirrored()
                #expect(try await read(cluster, at: try cluster.roles().owner) == second)
            }
        }
    }
}
