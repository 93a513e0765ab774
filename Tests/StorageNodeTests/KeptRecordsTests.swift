import ClusterProtocol
import Glibc
import LogModel
import NIOCore
import NIOPosix
import PersistentMemory
import RemoteMemory
import Testing
import WriteLog

@testable import GroupEngine
@testable import NodeAssembly
@testable import StorageNode

/// A mirror that kept its records lets none of them be replaced by another (S5, S14).
struct KeptRecordsTests {
    static let ringBytes: UInt64 = 8 << 20

    /// An owner's log and a mirror's region with the same records. Bound to its event loop.
    private final class Pair {
        let pool: Pool
        let owner: Region
        let log: WriteLog
        let mirror: Region
        var conflicts: [LSN] = []
        private let eventLoop: any EventLoop
        private(set) var target: MirrorTarget

        init(_ pool: Pool, _ eventLoop: any EventLoop) throws {
            self.eventLoop = eventLoop
            self.pool = pool
            let uuid = UUID128(high: 7, low: 7), start = LSN(ringBytes - (64 << 10))
            owner = try pool.allocateRegion(group: GroupID("owner"), ringBytes: ringBytes)
            mirror = try pool.allocateRegion(group: GroupID("mirror"), ringBytes: ringBytes)
            // The ring ends soon.
            try owner.format(role: .owner, logUUID: uuid, incarnation: Incarnation(3), start: start)
            try mirror.format(role: .mirror, logUUID: uuid, incarnation: Incarnation(3), start: start)
            log = try WriteLog(region: owner)
            target = MirrorTarget(
                region: mirror, durable: start, head: start,
                runtime: LoopRuntime(eventLoop: eventLoop, threads: .singleton))
        }

        /// The start of the record.
        @discardableResult func append(_ byte: UInt8, _ count: Int) throws -> LSN {
            let bytes = [UInt8](repeating: byte, count: count)
            let outcome = bytes.withUnsafeBytes {
                log.append(volume: VolumeID(name: "vol0"), offset: 0, .data($0), acknowledged: log.head)
            }
            guard case .appended(let place) = outcome else { throw PairRig.NotYet(what: "append") }
            return place.start
        }

        /// As a session does that ships everything from `from` on, in WRITEs of at most `pieceBytes`.
        func ship(from: LSN, pieceBytes: UInt64 = 1 << 20) throws {
            var lsn = from
            while lsn < log.published {
                let place = lsn.rawValue % ringBytes
                let count = min(pieceBytes, log.published - lsn, ringBytes - place)
                var bytes = [UInt8](repeating: 0, count: Int(count))
                bytes.withUnsafeMutableBytes { owner.readRing(from: lsn, into: $0) }
                let outcome = bytes.withUnsafeBytes { bytes in
                    Result { () throws(RemoteMemoryError) in try target.write(bytes, at: place) }
                }
                try outcome.get()
                lsn = lsn + count
            }
        }

        /// The owner begins at `durable`.
        func attach(from durable: LSN) throws {
            let kept = try #require(KeptRecords(region: mirror, from: durable))
            target = MirrorTarget(
                region: mirror, durable: durable, head: mirror.head, kept: kept,
                runtime: LoopRuntime(eventLoop: eventLoop, threads: .singleton))
            target.onConflict = { [unowned self] in conflicts.append($0) }
        }

        static func flip(_ region: Region, at lsn: LSN) {
            region.ringBase.assumingMemoryBound(to: UInt8.self)[Int(lsn.rawValue % ringBytes)] ^= 0x20
        }

        var isImage: Bool { memcmp(mirror.ringBase, owner.ringBase, Int(ringBytes)) == 0 }

        func ring(_ region: Region) -> [UInt8] {
            Array(UnsafeRawBufferPointer(start: region.ringBase, count: Int(ringBytes)))
        }
    }

