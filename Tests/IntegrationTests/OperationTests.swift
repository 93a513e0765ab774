// What an operator does: orderly stops, handovers, drains, status and its exit codes, two groups in opposite directions.

import AdminProtocol
import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import Testing

extension Cluster {
    @Suite(.serialized) struct OperationTests {
        @Test func anOrderlyStopHandsOverAndClientsSeeAReconnectOnly() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 3) { history in
                    try await cluster.wait("writing") { history.acknowledgedWrites > 100 }
                    #expect(cluster.stop(owner) == 0)
                    #expect(cluster.group(at: mirror)?.isOwner == true, "handed over before it ended")
                    let before = history.acknowledgedWrites
                    try await cluster.wait("writing") { history.acknowledgedWrites > before + 100 }
                    try cluster.start(owner)
                    try await cluster.waitUntilMirrored()
                }
                try await verify(history, cluster)
            }
        }

        @Test func aNodeThatIsNotReadyYetStopsInOrder() async throws {
            try await withCluster(started: false) { cluster in
                // The coordinator does not answer: its path is no directory.
                let path = cluster.folder + "/run/coordinator"
                try #require(FileManager.default.createFile(atPath: path, contents: nil))
                try cluster.start("alpha")
                try await cluster.wait("looking for the coordinator") { cluster.logs().contains("coordinator") }
                #expect(cluster.stop("alpha") == 0)
                #expect(!cluster.logs().contains("ready"))
            }
        }

        @Test func bothNodesStopInOrderAndStartAgain() async throws {  // S4, S19
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                let bytes = ByteBuffer(repeating: 0x77, count: 70_001)
                try await client.write(offset: 12_345, bytes)
                #expect(cluster.stop(owner) == 0)
                #expect(cluster.stop(mirror) == 0)
                for node in [owner, mirror] { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                let again = try await cluster.connect(to: try cluster.roles().owner)
                #expect(try await again.read(offset: 12_345, length: 70_001) == bytes)
                await again.disconnect()
            }
        }

        @Test func twoGroupsCrossAndEachSurvivesTheOthersOwner() async throws {
            var options = LocalClusterOptions.patient
            options.crossed = true
            try await withCluster(options) { cluster in
                try await cluster.waitUntilMirrored("g1")
                #expect(cluster.owner(of: "g0") == "alpha" && cluster.owner(of: "g1") == "beta")
                let other = try await withHistory(cluster, seed: 5, volume: "vol1") { other in
                    let history = try await withHistory(cluster, seed: 6) { history in
                        try await cluster.wait("writing") {
                            history.acknowledgedWrites > 100 && other.acknowledgedWrites > 100
                        }
                        for victim in ["alpha", "beta"] {
                            cluster.kill(victim)
                            let survivor = LocalCluster.partner(of: victim)
                            try await cluster.wait("both owned by \(survivor)") {
                                ["g0", "g1"].allSatisfy { cluster.group($0, at: survivor)?.isOwner == true }
                            }
                            try cluster.start(victim)
                            for group in ["g0", "g1"] { try await cluster.waitUntilMirrored(group) }
                        }
                    }
                    try await verify(history, cluster)
                }
                try await verify(other, cluster, group: "g1", volume: "vol1")
            }
        }

        @Test func handoverGoesWhereItIsTold() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 1))
                let result = try twinlog(cluster, "handover", "g0", "--to", mirror)
                #expect(result.code == 0, "\(result.output)")
                try await cluster.waitUntilMirrored()
                #expect(cluster.owner() == mirror)
                let again = try await cluster.connect(to: mirror)
                #expect(try await again.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 1))
                await again.disconnect()
                for (group, node) in [("nosuch", mirror), ("g0", "nosuch")] {
                    let refused = try twinlog(cluster, "handover", group, "--to", node)
                    #expect(refused.code == 2 && refused.output.contains("nosuch"), "\(refused.output)")
                }
                #expect(try twinlog(cluster, "handover").code == 2)
            }
        }

        @Test func takeoverByCommandFencesTheOwner() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let result = try twinlog(cluster, "takeover", "g0", "--on", mirror)
                #expect(result.code == 0, "\(result.output)")
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                try await cluster.wait("the old owner is gone or has given way") {
                    !cluster.isRunning(owner) || cluster.group(at: owner)?.isOwner == false
                }
            }
        }

        @Test func drainEmptiesTheLogWhileDegradedToo() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                cluster.kill(mirror)
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 8192, Stamp.block(2, stamp: 4))
                let result = try twinlog(cluster, "drain", "g0")
                #expect(result.code == 0, "\(result.output)")
                let medium = try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath()))
                #expect(Stamp.read(2, medium[8192..<12288]) == 4)
                await client.disconnect()
            }
        }

        @Test("O13: a node that cannot be asked is unknown, with the reason, and not said to be away")
        func cannotBeAsked() async throws {
            try await withCluster { cluster in
                for node in LocalCluster.nodes {
                    #expect(rename("\(cluster.folder)/run/\(node).sock", "\(cluster.folder)/run/\(node).away") == 0)
                }
                let status = try twinlog(cluster, "status", "--json")
                #expect(status.code == 1)
                let group = try #require(
                    status.output.range(of: "\"state\" : \"unknown\"")
                        ?? status.output.range(of: "\"state\":\"unknown\""))
                #expect(!group.isEmpty && status.output.contains("No such file or directory"), "\(status.output)")
                let events = try twinlog(cluster, "events")
                #expect(events.code == 1 && events.output.contains("alpha.sock"), "\(events.output)")
                for node in LocalCluster.nodes {
                    #expect(rename("\(cluster.folder)/run/\(node).away", "\(cluster.folder)/run/\(node).sock") == 0)
                }
            }
        }

        @Test(
            "O13: whoever may read the configuration, but not ask, is told so",
            .enabled(if: geteuid() == 0, "only root can become somebody else"))
        func mayNotAsk() async throws {
            try await withCluster { cluster in
                #expect(chmod(cluster.folder, 0o755) == 0 && chmod(cluster.configurationPath, 0o644) == 0)
                let denied = try run(
                    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", builtBinaries() + "/twinlog",
                    "--config", cluster.configurationPath, "status")
                #expect(denied.code == 1 && denied.output.contains("Permission denied"), "\(denied.output)")
                #expect(denied.output.contains("unknown") && !denied.output.contains("unavailable"), "\(denied.output)")
            }
        }

        @Test("O11: `localhost` listens on every loopback address, for clients and for rails")
        func localhost() async throws {
            var options = LocalClusterOptions.patient
            let ports = try (LocalCluster.freePort(), LocalCluster.freePort())
            options.nbdPorts = ports
            try await withCluster(options, started: false) { cluster in
                let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
                try text.replacingOccurrences(of: "127.0.0.1", with: "localhost")
                    .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                for host in ["127.0.0.1"] + (hasIPv6Loopback ? ["::1"] : []) {
                    let client = try await NBDClient.connect(
                        to: .tcp(TCPAddress(host: host, port: Int(ports.0))), export: "vol0", on: eventLoops)
                    #expect(try await client.read(offset: 0, length: 4096).readableBytes == 4096)
                    await client.disconnect()
                }
                let second = try run(
                    builtBinaries() + "/twinlogd", "--config", cluster.configurationPath, "--node", "alpha")
                #expect(second.code != 0 && !second.output.contains("bind("), "\(second.output)")
            }
        }

        private var hasIPv6Loopback: Bool {
            (try? String(contentsOfFile: "/proc/net/if_inet6", encoding: .utf8))?.contains(" lo") == true
        }

        @Test func statusTellsTheTruthInItsExitCode() async throws {
            try await withCluster(LocalClusterOptions()) { cluster in
                let (owner, mirror) = try cluster.roles()
                let good = try twinlog(cluster, "status", "--json")
                #expect(good.code == 0)
                let status = try JSONDecoder().decode(ClusterStatus.self, from: Data(good.output.utf8))
                #expect(status.groups.map(\.state) == ["mirrored"] && status.groups[0].owner == owner)
                #expect(status.groups[0].ifOwnerDiedNow.lostAcknowledgedWrites == 0)
                #expect(status.nodes.map(\.reachable) == [true, true])
                try await cluster.freeze(mirror)
                try await cluster.wait("degraded") { cluster.group(at: owner)?.status.state == "degraded" }
                let bad = try twinlog(cluster, "status", "--json")
                #expect(bad.code == 3)
                let later = try JSONDecoder().decode(ClusterStatus.self, from: Data(bad.output.utf8))
                #expect(later.groups.map(\.takeoverPossible) == [false])
                #expect(later.nodes.first { $0.name == mirror }?.reachable == false, "a stopped process")
                cluster.signal(mirror, SIGCONT)
                let events = try twinlog(cluster, "events")
                #expect(events.code == 0 && events.output.contains("degraded"), "\(events.output)")
                for node in LocalCluster.nodes { cluster.kill(node) }
                #expect(try twinlog(cluster, "status").code == 1, "no node answers")
            }
        }

        @Test func aSecondProcessOfANodeIsRefused() async throws {  // S20: the pool's lock
            try await withCluster { cluster in
                let owner = try cluster.roles().owner
                let second = try run(
                    builtBinaries() + "/twinlogd", "--config", cluster.configurationPath, "--node", owner)
                #expect(second.code != 0 && second.output.contains("\(owner).pool"), "\(second.output)")
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 1))
                await client.disconnect()
            }
        }
    }
}
