// The server's side of the handshake, without I/O: bytes in, steps out. It asks for an export by a step and goes on when
// `answer` says what became of it; until then it reads no further option.

public import NIOCore

public struct NBDServerHandshake {
    /// What to do next, in order.
    public enum Step {
        case send(ByteBuffer)
        /// Find the export and call ``answer(_:)``.
        case find(name: String, purpose: Purpose)
        /// The client asked for the list of exports: call ``answerList(_:)``.
        case list
        /// Everything sent, close the connection.
        case close
    }
    public enum Purpose: Sendable { case info, go, exportName }

    public enum Answer {
        case export(NBDExportInfo)
        case refused(NBDRefusal, String)
    }
    public enum NBDRefusal: Sendable { case unknown, policy, shutdown }

    /// The longest data of an option that is answered: a name, and the info requests of GO.
    static let maximumOptionBytes: UInt32 = 8192
    /// A client that sends more options than this is not going to mount anything.
    static let maximumOptions = 256

    private enum State {
        case clientFlags, options
        case waiting(name: String, purpose: Purpose)
        case skipping(option: UInt32, bytes: Int)
        case transmission, aborted, closed
    }

    private var state = State.clientFlags
    private var omitZeroes = false
    private var optionCount = 0
    private var infos: [UInt16] = []
    private var currentOption: UInt32 = 0
    /// Structured replies were negotiated.
    public private(set) var isStructured = false
    /// The handshake is over; the rest of the input is requests.
    public var isTransmission: Bool { if case .transmission = state { true } else { false } }

    public init() {}

    /// The first bytes of a connection.
    public static func greeting() -> ByteBuffer {
        var out = ByteBuffer()
        out.writeInteger(NBD.greetingMagic)
        out.writeInteger(NBD.optionMagic)
        out.writeInteger(NBD.fixedNewstyle | NBD.noZeroes)
        return out
    }

    /// Consumes as much of `input` as makes one step; `nil` if more bytes or an answer are needed.
    public mutating func next(_ input: inout ByteBuffer) throws(NBDProtocolError) -> Step? {
        while true {
            switch state {
            case .clientFlags:
                guard let flags = input.readInteger(as: UInt32.self) else { return nil }
                guard flags & ~3 == 0, flags & 1 == 1 else {
                    throw NBDProtocolError("client flags \(flags): only fixed newstyle is spoken here")
                }
                omitZeroes = flags & 2 != 0
                state = .options
            case .options:
                guard let step = try readOption(&input) else { return nil }
                if case .send(let buffer) = step, buffer.readableBytes == 0 { continue }
                return step
            case .skipping(let option, let bytes):
                let count = min(bytes, input.readableBytes)
                input.moveReaderIndex(forwardBy: count)
                guard count == bytes else {
                    state = .skipping(option: option, bytes: bytes - count)
                    return nil
                }
                state = .options
                return .send(reply(option, NBD.Reply.tooBig, text: "the option is too long"))
            case .aborted:
                state = .closed
                return .close
            case .waiting, .transmission, .closed: return nil
            }
        }
    }

    private mutating func readOption(_ input: inout ByteBuffer) throws(NBDProtocolError) -> Step? {
        guard input.readableBytes >= 16, let magic = input.getInteger(at: input.readerIndex, as: UInt64.self),
            let option = input.getInteger(at: input.readerIndex + 8, as: UInt32.self),
            let length = input.getInteger(at: input.readerIndex + 12, as: UInt32.self)
        else { return nil }
        guard magic == NBD.optionMagic else { throw NBDProtocolError("an option without its magic number") }
        guard length <= Self.maximumOptionBytes else {
            guard length <= 1 << 20, option != NBD.Option.exportName else {
                throw NBDProtocolError("an option of \(length) bytes")
            }
            input.moveReaderIndex(forwardBy: 16)
            state = .skipping(option: option, bytes: Int(length))
            return .send(ByteBuffer())
        }
        guard input.readableBytes >= 16 + Int(length) else { return nil }
        input.moveReaderIndex(forwardBy: 16)
        guard var data = input.readSlice(length: Int(length)) else { return nil }
        optionCount += 1
        guard optionCount <= Self.maximumOptions else { throw NBDProtocolError("too many options") }
        currentOption = option
        return carryOut(option, &data)
    }

