// The day that twinlog-recover exists for: both servers are dead, in the middle of their work, and what is left is their
// pools and the medium.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import LogModel
import NBDClient
import NIOCore
import Synchronization
import Testing

extension Cluster {
    @Suite(.serialized) struct RecoverToolTests {
        private func replay(_ cluster: LocalCluster, _ node: String) throws -> Finished {
            try cluster.recover("replay", node, "--group", "g0", "--config", cluster.configurationPath)
        }

        /// Load until so many more writes are acknowledged.
        private func wait(_ cluster: LocalCluster, _ history: History, moreWrites: Int) async throws {
            let from = history.acknowledgedWrites
            try await cluster.wait("\(moreWrites) more writes") { history.acknowledgedWrites >= from + moreWrites }
        }

        /// Kills both servers under load, brings each pool to the medium in turn, and starts the cluster again. Answers how
        /// many records the logs held.
        private func killBothAndRecover(_ cluster: LocalCluster, seed: UInt64) async throws -> Int {
            let (owner, mirror) = try cluster.roles()
            let history = try await withHistory(cluster, seed: seed) { history in
                try await wait(cluster, history, moreWrites: 500)
                // While they live, nobody else looks into their pools.
                #expect(try replay(cluster, mirror).code == 5)
                try await cluster.waitUntilMirrored()
                cluster.signal(owner, SIGKILL)
                cluster.signal(mirror, SIGKILL)
                cluster.kill(owner)
                cluster.kill(mirror)
            }
            #expect(try cluster.record()?.inSync == [NodeID("alpha"), NodeID("beta")], "killed together")
            var records = 0
            for node in [mirror, owner] {
                records += try cluster.spoilMedium(whatIsInTheLogOf: node)
                let result = try replay(cluster, node)
                #expect(result.code == 0 || result.code == 1, "\(result.output)")
                try history.verify(medium: cluster.mediumPath(), isServed: false)
                #expect(history.violations == [], "after \(node)'s pool")
            }
            for node in LocalCluster.nodes { try cluster.start(node) }
            try await cluster.waitUntilMirrored()
            try await verify(history, cluster)
            return records
        }

        @Test func bothServersDeadEitherPoolInSyncGivesTheMedium() async throws {  // S1, S10, S16
            var records = 0
            // Rarely everything is destaged at the moment of the kill; then there was nothing to rescue.
            for seed in 1...5 as ClosedRange<UInt64> where seed <= 2 || records == 0 {
                try await withCluster { cluster in records += try await killBothAndRecover(cluster, seed: seed) }
            }
            #expect(records > 0, "of five kills under load none left anything to rescue")
        }

