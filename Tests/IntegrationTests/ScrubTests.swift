// Bytes that rot in a log at rest are found and healed while both nodes live (S5, S26). The pools are mapped shared, so what
// a test writes to a pool's file is what the node finds in its memory.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import LogModel
import NBDClient
import NIOCore
import Testing

extension Cluster {
    /// The medium is on a file system that is full, so that everything stays in the logs; later it gets room.
    @Suite(.serialized) struct ScrubTests {
        static let whyNot: Comment? = {
            do {
                let folder = "/dev/shm/twinlog-probe-\(UUID128.random())"
                let probe = try run(
                    "bash", "-c",
                    "mkdir \(folder) && trap 'rmdir \(folder)' EXIT; mount -t tmpfs -o size=64k none \(folder) && umount \(folder)"
                )
                return probe.code == 0 ? nil : "a tmpfs cannot be mounted here: \(probe.output)"
            } catch {
                return "\(error)"
            }
        }()

        private static let writes = 24
        private static let writeBytes = 100_000

        private static func payload(_ number: Int) -> ByteBuffer {
            ByteBuffer(repeating: UInt8(number + 1), count: writeBytes)
        }

        /// `body` runs with every write acknowledged, in both logs and not on the medium.
        private func withResidentLog(
            in parent: String, _ body: (LocalCluster, _ owner: String, _ mirror: String) async throws -> Void
        ) async throws {
            try await withCluster(in: parent, started: false) { cluster in
                let small = cluster.folder + "/small"
                try succeed("bash", "-c", "mkdir \(small) && mount -t tmpfs -o size=256k none \(small)")
                defer { _ = Result { try succeed("umount", "-l", small) } }
                try succeed(
                    "bash", "-c",
                    "truncate -s \(64 << 20) \(small)/medium && ln -s \(small)/medium \(cluster.mediumPath())")
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                for number in 0..<Self.writes {
                    try await client.write(offset: UInt64(number * Self.writeBytes), Self.payload(number))
                }
                try await cluster.wait("stuck") { cluster.logs().contains("destage-failed") }
                try await body(cluster, owner, mirror)
                try succeed("mount", "-o", "remount,size=80m", small)
                try cluster.drain()
                let medium = try Data(contentsOf: URL(fileURLWithPath: small + "/medium"))
                for number in 0..<Self.writes {
                    let start = number * Self.writeBytes
                    #expect(medium[start..<start + Self.writeBytes].allSatisfy { $0 == UInt8(number + 1) }, "\(number)")
                }
                await client.disconnect()
            }
        }

