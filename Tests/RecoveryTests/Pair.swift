// Two pools with two copies of one log: an owner's with writes in it, and its mirror's, shipped as production ships it.

import CLogCore
import Foundation
import LogModel
import PersistentMemory
import Recovery
import TestSupport
import Testing
import WriteLog

/// One copy: a pool of its own, which can be damaged behind everybody's back.
final class Copy {
    let path: String
    let role: RegionRole
    private(set) var pool: Pool
    private(set) var region: Region

    init(_ path: String, node: String, role: RegionRole, ringBytes: UInt64, start: LSN) throws {
        self.path = path
        self.role = role
        pool = try Pool.create(
            path: path, sizeBytes: ringBytes + (128 << 10),
            identity: PoolIdentity(uuid: .random(), cluster: "demo", node: NodeID(node)), persistence: .volatile)
        region = try pool.allocateRegion(group: Fixture.group, ringBytes: ringBytes)
        try region.format(role: role, logUUID: logUUID, incarnation: Incarnation(5), start: start)
    }

    func close() { pool.close() }

    /// Closed and opened anew, so that slots are read from the file.
    func reopen(readOnly: Bool = false, recorder: OpaquePointer? = nil) throws {
        pool.close()
        pool = try Pool.open(
            path: path, expecting: nil, persistence: .volatile, readOnly: readOnly, recorder: recorder)
        region = try #require(pool.region(of: Fixture.group))
    }

    func bytes(from lsn: LSN, count: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(count))
        bytes.withUnsafeMutableBytes { region.readRing(from: lsn, into: $0) }
        return bytes
    }

    func tamper(_ bytes: [UInt8], at lsn: LSN) throws {
        bytes.withUnsafeBytes { region.store($0, at: lsn) }
        try region.drain()
    }

    func flip(at lsn: LSN) throws { try tamper([bytes(from: lsn, count: 1)[0] ^ 0x10], at: lsn) }

    func zero(_ range: Range<LSN>) throws {
        try tamper([UInt8](repeating: 0, count: Int(range.upperBound - range.lowerBound)), at: range.lowerBound)
    }

    /// Spoils a head slot in the file; the pool must be opened anew.
    func flipHeadSlot(_ turn: Int) throws {
        let offset = region.offset + [512, 4608][turn] + 20
        let byte = try data(of: path)[Int(offset)]
        try overwrite(path, at: offset, with: [byte ^ 1])
    }
}

final class Pair {
    static let ringBytes: UInt64 = 64 << 10

    let folder: Folder
    let owner: Copy
    let mirror: Copy
    let log: WriteLog
    /// Where each write begins and ends.
    private(set) var writes: [WriteLog.Appended] = []
    private(set) var shipped: LSN
    var acknowledged: LSN

    init(start: LSN = LSN(64 * 900)) throws {
        folder = try Folder()
        owner = try Copy(folder.file("owner"), node: "alpha", role: .owner, ringBytes: Self.ringBytes, start: start)
        mirror = try Copy(folder.file("mirror"), node: "beta", role: .mirror, ringBytes: Self.ringBytes, start: start)
        log = try WriteLog(region: owner.region)
        shipped = start
        acknowledged = start
    }

    /// The writes that are one record each: those that do not meet the ring's end.
    var single: [WriteLog.Appended] { writes.filter { Array($0.records).map(\.lsn) == [$0.start] } }

    struct NoRoom: Error {}

    @discardableResult
    func write(_ bytes: [UInt8], at offset: UInt64 = 0) throws -> WriteLog.Appended {
        let outcome = bytes.withUnsafeBytes {
            log.append(volume: volume0, offset: offset, .data($0), acknowledged: acknowledged)
        }
        guard case .appended(let place) = outcome else { throw NoRoom() }
        writes.append(place)
        return place
    }

    /// To the mirror, byte for byte.
    func ship() throws {
        try mirror.tamper(owner.bytes(from: shipped, count: log.published - shipped), at: shipped)
        shipped = log.published
    }

    /// Ships, and counts everything as acknowledged.
    func acknowledge() throws {
        try ship()
        acknowledged = shipped
    }

    /// On the medium, says both heads.
    func trim(to lsn: LSN) throws {
        try log.setHead(lsn, acknowledged: acknowledged)
        try mirror.region.setHead(lsn, acknowledged: lsn)
        log.setReclaimLimit(lsn)
        writes.removeAll { $0.start < lsn }
    }

    /// The mirror has missed what the owner wrote alone since, for more than a lap of what the mirror holds; it is sound, and stale.
    static func stale() throws -> Pair {
        let pair = try Pair()
        var random = SplitMix64(seed: 9)
        for number in 0..<13 {
            try pair.write(random.bytes(3000), at: UInt64(number) << 12)
            try pair.acknowledge()
        }
        let head = pair.writes[9].start
        try pair.log.setHead(head, acknowledged: pair.acknowledged)
        pair.log.setReclaimLimit(head)
        for number in 0..<15 {
            try pair.write(random.bytes(3000), at: UInt64(number) << 12)
            pair.acknowledged = pair.log.published
        }
        guard pair.log.appendWatermark(acknowledged: pair.acknowledged) else { throw NoRoom() }
        pair.writes.removeAll { $0.start < head }
        return pair
    }

    /// `count` writes, all acknowledged, and a watermark that says so; from the 2/3 of the ring on and around its end.
    static func filled(seed: UInt64 = 1, count: Int = 12) throws -> Pair {
        let pair = try Pair()
        var random = SplitMix64(seed: seed)
        for index in 0..<count {
            try pair.write(random.bytes(Int.random(in: 1...3000, using: &random)), at: UInt64(index) << 12)
            try pair.acknowledge()
        }
        #expect(pair.log.appendWatermark(acknowledged: pair.acknowledged))
        try pair.ship()
        return pair
    }

    /// Of the records only: padding carries nothing.
    func holdSame(_ range: Range<LSN>) -> Bool {
        let count = range.upperBound - range.lowerBound
        return owner.bytes(from: range.lowerBound, count: count) == mirror.bytes(from: range.lowerBound, count: count)
    }

    func compare() -> LogComparison { LogComparison.run(owner.region, mirror.region) }

    @discardableResult
    func healMirror(dryRun: Bool = false) throws(HealError) -> HealOutcome {
        try Heal.run(mirror.region, from: owner.region, dryRun: dryRun)
    }
}
