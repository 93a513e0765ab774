import Glibc
import LogModel
import NIOCore
import NIOPosix
import PersistentMemory
import RemoteMemory
import Testing

@testable import GroupEngine
@testable import StorageNode

/// What a mirror lets its owner store, and where.
struct MirrorTargetTests {
    private static let ring: UInt64 = 64 * 1024

    /// Runs `body` with a target that holds nothing, on an event loop.
    private func withTarget(_ body: @escaping @Sendable (MirrorTarget, Region) throws -> Void) async throws {
        let path = "/dev/shm/twinlog-target-\(UUID128.random())"
        defer { unlink(path) }
        let pool = try Pool.create(
            path: path, sizeBytes: 256 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("beta")), persistence: .auto)
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: Self.ring)
        try region.format(role: .mirror, logUUID: .zero, incarnation: Incarnation(1), start: .zero)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        try await eventLoop.submit {
            try body(
                MirrorTarget(
                    region: region, durable: .zero, head: .zero,
                    runtime: LoopRuntime(eventLoop: eventLoop, threads: .singleton)), region)
        }.get()
    }

    private static func write(_ byte: UInt8, _ count: Int, at lsn: UInt64, to target: MirrorTarget) throws {
        let bytes = [UInt8](repeating: byte, count: count)
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(RemoteMemoryError) in try target.write(bytes, at: lsn % Self.ring) }
        }
        try result.get()
    }

    private static func byte(at lsn: UInt64, of region: Region) -> UInt8 {
        var byte: UInt8 = 0
        withUnsafeMutableBytes(of: &byte) { region.readRing(from: LSN(lsn), into: $0) }
        return byte
    }

    @Test("S6: what is not trimmed is overwritten by nobody")
    func untrimmed() async throws {
        try await withTarget { target, region in
            try Self.write(1, 60 * 1024, at: 0, to: target)
            #expect(throws: RemoteMemoryError.self) { try Self.write(2, 4096, at: 8192, to: target) }
            #expect(Self.byte(at: 8192, of: region) == 1)
        }
    }

    @Test("S6: nor is it by what comes in order; and what is trimmed is, once the head that trims it is durable")
    func trimmed() async throws {
        try await withTarget { target, region in
            try Self.write(1, 64 * 1024, at: 0, to: target)
            #expect(throws: RemoteMemoryError.self) { try Self.write(2, 4096, at: Self.ring, to: target) }
            #expect(Self.byte(at: 0, of: region) == 1)
            try target.atomicWrite(8192, at: Self.ring)
            #expect(region.head == .zero, "with the next persist")
            try Self.write(2, 4096, at: Self.ring, to: target)
            #expect(Self.byte(at: 0, of: region) == 2 && region.head == LSN(8192))
        }
    }

    @Test("S21: a head that no log reaches is refused, and nothing is computed from it")
    func impossibleTrim() async throws {
        try await withTarget { target, region in
            #expect(throws: RemoteMemoryError.self) { try target.atomicWrite(UInt64.max - 63, at: Self.ring) }
            try Self.write(1, 4096, at: 0, to: target)
            #expect(region.head == .zero)
        }
    }

    @Test("S26: what met failed memory is not completed")
    func failedMemory() async throws {
        try await withTarget { target, region in
            var outcomes: [Bool] = []
            try Self.write(1, 8192, at: 0, to: target)
            target.persist { outcomes.append($0 == nil) }
            let page = region.ringBase + 8192
            let empty = open("/dev/shm", 0o20200000 | O_RDWR, 0o600)  // O_TMPFILE
            defer { close(empty) }
            try #require(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0) == page)
            try Self.write(1, 8192, at: 8192, to: target)
            target.persist { outcomes.append($0 == nil) }
            #expect(outcomes == [true, false] && target.durable == LSN(8192))
        }
    }

    @Test("a part that was announced is stored anew, once, and the log goes on behind it")
    func repair() async throws {
        try await withTarget { target, region in
            try Self.write(1, 16 * 1024, at: 0, to: target)
            target.expectRepair(of: LSN(8192)..<LSN(12288))
            try Self.write(2, 1024, at: 8192, to: target)
            try Self.write(3, 3072, at: 9216, to: target)
            #expect([8192, 9216, 12288].map { Self.byte(at: $0, of: region) } == [2, 3, 1])
            try Self.write(4, 4096, at: 16 * 1024, to: target)
            #expect(Self.byte(at: 16 * 1024, of: region) == 4)
            // Now it is a WRITE far ahead again; after 45 KiB more it would be over what is not trimmed.
            #expect(throws: RemoteMemoryError.self) { try Self.write(5, 4096, at: 8192, to: target) }
        }
    }

    @Test("no repair of what is trimmed, not stored, or no place of a record")
    func refusals() async throws {
        try await withTarget { target, region in
            try Self.write(1, 16 * 1024, at: 0, to: target)
            try target.atomicWrite(4096, at: Self.ring)
            for range in [LSN(0)..<LSN(4096), LSN(12288)..<LSN(20480), LSN(8193)..<LSN(9216)] {
                target.expectRepair(of: range)
                let start = range.lowerBound.rawValue
                #expect(throws: RemoteMemoryError.self) {
                    try Self.write(
                        2, Int(range.upperBound - range.lowerBound), at: start == 0 ? 5120 : start, to: target)
                }
            }
            target.expectRepair(of: LSN(4096)..<LSN(8192))
            try target.atomicWrite(8192, at: Self.ring)
            try Self.write(6, 4096, at: 16 * 1024, to: target)
            #expect(Self.byte(at: 4096, of: region) == 1)
        }
    }

    @Test("S11: after a failed msync a mirror completes nothing, though the next one succeeds")
    func failedMsync() async throws {
        let path = "/tmp/twinlog-target-\(UUID128.random())"
        defer { unlink(path) }
        let pool = try Pool.create(
            path: path, sizeBytes: 256 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("beta")), persistence: .auto)
        guard pool.persistence == .msync else { return print("skipped: /tmp is in memory here, not on a disk") }
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: Self.ring)
        try region.format(role: .mirror, logUUID: .zero, incarnation: Incarnation(1), start: .zero)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let target = NIOLoopBoundBox.makeBoxSendingValue(
            MirrorTarget(
                region: region, durable: .zero, head: .zero,
                runtime: LoopRuntime(eventLoop: eventLoop, threads: .singleton)),
            eventLoop: eventLoop)
        @Sendable func stored(at lsn: UInt64, beforePersist: @escaping @Sendable () -> Void = {}) async throws -> Bool {
            let done = eventLoop.makePromise(of: Bool.self)
            try await eventLoop.submit {
                try Self.write(1, 8192, at: lsn, to: target.value)
                beforePersist()
                target.value.persist { done.succeed($0 == nil) }
            }.get()
            return try await done.futureResult.get()
        }
        #expect(try await stored(at: 0))
        // msync of a range with a page that is not mapped fails.
        let page = UInt(bitPattern: region.ringBase) + 12288
        #expect(
            try await !stored(at: 8192) { precondition(munmap(UnsafeMutableRawPointer(bitPattern: page), 4096) == 0) })
        #expect(try await !stored(at: 16384))
        #expect(try await eventLoop.submit { target.value.durable }.get() == LSN(8192))
    }
}
