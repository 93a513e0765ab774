// A region that is given to another log: what it held is archived whole, kept as long as it may be the only copy, and
// readable (A8, A10, C10).

import ClusterHarness
import ClusterProtocol
import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing
import WriteLog

@testable import GroupEngine
@testable import NodeAssembly
@testable import StorageNode

struct MirrorRegionTests {
    private static let ringBytes: UInt64 = 64 << 10
    private static let group = GroupID("g0")
    private static let logUUID = UUID128(high: 1, low: 2)

    /// A pool with one region, in a folder of its own.
    private final class Rig {
        let folder: String
        let pool: Pool
        let region: Region
        /// Appends to this region; `nil` for a mirror's, which takes what is appended to its owner's.
        private var log: WriteLog?
        private var owner: Rig?
        var incarnation = Incarnation(5)

        init(mirroring owner: Rig? = nil, in parent: String = "/dev/shm") throws {
            self.owner = owner
            folder = "\(parent)/twinlog-archive-\(UUID128.random())"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
            pool = try Pool.create(
                path: folder + "/pool", sizeBytes: ringBytes + (128 << 10),
                identity: PoolIdentity(uuid: UUID128(high: 3, low: 4), cluster: "demo", node: NodeID("beta")),
                persistence: .volatile)
            region = try pool.allocateRegion(group: group, ringBytes: ringBytes)
            try region.format(
                role: owner == nil ? .owner : .mirror, logUUID: logUUID, incarnation: incarnation, start: LSN(128_000))
            try region.note(RegionStanding(generation: 3, counted: 3, epoch: Epoch(5)))
            log = owner == nil ? try WriteLog(region: region) : nil
        }

        deinit {
            do { try FileManager.default.removeItem(atPath: folder) } catch { print("\(folder) stays: \(error)") }
        }

        @discardableResult
        func write(_ byte: UInt8, count: Int = 500, acknowledged: LSN = .zero) throws -> WriteLog.Appended {
            if let owner { return try take(owner.write(byte, count: count, acknowledged: acknowledged), from: owner) }
            let log = try #require(log)
            let outcome = [UInt8](repeating: byte, count: count).withUnsafeBytes {
                log.append(volume: VolumeID(name: "vol0"), offset: 0, .data($0), acknowledged: acknowledged)
            }
            guard case .appended(let place) = outcome else { throw CancellationError() }
            return place
        }

        private func take(_ place: WriteLog.Appended, from owner: Rig) throws -> WriteLog.Appended {
            try owner.region.withRingBytes(from: place.start, count: place.end - place.start) {
                bytes throws(PoolError) in
                region.store(bytes, at: place.start)
            }
            try region.drain()
            return place
        }

        func tamper(_ range: Range<LSN>, with byte: UInt8) throws {
            let bytes = [UInt8](repeating: byte, count: Int(range.upperBound - range.lowerBound))
            bytes.withUnsafeBytes { region.store($0, at: range.lowerBound) }
            try region.drain()
        }

        /// The next owner's request, which began at `start`.
        func prepare(start: LSN, head: LSN? = nil) throws -> MirrorRegion.Prepared {
            incarnation = Incarnation(incarnation.rawValue + 1)
            let request = AttachRequest(
                group: group, from: NodeID("alpha"), epoch: Epoch(incarnation.rawValue), logUUID: logUUID,
                incarnation: incarnation, head: head ?? start, acknowledged: start, ringBytes: ringBytes, start: start)
            return try MirrorRegion.prepare(
                region, for: request, generation: 3, known: nil, archives: PoolArchives(beside: pool))
        }

        /// This node owns the group for a while.
        func own() throws {
            incarnation = Incarnation(incarnation.rawValue + 1)
            try region.format(role: .owner, logUUID: logUUID, incarnation: incarnation, start: region.head)
            log = try WriteLog(region: region)
            owner = nil
        }

        var archives: [String] {
            get throws {
                try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0 != "pool" }.sorted()
            }
        }