    private mutating func carryOut(_ option: UInt32, _ data: inout ByteBuffer) -> Step {
        switch option {
        case NBD.Option.exportName:
            let name = data.readString(length: data.readableBytes) ?? ""
            state = .waiting(name: name, purpose: .exportName)
            return .find(name: name, purpose: .exportName)
        case NBD.Option.abort:
            state = .aborted
            return .send(reply(option, NBD.Reply.ack))
        case NBD.Option.list:
            guard data.readableBytes == 0 else {
                return .send(reply(option, NBD.Reply.invalid, text: "LIST takes no data"))
            }
            return .list
        case NBD.Option.info, NBD.Option.go: return beginFind(option, &data)
        case NBD.Option.structuredReply:
            guard data.readableBytes == 0 else {
                return .send(reply(option, NBD.Reply.invalid, text: "STRUCTURED_REPLY takes no data"))
            }
            isStructured = true
            return .send(reply(option, NBD.Reply.ack))
        case NBD.Option.startTLS:
            return .send(reply(option, NBD.Reply.policy, text: "TLS is not offered here"))
        default:
            return .send(reply(option, NBD.Reply.unsupported, text: "this option is not known here"))
        }
    }

    private mutating func beginFind(_ option: UInt32, _ data: inout ByteBuffer) -> Step {
        guard let nameBytes = data.readInteger(as: UInt32.self), nameBytes <= NBD.maximumNameBytes,
            let name = data.readString(length: Int(nameBytes)), let count = data.readInteger(as: UInt16.self),
            data.readableBytes == Int(count) * 2
        else { return .send(reply(option, NBD.Reply.invalid, text: "the option is malformed")) }
        infos = (0..<count).compactMap { _ in data.readInteger(as: UInt16.self) }
        let purpose: Purpose = option == NBD.Option.go ? .go : .info
        state = .waiting(name: name, purpose: purpose)
        return .find(name: name, purpose: purpose)
    }

    /// What became of the export that a `find` step asked for.
    public mutating func answer(_ answer: Answer) -> [Step] {
        guard case .waiting(let name, let purpose) = state else { preconditionFailure("nothing was asked") }
        switch (answer, purpose) {
        case (.export(let export), .exportName):
            state = .transmission
            var out = ByteBuffer()
            out.writeInteger(export.sizeBytes)
            out.writeInteger(flags(export).rawValue)
            if !omitZeroes { out.writeRepeatingByte(0, count: 124) }
            return [.send(out)]
        case (.export(let export), _):
            state = purpose == .go ? .transmission : .options
            return [.send(describe(name, export))]
        case (.refused, .exportName):
            // This option has no reply: the specification says to end the session.
            state = .closed
            return [.close]
        case (.refused(let refusal, let message), _):
            state = .options
            let type =
                switch refusal {
                case .unknown: NBD.Reply.unknown
                case .policy: NBD.Reply.policy
                case .shutdown: NBD.Reply.shutdown
                }
            return [.send(reply(currentOption, type, text: message))]
        }
    }

    public func answerList(_ names: [String]) -> Step {
        var out = ByteBuffer()
        for name in names {
            var data = ByteBuffer()
            data.writeInteger(UInt32(name.utf8.count))
            data.writeString(name)
            append(&out, NBD.Option.list, NBD.Reply.server, data)
        }
        append(&out, NBD.Option.list, NBD.Reply.ack, ByteBuffer())
        return .send(out)
    }

    private func flags(_ export: NBDExportInfo) -> NBD.TransmissionFlags {
        isStructured ? export.flags.union(.sendDF) : export.flags
    }

    private func describe(_ name: String, _ export: NBDExportInfo) -> ByteBuffer {
        var out = ByteBuffer()
        var info = ByteBuffer()
        info.writeInteger(NBD.Info.export)
        info.writeInteger(export.sizeBytes)
        info.writeInteger(flags(export).rawValue)
        append(&out, currentOption, NBD.Reply.info, info)
        if infos.contains(NBD.Info.name) {
            info.clear()
            info.writeInteger(NBD.Info.name)
            info.writeString(name)
            append(&out, currentOption, NBD.Reply.info, info)
        }
        info.clear()
        info.writeInteger(NBD.Info.blockSize)
        info.writeInteger(1 as UInt32)
        info.writeInteger(NBD.preferredBlockBytes)
        info.writeInteger(NBD.maximumPayloadBytes)
        append(&out, currentOption, NBD.Reply.info, info)
        append(&out, currentOption, NBD.Reply.ack, ByteBuffer())
        return out
    }

    private func reply(_ option: UInt32, _ type: UInt32, text: String = "") -> ByteBuffer {
        var out = ByteBuffer()
        append(&out, option, type, ByteBuffer(string: text))
        return out
    }

    private func append(_ out: inout ByteBuffer, _ option: UInt32, _ type: UInt32, _ data: ByteBuffer) {
        out.writeInteger(NBD.optionReplyMagic)
        out.writeInteger(option)
        out.writeInteger(type)
        out.writeInteger(UInt32(data.readableBytes))
        out.writeImmutableBuffer(data)
    }
}
