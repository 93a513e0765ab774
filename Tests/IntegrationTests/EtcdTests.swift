// A pair of processes with a real etcd for a coordinator: it serves, a partner takes over, and an etcd that forgot is refused (S20).

import AdminProtocol
import ClusterHarness
import Coordination
import CoordinationEtcd
import EtcdSupport
import Foundation
import LogModel
import NBDClient
import NIOCore
import TestSupport
import Testing

extension Cluster {
    @Suite(
        .serialized, .enabled(if: EtcdServers.isInstalled, "/usr/bin/etcd is missing: Debian's etcd-server"))
    struct EtcdTests {
        private let written = ByteBuffer(repeating: 0x5a, count: 8192)

        /// Both nodes know the servers by `endpoints`; the servers answer first.
        private func withPair(
            _ servers: EtcdServers, endpoints: [EtcdSettings.Endpoint]? = nil,
            _ body: (LocalCluster) async throws -> Void
        ) async throws {
            try await waitUntilAnswering(servers)
            var options = LocalClusterOptions.patient
            let places = (endpoints ?? servers.endpoints).map { "'\($0)'" }.joined(separator: ", ")
            options.coordinator = "{type: etcd, endpoints: [\(places)], prefix: /twinlog/test}"
            try await withCluster(options, body)
        }

        private func waitUntilAnswering(_ servers: EtcdServers) async throws {
            let coordinator = EtcdCoordinator(servers.settings())
            let answers = try await eventually(seconds: 60) { (try? coordinator.presences(of: [])) != nil }
            try #require(answers, "\(servers.logs())")
        }

        private func write(_ cluster: LocalCluster, at node: String) async throws {
            let client = try await cluster.connect(to: node)
            try await client.write(offset: 4096, written)
            await client.disconnect()
        }

        private func read(_ cluster: LocalCluster, at node: String) async throws -> ByteBuffer {
            let client = try await cluster.connect(to: node)
            let found = try await client.read(offset: 4096, length: written.readableBytes)
            await client.disconnect()
            return found
        }

        @Test(
            "S15, S16: with etcd the partner of a killed owner takes over, and nothing that was acknowledged is missing"
        )
        func takeover() async throws {
            let folder = try Folder()
            let servers = try EtcdServers(members: 3, in: folder.path)
            try await withPair(servers) { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 1) { history in
                    servers.kill(0)
                    try await cluster.wait("written") { history.acknowledgedWrites > 200 }
                    cluster.kill(owner)
                    try await cluster.wait("taken over", seconds: 60) { cluster.owner() == mirror }
                    let before = history.acknowledgedWrites
                    try await cluster.wait("served") { history.acknowledgedWrites > before }
                }
                try cluster.start(owner)
                try await cluster.waitUntilMirrored(seconds: 60)
                try await verify(history, cluster)
                #expect(try twinlog(cluster, "check-config", "--node", owner).code == 0)
            }
        }

        @Test("S17: without a quorum a mirrored group serves on; with one again its partner can take it over")
        func quorumLost() async throws {
            let folder = try Folder()
            let servers = try EtcdServers(members: 3, in: folder.path)
            try await withPair(servers) { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 2) { history in
                    servers.kill(0)
                    servers.kill(1)
                    // The lease has ended by then.
                    try await cluster.wait("without a takeover", seconds: 60) {
                        cluster.group(at: owner)?.status.takeoverPossible == false
                    }
                    let before = history.acknowledgedWrites
                    try await cluster.wait("serving") { history.acknowledgedWrites > before + 500 }
                    #expect(cluster.owner() == owner)
                    try servers.start(0)
                    try servers.start(1)
                    try await cluster.wait("with a takeover", seconds: 60) {
                        cluster.group(at: owner)?.status.takeoverPossible == true
                    }
                    cluster.kill(owner)
                    try await cluster.wait("taken over", seconds: 60) { cluster.owner() == mirror }
                }
                try await verify(history, cluster)
            }
        }

        @Test("S15: slow answers of etcd, within a try, lose nothing and nobody")
        func slow() async throws {
            let folder = try Folder()
            let servers = try EtcdServers(members: 1, in: folder.path)
            try await waitUntilAnswering(servers)
            let way = try Way(to: servers.endpoints[0])
            way.set(.slow(millis: 200))
            try await withPair(servers, endpoints: [way.endpoint]) { cluster in
                let (owner, mirror) = try cluster.roles()
                try await write(cluster, at: owner)
                cluster.kill(owner)
                try await cluster.wait("taken over", seconds: 60) { cluster.owner() == mirror }
                #expect(try await read(cluster, at: mirror) == written)
                #expect(way.takeRequests() > 0)
            }
        }

        @Test("S20: an etcd that is restarted empty is refused, and an operator's word makes it the coordinator again")
        func restartedEmpty() async throws {
            let folder = try Folder()
            let servers = try EtcdServers(members: 1, in: folder.path)
            try await withPair(servers) { cluster in
                let (owner, mirror) = try cluster.roles()
                try await write(cluster, at: owner)
                for node in [mirror, owner] { #expect(cluster.stop(node) == 0) }
                servers.kill(0)
                try servers.wipe(0)
                try servers.start(0)
                try await waitUntilAnswering(servers)
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.wait("refused", seconds: 60) {
                    cluster.state()?.reason?.contains("forget-coordinator") == true
                }
                #expect(cluster.owner() == nil)
                #expect(try EtcdCoordinator(servers.settings()).read(GroupID("g0")) == nil, "nothing was made anew")
                let forgotten = try twinlog(cluster, "forget-coordinator", "g0", "--on", owner, "--yes")
                #expect(forgotten.code == 0, "\(forgotten.output)")
                try await cluster.waitUntilMirrored(seconds: 60)
                #expect(try await read(cluster, at: try cluster.roles().owner) == written)
            }
        }

        @Test("twinlog-recover asks etcd whether a pool is in sync, and refuses where etcd does not answer")
        func recovery() async throws {
            let folder = try Folder()
            let servers = try EtcdServers(members: 1, in: folder.path)
            try await withPair(servers) { cluster in
                let (owner, mirror) = try cluster.roles()
                cluster.kill(mirror)
                try await cluster.wait("degraded", seconds: 60) { cluster.state()?.state == "degraded" }
                try await write(cluster, at: owner)
                cluster.kill(owner)
                func replay(_ node: String) throws -> Finished {
                    try cluster.recover(
                        "replay", node, "--group", "g0", "--volume", "vol0=" + cluster.mediumPath(), "--config",
                        cluster.configurationPath, "--dry-run")
                }
                let stale = try replay(mirror)
                #expect(stale.code == 6 && stale.output.contains("out of sync"), "\(stale.output)")
                let fresh = try replay(owner)
                #expect(fresh.code == 0 || fresh.code == 1, "\(fresh.output)")
                servers.kill(0)
                let unknown = try replay(owner)
                #expect(unknown.code == 6 && unknown.output.contains("etcd"), "\(unknown.output)")
            }
        }
    }
}
