// Garbage, truncation and hostile lengths into every socket of a running node (S21): it stays up, other clients are
// served, its memory stays bounded.

import AdminProtocol
import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import NIOPosix
import TestSupport
import Testing

extension Cluster {
    @Suite(.serialized) struct HostileInputTests {
        private let seed = UInt64(ProcessInfo.processInfo.environment["TWINLOG_SEED"] ?? "") ?? 20_669

        @Test(arguments: ["NBD", "mirror", "admin"])
        func nodesStandGarbage(_ door: String) async throws {
            var options = LocalClusterOptions.patient
            options.mirrorPorts = (try LocalCluster.freePort(), try LocalCluster.freePort())
            try await withCluster(options) { cluster in
                let owner = try cluster.roles().owner
                let good = try await cluster.connect(to: owner)
                let before = try residentBytes(cluster, owner)
                var random = SplitMix64(seed: seed)
                for number in 0..<200 {
                    let bytes = garbage(number, door: door, &random)
                    try await throwAt(address(door, owner, cluster, options), bytes)
                    if number % 20 == 0 {
                        try await good.write(offset: UInt64(number) * 4096, Stamp.block(1, stamp: 5))
                    }
                }
                // Connections that say nothing and stay.
                var idle: [any Channel] = []
                for _ in 0..<64 { idle.append(try await open(address(door, owner, cluster, options))) }
                try await good.write(offset: 0, Stamp.block(0, stamp: 9))
                #expect(try await good.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 9))
                for channel in idle { channel.close(promise: nil) }
                #expect(cluster.isRunning(owner))
                #expect(try residentBytes(cluster, owner) < before + (96 << 20))
                try await cluster.waitUntilMirrored()
                await good.disconnect()
            }
        }

        /// A client that sends requests and never reads the answers holds up nobody but itself.
        @Test func aClientThatNeverReadsIsBounded() async throws {
            try await withCluster { cluster in
                let owner = try cluster.roles().owner
                let before = try residentBytes(cluster, owner)
                let greedy = try await open(cluster.nbdAddress(of: owner), autoRead: false)
                var bytes = handshake("vol0")
                for cookie in 0..<2000 as Range<UInt64> {
                    // Read of 1 MiB: 28 bytes ask for it.
                    bytes.writeInteger(0x2560_9513 as UInt32)
                    bytes.writeInteger(0 as UInt16)
                    bytes.writeInteger(0 as UInt16)
                    bytes.writeInteger(cookie)
                    bytes.writeInteger(0 as UInt64)
                    bytes.writeInteger(1 << 20 as UInt32)
                }
                greedy.writeAndFlush(bytes, promise: nil)
                let good = try await cluster.connect(to: owner)
                for number in 0..<100 as Range<UInt64> {
                    try await good.write(offset: number * 4096, Stamp.block(Int(number), stamp: 3))
                }
                #expect(try residentBytes(cluster, owner) < before + (128 << 20))
                greedy.close(promise: nil)
                await good.disconnect()
                #expect(cluster.isRunning(owner))
            }
        }

        @Test func aBadConfigurationIsRefusedWithFileLineAndKey() throws {
            let folder = NSTemporaryDirectory() + "twinlog-config-\(UUID128.random())"
            defer { _ = Result { try FileManager.default.removeItem(atPath: folder) } }
            let cluster = try LocalCluster(folder: folder, binaries: builtBinaries())
            #expect(try twinlog(cluster, "check-config").code == 0)
            let good = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
            for (from, to, key) in [
                ("cluster: local", "cluster: local\nspeed: 9", "speed"), ("doubt: 2s", "doubt: soon", "doubt"),
                ("on-mirror-loss: degrade", "topology: replicated", "topology"), ("type: file", "type: etcd", "type"),
                ("heartbeat: {", "heartbeat: [", "cluster.yaml"),
            ] {
                try good.replacingOccurrences(of: from, with: to)
                    .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                for result in [
                    try twinlog(cluster, "check-config"),
                    try run(builtBinaries() + "/twinlogd", "--config", cluster.configurationPath, "--node", "alpha"),
                ] {
                    #expect(result.code != 0 && result.output.contains("cluster.yaml:"), "\(to): \(result.output)")
                    #expect(result.output.contains(key), "\(to): \(result.output)")
                }
                #expect(!FileManager.default.fileExists(atPath: folder + "/run/alpha.pool"), "nothing is started")
            }
        }

