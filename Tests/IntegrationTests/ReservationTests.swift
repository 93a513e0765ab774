// A pair on one iSCSI medium, behind a real target (tgtd), whose fence is the medium's reservation: an owner that hangs is shut out, taken
// over from, and refused by the target when it goes on (S16, S18).

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import ISCSISupport
import LogModel
import NBDClient
import NIOCore
import SCSICommands
import StorageMediumSCSI
import TestSupport
import Testing

extension Cluster {
    @Suite(.serialized, .enabled(if: TargetServer.isInstalled, "there is no tgtd: install tgt"))
    struct ReservationTests {
        private static let options = LocalClusterOptions()
        private static let written = ByteBuffer(repeating: 0x5a, count: 4096)
        /// The history has the first 8 MiB.
        private static let beyondHistory: UInt64 = 32 << 20

        private func options(_ server: TargetServer, from patient: LocalClusterOptions = .init()) -> LocalClusterOptions
        {
            var options = patient
            options.fence = "{type: reservation}"
            options.media["vol0"] = "\(server.address())"
            return options
        }

        private func withPair(
            patiently: Bool = false, _ body: (LocalCluster, TargetServer) async throws -> Void
        ) async throws {
            let folder = try Folder()
            let server = try TargetServer(in: folder.path, unitBytes: [Self.options.volumeBytes])
            try await withCluster(options(server, from: patiently ? .patient : LocalClusterOptions())) { cluster in
                try await body(cluster, server)
            }
        }

        private func events(_ cluster: LocalCluster, _ node: String) throws -> [String] {
            guard case .events(let events) = try cluster.ask(node, .events(after: 0, wait: false)) else { return [] }
            return events.map { "\($0.kind): \($0.message)" }
        }

        private func progress(_ history: History, by count: Int, _ cluster: LocalCluster) async throws {
            let before = history.acknowledgedWrites
            try await cluster.wait("serving", seconds: 60) { history.acknowledgedWrites >= before + count }
        }

        private func hasKey(_ node: String, _ server: TargetServer) throws -> Bool {
            let opener = UnitMedium.Opener(NodeID(node), of: [NodeID(node)], cluster: "local")
            let keys = try PersistentReservations(opener.connect(to: .iscsi(server.address()))).keys()
            return keys.contains { KeyHolder(NodeID(node), of: "local").has($0) }
        }

        @Test(
            "S16, S18: a hanging owner is shut out and taken over from; when it goes on, it changes nothing on the medium, and mirrors"
        )
        func shutOut() async throws {
            try await withPair { cluster, server in
                var taker = ""
                let history = try await withHistory(cluster, seed: 61) { history in
                    let (owner, mirror) = try cluster.roles()
                    taker = mirror
                    try await progress(history, by: 200, cluster)
                    #expect(try hasKey(owner, server) && !hasKey(mirror, server))
                    try await cluster.freeze(owner)
                    try await cluster.wait("taken over", seconds: 60) { cluster.owner() == mirror }
                    #expect(try !hasKey(owner, server) && hasKey(mirror, server))
                    // The history's clients wait for the one that hangs.
                    let client = try await cluster.connect(to: mirror)
                    try await client.write(offset: Self.beyondHistory, Self.written)
                    await client.disconnect()
                    cluster.signal(owner, SIGCONT)
                    try await cluster.waitUntilMirrored(seconds: 60)
                    #expect(cluster.isRunning(owner), "it was shut out, not killed")
                    #expect(try !hasKey(owner, server))
                    try await progress(history, by: 200, cluster)
                }
                try await verify(history, cluster, medium: server.backing())
                let told = try events(cluster, taker)
                #expect(told.contains { $0.hasPrefix("fenced: ") && $0.contains("reservation") }, "\(told)")
            }
        }