        @Test func thePoolOutOfSyncIsRefusedAndTheOtherIsReplayed() async throws {  // S13
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 3) { history in
                    try await wait(cluster, history, moreWrites: 200)
                    cluster.kill(mirror)
                    try await cluster.wait("degraded") { try cluster.record()?.inSync == [NodeID(owner)] }
                    try await wait(cluster, history, moreWrites: 200)
                    cluster.kill(owner)
                }
                let before = try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath()))
                let refused = try replay(cluster, mirror)
                #expect(refused.code == 6 && refused.output.contains("out of sync"), "\(refused.output)")
                #expect(try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath())) == before)
                let result = try replay(cluster, owner)
                #expect(result.code == 0 || result.code == 1, "\(result.output)")
                try history.verify(medium: cluster.mediumPath())
                #expect(history.violations == [])
            }
        }

        private static let writes = 160
        private static let writeBytes = 64 << 10
        /// Of the volume, that the writes go to.
        private static let firstByte = 8 << 20
        private static func place(_ number: Int) -> Int { firstByte + number * writeBytes }

        private func payload(_ number: Int) -> ByteBuffer {
            ByteBuffer(repeating: UInt8(number + 1), count: Self.writeBytes)
        }

        /// Kills both while nothing of many writes has reached the medium, and spoils what the mirror's log holds there. Answers which
        /// writes were acknowledged.
        private func killBoth(_ cluster: LocalCluster, _ owner: String, _ mirror: String) async throws -> [Int] {
            for node in LocalCluster.nodes { try cluster.keep(node, fromTheMediumBeyond: Self.firstByte) }
            let client = try await cluster.connect(to: owner)
            let acknowledged = Mutex<[Int]>([])
            for number in 0..<Self.writes {
                let write = NBDClient.Command.write(
                    offset: UInt64(Self.place(number)), payload: payload(number), fua: false)
                client.submit(write).whenSuccess { _ in acknowledged.withLock { $0.append(number) } }
            }
            try await cluster.wait("some acknowledged") { acknowledged.withLock { $0.count } >= Self.writes / 4 }
            for node in LocalCluster.nodes { cluster.signal(node, SIGKILL) }
            for node in LocalCluster.nodes { cluster.kill(node) }
            await client.disconnect()
            #expect(try cluster.spoilMedium(whatIsInTheLogOf: mirror) > 0)
            return acknowledged.withLock { $0 }
        }

        private func medium(_ cluster: LocalCluster) throws -> Data {
            try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath()))
        }

        @Test(
            "A4: a log is replayed and marked, the medium is used, and the other node starts: its log is not replayed over it"
        )
        func markedReplayHoldsForTheOtherNode() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let acknowledged = try await killBoth(cluster, owner, mirror)
                let run = try cluster.recover(
                    "replay", mirror, "--group", "g0", "--config", cluster.configurationPath, "--mark-replayed")
                #expect(run.code == 0 || run.code == 1, "\(run.output)")
                let replayed = try medium(cluster)
                for number in acknowledged {
                    #expect(replayed[Self.place(number)] == UInt8(number + 1), "\(number)")
                }
                // The operator works with the medium.
                let used = Data(repeating: 250, count: Self.writes * Self.writeBytes)
                let file = try FileHandle(forWritingTo: URL(fileURLWithPath: cluster.mediumPath()))
                try file.seek(toOffset: UInt64(Self.firstByte))
                try file.write(contentsOf: used)
                try file.synchronize()
                try file.close()

                try cluster.start(owner)
                try await cluster.wait("\(owner) serves") { cluster.owner() == owner }
                #expect(cluster.logs().contains("log-set-aside"))
                let client = try await cluster.connect(to: owner)
                for number in 0..<Self.writes {
                    let bytes = try await client.read(
                        offset: UInt64(Self.place(number)), length: Self.writeBytes)
                    #expect(bytes.readableBytesView.allSatisfy { $0 == 250 }, "\(number) was replayed again")
                }
                await client.disconnect()
                // The other one comes back to a log that is marked.
                try cluster.start(mirror)
                try await cluster.waitUntilMirrored()
                #expect(try medium(cluster).dropFirst(Self.firstByte).prefix(used.count) == used)
            }
        }

        /// Takes the header of `node`'s last data record and of what follows, as if they had never been there.
        private func loseTail(_ cluster: LocalCluster, _ node: String) throws {
            let scan = try cluster.recoverJSON("scan", node)
            let start = try #require(scan["ringOffset"] as? UInt64), bytes = try #require(scan["ringBytes"] as? UInt64)
            let records = try #require(try cluster.recoverJSON("dump", node)["records"] as? [[String: Any]])
            let last = try #require(records.lastIndex { $0["kind"] as? String == "data" })
            let pool = try FileHandle(forUpdating: URL(fileURLWithPath: "\(cluster.folder)/run/\(node).pool"))
            for record in records[last...] {
                try pool.seek(toOffset: start + (try #require(record["lsn"] as? UInt64)) % bytes)
                try pool.write(contentsOf: Data(count: 64))
            }
            try pool.close()
        }

        @Test(
            "A8, A10: an owner that lost its last record without trace decides alone; the mirror's log is kept whole, told of, and salvaged",
            .enabled(if: ScrubTests.whyNot == nil, ScrubTests.whyNot ?? ""))
        func mirrorThatHeldMore() async throws {
            try await withCluster(started: false) { cluster in
                // A full file system, so that everything stays in the logs.
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
                let writes = 12
                for number in 0..<writes {
                    try await client.write(offset: UInt64(number * Self.writeBytes), payload(number))
                }
                for node in LocalCluster.nodes { cluster.signal(node, SIGKILL) }
                for node in LocalCluster.nodes { cluster.kill(node) }
                await client.disconnect()
                try succeed("mount", "-o", "remount,size=80m", small)
                let before = try cluster.recoverJSON("scan", mirror)
                let (epoch, end) = (try #require(before["epoch"] as? UInt64), try #require(before["endLSN"] as? UInt64))
                try loseTail(cluster, owner)

                try cluster.start(owner)
                try await cluster.wait("\(owner) serves") { cluster.owner() == owner }
                try cluster.start(mirror)
                try await cluster.waitUntilMirrored()
                guard case .events(let events) = try cluster.ask(mirror, .events(after: 0, wait: false)) else {
                    throw HarnessError("\(mirror) tells no events")
                }
                let event = try #require(events.first { $0.kind == "log-held-more" })
                let archive = "\(cluster.folder)/run/\(mirror).pool.archive-g0-\(epoch).holds-more"
                #expect(event.message.contains("LSN \(end) ") && event.message.contains(archive), "\(event.message)")

                for node in LocalCluster.nodes { cluster.kill(node) }
                #expect(try medium(cluster)[(writes - 1) * Self.writeBytes] == 0, "the last write is nowhere else")
                let salvage = try run(
                    "\(builtBinaries())/twinlog-recover", "replay", archive, "--group", "g0", "--config",
                    cluster.configurationPath, "--salvage", "--yes")
                #expect(salvage.code == 0, "\(salvage.output)")
                let bytes = try medium(cluster)
                for number in 0..<writes { #expect(bytes[number * Self.writeBytes] == UInt8(number + 1), "\(number)") }
            }
        }
    }
}