        // MARK: What is thrown

        private func garbage(_ number: Int, door: String, _ random: inout SplitMix64) -> ByteBuffer {
            var buffer = ByteBuffer()
            switch (door, number % 4) {
            case ("NBD", 0):
                buffer = handshake("vol0")
                buffer.writeInteger(0x2560_9513 as UInt32)  // a write of 4 GiB
                buffer.writeBytes([0, 0, 0, 1] + [UInt8](repeating: 0xFF, count: 24))
            case ("NBD", 1):
                buffer.writeInteger(3 as UInt32)
                buffer.writeString("IHAVEOPT")
                buffer.writeInteger(7 as UInt32)
                buffer.writeInteger(UInt32.max)  // an option of 4 GiB
            case ("admin", 0): buffer.writeRepeatingByte(UInt8(ascii: "a"), count: 1 << 20)  // no end of line
            case ("admin", 1): buffer.writeString("{\"takeover\":{\"group\":7}}\n{}\nnull\n[[[[\n")
            case (_, 2): buffer.writeRepeatingByte(0xFF, count: 1 << 16)
            default:
                let count = Int(random.next() % 8192)
                for _ in 0..<count { buffer.writeInteger(UInt8(truncatingIfNeeded: random.next())) }
            }
            return buffer
        }

        private func handshake(_ export: String) -> ByteBuffer {
            var buffer = ByteBuffer()
            buffer.writeInteger(3 as UInt32)
            buffer.writeString("IHAVEOPT")
            buffer.writeInteger(7 as UInt32)  // NBD_OPT_GO
            buffer.writeInteger(UInt32(4 + export.utf8.count + 2))
            buffer.writeInteger(UInt32(export.utf8.count))
            buffer.writeString(export)
            buffer.writeInteger(0 as UInt16)
            return buffer
        }

        private func address(
            _ door: String, _ node: String, _ cluster: LocalCluster, _ options: LocalClusterOptions
        ) -> Endpoint {
            switch door {
            case "NBD": cluster.nbdAddress(of: node)
            case "mirror":
                .tcp(
                    TCPAddress(
                        host: "127.0.0.1",
                        port: Int(node == "alpha" ? options.mirrorPorts!.0 : options.mirrorPorts!.1)))
            default: .unix(path: "\(cluster.folder)/run/\(node).sock")
            }
        }

        private func open(_ address: Endpoint, autoRead: Bool = true) async throws -> any Channel {
            let bootstrap = ClientBootstrap(group: eventLoops).channelOption(.autoRead, value: autoRead)
            switch address {
            case .tcp(let address):
                return try await bootstrap.connect(host: address.host, port: address.port).get()
            case .unix(let path): return try await bootstrap.connect(unixDomainSocketPath: path).get()
            }
        }

        /// Sends it; the node may hang up on us at any byte.
        private func throwAt(_ address: Endpoint, _ bytes: ByteBuffer) async throws {
            let channel = try await open(address)
            do {
                try await channel.writeAndFlush(bytes)
                try await channel.close()
            } catch is ChannelError {
            } catch is IOError {}
        }

        private func residentBytes(_ cluster: LocalCluster, _ node: String) throws -> Int {
            let process = try #require(cluster.processID(of: node))
            let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
            // Anonymous memory: the pool's pages are the file's.
            let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") })
            return try #require(Int(line.split(whereSeparator: \.isWhitespace)[1])) << 10
        }
    }
}
