// What a client may ask of an export.

public import NIOCore

public enum NBDClientCommand: Sendable {
    case read(offset: UInt64, length: Int)
    case write(offset: UInt64, payload: ByteBuffer, fua: Bool)
    case flush
    case trim(offset: UInt64, length: Int)
    case writeZeroes(offset: UInt64, length: Int, noHole: Bool)
}