        @Test(
            "S18: a medium that another node takes is given up at once, not tried again; its owner comes back by another claim"
        )
        func takenUnderTheOwner() async throws {
            try await withPair(patiently: true) { cluster, server in
                let history = try await withHistory(cluster, seed: 62) { history in
                    let owner = try cluster.roles().owner
                    let epoch = try #require(cluster.state()?.epoch)
                    try await progress(history, by: 200, cluster)
                    let other = UnitMedium.Opener(
                        NodeID(owner == "alpha" ? "beta" : "alpha"), of: LocalCluster.nodes.map { NodeID($0) },
                        cluster: "local")
                    let thief = try UnitMedium.take(
                        .iscsi(server.address()), sizeBytes: Self.options.volumeBytes, as: other
                    ) { _ in }
                    try await cluster.wait("owned in a later epoch", seconds: 60) {
                        cluster.state()?.epoch ?? 0 > epoch && cluster.owner() != nil
                    }
                    try await cluster.waitUntilMirrored(seconds: 60)
                    #expect(
                        try events(cluster, owner).contains {
                            $0.hasPrefix("ownership-lost: iscsi://")
                        })
                    #expect(throws: (any Error).self) { try thief.flush() }
                    try await progress(history, by: 200, cluster)
                }
                try await verify(history, cluster, medium: server.backing())
            }
        }

        @Test("S8, S18: a target that restarts, and has forgotten all reservations, loses nothing")
        func targetRestarts() async throws {
            try await withPair(patiently: true) { cluster, server in
                let history = try await withHistory(cluster, seed: 63) { history in
                    try await progress(history, by: 200, cluster)
                    let epoch = try #require(cluster.state()?.epoch)
                    server.stop()
                    try await progress(history, by: 50, cluster)
                    try server.start()
                    try await cluster.wait("the medium is taken anew", seconds: 60) {
                        cluster.state()?.epoch ?? 0 > epoch && cluster.owner() != nil
                    }
                    try await cluster.waitUntilMirrored(seconds: 60)
                    try await progress(history, by: 200, cluster)
                }
                try await verify(history, cluster, medium: server.backing())
                #expect(try hasKey(cluster.roles().owner, server))
            }
        }

        @Test("S18: without its target a fence confirms nothing: the takeover waits, loudly, until the target is back")
        func targetGone() async throws {
            try await withPair { cluster, server in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Self.written)
                await client.disconnect()
                server.stop()
                try await cluster.freeze(owner)
                try await cluster.wait("waiting", seconds: 60) {
                    cluster.group(at: mirror)?.status.reason?.contains("confirm-dead \(owner)") == true
                }
                // A node keeps its events on a thread of its own, so they may be a little behind its status.
                try await cluster.wait("the event", seconds: 60) {
                    try events(cluster, mirror).contains {
                        $0.hasPrefix("fence-failed: ") && $0.contains("reservation")
                    }
                }
                try server.start()
                try await cluster.wait("taken over", seconds: 60) {
                    cluster.group(at: mirror)?.status.state == "degraded"
                }
                let reader = try await cluster.connect(to: mirror)
                #expect(try await reader.read(offset: 0, length: 4096) == Self.written)
                await reader.disconnect()
            }
        }

        @Test("A handover gives the reservation away with the group; a stop leaves none")
        func handover() async throws {
            try await withPair(patiently: true) { cluster, server in
                let (owner, mirror) = try cluster.roles()
                let done = try twinlog(cluster, "handover", "g0", "--to", mirror)
                #expect(done.code == 0, "\(done.output)")
                #expect(try hasKey(mirror, server) && !hasKey(owner, server))
                try await cluster.waitUntilMirrored()
                for node in [owner, mirror] { #expect(cluster.stop(node) == 0) }
                #expect(try !hasKey(mirror, server) && !hasKey(owner, server))
            }
        }

        @Test("A medium that knows no reservations is refused at the start and by check-config, with its key")
        func refused() async throws {
            var options = LocalClusterOptions()
            options.fence = "{type: reservation}"
            try await withCluster(options, started: false) { cluster in
                try Data(count: Int(options.volumeBytes)).write(
                    to: URL(fileURLWithPath: cluster.folder + "/run/vol0.img"))
                let check = try twinlog(cluster, "check-config", "--node", "alpha")
                #expect(check.code == 1 && check.output.contains("groups.g0.volumes.vol0.medium"), "\(check.output)")
                try cluster.start("alpha")
                try await cluster.wait("refused") { cluster.ending(of: "alpha") != nil }
                #expect(cluster.ending(of: "alpha") == "exit 1")
                #expect(cluster.logs().contains("has no reservations, which `fence: {type: reservation}` needs"))
            }
        }
    }
}