        /// Where a run of the payload of write `number` begins in the pool's file.
        private func place(of number: Int, _ cluster: LocalCluster, _ node: String) throws -> UInt64 {
            let pool = try Data(
                contentsOf: URL(fileURLWithPath: "\(cluster.folder)/run/\(node).pool"), options: .alwaysMapped)
            let run = Data(repeating: UInt8(number + 1), count: 5000)
            return UInt64(try #require(pool.range(of: run)).lowerBound)
        }

        private func poke(_ cluster: LocalCluster, _ node: String, _ bytes: [UInt8], at place: UInt64) throws {
            let pool = try FileHandle(forUpdating: URL(fileURLWithPath: "\(cluster.folder)/run/\(node).pool"))
            try pool.seek(toOffset: place)
            try pool.write(contentsOf: bytes)
            try pool.close()
        }

        private func byte(_ cluster: LocalCluster, _ node: String, at place: UInt64) throws -> UInt8? {
            let pool = try FileHandle(forReadingFrom: URL(fileURLWithPath: "\(cluster.folder)/run/\(node).pool"))
            defer { pool.closeFile() }
            try pool.seek(toOffset: place)
            return try pool.read(upToCount: 1)?.first
        }

        private func reports(_ cluster: LocalCluster, _ node: String, _ kind: String) throws -> Int {
            guard case .events(let events) = try cluster.ask(node, .events(after: 0, wait: false)) else { return 0 }
            return events.count { $0.kind == kind }
        }

        /// On memory and on a disk, where storing anew takes an `msync`.
        @Test(.enabled(if: whyNot == nil, whyNot ?? ""), arguments: ["/dev/shm", NSTemporaryDirectory()])
        func whatRotsIsHealedFromTheOtherCopy(_ parent: String) async throws {
            try await withResidentLog(in: parent) { cluster, owner, mirror in
                for (node, number) in [(mirror, 17), (owner, 20)] {
                    let place = try place(of: number, cluster, node) + 777
                    try poke(cluster, node, [0xEE], at: place)
                    try await cluster.wait("healed: \(node)") {
                        try byte(cluster, node, at: place) == UInt8(number + 1)
                    }
                }
                try await cluster.wait("reported") { try reports(cluster, owner, "scrub-healed") > 0 }
                // The owner's copy: by the scrub, or by the destager, which looks at it too, or by both at once.
                try await cluster.wait("reported") {
                    try reports(cluster, owner, "scrub-healed") + reports(cluster, owner, "record-healed") >= 2
                }
                #expect(try reports(cluster, owner, "scrub-damaged") == 0)
                #expect(cluster.state()?.state == "mirrored", "nothing had to be shipped anew")
            }
        }

        @Test(.enabled(if: whyNot == nil, whyNot ?? ""))
        func whatIsDamagedInBothCopiesIsSaidOnceAndLeft() async throws {
            try await withResidentLog(in: "/dev/shm") { cluster, owner, mirror in
                var places: [(String, UInt64)] = []
                for node in [owner, mirror] { places.append((node, try place(of: 21, cluster, node) + 50)) }
                for (node, place) in places { try poke(cluster, node, [0xEE], at: place) }
                try await cluster.wait("reported") { try reports(cluster, owner, "scrub-damaged") == 1 }
                // A later pass finds what rots meanwhile, and says nothing twice.
                let other = try place(of: 22, cluster, mirror)
                try poke(cluster, mirror, [0xEE], at: other)
                try await cluster.wait("healed") { try reports(cluster, owner, "scrub-healed") == 1 }
                #expect(try reports(cluster, owner, "scrub-damaged") == 1)
                for (node, place) in places { try poke(cluster, node, [22], at: place) }
            }
        }

        @Test(
            "S5, S14, A3: a mirror that comes back heals its owner's log, and is sent no rot",
            .enabled(if: whyNot == nil, whyNot ?? ""), arguments: ["/dev/shm", NSTemporaryDirectory()])
        func rotWhileTheMirrorIsAway(_ parent: String) async throws {
            try await withResidentLog(in: parent) { cluster, owner, mirror in
                // Of write 20 the owner's copy rots, of write 17 the mirror's.
                var places: [(node: String, number: Int, place: UInt64)] = []
                for number in [17, 20] {
                    for node in [owner, mirror] {
                        places.append((node, number, try place(of: number, cluster, node) + 777))
                    }
                }
                cluster.kill(mirror)
                try await cluster.wait("counted out") { cluster.state()?.state == "degraded" }
                try poke(cluster, mirror, [0xEE], at: places[1].place)
                try poke(cluster, owner, [0xEE], at: places[2].place)
                try cluster.start(mirror)
                try await cluster.waitUntilMirrored()
                for (node, number, place) in places {
                    #expect(try byte(cluster, node, at: place) == UInt8(number + 1), "\(number) at \(node)")
                }
                #expect(try reports(cluster, owner, "record-healed") == 1)
                #expect(try reports(cluster, mirror, "mirror-conflict") == 0)
            }
        }

        @Test(
            "S5, A3: what rotted in both copies is said, kept from the mirror, and no takeover is promised",
            .enabled(if: whyNot == nil, whyNot ?? ""))
        func rotInBothWhileTheMirrorIsAway() async throws {
            try await withResidentLog(in: "/dev/shm") { cluster, owner, mirror in
                let places = try [owner, mirror].map { ($0, try place(of: 21, cluster, $0)) }
                cluster.kill(mirror)
                try await cluster.wait("counted out") { cluster.state()?.state == "degraded" }
                for (node, place) in places { try poke(cluster, node, [0xEE], at: place + (node == owner ? 50 : 60)) }
                try cluster.start(mirror)
                try await cluster.wait("said") { cluster.state()?.reason?.contains("catch-up stops") == true }
                #expect(cluster.state()?.takeoverPossible == false)
                #expect(try byte(cluster, mirror, at: places[1].1 + 50) == 22)
                #expect(try byte(cluster, mirror, at: places[1].1 + 60) == 0xEE)
                #expect(try reports(cluster, owner, "catch-up-stopped") == 1)
                for (node, place) in places { try poke(cluster, node, [22], at: place + (node == owner ? 50 : 60)) }
                try await cluster.waitUntilMirrored()
            }
        }

        @Test(
            "S26, B1: a read that meets rot fails while there is no other copy",
            .enabled(if: whyNot == nil, whyNot ?? ""))
        func readOfRot() async throws {
            try await withResidentLog(in: "/dev/shm") { cluster, owner, mirror in
                let place = try place(of: 21, cluster, owner) + 50
                cluster.kill(mirror)
                try await cluster.wait("counted out") { cluster.state()?.state == "degraded" }
                try poke(cluster, owner, [0xEE], at: place)
                let client = try await cluster.connect(to: owner)
                await #expect(throws: (any Error).self) {
                    try await client.read(offset: UInt64(21 * Self.writeBytes), length: 4096)
                }
                let other = try await client.read(offset: UInt64(20 * Self.writeBytes), length: 4096)
                #expect(other == ByteBuffer(repeating: 21, count: 4096))
                #expect(try reports(cluster, owner, "record-damaged") == 1)
                try poke(cluster, owner, [22], at: place)
                await client.disconnect()
            }
        }

        @Test(.enabled(if: whyNot == nil, whyNot ?? ""))
        func aHandoverOverAFailingMediumIsMadeAllTheSame() async throws {
            try await withResidentLog(in: "/dev/shm") { cluster, owner, mirror in
                async let handover = Task.detached { try twinlog(cluster, "handover", "g0", "--to", mirror) }.value
                try await cluster.wait("given to \(mirror)") { try cluster.record()?.owner == NodeID(mirror) }
                // Now the medium works for the partner, as where only one server's path to it is broken.
                try succeed("mount", "-o", "remount,size=80m", cluster.folder + "/small")
                let result = try await handover
                #expect(result.code == 0, "\(result.output)")
                try await cluster.waitUntilMirrored()
                #expect(cluster.owner() == mirror)
            }
        }
    }
}
