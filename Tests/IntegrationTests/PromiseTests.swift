// Attempts to break the promise on purpose, one fault at a time.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import LogModel
import NBDClient
import NIOCore
import StorageMedium
import Synchronization
import Testing

extension Cluster {
    @Suite(.serialized) struct PromiseTests {
        private let payload = ByteBuffer(repeating: 0xA5, count: 8192)

        @Test func withTheMirrorStoppedNothingIsAcknowledgedUntilItIsDisqualified() async throws {  // S1, S13
            try await withCluster(LocalClusterOptions()) { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, payload)
                try await cluster.freeze(mirror)
                for number in 0..<3 {
                    try await client.write(offset: UInt64(number) * 8192, payload)
                    // The record was swapped before the acknowledgement was sent, so it is there to read by now.
                    let record = try #require(try cluster.record())
                    #expect(record.inSync == [NodeID(owner)], "acknowledged while \(record.inSync) hold it")
                }
                #expect(cluster.state()?.state == "degraded")
                #expect(try twinlog(cluster, "status").code == 3, "a takeover is not possible now")
                cluster.signal(mirror, SIGCONT)
                try await cluster.waitUntilMirrored()
                await client.disconnect()
            }
        }

        @Test func stallingGroupsAcknowledgeNothingWithOneCopy() async throws {  // S13
            var options = LocalClusterOptions()
            options.onMirrorLoss = "stall"
            try await withCluster(options) { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                cluster.kill(mirror)
                let write = client.submit(.write(offset: 0, payload: payload, fua: false))
                try await cluster.wait("stalled") { cluster.state()?.state == "stalled" }
                // Reads are served meanwhile.
                #expect(try await client.read(offset: 1 << 20, length: 4096).readableBytes == 4096)
                let record = try #require(try cluster.record())
                #expect(record.inSync.count == 2, "the mirror still holds everything that was acknowledged")
                let acknowledged = Acknowledged()
                write.whenComplete { _ in acknowledged.set() }
                try await Task.sleep(for: .seconds(2))
                #expect(!acknowledged.isSet)
                try cluster.start(mirror)
                _ = try await write.get()
                try await cluster.waitUntilMirrored()
                await client.disconnect()
            }
        }

