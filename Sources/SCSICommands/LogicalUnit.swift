// The commands of a disk (SBC-3): how large it is, which one it is, and its blocks.

internal import Crypto
public import LogModel

public struct LogicalUnit: Sendable {
    public let device: any SCSIDevice
    public let blockBytes: UInt64
    public let blockCount: UInt64
    /// The most that one READ or WRITE carries, a multiple of the block.
    public let transferBytes: Int

    public var sizeBytes: UInt64 { blockBytes * blockCount }

    /// Larger ones gain nothing, and the copy of a write is as large.
    private static let mostTransferBytes: UInt64 = 1 << 20
    private static let blockSizes: Set<UInt64> = [512, 1024, 2048, 4096]

    /// Asks the unit what it is. Throws `malformed` for an answer that is no disk's.
    public init(_ device: any SCSIDevice) throws(SCSIError) {
        self.device = device
        // READ CAPACITY(16).
        let answer = try device.bytes([0x9E, 0x10] + [UInt8](repeating: 0, count: 8) + [0, 0, 0, 32, 0, 0], limit: 32)
        guard answer.count >= 12 else {
            throw SCSIError(.malformed, "\(device.name): told its capacity in \(answer.count) bytes")
        }
        let last = UInt64(bigEndianBytes: answer[0..<8])
        blockBytes = UInt64(UInt32(bigEndianBytes: answer[8..<12]))
        guard Self.blockSizes.contains(blockBytes) else {
            throw SCSIError(.malformed, "\(device.name): has blocks of \(blockBytes) bytes")
        }
        blockCount = last &+ 1
        guard blockCount > 0, !blockCount.multipliedReportingOverflow(by: blockBytes).overflow else {
            throw SCSIError(.malformed, "\(device.name): says that it has \(last) blocks and one more")
        }
        let limit = try Self.transferLimit(device)
        let bytes = min(Self.mostTransferBytes, device.transferLimit, max(1, limit) * blockBytes)
        transferBytes = Int(max(1, bytes / blockBytes) * blockBytes)
    }

    /// In blocks, of the page Block Limits; a unit without one has no limit.
    private static func transferLimit(_ device: any SCSIDevice) throws(SCSIError) -> UInt64 {
        do throws(SCSIError) {
            let page = try vitalPage(0xB0, of: device)
            guard page.count >= 12 else { return .max >> 16 }
            let blocks = UInt64(UInt32(bigEndianBytes: page[8..<12]))
            return blocks == 0 ? .max >> 16 : blocks
        } catch {
            guard error.code == .illegalRequest else { throw error }
            return .max >> 16
        }
    }

    /// INQUIRY of a page of vital product data; its head and as much as it says that it has.
    private static func vitalPage(_ page: UInt8, of device: any SCSIDevice) throws(SCSIError) -> [UInt8] {
        let limit: UInt16 = 1024
        let answer = try device.bytes([0x12, 1, page] + limit.bigEndianBytes + [0], limit: Int(limit))
        guard answer.count >= 4, answer[1] == page else {
            throw SCSIError(.malformed, "\(device.name): answers something else than the page that it was asked for")
        }
        return Array(answer.prefix(4 + Int(UInt16(bigEndianBytes: answer[2..<4]))))
    }

    // MARK: Which unit it is

    /// From the designator that the unit's maker gave it, and `place`: the target and the number by which it is reached there (S18).
    /// Throws `malformed` if the unit has no designator of its own.
    public func identity(at place: String) throws(SCSIError) -> UUID128 {
        let designator = try designator()
        let digest = Array(SHA256.hash(data: Array("twinlog medium|\(place)|".utf8) + designator))
        return UUID128(high: UInt64(bigEndianBytes: digest[0..<8]), low: UInt64(bigEndianBytes: digest[8..<16]))
    }

    /// The best designator of the page Device Identification (SPC-4, 7.8.6): of the unit itself, a worldwide name before a maker's.
    private func designator() throws(SCSIError) -> [UInt8] {
        let page = try Self.vitalPage(0x83, of: device)
        var best: (rank: Int, bytes: [UInt8])?
        var at = 4
        while at + 4 <= page.count {
            let end = at + 4 + Int(page[at + 3])
            guard end <= page.count else { break }
            let association = page[at + 1] >> 4 & 3
            if association == 0, let rank = Self.ranks[page[at + 1] & 0xF], rank > best?.rank ?? 0, end > at + 4 {
                best = (rank, Array(page[at..<end]))
            }
            at = end
        }
        guard let best else {
            throw SCSIError(.malformed, "\(device.name): has no designator that tells it from others")
        }
        return best.bytes
    }

    /// By the designator's type: SCSI name string, NAA, EUI-64, T10 vendor identification.
    private static let ranks: [UInt8: Int] = [8: 4, 3: 3, 2: 2, 1: 1]

    // MARK: Blocks

    /// Precondition: `first` and the bytes are of the unit, whole blocks, at most ``transferBytes``. A unit attention is thrown: who writes
    /// must know what it says of what was written before.
    public func read(into buffer: UnsafeMutableRawBufferPointer, fromBlock first: UInt64) throws(SCSIError) {
        let count = try device.execute(transferCommand(0x88, first, buffer.count), .into(buffer))
        guard count == buffer.count else {
            throw SCSIError(.malformed, "\(device.name): read \(count) bytes of \(buffer.count)")
        }
    }

    /// As ``read(into:fromBlock:)``.
    public func write(_ bytes: UnsafeRawBufferPointer, toBlock first: UInt64) throws(SCSIError) {
        _ = try device.execute(transferCommand(0x8A, first, bytes.count), .out(bytes))
    }

    private func transferCommand(_ code: UInt8, _ first: UInt64, _ bytes: Int) -> [UInt8] {
        precondition(UInt64(bytes) % blockBytes == 0 && bytes <= transferBytes, "whole blocks of one transfer")
        let count = UInt32(UInt64(bytes) / blockBytes)
        return [code, 0] + first.bigEndianBytes + count.bigEndianBytes + [0, 0]
    }

    /// SYNCHRONIZE CACHE(16) of all blocks.
    public func flush() throws(SCSIError) {
        _ = try device.execute([0x91] + [UInt8](repeating: 0, count: 15), .none)
    }
}