    private func withPair(_ body: @escaping @Sendable (Pair) throws -> Void) async throws {
        let path = "/dev/shm/twinlog-kept-\(UUID128.random())"
        defer { unlink(path) }
        let pool = try Pool.create(
            path: path, sizeBytes: 2 * Self.ringBytes + (256 << 10),
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("beta")), persistence: .auto)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        try await eventLoop.submit { try body(try Pair(pool, eventLoop)) }.get()
    }

    /// Records of many sizes, around the ring's end; the starts of all of them.
    private static func fill(_ pair: Pair) throws -> [LSN] {
        let start = pair.log.head
        let starts = try [3000, 100, 40_000, 20_000, 900_000, 64, 5000, 128].enumerated().map {
            try pair.append(UInt8($0.offset + 1), $0.element)
        }
        try pair.ship(from: start)
        try #require(pair.isImage)
        return starts
    }

    @Test("S14, A3: what is equal is taken, whatever WRITEs it comes in", arguments: [64, 4096, 70_016, 1 << 20])
    func equal(_ pieceBytes: UInt64) async throws {
        try await withPair { pair in
            _ = try Self.fill(pair)
            try pair.attach(from: pair.mirror.head)
            try pair.ship(from: pair.mirror.head, pieceBytes: pieceBytes)
            let next = pair.log.published
            try pair.append(9, 4000)
            try pair.ship(from: next)
            #expect(pair.conflicts.isEmpty && pair.isImage)
        }
    }

    @Test(
        "S5, A3: other bytes for a good record are refused, and nothing of the WRITE is stored",
        arguments: [0, 2, 3, 4, 6], [12, 70])
    func conflict(_ number: Int, _ offset: UInt64) async throws {
        for pieceBytes in [64, 4096, 1 << 20] as [UInt64] {
            try await withPair { pair in
                let starts = try Self.fill(pair)
                let good = pair.ring(pair.mirror)
                Pair.flip(pair.owner, at: starts[number] + offset)
                try pair.attach(from: pair.mirror.head)
                #expect(throws: RemoteMemoryError.self) {
                    try pair.ship(from: pair.mirror.head, pieceBytes: pieceBytes)
                }
                let isUntouched = isSame(pair.ring(pair.mirror), good)
                #expect(isUntouched && pair.conflicts == [starts[number]])
            }
        }
    }

    @Test(
        "A3: what rotted in the mirror's copy is stored anew, and what is good behind it is still kept",
        arguments: [0, 2, 3, 4], [12, 70])
    func damagedHere(_ number: Int, _ offset: UInt64) async throws {
        for pieceBytes in [64, 4096, 1 << 20] as [UInt64] {
            try await withPair { pair in
                let starts = try Self.fill(pair)
                Pair.flip(pair.mirror, at: starts[number] + offset)
                try pair.attach(from: pair.mirror.head)
                try pair.ship(from: pair.mirror.head, pieceBytes: pieceBytes)
                #expect(pair.conflicts.isEmpty && pair.isImage)

                Pair.flip(pair.mirror, at: starts[number] + offset)
                Pair.flip(pair.owner, at: starts[6] + 100)
                try pair.attach(from: pair.mirror.head)
                #expect(throws: RemoteMemoryError.self) {
                    try pair.ship(from: pair.mirror.head, pieceBytes: pieceBytes)
                }
                #expect(pair.conflicts == [starts[6]])
            }
        }
    }

    @Test("A3: an owner that begins in the middle of a record meets it too")
    func fromTheMiddle() async throws {
        try await withPair { pair in
            let starts = try Self.fill(pair)
            Pair.flip(pair.owner, at: starts[2] + 20_000)
            try pair.attach(from: starts[2] + 6400)
            #expect(throws: RemoteMemoryError.self) { try pair.ship(from: starts[2] + 6400) }
            #expect(pair.conflicts == [starts[2]])
        }
    }

    @Test("S14, A3: what this process saw become durable is compared all the same, unless the record counts it")
    func countedOrCompared() async throws {
        try await withPair { pair in
            let starts = try Self.fill(pair)
            let identity = try #require(pair.mirror.identity)
            for (counts, durable) in [(true, starts[5]), (false, starts[1])] {
                let request = AttachRequest(
                    group: GroupID("mirror"), from: NodeID("alpha"), epoch: Epoch(3), logUUID: identity.logUUID,
                    incarnation: identity.incarnation, head: starts[1], acknowledged: starts[1],
                    ringBytes: Self.ringBytes, counts: counts)
                let prepared = try MirrorRegion.prepare(
                    pair.mirror, for: request, generation: 1, known: starts[5],
                    archives: PoolArchives(beside: pair.pool))
                #expect(prepared.durable == durable && prepared.head == starts[1])
                #expect(prepared.kept?.end == pair.log.published)
            }
        }
    }

    @Test("what fills a record's last line is nobody's")
    func padding() async throws {
        try await withPair { pair in
            let starts = try Self.fill(pair)
            Pair.flip(pair.owner, at: starts[1] + 64 + 110)
            try pair.attach(from: pair.mirror.head)
            try pair.ship(from: pair.mirror.head)
            #expect(pair.conflicts.isEmpty)
        }
    }

    @Test("S6: what the head has passed is kept from nobody")
    func trimmed() async throws {
        try await withPair { pair in
            let starts = try Self.fill(pair)
            try pair.attach(from: pair.mirror.head)
            Pair.flip(pair.owner, at: starts[1] + 70)
            try pair.target.atomicWrite(starts[4].rawValue, at: Self.ringBytes)
            try pair.ship(from: starts[4])
            #expect(pair.conflicts.isEmpty && pair.mirror.head == starts[4])
        }
    }

    @Test("S5: an announced repair replaces damaged records only, from wherever it begins")
    func repair() async throws {
        try await withPair { pair in
            let starts = try Self.fill(pair)
            try pair.attach(from: pair.log.published)
            func repair(_ range: Range<LSN>) throws {
                let bytes = pair.ring(pair.owner), place = Int(range.lowerBound.rawValue % Self.ringBytes)
                let count = Int(range.upperBound - range.lowerBound)
                pair.target.expectRepair(of: range)
                let outcome = bytes[place..<place + count].withUnsafeBytes { bytes in
                    Result { () throws(RemoteMemoryError) in try pair.target.write(bytes, at: UInt64(place)) }
                }
                try outcome.get()
            }
            // The mirror's is damaged.
            Pair.flip(pair.mirror, at: starts[6] + 1000)
            try repair(starts[6]..<starts[7])
            #expect(pair.isImage)
            // The owner's is.
            let good = pair.ring(pair.mirror)
            Pair.flip(pair.owner, at: starts[2] + 30_000)
            #expect(throws: RemoteMemoryError.self) { try repair(starts[2]..<starts[3]) }
            #expect(throws: RemoteMemoryError.self) { try repair(starts[2] + 6400..<starts[3]) }
            let isUntouched = isSame(pair.ring(pair.mirror), good)
            #expect(isUntouched && pair.conflicts == [starts[2], starts[2]])
        }
    }
}
