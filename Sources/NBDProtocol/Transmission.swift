// Requests and replies, both sides, without I/O.

public import NIOCore

public struct NBDRequest: Hashable, Sendable {
    public static let byteCount = 28

    public var flags: NBD.CommandFlags
    /// `nil` if the number is not of a command that is known here.
    public var command: NBD.Command?
    public var cookie: UInt64
    public var offset: UInt64
    public var length: UInt32

    public init(flags: NBD.CommandFlags, command: NBD.Command, cookie: UInt64, offset: UInt64, length: UInt32) {
        self.flags = flags
        self.command = command
        self.cookie = cookie
        self.offset = offset
        self.length = length
    }

    /// Consumes one request's header; `nil` if it is not whole yet.
    public static func read(_ input: inout ByteBuffer) throws(NBDProtocolError) -> NBDRequest? {
        guard input.readableBytes >= byteCount else { return nil }
        guard input.readInteger(as: UInt32.self) == NBD.requestMagic,
            let flags = input.readInteger(as: UInt16.self), let type = input.readInteger(as: UInt16.self),
            let cookie = input.readInteger(as: UInt64.self), let offset = input.readInteger(as: UInt64.self),
            let length = input.readInteger(as: UInt32.self)
        else { throw NBDProtocolError("a request without its magic number") }
        var request = NBDRequest(
            flags: NBD.CommandFlags(rawValue: flags), command: .read, cookie: cookie, offset: offset, length: length)
        request.command = NBD.Command(rawValue: type)
        // Whatever its number: only WRITE carries a payload.
        return request
    }

    public func write(to out: inout ByteBuffer) {
        out.writeInteger(NBD.requestMagic)
        out.writeInteger(flags.rawValue)
        out.writeInteger((command ?? .disconnect).rawValue)
        out.writeInteger(cookie)
        out.writeInteger(offset)
        out.writeInteger(length)
    }
}

/// What a client is told of a range by BLOCK_STATUS.
public struct NBDExtent: Hashable, Sendable {
    public var lengthBytes: UInt32
    /// Of ``NBD/MetaContext``.
    public var flags: UInt32
    public init(lengthBytes: UInt32, flags: UInt32) {
        self.lengthBytes = lengthBytes
        self.flags = flags
    }
}

/// Builds the server's replies.
public enum NBDReply {
    /// Enough for a path and a reason.
    private static let maximumErrorBytes = 512

    public static func done(_ cookie: UInt64, error: NBD.ErrorCode = .none, into out: inout ByteBuffer) {
        out.writeInteger(NBD.simpleReplyMagic)
        out.writeInteger(error.rawValue)
        out.writeInteger(cookie)
    }

    /// The header of a READ's reply; `length` bytes of data follow.
    public static func data(
        _ cookie: UInt64, offset: UInt64, length: Int, structured: Bool, into out: inout ByteBuffer
    ) {
        guard structured else { return done(cookie, into: &out) }
        guard length > 0 else { return chunk(cookie, NBD.Chunk.none, length: 0, into: &out) }
        chunk(cookie, NBD.Chunk.offsetData, length: UInt32(length + 8), into: &out)
        out.writeInteger(offset)
    }

    /// A structured reply that is an error.
    public static func error(
        _ cookie: UInt64, _ error: NBD.ErrorCode, message: String, structured: Bool, into out: inout ByteBuffer
    ) {
        guard structured else { return done(cookie, error: error, into: &out) }
        let text = Array(NBDText.printable(message, limit: maximumErrorBytes).utf8)
        chunk(cookie, NBD.Chunk.error, length: UInt32(6 + text.count), into: &out)
        out.writeInteger(error.rawValue)
        out.writeInteger(UInt16(text.count))
        out.writeBytes(text)
    }

    /// The answer to BLOCK_STATUS. Precondition: it was selected, and there is an extent.
    public static func blockStatus(_ cookie: UInt64, _ extents: [NBDExtent], into out: inout ByteBuffer) {
        chunk(cookie, NBD.Chunk.blockStatus, length: UInt32(4 + extents.count * 8), into: &out)
        out.writeInteger(NBD.MetaContext.allocation)
        for extent in extents {
            out.writeInteger(extent.lengthBytes)
            out.writeInteger(extent.flags)
        }
    }

