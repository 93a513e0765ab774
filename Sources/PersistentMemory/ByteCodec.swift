// Little-endian integers, identities and names in a block of bytes. Blocks are small and fixed; an access outside of
// one is a bug and traps.

import CLogCore
import LogModel

struct ByteBlock {
    private(set) var bytes: [UInt8]

    init(count: Int) { bytes = [UInt8](repeating: 0, count: count) }
    init(_ source: UnsafeRawBufferPointer) { bytes = [UInt8](source) }

    var isZero: Bool { bytes.allSatisfy { $0 == 0 } }

    mutating func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        withUnsafeBytes(of: value.littleEndian) { bytes.replaceSubrange(offset..<offset + $0.count, with: $0) }
    }

    func get<Value: FixedWidthInteger>(_ type: Value.Type, at offset: Int) -> Value {
        precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= bytes.count)
        return bytes.withUnsafeBytes { Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
    }

    mutating func put(_ uuid: UUID128, at offset: Int) {
        put(uuid.high, at: offset)
        put(uuid.low, at: offset + 8)
    }

    func uuid(at offset: Int) -> UUID128 {
        UUID128(high: get(UInt64.self, at: offset), low: get(UInt64.self, at: offset + 8))
    }

    mutating func put(_ block: ByteBlock, at offset: Int) {
        bytes.replaceSubrange(offset..<offset + block.bytes.count, with: block.bytes)
    }

    func starts(with magic: StaticString) -> Bool {
        magic.withUTF8Buffer { bytes.prefix(8).elementsEqual($0) }
    }

    mutating func put(magic: StaticString) {
        precondition(magic.utf8CodeUnitCount == 8)
        magic.withUTF8Buffer { bytes.replaceSubrange(0..<8, with: $0) }
    }

    static let nameBytes = 64

    /// Precondition: a valid name, so at most 63 bytes.
    mutating func put(name: String, at offset: Int) {
        precondition(Name.isValid(name))
        bytes.replaceSubrange(offset..<offset + name.utf8.count, with: name.utf8)
    }

    /// `nil` unless it is a valid name, padded with zeros only.
    func name(at offset: Int) -> String? {
        let field = bytes[offset..<offset + Self.nameBytes]
        let used = field.prefix { $0 != 0 }
        guard field.dropFirst(used.count).allSatisfy({ $0 == 0 }),
            let text = String(validating: used, as: UTF8.self), Name.isValid(text)
        else { return nil }
        return text
    }

    /// CRC32C of the first `count` bytes with the four at `field` taken as zero.
    func checksum(of count: Int, without field: Int, seed: UInt32 = 0) -> UInt32 {
        var copy = self
        copy.put(UInt32(0), at: field)
        return copy.bytes.withUnsafeBytes { tl_crc32c(seed, $0.baseAddress, count) }
    }
}

/// The seed of every checksum of one incarnation of a log (S3).
func checksumSeed(log: UUID128, incarnation: Incarnation) -> UInt32 {
    var block = ByteBlock(count: 24)
    block.put(log, at: 0)
    block.put(incarnation.rawValue, at: 16)
    return block.bytes.withUnsafeBytes { tl_crc32c(0, $0.baseAddress, $0.count) }
}