        func open(_ archive: String) throws -> Archive { try Archive.open(path: "\(folder)/\(archive)") }
    }

    /// Every record's first byte, in order.
    private func payloads(_ region: Region) throws -> [UInt8] {
        let scan = try #require(LogScan(region: region))
        return scan.flatMap { write in write.records.map { $0.payload.first ?? 0 } }
    }

    // MARK: What the new owner lacks

    @Test(
        "A8: the owner lost its last header without trace and decided alone; the mirror's complete copy is kept whole, and told of"
    )
    func mirrorHoldsMore() throws {
        let owner = try Rig()
        let mirror = try Rig(mirroring: owner)
        for byte in 1...3 as ClosedRange<UInt8> { try mirror.write(byte) }
        let lost = try mirror.write(4)
        try owner.tamper(lost.start..<lost.end, with: 0)
        var scan = try #require(LogScan(region: owner.region))
        #expect(scan.finish() == .clean && scan.endLSN == lost.start)

        let prepared = try mirror.prepare(start: scan.endLSN)
        let report = try #require(prepared.report)
        #expect(report.kind == .logHeldMore && prepared.kept == nil)
        for words in ["LSN \(lost.end)", "LSN \(lost.start)", "archive-g0-5.holds-more", "replay --salvage"] {
            #expect(report.message.contains(words), "\(report.message)")
        }
        #expect(mirror.region.identity?.incarnation == Incarnation(6) && mirror.region.head == lost.start)
        let archive = try mirror.open("pool.archive-g0-5.holds-more")
        #expect(try payloads(archive.region) == [1, 2, 3, 4])
        // It stands longer than any that can be pruned.
        for _ in 0..<4 {
            try mirror.own()
            try mirror.write(9)
            _ = try mirror.prepare(start: LSN(1 << 30))
        }
        #expect(try mirror.archives.contains("pool.archive-g0-5.holds-more"))
        #expect(try mirror.archives.count == 1 + PoolArchives.keptArchives)
    }

    @Test(
        "A8: an owner's own log that knows of more acknowledged records than the new one began with is kept and told of"
    )
    func ownerHoldsMore() throws {
        let rig = try Rig()
        let first = try rig.write(1)
        let second = try rig.write(2)
        try rig.write(3, acknowledged: second.end)
        #expect(try rig.prepare(start: first.end).report?.kind == .logHeldMore)
        #expect(try rig.archives == ["pool.archive-g0-5.holds-more"])
    }

    @Test(
        "S19: what nobody was promised of an owner's log is archived, and prunable; a mirror that holds no more is not archived"
    )
    func nothingMore() throws {
        let owner = try Rig()
        let first = try owner.write(1)
        try owner.write(2, acknowledged: first.end)
        #expect(try owner.prepare(start: first.end).report == nil)
        #expect(try owner.archives == ["pool.archive-g0-5"])
        let mirror = try Rig(mirroring: Rig())
        let end = try mirror.write(1).end
        #expect(try mirror.prepare(start: end).report == nil)
        #expect(try mirror.archives == [])
    }

    @Test("A8: a peer that does not tell where it began is judged by its head")
    func startNotTold() throws {
        let rig = try Rig(mirroring: Rig())
        let (first, second) = (try rig.write(1), try rig.write(2))
        #expect(try rig.prepare(start: .zero, head: second.end).report == nil)
        let other = try Rig(mirroring: Rig())
        try other.write(1)
        try other.write(2)
        #expect(try other.prepare(start: .zero, head: first.end).report != nil)
    }

    // MARK: Whole, durable, readable

    @Test("A10: what stands beyond a damaged record is in the archive, and so is all that is known of the log")
    func beyondDamage() throws {
        let rig = try Rig()
        try rig.write(1)
        let bad = try rig.write(2)
        let last = try rig.write(3, acknowledged: bad.end)
        try rig.tamper(bad.start..<bad.start + 64, with: 0xFF)
        #expect(try MirrorRegion.archive(rig.region, PoolArchives(beside: rig.pool)) == last.end)
        #expect(try rig.archives == ["pool.archive-g0-5"])
        let archive = try rig.open("pool.archive-g0-5")
        #expect(archive.header.pool == rig.pool.identity && archive.header.group == Self.group)
        #expect(archive.header.log == rig.region.identity && archive.header.generation == 3)
        #expect(archive.header.head == rig.region.head && archive.header.ringBytes == Self.ringBytes)
        #expect(archive.region.standing == rig.region.standing && archive.region.head == rig.region.head)
        var ring = [UInt8](repeating: 0, count: Int(last.end - rig.region.head)), copy = ring
        ring.withUnsafeMutableBytes { rig.region.readRing(from: rig.region.head, into: $0) }
        copy.withUnsafeMutableBytes { archive.region.readRing(from: rig.region.head, into: $0) }
        #expect(ring == copy)
        let scan = try #require(SalvageScan(region: archive.region, acknowledged: bad.end))
        let sound = scan.compactMap { piece -> UInt8? in
            guard case .write(let write) = piece else { return nil }
            return write.records.first { _ in true }?.payload.first
        }
        #expect(sound == [1, 3])
    }

    @Test("S22, A10: an archive is 0600, sparse where the ring is empty, and has no half-written neighbour")
    func file() throws {
        let rig = try Rig()
        try rig.write(1)
        _ = try MirrorRegion.archive(rig.region, PoolArchives(beside: rig.pool))
        var about = stat()
        try #require(stat(rig.folder + "/pool.archive-g0-5", &about) == 0)
        #expect(about.st_mode & 0o777 == 0o600)
        #expect(UInt64(about.st_size) == 4096 + 8192 + Self.ringBytes)
        #expect(UInt64(about.st_blocks) * 512 < UInt64(about.st_size) / 2)
        #expect(try rig.archives == ["pool.archive-g0-5"])
    }

    @Test("A10: an empty log is not archived, and its head is where it ended")
    func empty() throws {
        let rig = try Rig()
        #expect(try MirrorRegion.archive(rig.region, PoolArchives(beside: rig.pool)) == rig.region.head)
        #expect(try rig.archives == [])
    }

    @Test(
        "S21: a damaged archive is refused with file and reason, or gives what it gives; it never crashes",
        arguments: [1, 2, 3] as [UInt64])
    func damagedArchives(seed: UInt64) throws {
        let rig = try Rig()
        try rig.write(1)
        _ = try MirrorRegion.archive(rig.region, PoolArchives(beside: rig.pool))
        let path = rig.folder + "/pool.archive-g0-5"
        let sound = try Data(contentsOf: URL(fileURLWithPath: path))
        var random = SplitMix64(seed: seed)
        for _ in 0..<60 {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...30, using: &random) {
                bytes[Int.random(in: 0..<12288, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            try bytes.write(to: URL(fileURLWithPath: path))
            do throws(PoolError) {
                _ = LogScan(region: try Archive.open(path: path).region)?.endLSN
            } catch {
                #expect(error.path == path && [.corrupt, .notAPool, .newerFormat, .truncated].contains(error.code))
            }
        }
        for length in [0, 8, 4095, 4096, 20_000, sound.count - 1] {
            try sound.prefix(length).write(to: URL(fileURLWithPath: path))
            #expect(throws: PoolError.self) { try Archive.open(path: path) }
        }
    }

    // MARK: No room

    /// A file system of `kibibytes` that only this test uses; `nil`, with a line that says so, where one cannot be mounted.
    private func withSmallFileSystem(_ kibibytes: Int, _ body: (String) throws -> Void) throws {
        let folder = "/dev/shm/twinlog-small-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { rmdir(folder) }
        guard mount("none", folder, "tmpfs", 0, "size=\(kibibytes)k") == 0 else {
            return print("skipped: a file system cannot be mounted here: \(String(cString: strerror(errno)))")
        }
        defer { umount2(folder, Int32(MNT_DETACH)) }
        try body(folder)
    }

    @Test(
        "C10: on a full disk older archives make room; what then fails names the path and the bytes, and changes nothing"
    )
    func fullDisk() throws {
        try withSmallFileSystem(360) { folder in
            // The pool takes 192 KiB, each archive 68.
            let rig = try Rig(in: folder)
            func fill() throws { for _ in 0..<15 { try rig.write(7, count: 3500) } }
            try fill()
            for _ in 0..<2 {
                _ = try MirrorRegion.archive(rig.region, PoolArchives(beside: rig.pool))
                try rig.own()
                try fill()
            }
            #expect(try rig.archives == ["pool.archive-g0-5", "pool.archive-g0-6"])
            _ = try MirrorRegion.archive(rig.region, PoolArchives(beside: rig.pool))
            #expect(try rig.archives == ["pool.archive-g0-6", "pool.archive-g0-7"])

            try FileManager.default.removeItem(atPath: rig.folder + "/pool.archive-g0-6")
            try rig.own()
            try fill()
            try Data(count: 90 << 10).write(to: URL(fileURLWithPath: rig.folder + "/filler"))
            let identity = rig.region.identity
            let error = try #require(throws: ArchiveError.self) { try rig.prepare(start: rig.region.head) }
            #expect(error.description.contains("\(rig.folder)/pool.archive-g0-8"), "\(error)")
            #expect(error.description.contains("it needs up to 53824 bytes, free are "), "\(error)")
            #expect(rig.region.identity == identity)
            #expect(try rig.archives == ["filler", "pool.archive-g0-7"])
        }
    }
}
