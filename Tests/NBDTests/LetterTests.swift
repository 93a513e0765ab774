// NBD by the letter of its specification (O10): every command with every flag and size; options, contexts and texts.

import NIOCore
import NIOEmbedded
import GroupEngine
import Testing

@testable import NBDServer

struct LetterTests {
    // MARK: Requests

    /// FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, and one that nobody knows.
    private static let flags: [UInt16] = [0, 1, 2, 4, 8, 16, 32, 1 << 15, 1 | 2 | 16, 1 | 4]
    private static let ranges: [(offset: UInt64, length: UInt32)] = {
        let end = UInt64(volumeBytes)
        return [
            (0, 0), (0, 512), (3, 5), (0, UInt32(end)), (end - 1, 1), (end, 0), (end - 1, 2), (end, 1), (end + 1, 0),
            (0, 32 << 20), (0, (32 << 20) + 1), (0, .max), (.max, 0), (.max, 1), (1 << 63, 512),
        ]
    }()

    /// What the specification has, said once more and otherwise than the server does.
    private static func expected(
        _ command: UInt16, _ flags: UInt16, _ offset: UInt64, _ length: UInt32, structured: Bool, readOnly: Bool
    ) -> UInt32 {
        let allowed: UInt16
        switch command {
        case 0: allowed = structured ? 1 | 4 : 1
        case 1, 3, 4, 5: allowed = 1
        case 6: allowed = 1 | 2 | 16
        case 7: allowed = 1 | 8
        default: return 22
        }
        if flags & ~allowed != 0 { return 22 }
        if command == 3 { return offset == 0 && length == 0 ? 0 : 22 }
        if command == 7, !structured || length == 0 { return 22 }
        if readOnly, [1, 4, 6].contains(command) { return 1 }
        if command < 2, length > 32 << 20 { return 22 }
        let end = offset.addingReportingOverflow(UInt64(length))
        if end.overflow || end.partialValue > UInt64(volumeBytes) { return command == 1 || command == 6 ? 28 : 22 }
        return 0
    }

    @Test(
        "O10: every command, flag and size is answered as the specification has it, and the session goes on",
        arguments: [(false, false), (true, false), (false, true)])
    func everyCommandFlagAndSize(structured: Bool, readOnly: Bool) async throws {
        try await withRig { rig in
            try await rig.on {
                $0.service.isReadOnly = readOnly
                $0.service.extents = [VolumeExtent(lengthBytes: 1, kind: .data)]
            }
            let client = try await Self.opened(rig, structured: structured, readOnly: readOnly)
            for command in [0, 1, 3, 4, 5, 6, 7, 8, 99, .max] as [UInt16] {
                for flags in Self.flags {
                    let cases = Self.ranges.filter { Self.isTried(command, flags, $0.length) }
                    var bytes: [UInt8] = []
                    for (offset, length) in cases {
                        bytes += request(command, offset: offset, length: length, flags: flags)
                        if command == 1 { bytes += [UInt8](repeating: 0, count: Int(length)) }
                    }
                    try await client.send(bytes, patienceMillis: 30_000)
                    for (offset, length) in cases {
                        let code = Self.expected(
                            command, flags, offset, length, structured: structured, readOnly: readOnly)
                        let answer = try await Self.answer(client, command, length, code, structured)
                        #expect(answer == code, "command \(command) flags \(flags) range \(offset) \(length)")
                    }
                }
            }
        }
    }

    /// Many bytes are sent and fetched with one set of flags only.
    private static func isTried(_ command: UInt16, _ flags: UInt16, _ length: UInt32) -> Bool {
        guard command < 2, length >= UInt32(volumeBytes) else { return true }
        return flags == 0 && (command == 0 || length != .max)
    }

