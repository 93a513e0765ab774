// The frames of a rail. Every frame is a header of 48 bytes, little-endian, and at most 1 MiB of payload; both have a
// CRC32C. A header is checked before anything in it is believed, a length before anything is buffered (S21).
//
//   offset  bytes  what
//   0       4      magic "TLRM"
//   4       1      kind
//   5       3      zero
//   8       4      payload bytes
//   12      4      CRC32C of the payload
//   16      8      work request id
//   24      8      region key; for ATOMIC WRITE the value is the payload
//   32      8      offset in the region
//   40      4      bytes to read (READ)
//   44      4      CRC32C of bytes 0..<44

internal import CLogCore
internal import NIOCore
internal import RemoteMemory

enum FrameKind: UInt8 {
    case hello = 1, welcome, refuse
    case write, atomicWrite, read, flush, message
    case complete, readData, error
    case proof, accept
}

struct FrameHeader: Equatable {
    static let magic: UInt32 = 0x4D52_4C54
    static let byteCount = 48

    var kind: FrameKind
    var payloadBytes: UInt32 = 0
    var payloadChecksum: UInt32 = 0
    var request: UInt64 = 0
    var key: UInt64 = 0
    var offset: UInt64 = 0
    var readBytes: UInt32 = 0

    func write(to buffer: inout ByteBuffer) {
        let start = buffer.writerIndex
        buffer.writeInteger(Self.magic, endianness: .little)
        buffer.writeInteger(kind.rawValue)
        buffer.writeRepeatingByte(0, count: 3)
        buffer.writeInteger(payloadBytes, endianness: .little)
        buffer.writeInteger(payloadChecksum, endianness: .little)
        buffer.writeInteger(request, endianness: .little)
        buffer.writeInteger(key, endianness: .little)
        buffer.writeInteger(offset, endianness: .little)
        buffer.writeInteger(readBytes, endianness: .little)
        let checksum = buffer.withUnsafeReadableBytes { bytes in
            frameChecksum(UnsafeRawBufferPointer(rebasing: bytes[(start - buffer.readerIndex)...]))
        }
        buffer.writeInteger(checksum, endianness: .little)
    }

    /// Parses the 48 bytes at the reader index, without consuming them. Throws `protocolViolation`.
    init(peeking buffer: ByteBuffer) throws(RemoteMemoryError) {
        func field<Number: FixedWidthInteger>(_ at: Int, as type: Number.Type) -> Number {
            buffer.getInteger(at: buffer.readerIndex + at, endianness: .little, as: type) ?? 0
        }
        let checksum = buffer.withUnsafeReadableBytes {
            frameChecksum(UnsafeRawBufferPointer(rebasing: $0[..<(Self.byteCount - 4)]))
        }
        guard field(0, as: UInt32.self) == Self.magic, field(44, as: UInt32.self) == checksum else {
            throw RemoteMemoryError(
                .protocolViolation, "what arrived is not a frame of this protocol, or it is damaged")
        }
        guard let kind = FrameKind(rawValue: field(4, as: UInt8.self)) else {
            throw RemoteMemoryError(.protocolViolation, "a frame of unknown kind \(field(4, as: UInt8.self)) arrived")
        }
        self.kind = kind
        payloadBytes = field(8, as: UInt32.self)
        payloadChecksum = field(12, as: UInt32.self)
        request = field(16, as: UInt64.self)
        key = field(24, as: UInt64.self)
        offset = field(32, as: UInt64.self)
        readBytes = field(40, as: UInt32.self)
        guard payloadBytes <= RemoteMemoryLimits.maximumTransferBytes,
            readBytes <= RemoteMemoryLimits.maximumTransferBytes
        else {
            throw RemoteMemoryError(
                .protocolViolation, "a frame of \(max(payloadBytes, readBytes)) bytes is over the limit")
        }
    }

    init(
        _ kind: FrameKind, payload: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
        request: UInt64 = 0, key: UInt64 = 0, offset: UInt64 = 0, readBytes: UInt32 = 0
    ) {
        self.kind = kind
        payloadBytes = UInt32(payload.count)
        payloadChecksum = frameChecksum(payload)
        self.request = request
        self.key = key
        self.offset = offset
        self.readBytes = readBytes
    }
}

func frameChecksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    tl_crc32c(0, bytes.baseAddress, bytes.count)
}
