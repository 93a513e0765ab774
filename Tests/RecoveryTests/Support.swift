// A pool with one log, and beside it a model of what the medium must hold once the log is replayed.

import Foundation
import LogModel
import PersistentMemory
import StorageMedium
import TestSupport
import Testing
import WriteLog

/// As `Data`: compared in one go. An expectation gets the answer only: it would look for the difference for hours.
func data(of path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }

func overwrite(_ path: String, at offset: UInt64, with bytes: [UInt8]) throws {
    let handle = try #require(FileHandle(forWritingAtPath: path))
    try handle.seek(toOffset: offset)
    try handle.write(contentsOf: Data(bytes))
    try handle.close()
}

let volume0 = VolumeID(name: "vol0")
let volume1 = VolumeID(name: "vol1")
let logUUID = UUID128(high: 0x1111, low: 0x2222)
let poolUUID = UUID128(high: 0x3333, low: 0x4444)

final class Fixture {
    static let group = GroupID("g0")
    static let mediumBytes: UInt64 = 4 << 20
    static let blankMedium = Data(repeating: 0xEE, count: Int(mediumBytes))

    let folder: Folder
    let poolPath: String
    let pool: Pool
    let region: Region
    let log: WriteLog
    /// What each medium must hold when everything that was appended is on it. The media begin full of 0xEE.
    var model: [VolumeID: Data] = [:]

    init(ringBytes: UInt64 = 1 << 20, start: LSN = .zero, volumes: [String] = ["vol0"]) throws {
        folder = try Folder()
        poolPath = folder.file("pool")
        pool = try Pool.create(
            path: poolPath, sizeBytes: ringBytes + (128 << 10),
            identity: PoolIdentity(uuid: poolUUID, cluster: "demo", node: NodeID("alpha")), persistence: .volatile)
        region = try pool.allocateRegion(group: Self.group, ringBytes: ringBytes)
        try region.format(role: .owner, logUUID: logUUID, incarnation: Incarnation(5), start: start)
        log = try WriteLog(region: region)
        for name in volumes {
            model[VolumeID(name: name)] = Self.blankMedium
            try Self.blankMedium.write(to: URL(fileURLWithPath: mediumPath(name)))
        }
    }

    // MARK: Writing, here and in the model

    struct NoRoom: Error {}

    @discardableResult
    func append(
        _ payload: WriteLog.Payload, at offset: UInt64, volume: VolumeID = volume0, acknowledged: LSN = .zero
    ) throws -> WriteLog.Appended {
        guard
            case .appended(let place) = log.append(volume: volume, offset: offset, payload, acknowledged: acknowledged)
        else { throw NoRoom() }
        return place
    }

    /// Appends without telling the model.
    @discardableResult
    func appendOnly(_ bytes: [UInt8], at offset: UInt64, acknowledged: LSN = .zero) throws -> WriteLog.Appended {
        try bytes.withUnsafeBytes { try append(.data($0), at: offset, acknowledged: acknowledged) }
    }

    @discardableResult
    func write(
        _ bytes: [UInt8], at offset: UInt64, volume: VolumeID = volume0, acknowledged: LSN = .zero
    ) throws -> WriteLog.Appended {
        let place = try bytes.withUnsafeBytes {
            try append(.data($0), at: offset, volume: volume, acknowledged: acknowledged)
        }
        model[volume]?.replaceSubrange(Int(offset)..<Int(offset) + bytes.count, with: bytes)
        return place
    }

    @discardableResult
    func clear(_ length: UInt64, at offset: UInt64, volume: VolumeID = volume0, discard: Bool) throws
        -> WriteLog.Appended
    {
        let place = try append(
            discard ? .discard(length: length) : .writeZeroes(length: length, keepSpace: offset % 2 == 0), at: offset,
            volume: volume)
        model[volume]?.replaceSubrange(
            Int(offset)..<Int(offset + length), with: repeatElement(0, count: Int(length)))
        return place
    }

