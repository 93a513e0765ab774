// A node inside of a program: its start and stop, its status and events, and what its volumes answer.

import ClusterHarness
import Foundation
import Logging
import NIOCore
import Testing
import TwinLog

/// The configuration of two nodes that share a volume; `more` goes to the group.
func clusterText(more: String = "") throws -> String {
    func node(_ name: String) throws -> String {
        "  \(name): {mirror: [127.0.0.1:\(try LocalCluster.freePort())], nbd: unix:\(name).nbd, admin: \(name).sock, "
            + "pool: {path: \(name).pool, size: 24MiB}}"
    }
    return """
        cluster: demo
        coordinator: {type: file, path: coordinator}
        heartbeat: {interval: 20ms, timeout: 5s}
        lease: 10s
        nodes:
        \(try node("alpha"))
        \(try node("beta"))
        groups:
          g0:
            home: alpha
            mirror: beta
            log: 4MiB
            volumes:
              vol0: {medium: vol0.img, size: 16MiB}
              fixed: {medium: fixed.img, size: 1MiB, read-only: true}
        """
}

let quiet: Logger = {
    var logger = Logger(label: "node")
    logger.logLevel = .critical
    return logger
}()

extension ByteBuffer {
    fileprivate var text: String { String(buffer: self) }
}

@Suite(.serialized) struct NodeTests {
    private func withNode(_ body: (Node, String) async throws -> Void) async throws {
        try await withFolder { folder in
            let node = try await Node.start(.text(try clusterText(), folder: folder), as: "alpha", logger: quiet)
            try await body(node, folder)
            try await node.stop()
        }
    }