        @Test func aStaleMirrorAloneServesNothing() async throws {  // S15, S19
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                cluster.kill(mirror)
                try await client.write(offset: 0, payload)  // held by the owner alone
                cluster.kill(owner)
                try cluster.start(mirror)
                try await cluster.wait("unavailable") { cluster.group(at: mirror)?.status.state == "unavailable" }
                let reason = try #require(cluster.group(at: mirror)?.status.reason)
                #expect(reason.contains(owner), "says who holds the data: \(reason)")
                await #expect(throws: NBDClientError.self) { try await cluster.connect(to: mirror) }
                let takeover = try twinlog(cluster, "takeover", "g0", "--on", mirror)
                #expect(takeover.code == 1, "\(takeover.output)")
                try cluster.start(owner)
                try await cluster.waitUntilMirrored()
                let again = try await cluster.connect(to: try cluster.roles().owner)
                #expect(try await again.read(offset: 0, length: 8192) == payload)
                await again.disconnect()
            }
        }

        /// What was acknowledged with one copy and had reached the medium is not taken back by a stale log (S9).
        @Test func aTakeoverByForceNeverWritesAStaleLogOverTheMedium() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                let bytes = 64 << 10, count = 128
                func write(_ byte: UInt8) -> [EventLoopFuture<ByteBuffer?>] {
                    (0..<count).map { number in
                        client.submit(
                            .write(
                                offset: UInt64(number * bytes), payload: ByteBuffer(repeating: byte, count: bytes),
                                fua: false))
                    }
                }
                let old = write(0x11)
                _ = try await old[count / 4].get()
                cluster.kill(mirror)
                for write in old { _ = try await write.get() }
                for write in write(0x22) { _ = try await write.get() }
                try cluster.drain()
                cluster.kill(owner)
                let stale = try cluster.dataRecords(mirror).count
                try cluster.start(mirror)
                try await cluster.wait("unavailable") { cluster.group(at: mirror)?.status.state == "unavailable" }
                let forced = try twinlog(cluster, "takeover", "g0", "--on", mirror, "--force")
                #expect(forced.code == 0, "\(forced.output)")
                let again = try await cluster.connect(to: mirror)
                for number in 0..<count {
                    let found = try await again.read(offset: UInt64(number * bytes), length: bytes)
                    #expect(found == ByteBuffer(repeating: 0x22, count: bytes), "write \(number)")
                }
                await again.disconnect()
                let archives = try FileManager.default.contentsOfDirectory(atPath: cluster.folder + "/run")
                    .filter { $0.hasPrefix("\(mirror).pool.archive-g0-") }
                #expect(archives.count == (stale > 0 ? 1 : 0), "\(stale) records were set aside")
                print("by force: a stale log of \(stale) records was set aside")
            }
        }

        /// The test holds the medium, so that the taker stands between its claim and its publication; there it is killed.
        @Test(arguments: ["the taker", "the old owner"])
        func aTakerThatDiesBetweenClaimAndPublicationLosesNothing(_ returning: String) async throws {  // S16
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 7) { history in
                    try await cluster.wait("writing") { history.acknowledgedWrites > 200 }
                    let medium = try FileMedium.open(
                        path: cluster.mediumPath(), sizeBytes: 64 << 20, createIfMissing: false)
                    // So that the taker is not quicker than the test.
                    try await cluster.freeze(mirror)
                    cluster.kill(owner)
                    try await Cluster.seize(medium)
                    cluster.signal(mirror, SIGCONT)
                    try await cluster.wait("claimed") { try cluster.record()?.phase == .claimed }
                    let claim = try #require(try cluster.record())
                    #expect(claim.owner == NodeID(mirror) && claim.sources.contains(NodeID(mirror)))
                    cluster.kill(mirror)
                }
                #expect(try cluster.record()?.phase == .claimed, "nobody published")
                let first = returning == "the taker" ? mirror : owner
                try cluster.start(first)
                try await cluster.wait("owned by \(first)") { cluster.group(at: first)?.isOwner == true }
                try await history.verify(through: cluster.nbdAddress(of: first), export: "vol0", on: eventLoops)
                try cluster.start(LocalCluster.partner(of: first))
                try await cluster.waitUntilMirrored()
                try await verify(history, cluster)
            }
        }

        @Test func aNodeThatDiesAgainAndAgainLosesNothing() async throws {  // S16, S19
            try await withCluster { cluster in
                let history = try await withHistory(cluster, seed: 11) { history in
                    for _ in 0..<4 {
                        let before = history.acknowledgedWrites
                        try await cluster.wait("writing") { history.acknowledgedWrites > before + 50 }
                        // The owner dies as soon as it owns: its mirror may not have joined yet.
                        let owner = try cluster.roles().owner
                        cluster.kill(owner)
                        try cluster.start(owner)
                        try await cluster.wait("owned again") { cluster.owner() != nil }
                    }
                }
                try await cluster.waitUntilMirrored()
                try await verify(history, cluster)
            }
        }

        /// As when its file system is not mounted yet: an empty file in its place would be served as the volume.
        @Test func aMediumThatIsNotThereIsWaitedForAndNotMadeAnew() async throws {  // S8
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, payload)
                try cluster.drain()
                cluster.kill(owner)
                cluster.kill(mirror)
                let medium = cluster.mediumPath()
                try #require(rename(medium, medium + ".elsewhere") == 0)
                try cluster.start(owner)
                try await cluster.wait("waiting for the medium") {
                    cluster.group(at: owner)?.status.reason?.contains(medium) == true
                }
                #expect(access(medium, F_OK) != 0 && cluster.owner() == nil)
                try #require(rename(medium + ".elsewhere", medium) == 0)
                try await cluster.wait("owned") { cluster.owner() == owner }
                let again = try await cluster.connect(to: owner)
                #expect(try await again.read(offset: 0, length: 8192) == payload)
                await again.disconnect()
            }
        }

        @Test(
            "S17: without its coordinator a mirrored group serves, and takeovers wait; with its mirror gone too it stops"
        )
        func withoutTheCoordinator() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                let there = cluster.folder + "/run/coordinator", away = cluster.folder + "/run/elsewhere"
                try FileManager.default.moveItem(atPath: there, toPath: away)
                try await cluster.wait("the lease runs out") { cluster.state()?.coordinator?.reachable == false }
                #expect(cluster.state()?.state == "mirrored" && cluster.state()?.takeoverPossible == false)
                #expect(cluster.state()?.reason?.contains("coordinator") == true)
                for number in UInt64(0)..<200 {
                    try await client.write(offset: number * 8192, payload)
                    #expect(try await client.read(offset: number * 8192, length: 8192) == payload)
                }
                cluster.kill(mirror)
                let write = client.submit(.write(offset: 0, payload: payload, fua: false))
                let acknowledged = Acknowledged()
                write.whenComplete { _ in acknowledged.set() }
                try await cluster.wait("the right to serve ends") { cluster.state()?.state == "stalled" }
                #expect(!acknowledged.isSet)
                try FileManager.default.moveItem(atPath: away, toPath: there)
                _ = try await write.get()
                #expect(cluster.state()?.coordinator?.reachable == true)
                #expect(
                    try #require(try cluster.record()).inSync == [NodeID(owner)],
                    "counted out before one copy was enough")
                await client.disconnect()
            }
        }

        /// A presence is not made durable: a loss of power may leave anything of it.
        @Test func aPresenceThatCannotBeReadKeepsNobodyFromTakingOver() async throws {  // S16
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, payload)
                cluster.kill(mirror)
                cluster.kill(owner)
                let presence = cluster.folder + "/run/coordinator/presence.\(owner)"
                try Data("{".utf8).write(to: URL(fileURLWithPath: presence))
                try cluster.start(mirror)
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                let again = try await cluster.connect(to: mirror)
                #expect(try await again.read(offset: 0, length: 8192) == payload)
                await again.disconnect()
            }
        }

        @Test func aFullLogDelaysWritersAndNothingElse() async throws {  // S6
            var options = LocalClusterOptions.patient
            options.logBytes = 4 << 20
            try await withCluster(options) { cluster in
                let (owner, _) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                let large = ByteBuffer(repeating: 0x3C, count: 1 << 20)
                // Ten times the log, all at once, on one connection.
                let writes = (0..<40).map {
                    client.submit(.write(offset: UInt64($0) << 20, payload: large, fua: false))
                }
                for write in writes { _ = try await write.get() }
                for index in 0..<40 {
                    #expect(try await client.read(offset: UInt64(index) << 20, length: 1 << 20) == large)
                }
                await client.disconnect()
            }
        }
    }

    /// Waits for the lock: its holder is about to die.
    private static func seize(_ medium: FileMedium) async throws {
        let deadline = Date().addingTimeInterval(10)
        while true {
            do { return try medium.lock() } catch { if Date() > deadline { throw error } }
            try await Task.sleep(for: .microseconds(200))
        }
    }

    private final class Acknowledged: Sendable {
        private let value = Atomic<Bool>(false)
        func set() { value.store(true, ordering: .relaxed) }
        var isSet: Bool { value.load(ordering: .relaxed) }
    }
}