    private static func chunk(_ cookie: UInt64, _ type: UInt16, length: UInt32, into out: inout ByteBuffer) {
        out.writeInteger(NBD.structuredReplyMagic)
        out.writeInteger(NBD.Chunk.done)
        out.writeInteger(type)
        out.writeInteger(cookie)
        out.writeInteger(length)
    }
}

/// The client's view of one piece of the server's answers.
public enum NBDServerMessage: Equatable, Sendable {
    case simple(cookie: UInt64, error: NBD.ErrorCode)
    /// Of a structured reply: data at an offset.
    case data(cookie: UInt64, offset: UInt64, ByteBuffer, done: Bool)
    case hole(cookie: UInt64, offset: UInt64, length: UInt32, done: Bool)
    case error(cookie: UInt64, NBD.ErrorCode, String, done: Bool)
    case done(cookie: UInt64)

    /// Consumes one message; `nil` if it is not whole yet. `simpleReadBytes` tells how much data follows a successful
    /// simple reply to a READ of that cookie (0 for anything else); such data is returned as `data`.
    public static func read(
        _ input: inout ByteBuffer, simpleReadBytes: (UInt64) -> Int
    ) throws(NBDProtocolError) -> NBDServerMessage? {
        guard let magic = input.getInteger(at: input.readerIndex, as: UInt32.self) else { return nil }
        switch magic {
        case NBD.simpleReplyMagic:
            guard input.readableBytes >= 16,
                let code = input.getInteger(at: input.readerIndex + 4, as: UInt32.self),
                let cookie = input.getInteger(at: input.readerIndex + 8, as: UInt64.self)
            else { return nil }
            let bytes = code == 0 ? simpleReadBytes(cookie) : 0
            guard input.readableBytes >= 16 + bytes else { return nil }
            input.moveReaderIndex(forwardBy: 16)
            guard bytes > 0, let data = input.readSlice(length: bytes) else {
                return .simple(cookie: cookie, error: NBD.ErrorCode(rawValue: code))
            }
            return .data(cookie: cookie, offset: 0, data, done: true)
        case NBD.structuredReplyMagic: return try readChunk(&input)
        default: throw NBDProtocolError("a reply without its magic number")
        }
    }

    private static func readChunk(_ input: inout ByteBuffer) throws(NBDProtocolError) -> NBDServerMessage? {
        guard input.readableBytes >= 20, let flags = input.getInteger(at: input.readerIndex + 4, as: UInt16.self),
            let type = input.getInteger(at: input.readerIndex + 6, as: UInt16.self),
            let cookie = input.getInteger(at: input.readerIndex + 8, as: UInt64.self),
            let length = input.getInteger(at: input.readerIndex + 16, as: UInt32.self)
        else { return nil }
        guard length <= NBD.maximumPayloadBytes + 64 else { throw NBDProtocolError("a chunk of \(length) bytes") }
        guard input.readableBytes >= 20 + Int(length) else { return nil }
        input.moveReaderIndex(forwardBy: 20)
        guard var body = input.readSlice(length: Int(length)) else { return nil }
        let done = flags & NBD.Chunk.done != 0
        switch type {
        case NBD.Chunk.none where done && length == 0: return .done(cookie: cookie)
        case NBD.Chunk.offsetData:
            guard let offset = body.readInteger(as: UInt64.self), body.readableBytes > 0 else { break }
            return .data(cookie: cookie, offset: offset, body, done: done)
        case NBD.Chunk.offsetHole:
            guard let offset = body.readInteger(as: UInt64.self), let hole = body.readInteger(as: UInt32.self) else {
                break
            }
            return .hole(cookie: cookie, offset: offset, length: hole, done: done)
        case let type where NBD.Chunk.isError(type):
            guard let code = body.readInteger(as: UInt32.self), let count = body.readInteger(as: UInt16.self),
                let text = body.readString(length: Int(count))
            else { break }
            return .error(cookie: cookie, NBD.ErrorCode(rawValue: code), text, done: done)
        default: break
        }
        throw NBDProtocolError("a malformed chunk of type \(type)")
    }
}
