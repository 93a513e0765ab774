// The client's side of one connection, on its event loop.

internal import NBDProtocol
internal import NIOCore

final class NBDClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State { case greeting, structuring, opening, open, closed }
    private struct Pending {
        var promise: EventLoopPromise<ByteBuffer?>
        /// Of a read: what has arrived.
        var data: ByteBuffer?
        var offset: UInt64
        var length: Int
        var error: NBDClientError?
    }

    private let export: String
    private let wantsStructured: Bool
    private let opened: EventLoopPromise<NBDExportInfo>
    private var state = State.greeting
    private var info: NBDExportInfo?
    private var input = ByteBuffer()
    private var pending: [UInt64: Pending] = [:]
    private var lastCookie: UInt64 = 0
    private var channel: (any Channel)?
    private var isFlushScheduled = false

    init(export: String, structured: Bool, opened: EventLoopPromise<NBDExportInfo>) {
        self.export = export
        wantsStructured = structured
        self.opened = opened
    }

    func handlerAdded(context: ChannelHandlerContext) { channel = context.channel }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard state != .closed else { return }
        var buffer = unwrapInboundIn(data)
        if input.readableBytes == 0 { input = buffer } else { input.writeBuffer(&buffer) }
        do {
            while state != .closed, try advance() {}
            input.discardReadBytes()
        } catch {
            fail(NBDClientError(.protocolViolation, "\(error)"))
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(NBDClientError(.disconnected, "the server ended the connection"))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(NBDClientError(.disconnected, "the connection failed: \(error)"))
    }

    private func fail(_ error: NBDClientError) {
        guard state != .closed else { return }
        state = .closed
        let waiting = pending.values
        pending = [:]
        opened.fail(error)
        for entry in waiting { entry.promise.fail(error) }
        channel?.close(mode: .all, promise: nil)
    }

    /// Takes one step; false if more bytes are needed.
    private func advance() throws -> Bool {
        switch state {
        case .greeting: return try greet()
        case .structuring, .opening: return try optionReply()
        case .open: return try reply()
        case .closed: return false
        }
    }

    // MARK: The handshake

    private func greet() throws -> Bool {
        guard input.readableBytes >= 18 else { return false }
        guard input.readInteger(as: UInt64.self) == NBD.greetingMagic,
            input.readInteger(as: UInt64.self) == NBD.optionMagic,
            let flags = input.readInteger(as: UInt16.self), flags & NBD.fixedNewstyle != 0
        else { throw NBDProtocolError("the server does not speak fixed newstyle NBD") }
        var out = ByteBuffer()
        out.writeInteger(UInt32(flags & 3))
        channel?.write(out, promise: nil)
        if wantsStructured {
            state = .structuring
            sendOption(NBD.Option.structuredReply, ByteBuffer())
        } else {
            sendGo()
        }
        return true
    }

    private func sendGo() {
        state = .opening
        var data = ByteBuffer()
        data.writeInteger(UInt32(export.utf8.count))
        data.writeString(export)
        data.writeInteger(0 as UInt16)
        sendOption(NBD.Option.go, data)
    }

    private func sendOption(_ option: UInt32, _ data: ByteBuffer) {
        var out = ByteBuffer()
        out.writeInteger(NBD.optionMagic)
        out.writeInteger(option)
        out.writeInteger(UInt32(data.readableBytes))
        out.writeImmutableBuffer(data)
        channel?.writeAndFlush(out, promise: nil)
    }

    private func optionReply() throws -> Bool {
        guard input.readableBytes >= 20, let length = input.getInteger(at: input.readerIndex + 16, as: UInt32.self)
        else {
            return false
        }
        guard length <= 1 << 16 else { throw NBDProtocolError("an option reply of \(length) bytes") }
        guard input.readableBytes >= 20 + Int(length) else { return false }
        guard input.readInteger(as: UInt64.self) == NBD.optionReplyMagic, input.readInteger(as: UInt32.self) != nil,
            let type = input.readInteger(as: UInt32.self), input.readInteger(as: UInt32.self) != nil,
            var data = input.readSlice(length: Int(length))
        else { throw NBDProtocolError("a malformed option reply") }
        if state == .structuring {
            sendGo()
        } else if NBD.Reply.isError(type) {
            let text = data.readString(length: data.readableBytes) ?? ""
            fail(NBDClientError(.refused, text.isEmpty ? "export '\(export)' is refused" : text))
        } else if type == NBD.Reply.info, data.readInteger(as: UInt16.self) == NBD.Info.export,
            let size = data.readInteger(as: UInt64.self), let flags = data.readInteger(as: UInt16.self)
        {
            info = NBDExportInfo(sizeBytes: size, flags: NBD.TransmissionFlags(rawValue: flags))
        } else if type == NBD.Reply.ack {
            guard let info else { throw NBDProtocolError("the server did not describe the export") }
            state = .open
            opened.succeed(info)
        }
        return true
    }

    // MARK: Requests

    func submit(_ command: NBDClientCommand) -> EventLoopFuture<ByteBuffer?> {
        guard let channel, state == .open else {
            let failed = NBDClientError(.disconnected, "the connection is not open")
            return channel?.eventLoop.makeFailedFuture(failed) ?? opened.futureResult.eventLoop.makeFailedFuture(failed)
        }
        lastCookie += 1
        let (request, payload) = encode(command)
        let promise = channel.eventLoop.makePromise(of: ByteBuffer?.self)
        pending[lastCookie] = Pending(
            promise: promise, data: nil, offset: request.offset,
            length: request.command == .read ? Int(request.length) : 0)
        var out = channel.allocator.buffer(capacity: NBDRequest.byteCount)
        request.write(to: &out)
        channel.write(out, promise: nil)
        if let payload { channel.write(payload, promise: nil) }
        scheduleFlush(channel)
        return promise.futureResult
    }

    private func encode(_ command: NBDClientCommand) -> (NBDRequest, ByteBuffer?) {
        func request(
            _ command: NBD.Command, _ offset: UInt64 = 0, _ length: Int = 0, _ flags: NBD.CommandFlags = []
        ) -> NBDRequest {
            NBDRequest(flags: flags, command: command, cookie: lastCookie, offset: offset, length: UInt32(length))
        }
        switch command {
        case .read(let offset, let length): return (request(.read, offset, length), nil)
        case .write(let offset, let payload, let fua):
            return (request(.write, offset, payload.readableBytes, fua ? .fua : []), payload)
        case .flush: return (request(.flush), nil)
        case .trim(let offset, let length): return (request(.trim, offset, length), nil)
        case .writeZeroes(let offset, let length, let noHole):
            return (request(.writeZeroes, offset, length, noHole ? .noHole : []), nil)
        }
    }

    private func scheduleFlush(_ channel: any Channel) {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        channel.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            channel.flush()
        }
    }

    func disconnect() {
        guard let channel, state == .open else {
            self.channel?.close(mode: .all, promise: nil)
            return
        }
        var out = ByteBuffer()
        NBDRequest(flags: [], command: .disconnect, cookie: 0, offset: 0, length: 0).write(to: &out)
        channel.writeAndFlush(out, promise: nil)
    }

    private func reply() throws -> Bool {
        let message = try NBDServerMessage.read(&input) { pending[$0]?.length ?? 0 }
        switch message {
        case nil: return false
        case .simple(let cookie, let error):
            guard let entry = pending.removeValue(forKey: cookie) else {
                throw NBDProtocolError("a reply to no request")
            }
            if error == .none {
                entry.promise.succeed(entry.length == 0 ? nil : ByteBuffer())
            } else {
                entry.promise.fail(Self.failed(error, ""))
            }
        case .data(let cookie, let offset, let bytes, let done):
            try update(cookie, done: done) { entry throws(NBDProtocolError) in
                // A simple reply's data has no offset of its own.
                if bytes.readableBytes == entry.length, offset == 0 || offset == entry.offset {
                    entry.data = bytes
                    return
                }
                try Self.place(bytes, offset, &entry)
            }
        case .hole(let cookie, let offset, let length, let done):
            try update(cookie, done: done) { entry throws(NBDProtocolError) in
                guard Int(length) <= entry.length else { throw NBDProtocolError("a hole outside of its read") }
                try Self.place(ByteBuffer(repeating: 0, count: Int(length)), offset, &entry)
            }
        case .error(let cookie, let code, let text, let done):
            try update(cookie, done: done) { entry throws(NBDProtocolError) in entry.error = Self.failed(code, text) }
        case .done(let cookie): try update(cookie, done: true) { _ throws(NBDProtocolError) in }
        }
        return true
    }

    private static func failed(_ code: NBD.ErrorCode, _ text: String) -> NBDClientError {
        NBDClientError(.failed(errno: code.rawValue), text.isEmpty ? "the server answered \(code)" : "\(code): \(text)")
    }

    private static func place(_ bytes: ByteBuffer, _ offset: UInt64, _ entry: inout Pending) throws(NBDProtocolError) {
        guard offset >= entry.offset, offset - entry.offset <= UInt64(entry.length),
            bytes.readableBytes <= entry.length - Int(offset - entry.offset)
        else { throw NBDProtocolError("data outside of its read") }
        var data = entry.data ?? ByteBuffer(repeating: 0, count: entry.length)
        data.setBuffer(bytes, at: Int(offset - entry.offset))
        entry.data = data
    }

    private func update(
        _ cookie: UInt64, done: Bool, _ change: (inout Pending) throws(NBDProtocolError) -> Void
    ) throws(NBDProtocolError) {
        guard var entry = pending.removeValue(forKey: cookie) else { throw NBDProtocolError("a reply to no request") }
        try change(&entry)
        guard done else {
            pending[cookie] = entry
            return
        }
        if let error = entry.error {
            entry.promise.fail(error)
        } else {
            entry.promise.succeed(entry.length == 0 ? nil : entry.data ?? ByteBuffer())
        }
    }
}