    @Test("What is written is read back, zeroed and discarded ranges read as zeros")
    func volume() async throws {
        try await withNode { node, _ in
            let volume = try await node.volume("vol0")
            #expect(volume.name == "vol0" && volume.sizeBytes == 16 << 20 && !volume.isReadOnly)
            try await volume.write(ByteBuffer(string: "a write"), at: 4096)
            #expect(try await volume.read(at: 4096, count: 7).text == "a write")
            try await volume.write(ByteBuffer(repeating: 0xEE, count: 12 << 10), at: 64 << 10)
            try await volume.discard(at: 64 << 10, count: 4096)
            try await volume.writeZeroes(at: 68 << 10, count: 4096, keepingSpace: true)
            try await volume.flush()
            let found = try await volume.read(at: 64 << 10, count: 12 << 10)
            #expect(
                Array(found.readableBytesView) == [UInt8](repeating: 0, count: 8 << 10)
                    + [UInt8](repeating: 0xEE, count: 4 << 10))
            await volume.close()
            #expect(await code { () async throws(TwinLogError) in try await volume.flush() } == .closed)
        }
    }

    @Test("Errors are typed: what is no volume, no range, not to be changed")
    func refusals() async throws {
        try await withNode { node, _ in
            #expect(await code { () async throws(TwinLogError) in _ = try await node.volume("none") } == .unknownVolume)
            let volume = try await node.volume("vol0")
            let fixed = try await node.volume("fixed")
            let size = volume.sizeBytes, one = ByteBuffer(repeating: 1, count: 1)
            #expect(
                await code { () async throws(TwinLogError) in _ = try await volume.read(at: size, count: 1) }
                    == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in _ = try await volume.read(at: 0, count: -1) }
                    == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in _ = try await volume.read(at: .max, count: .max) }
                    == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in try await volume.write(one, at: size) } == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in try await volume.write(ByteBuffer(), at: 0) }
                    == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in try await volume.discard(at: 1, count: size) }
                    == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in try await volume.writeZeroes(at: .max, count: 2) }
                    == .invalidValue)
            #expect(await code { () async throws(TwinLogError) in try await fixed.write(one, at: 0) } == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in try await fixed.discard(at: 0, count: 1) }
                    == .invalidValue)
            #expect(try await fixed.read(at: 0, count: 1) == ByteBuffer(repeating: 0, count: 1))
        }
    }

    @Test("A configuration that is wrong says where; a node that is not in it, too")
    func wrongConfiguration() async throws {
        try await withFolder { folder in
            let text = try clusterText().replacingOccurrences(of: "lease: 10s", with: "lease: soon")
            do throws(TwinLogError) {
                _ = try await Node.start(.text(text, folder: folder), as: "alpha", logger: quiet)
                Issue.record("it was taken")
            } catch {
                #expect(error.code == .configuration && error.message.contains("lease"), "\(error)")
            }
            let right = NodeConfiguration.text(try clusterText(), folder: folder)
            #expect(
                await code { () async throws(TwinLogError) in
                    _ = try await Node.start(right, as: "gamma", logger: quiet)
                }
                    == .system)
            #expect(
                await code { () async throws(TwinLogError) in
                    _ = try await Node.start(.file(folder + "/none"), as: "alpha", logger: quiet)
                } == .configuration)
        }
    }

    @Test("A stopped node gives all back: it starts again in the same process, with what was acknowledged")
    func stopAndStart() async throws {
        try await withFolder { folder in
            let configuration = NodeConfiguration.text(try clusterText(), folder: folder)
            for round in 0..<3 {
                let node = try await Node.start(configuration, as: "alpha", logger: quiet)
                let volume = try await node.volume("vol0")
                if round > 0 {
                    #expect(try await volume.read(at: 0, count: 1) == ByteBuffer(repeating: UInt8(round), count: 1))
                }
                try await volume.write(ByteBuffer(repeating: UInt8(round + 1), count: 1), at: 0)
                #expect(
                    await code { () async throws(TwinLogError) in
                        _ = try await Node.start(configuration, as: "alpha", logger: quiet)
                    } == .system, "the pool is in use")
                try await node.stop()
                try await node.stop()
                #expect(await code { () async throws(TwinLogError) in _ = try await node.status() } == .closed)
                #expect(await code { () async throws(TwinLogError) in _ = try await node.volume("vol0") } == .closed)
                #expect(await code { () async throws(TwinLogError) in try await volume.flush() } == .servedElsewhere)
            }
        }
    }

    @Test("Status says who serves what; events come in order, go on while a task waits, and end with the node")
    func statusAndEvents() async throws {
        try await withFolder { folder in
            let node = try await Node.start(.text(try clusterText(), folder: folder), as: "alpha", logger: quiet)
            let following = Task { () async -> [NodeEvent] in
                var found: [NodeEvent] = []
                for await event in node.events() { found.append(event) }
                return found
            }
            let cancelled = Task { () async -> Int in
                var count = 0
                for await _ in node.events(after: 1_000_000) { count += 1 }
                return count
            }
            _ = try await node.volume("vol0")
            let status = try await node.status()
            #expect(status.persistence == .volatile && status.problem == nil)
            let group = try #require(status.groups.first)
            #expect(group.name == "g0" && group.owner == "alpha" && group.isServedHere && !group.isTakeoverPossible)
            cancelled.cancel()
            #expect(await cancelled.value == 0, "a cancelled task stops waiting")
            try await node.stop()
            let events = await following.value
            #expect(events.map(\.number) == (1...UInt64(events.count)).map { $0 })
            #expect(events.first?.kind == "started" && events.contains { $0.kind == "stopping" })
        }
    }

    @Test("S1: two nodes in one process mirror each other; a stop hands over, and what waits is told")
    func handover() async throws {
        try await withFolder { folder in
            let configuration = NodeConfiguration.text(try clusterText(), folder: folder)
            let alpha = try await Node.start(configuration, as: "alpha", logger: quiet)
            let beta = try await Node.start(configuration, as: "beta", logger: quiet)
            let volume = try await alpha.volume("vol0")
            for await event in alpha.events() where event.kind == "mirrored" { break }
            #expect(
                await code { () async throws(TwinLogError) in _ = try await beta.volume("vol0", within: .zero) }
                    == .servedElsewhere)
            let writers = (0..<8).map { writer in
                Task { () async -> (last: Int, code: TwinLogError.Code?) in
                    var last = 0
                    let failure = await code { () async throws(TwinLogError) in
                        while true {
                            try await volume.write(ByteBuffer(integer: last + 1), at: UInt64(writer) * 8)
                            last += 1
                        }
                    }
                    return (last, failure)
                }
            }
            while try await volume.read(at: 56, count: 8).getInteger(at: 0, as: Int.self) == 0 {}
            try await alpha.stop()
            let there = try await beta.volume("vol0")
            for (writer, task) in writers.enumerated() {
                let (last, failure) = await task.value
                #expect(failure == .servedElsewhere)
                let found = try await there.read(at: UInt64(writer) * 8, count: 8).getInteger(at: 0, as: Int.self)
                // The one that was under way is there, or not.
                #expect(found == last || found == last + 1)
            }
            try await beta.stop()
        }
    }

    @Test("Cancelled calls return at once, are carried out or not, and leave the volume as it was")
    func cancellation() async throws {
        try await withNode { node, _ in
            let volume = try await node.volume("vol0")
            for number in 0..<300 {
                let task = Task { () async -> TwinLogError.Code? in
                    await code { () async throws(TwinLogError) in
                        try await volume.write(ByteBuffer(integer: number + 1), at: 8 * UInt64(number))
                    }
                }
                if number % 2 == 0 { await Task.yield() }
                task.cancel()
                let failure = await task.value
                #expect(failure == nil || failure == .cancelled)
            }
            try await volume.flush()
            for number in 0..<300 {
                let found = try await volume.read(at: 8 * UInt64(number), count: 8).getInteger(at: 0, as: Int.self)
                #expect(found == 0 || found == number + 1)
            }
            // Nobody waits for an opening that was cancelled; the next one is not held up by it.
            let opening = Task { () async -> TwinLogError.Code? in
                await code { () async throws(TwinLogError) in _ = try await node.volume("vol0") }
            }
            opening.cancel()
            let outcome = await opening.value
            #expect(outcome == nil || outcome == .cancelled)
            let again = try await node.volume("vol0")
            try await again.flush()
        }
    }
}
