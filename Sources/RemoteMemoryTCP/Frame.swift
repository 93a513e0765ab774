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
    private static let checksumOffset = 44

    var kind: FrameKind
    var payloadBytes: UInt32 = 0
    var payloadChecksum: UInt32 = 0
    var request: UInt64 = 0
    var key: UInt64 = 0
    var offset: UInt64 = 0
    var readBytes: UInt32 = 0

    func write(to buffer: inout ByteBuffer) {
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.byteCount) { space in
            let bytes = UnsafeMutableRawBufferPointer(rebasing: space[..<Self.byteCount])
            bytes.storeLittleEndian(Self.magic, at: 0)
            bytes.storeLittleEndian(UInt32(kind.rawValue), at: 4)
            bytes.storeLittleEndian(payloadBytes, at: 8)
            bytes.storeLittleEndian(payloadChecksum, at: 12)
            bytes.storeLittleEndian(request, at: 16)
            bytes.storeLittleEndian(key, at: 24)
            bytes.storeLittleEndian(offset, at: 32)
            bytes.storeLittleEndian(readBytes, at: 40)
            bytes.storeLittleEndian(
                frameChecksum(UnsafeRawBufferPointer(rebasing: bytes[..<Self.checksumOffset])), at: Self.checksumOffset)
            return Self.byteCount
        }
    }

    /// Parses the 48 bytes at the reader index, without consuming them. Throws `protocolViolation`.
    init(peeking buffer: ByteBuffer) throws(RemoteMemoryError) {
        let result = buffer.withUnsafeReadableBytes { bytes in
            Result { () throws(RemoteMemoryError) in try FrameHeader(bytes) }
        }
        self = try result.get()
    }

    private init(_ bytes: UnsafeRawBufferPointer) throws(RemoteMemoryError) {
        guard bytes.count >= Self.byteCount, bytes.littleEndian(at: 0) == Self.magic,
            bytes.littleEndian(at: Self.checksumOffset)
                == frameChecksum(UnsafeRawBufferPointer(rebasing: bytes[..<Self.checksumOffset]))
        else {
            throw RemoteMemoryError(
                .protocolViolation, "what arrived is not a frame of this protocol, or it is damaged")
        }
        guard let kind = FrameKind(rawValue: bytes[4]) else {
            throw RemoteMemoryError(.protocolViolation, "a frame of unknown kind \(bytes[4]) arrived")
        }
        self.kind = kind
        payloadBytes = bytes.littleEndian(at: 8)
        payloadChecksum = bytes.littleEndian(at: 12)
        request = bytes.littleEndian(at: 16)
        key = bytes.littleEndian(at: 24)
        offset = bytes.littleEndian(at: 32)
        readBytes = bytes.littleEndian(at: 40)
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

extension UnsafeRawBufferPointer {
    fileprivate func littleEndian<Number: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> Number {
        Number(littleEndian: loadUnaligned(fromByteOffset: offset, as: Number.self))
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func storeLittleEndian(_ number: some FixedWidthInteger & BitwiseCopyable, at offset: Int) {
        storeBytes(of: number.littleEndian, toByteOffset: offset, as: type(of: number))
    }
}
