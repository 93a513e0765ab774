// The server's side of the handshake, without I/O: bytes in, steps out. It asks for an export by a step and goes on when
// `answer` says what became of it; until then it reads no further option.

public import NIOCore

public struct NBDServerHandshake: Sendable {
    /// What to do next, in order.
    public enum Step: Sendable {
        case send(ByteBuffer)
        /// Find the export and call ``answer(_:)``.
        case find(name: String, purpose: Purpose)
        /// The client asked for the list of exports: call ``answerList(_:)`` or ``refuseList(_:)``.
        case list
        /// Send this, then begin TLS as the server: what follows is a handshake anew, within it.
        case startTLS(ByteBuffer)
        /// Everything sent, close the connection. With the reason, unless the client asked for it.
        case close(String?)
    }
    public enum Purpose: Sendable { case info, go, exportName, metaContexts }

    public enum Answer {
        case export(NBDExportInfo)
        case refused(NBDRefusal, String)
    }
    public enum NBDRefusal: Sendable { case unknown, policy, shutdown }

    /// What a server offers of TLS.
    public enum TLSPolicy: Sendable { case off, allowed, required }

    /// The longest data of an option that is looked at: names and queries of metadata contexts.
    static let maximumOptionBytes: UInt32 = 64 << 10
    /// The longest that is passed over to be answered; more costs the connection.
    static let maximumSkippedBytes: UInt32 = 1 << 20
    /// A client that lists a thousand exports and asks six things of each needs fewer.
    static let maximumOptions = 8192

    private enum State {
        case clientFlags, options
        case waiting(name: String, purpose: Purpose)
        case skipping(option: UInt32, bytes: Int)
        case transmission, closed
        case closing(String?)
    }

    private let tls: TLSPolicy
    /// TLS was begun.
    public private(set) var isSecure = false
    private var state = State.clientFlags
    private var isFixed = false
    private var omitZeroes = false
    private var optionCount = 0
    private var infos: [UInt16] = []
    private var currentOption: UInt32 = 0
    private var queries: [String] = []
    /// The export for which `base:allocation` was selected.
    private var allocationExport: String?

    /// Structured replies were negotiated.
    public private(set) var isStructured = false
    /// `base:allocation` was selected for the export that was opened.
    public private(set) var reportsAllocation = false
    /// The handshake is over; the rest of the input is requests.
    public var isTransmission: Bool { if case .transmission = state { true } else { false } }
    /// An answer is due from the server.
    public var isWaiting: Bool { if case .waiting = state { true } else { false } }