    /// Overlapping writes, discards and zeroes on all volumes.
    func fillRandomly(seed: UInt64, count: Int) throws {
        var random = SplitMix64(seed: seed)
        let volumes = model.keys.sorted { $0.rawValue < $1.rawValue }
        for _ in 0..<count {
            let volume = volumes.randomElement(using: &random) ?? volume0
            // In little more than a megabyte, so that much overlaps.
            let offset = UInt64.random(in: 0..<(1 << 20) + 5000, using: &random)
            let length = Int.random(in: 1...6000, using: &random)
            switch Int.random(in: 0..<10, using: &random) {
            case 0: try clear(UInt64(length * 3), at: offset, volume: volume, discard: true)
            case 1: try clear(UInt64(length * 3), at: offset, volume: volume, discard: false)
            default: try write(random.bytes(length), at: offset, volume: volume)
            }
        }
    }

    /// Gives back everything below `lsn`: it is on the medium, says the model.
    func trim(to lsn: LSN) throws {
        try log.setHead(lsn, acknowledged: lsn)
        log.setReclaimLimit(lsn)
    }

    /// Changes one byte of the ring behind the log's back.
    func flip(at lsn: LSN) throws {
        var byte: [UInt8] = [0]
        byte.withUnsafeMutableBytes { region.readRing(from: lsn, into: $0) }
        byte[0] ^= 0x10
        byte.withUnsafeBytes { region.store($0, at: lsn) }
        try region.drain()
    }

    /// 64 bytes of the ring that nothing was ever stored to, as far as can be seen.
    func zeroLine(at lsn: LSN) throws {
        [UInt8](repeating: 0, count: 64).withUnsafeBytes { region.store($0, at: lsn) }
        try region.drain()
    }

    // MARK: Media

    func mediumPath(_ name: String = "vol0") -> String { folder.file("\(name).img") }

    func medium(_ name: String = "vol0") throws -> FileMedium {
        try FileMedium.open(path: mediumPath(name), sizeBytes: Self.mediumBytes, createIfMissing: false)
    }

    /// Every medium holds what the model says.
    func mediaAreAsModelled(sourceLocation: SourceLocation = #_sourceLocation) throws {
        for (volume, bytes) in model {
            let isAsModelled = try data(of: mediumPath(volume == volume0 ? "vol0" : "vol1")) == bytes
            #expect(isAsModelled, "medium of \(volume)", sourceLocation: sourceLocation)
        }
    }

    func mediaAreUntouched(sourceLocation: SourceLocation = #_sourceLocation) throws {
        for volume in model.keys {
            let isUntouched = try data(of: mediumPath(volume == volume0 ? "vol0" : "vol1")) == Self.blankMedium
            #expect(isUntouched, "medium of \(volume)", sourceLocation: sourceLocation)
        }
    }
}

/// A medium that notes what is done to it, and fails at one call, half done.
final class ObservedMedium: Medium, @unchecked Sendable {
    // Sendable: used by one thread, the test's.
    enum Call: Equatable {
        case write(ByteRange)
        case zero(ByteRange, releasingSpace: Bool)
        case flush
    }

    private let medium: FileMedium
    private(set) var calls: [Call] = []
    /// The number of the call that fails, from 0.
    var failingCall: Int?

    init(_ medium: FileMedium) { self.medium = medium }

    var sizeBytes: UInt64 { medium.sizeBytes }

    private func fails(_ call: Call) -> Bool {
        calls.append(call)
        return calls.count - 1 == failingCall
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        try medium.read(into: buffer, at: offset)
    }

    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        let length = buffers.reduce(0) { $0 + UInt64($1.count) }
        guard fails(.write(ByteRange(offset: offset, length: length))) else {
            return try medium.write(buffers, at: offset)
        }
        guard let first = buffers.first else { return }
        try medium.write([UnsafeRawBufferPointer(rebasing: first[..<(first.count / 2)])], at: offset)
        throw MediumError(.write, "broken on purpose")
    }

    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        guard fails(.zero(range, releasingSpace: releasingSpace)) else {
            return try medium.zero(range, releasingSpace: releasingSpace)
        }
        try medium.zero(ByteRange(offset: range.offset, length: range.length / 2), releasingSpace: releasingSpace)
        throw MediumError(.write, "broken on purpose")
    }

    func flush() throws(MediumError) {
        if fails(.flush) { throw MediumError(.flush, "broken on purpose") }
        try medium.flush()
    }
}