    private static func opened(_ rig: RemoteRig, structured: Bool, readOnly: Bool) async throws -> RawClient {
        let flags = transmissionFlags | (readOnly ? 2 : 0) | (structured ? 128 : 0)
        let client = try await RawClient.greeted(rig.path)
        if structured {
            try await client.send(option(8) + option(10, contexts(for: "vol0", ["base:allocation"])))
            try #require(try await client.answers(optionReply(8, 1)))
            try #require(
                try await client.answers(
                    optionReply(10, 4, big(1 as UInt32) + Array("base:allocation".utf8)) + optionReply(10, 1)))
        }
        try await client.send(option(1, Array("vol0".utf8)))
        try #require(try await client.answers(big(UInt64(volumeBytes)) + big(flags)))
        return client
    }

    /// The error of the next answer, which is taken off whole; `nil` if it is none to this.
    private static func answer(
        _ client: RawClient, _ command: UInt16, _ length: UInt32, _ code: UInt32, _ structured: Bool
    ) async throws -> UInt32? {
        guard structured, command == 0 || command == 7 else {
            let data = code == 0 && command == 0 ? [UInt8](repeating: 0, count: Int(length)) : []
            return try await client.answers(simpleReply(code) + data) ? code : nil
        }
        return try await client.chunk().map { chunk in
            chunk.type & (1 << 15) == 0 ? 0 : chunk.body.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    @Test("O10, A9: the refusal of a READ that is too long names the limit") func textsNameTheLimit() async throws {
        try await withRig { rig in
            let client = try await Self.opened(rig, structured: true, readOnly: false)
            try await client.send(request(0, length: (32 << 20) + 1))
            let chunk = try #require(try await client.chunk())
            #expect(String(decoding: chunk.body.dropFirst(6), as: UTF8.self).contains("\(32 << 20)"))
        }
    }

    // MARK: Block status

    @Test("base:allocation tells holes and zeros, one extent to whom asks for one, and errors as they are")
    func blockStatus() async throws {
        try await withRig { rig in
            try await rig.on {
                $0.service.extents = [
                    VolumeExtent(lengthBytes: 4096, kind: .data), VolumeExtent(lengthBytes: 512, kind: .zeros),
                    VolumeExtent(lengthBytes: 1 << 20, kind: .hole),
                ]
            }
            let client = try await Self.opened(rig, structured: true, readOnly: false)
            try await client.send(
                request(7, cookie: 1, length: 1 << 21) + request(7, cookie: 2, length: 8192, flags: 8))
            let all = try #require(try await client.chunk())
            #expect(all.type == 5 && all.cookie == 1)
            let words: [UInt32] = [1, 4096, 0, 512, 2, 1 << 20, 3]
            #expect(all.body == words.flatMap { big($0) })
            let one = try #require(try await client.chunk())
            #expect(one.cookie == 2 && one.body == ([1, 4096, 0] as [UInt32]).flatMap { big($0) })
            try await rig.on { $0.service.readError = .readFailed("the medium is broken") }
            try await client.send(request(7, cookie: 3, length: 512))
            let error = try #require(try await client.chunk())
            #expect(error.type == 1 << 15 | 1 && error.body.prefix(4) == big(5 as UInt32)[...])
        }
    }

    private static func contexts(for export: String, _ queries: [String]) -> [UInt8] {
        let texts = [export] + queries
        let parts = texts.map { big(UInt32($0.utf8.count)) + Array($0.utf8) }
        return parts[0] + big(UInt32(queries.count)) + parts.dropFirst().flatMap(\.self)
    }

    @Test("Contexts are listed and selected by name, for the export that they were selected for")
    func contextsOfAnExport() async throws {
        try await withRig { rig in
            let name = Array("base:allocation".utf8)
            let client = try await RawClient.greeted(rig.path)
            // Not before structured replies.
            try await client.send(option(9, Self.contexts(for: "vol0", [])))
            #expect(
                try await client.answers(
                    optionReply(9, 0x8000_0003, Array("metadata contexts need structured replies".utf8))))
            try await client.send(option(8))
            #expect(try await client.answers(optionReply(8, 1)))
            for queries in [[], ["base:"], ["base:allocation"], ["x:y", "base:allocation"]] {
                try await client.send(option(9, Self.contexts(for: "vol0", queries)))
                #expect(try await client.answers(optionReply(9, 4, big(0 as UInt32) + name) + optionReply(9, 1)))
            }
            for (number, queries) in [(9, ["x:"]), (10, []), (10, ["base:"]), (10, ["qemu:dirty-bitmap:a"])] {
                try await client.send(option(UInt32(number), Self.contexts(for: "vol0", queries)))
                #expect(try await client.answers(optionReply(UInt32(number), 1)), "\(number) \(queries)")
            }
            try await client.send(option(10, Self.contexts(for: "nothing", ["base:allocation"])))
            #expect(
                try await client.answers(optionReply(10, 0x8000_0006, Array("there is no volume 'nothing'".utf8))))
            for malformed in [[], [0, 0], Self.contexts(for: "vol0", ["base:allocation"]) + [0], big(UInt32.max)] {
                try await client.send(option(10, malformed))
                #expect(try await client.answers(optionReply(10, 0x8000_0003, Array("the option is malformed".utf8))))
            }
            // Selected, then taken back by a selection of nothing.
            try await client.send(option(10, Self.contexts(for: "vol0", ["base:allocation"])))
            #expect(try await client.answers(optionReply(10, 4, big(1 as UInt32) + name) + optionReply(10, 1)))
            try await client.send(option(10, Self.contexts(for: "vol0", [])) + option(1, Array("vol0".utf8)))
            #expect(
                try await client.answers(optionReply(10, 1) + big(UInt64(volumeBytes)) + big(transmissionFlags | 128)))
            try await client.send(request(7, length: 512))
            #expect(try await client.chunk()?.type == 1 << 15 | 1)
        }
    }

    // MARK: Texts and options

    @Test(
        "O10, C3: texts have at most 4096 bytes, and control characters are written out",
        arguments: [
            String(repeating: "n", count: 4096), String(repeating: "\u{1B}[2J", count: 500),
            "a\u{7F}\u{85}\n\r\t\u{202E}b",
            String(repeating: "ä", count: 2048),
        ])
    func textsAreBoundedAndPrintable(name: String) async throws {
        try await withRig { rig in
            try await rig.on { $0.service.quotesWholeNames = true }
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(7, asking(for: name)))
            try #require(try await client.eventually { client.take() || client.received.count >= 20 })
            let length = client.received[16..<20].reduce(0) { $0 << 8 | Int($1) }
            try #require(try await client.eventually { client.take() || client.received.count >= 20 + length })
            #expect(length <= 4096)
            let text = try #require(String(validating: client.received[20...], as: UTF8.self))
            #expect(
                text.unicodeScalars.allSatisfy {
                    $0.value >= 0x20 && $0.value != 0x7F && $0.value != 0x85 && $0.value != 0x202E
                })
            #expect(text.hasPrefix("there is no volume '"))
        }
    }

    /// A client in virtual time, behind its flags.
    private static func embedded(_ rig: Rig, _ loop: EmbeddedEventLoop) throws -> EmbeddedChannel {
        let channel = EmbeddedChannel(loop: loop)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        try channel.pipeline.syncOperations.addHandler(
            NBDConnection(room: rig.server.room, channel: channel, refusal: nil))
        channel.pipeline.fireChannelActive()
        try channel.writeInbound(ByteBuffer(bytes: big(3 as UInt32)))
        return channel
    }

    @Test("O10, C3: a client at work is not timed out, however long all of its options take; a silent one is")
    func aClientAtWorkIsNotTimedOut() throws {
        let loop = EmbeddedEventLoop()
        let rig = Rig(loop, NBDServerLimits())
        let channel = try Self.embedded(rig, loop)
        defer { withExtendedLifetime(rig) {} }
        for _ in 0..<100 {
            loop.advanceTime(by: .seconds(9))
            try channel.writeInbound(ByteBuffer(bytes: option(77)))
            #expect(channel.isActive)
        }
        loop.advanceTime(by: .seconds(11))
        #expect(!channel.isActive)
    }

    @Test("C3: options have an end, which is told") func optionsAreBounded() async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            for _ in 0..<32 {
                try await client.send(repeated(option(77), 256), patienceMillis: 30_000)
                let unknown = optionReply(77, 0x8000_0001, Array("this option is not known here".utf8))
                #expect(try await client.answers(repeated(unknown, 256)))
            }
            try await client.send(option(77))
            #expect(try await client.ends())
            #expect(client.received == optionReply(77, 0x8000_0009, Array("more than 8192 options".utf8)))
        }
    }

    @Test("O24: who waits too long for a volume to open is told why, and may go on") func anOpeningThatTakesTooLong()
        throws
    {
        let loop = EmbeddedEventLoop()
        let rig = Rig(loop, NBDServerLimits())
        rig.service.holdsOpens = true
        let channel = try Self.embedded(rig, loop)
        _ = try channel.readOutbound(as: ByteBuffer.self)
        try channel.writeInbound(ByteBuffer(bytes: option(7, asking(for: "vol0"))))
        loop.advanceTime(by: .seconds(9))
        #expect(try channel.readOutbound(as: ByteBuffer.self) == nil)
        loop.advanceTime(by: .seconds(2))
        let reply = try #require(try channel.readOutbound(as: ByteBuffer.self))
        #expect(reply.readableBytesView.starts(with: optionReply(7, 0x8000_0007).prefix(16)))
        #expect(rig.service.givenUpOpens == 1 && channel.isActive)
    }
}