    public init(tls: TLSPolicy = .off) { self.tls = tls }

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
                guard flags & ~UInt32(NBD.fixedNewstyle | NBD.noZeroes) == 0 else {
                    throw NBDProtocolError(
                        "client flags 0x\(String(flags, radix: 16)) have bits that are not known here")
                }
                isFixed = flags & UInt32(NBD.fixedNewstyle) != 0
                omitZeroes = flags & UInt32(NBD.noZeroes) != 0
                state = .options
            case .options:
                guard let option = try readOption(&input) else { return nil }
                guard case .skipping = state else { return option }
            case .skipping(let option, let bytes):
                let count = min(bytes, input.readableBytes)
                input.moveReaderIndex(forwardBy: count)
                guard count == bytes else {
                    state = .skipping(option: option, bytes: bytes - count)
                    return nil
                }
                state = .options
                return .send(reply(option, NBD.Reply.tooBig, text: "the option is too long"))
            case .closing(let reason):
                state = .closed
                return .close(reason)
            case .waiting, .transmission, .closed: return nil
            }
        }
    }

    /// One option that is whole, or one that is too long and is passed over (the step is of no meaning then).
    private mutating func readOption(_ input: inout ByteBuffer) throws(NBDProtocolError) -> Step? {
        guard input.readableBytes >= 16, let magic = input.getInteger(at: input.readerIndex, as: UInt64.self),
            let option = input.getInteger(at: input.readerIndex + 8, as: UInt32.self),
            let length = input.getInteger(at: input.readerIndex + 12, as: UInt32.self)
        else { return nil }
        guard magic == NBD.optionMagic else { throw NBDProtocolError("an option without its magic number") }
        try check(option, length)
        if length > Self.maximumOptionBytes {
            input.moveReaderIndex(forwardBy: 16)
            optionCount += 1
            state = .skipping(option: option, bytes: Int(length))
            return .send(ByteBuffer())
        }
        guard input.readableBytes >= 16 + Int(length) else { return nil }
        input.moveReaderIndex(forwardBy: 16)
        guard var data = input.readSlice(length: Int(length)) else { return nil }
        optionCount += 1
        currentOption = option
        guard optionCount <= Self.maximumOptions else {
            state = .closing("it sent more than \(Self.maximumOptions) options")
            return .send(reply(option, NBD.Reply.tooBig, text: "more than \(Self.maximumOptions) options"))
        }
        return carryOut(option, &data)
    }

    /// What has no reply in the protocol costs the connection.
    private func check(_ option: UInt32, _ length: UInt32) throws(NBDProtocolError) {
        guard isFixed || option == NBD.Option.exportName else {
            throw NBDProtocolError("option \(option) of a client that does not speak fixed newstyle")
        }
        let limit = option == NBD.Option.exportName ? UInt32(NBD.maximumNameBytes) : Self.maximumSkippedBytes
        guard length <= limit else { throw NBDProtocolError("option \(option) has \(length) bytes") }
    }

    private mutating func carryOut(_ option: UInt32, _ data: inout ByteBuffer) -> Step {
        if tls == .required, !isSecure, let refusal = refuseWithoutTLS(option) { return refusal }
        switch option {
        case NBD.Option.exportName:
            return find(data.readString(length: data.readableBytes) ?? "", .exportName)
        case NBD.Option.abort:
            state = .closing(nil)
            return .send(reply(option, NBD.Reply.ack))
        case NBD.Option.list:
            guard data.readableBytes == 0 else { return invalid("LIST takes no data") }
            return .list
        case NBD.Option.info, NBD.Option.go: return beginFind(option, &data)
        case NBD.Option.structuredReply:
            guard data.readableBytes == 0 else { return invalid("STRUCTURED_REPLY takes no data") }
            isStructured = true
            return .send(reply(option, NBD.Reply.ack))
        case NBD.Option.listMetaContext, NBD.Option.setMetaContext: return beginMetaContexts(option, &data)
        case NBD.Option.startTLS: return startTLS(data)
        default:
            return .send(reply(option, NBD.Reply.unsupported, text: "this option is not known here"))
        }
    }

    /// Options that need no TLS, and one that has no reply, are carried out or end the connection.
    private mutating func refuseWithoutTLS(_ option: UInt32) -> Step? {
        switch option {
        case NBD.Option.startTLS, NBD.Option.abort: return nil
        case NBD.Option.exportName:
            state = .closed
            return .close("EXPORT_NAME without TLS, which is required here")
        default: return .send(reply(option, NBD.Reply.tlsRequired, text: "TLS is required here: use STARTTLS first"))
        }
    }

    /// What was negotiated in clear is forgotten.
    private mutating func startTLS(_ data: ByteBuffer) -> Step {
        guard tls != .off else { return .send(reply(currentOption, NBD.Reply.policy, text: "TLS is not offered here")) }
        guard !isSecure else { return invalid("TLS has been started already") }
        guard data.readableBytes == 0 else { return invalid("STARTTLS takes no data") }
        isSecure = true
        isStructured = false
        allocationExport = nil
        return .startTLS(reply(currentOption, NBD.Reply.ack))
    }

    private func invalid(_ text: String) -> Step { .send(reply(currentOption, NBD.Reply.invalid, text: text)) }

    private mutating func find(_ name: String, _ purpose: Purpose) -> Step {
        state = .waiting(name: name, purpose: purpose)
        return .find(name: name, purpose: purpose)
    }

    private mutating func beginFind(_ option: UInt32, _ data: inout ByteBuffer) -> Step {
        guard let name = data.readText(), let count = data.readInteger(as: UInt16.self),
            data.readableBytes == Int(count) * 2
        else { return invalid("the option is malformed") }
        infos = (0..<count).compactMap { _ in data.readInteger(as: UInt16.self) }
        return find(name, option == NBD.Option.go ? .go : .info)
    }

    private mutating func beginMetaContexts(_ option: UInt32, _ data: inout ByteBuffer) -> Step {
        if option == NBD.Option.setMetaContext { allocationExport = nil }
        guard isStructured else { return invalid("metadata contexts need structured replies") }
        guard let name = data.readText(), let count = data.readInteger(as: UInt32.self),
            count <= UInt32(data.readableBytes / 4)
        else { return invalid("the option is malformed") }
        queries = []
        for _ in 0..<count {
            guard let query = data.readText() else { return invalid("the option is malformed") }
            queries.append(query)
        }
        guard data.readableBytes == 0 else { return invalid("the option is malformed") }
        return find(name, .metaContexts)
    }

    // MARK: Answers

    /// What became of the export that a `find` step asked for.
    public mutating func answer(_ answer: Answer) -> Step {
        guard case .waiting(let name, let purpose) = state else { preconditionFailure("nothing was asked") }
        switch answer {
        case .export(let export): return describe(name, export, for: purpose)
        case .refused(let refusal, let message):
            guard purpose != .exportName else {
                // This option has no reply: the specification says to end the session.
                state = .closed
                return .close("EXPORT_NAME is refused: \(NBDText.printable(message))")
            }
            state = .options
            let type =
                switch refusal {
                case .unknown: NBD.Reply.unknown
                case .policy: NBD.Reply.policy
                case .shutdown: NBD.Reply.shutdown
                }
            return .send(reply(currentOption, type, text: message))
        }
    }

    private mutating func describe(_ name: String, _ export: NBDExportInfo, for purpose: Purpose) -> Step {
        switch purpose {
        case .exportName:
            begin(name)
            var out = ByteBuffer()
            out.writeInteger(export.sizeBytes)
            out.writeInteger(flags(export).rawValue)
            if !omitZeroes { out.writeRepeatingByte(0, count: 124) }
            return .send(out)
        case .go:
            begin(name)
            return .send(describe(name, export))
        case .info:
            state = .options
            return .send(describe(name, export))
        case .metaContexts:
            state = .options
            return .send(answerQueries(name))
        }
    }

    private mutating func begin(_ name: String) {
        state = .transmission
        reportsAllocation = isStructured && allocationExport == name
    }

    public func answerList(_ names: [String]) -> Step {
        var out = ByteBuffer()
        for name in names {
            var data = ByteBuffer()
            data.writeText(name)
            append(&out, NBD.Option.list, NBD.Reply.server, data)
        }
        append(&out, NBD.Option.list, NBD.Reply.ack, ByteBuffer())
        return .send(out)
    }

    public func refuseList(_ message: String) -> Step {
        .send(reply(NBD.Option.list, NBD.Reply.policy, text: message))
    }

    /// LIST may ask for all contexts, or for all of a namespace; SET names each.
    private mutating func answerQueries(_ export: String) -> ByteBuffer {
        let isSetting = currentOption == NBD.Option.setMetaContext
        let isAsked =
            queries.contains(NBD.MetaContext.allocationName)
            || !isSetting && (queries.isEmpty || queries.contains(NBD.MetaContext.baseNamespace))
        var out = ByteBuffer()
        if isAsked {
            var data = ByteBuffer()
            data.writeInteger(isSetting ? NBD.MetaContext.allocation : 0)
            data.writeString(NBD.MetaContext.allocationName)
            append(&out, currentOption, NBD.Reply.metaContext, data)
            if isSetting { allocationExport = export }
        }
        append(&out, currentOption, NBD.Reply.ack, ByteBuffer())
        return out
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
        append(&out, option, type, ByteBuffer(string: NBDText.printable(text)))
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

extension ByteBuffer {
    /// A length of four bytes and as many bytes of text, at most a name's.
    fileprivate mutating func readText() -> String? {
        guard let count = readInteger(as: UInt32.self), count <= NBD.maximumNameBytes else { return nil }
        return readString(length: Int(count))
    }

    fileprivate mutating func writeText(_ text: String) {
        writeInteger(UInt32(text.utf8.count))
        writeString(text)
    }
}
