// The handshake, byte by byte as the specification has it, and what a client gets that does not keep to it (S21).

import Foundation
import Glibc
import NBDClient
import NBDServer
import NIOCore
import GroupEngine
import TestSupport
import Testing

struct HandshakeTests {
    let infoReply =
        big(0 as UInt16) + big(UInt64(volumeBytes)) + big(transmissionFlags)
    let blockSizeReply = big(3 as UInt16) + big(1 as UInt32) + big(4096 as UInt32) + big(32 << 20 as UInt32)

    @Test func theSocketIsPrivate() async throws {  // S22
        try await withRig { rig in
            var about = stat()
            try #require(stat(rig.path, &about) == 0)
            #expect(about.st_mode & 0o777 == 0o600)
        }
    }

    @Test func theListHasEveryVolume() async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(3))
            for name in ["vol0", "elsewhere", "starting"] {
                #expect(try await client.answers(optionReply(3, 2, big(UInt32(name.utf8.count)) + Array(name.utf8))))
            }
            #expect(try await client.answers(optionReply(3, 1)))
            // A LIST with data is refused; the handshake goes on.
            try await client.send(option(3, [1]))
            #expect(try await client.answers(optionReply(3, 0x8000_0003, Array("LIST takes no data".utf8))))
        }
    }

    @Test func infoAndGoDescribeTheExport() async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(6, asking(for: "vol0", infos: [1, 3, 77])))
            let name = big(1 as UInt16) + Array("vol0".utf8)
            for reply in [infoReply, name, blockSizeReply] {
                #expect(try await client.answers(optionReply(6, 3, reply)))
            }
            #expect(try await client.answers(optionReply(6, 1)))
            try await rig.on { #expect($0.service.sessions.isEmpty) }
            try await client.send(option(7, asking(for: "vol0")))
            for reply in [infoReply, blockSizeReply] { #expect(try await client.answers(optionReply(7, 3, reply))) }
            #expect(try await client.answers(optionReply(7, 1)))
            try await client.send(request(3))
            #expect(try await client.answers(simpleReply(0)))
        }
    }

    @Test("O10: EXPORT_NAME is served whatever of the two flags a client knows")
    func exportNameOpensAnExportWithAndWithoutZeroes() async throws {
        try await withRig { rig in
            for (flags, zeroes) in [(3, 0), (1, 124), (0, 124), (2, 0)] as [(UInt32, Int)] {
                let client = try await RawClient.greeted(rig.path, flags: flags)
                try await client.send(option(1, Array("vol0".utf8)) + request(3, cookie: 9))
                let head = big(UInt64(volumeBytes)) + big(transmissionFlags)
                #expect(
                    try await client.answers(head + [UInt8](repeating: 0, count: zeroes) + simpleReply(0, cookie: 9)))
            }
        }
    }

    /// Every piece of a handshake, even single bytes, and all of it at once.
    @Test func piecesDoNotMatter() async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            for byte in option(8) + option(7, asking(for: "vol0")) + request(3) { try await client.send([byte]) }
            #expect(try await client.answers(optionReply(8, 1)))
            let info = big(0 as UInt16) + big(UInt64(volumeBytes)) + big(transmissionFlags | 128)
            for reply in [info, blockSizeReply] { #expect(try await client.answers(optionReply(7, 3, reply))) }
            #expect(try await client.answers(optionReply(7, 1) + simpleReply(0)))
        }
    }

    @Test(
        arguments: [
            ("nothing", 0x8000_0006, "there is no volume 'nothing'"), ("elsewhere", 0x8000_0002, "owned by beta"),
            ("starting", 0x8000_0007, "being replayed"), ("", 0x8000_0006, "no volume"),
        ] as [(String, UInt32, String)]) func whatIsNotServedHereIsRefusedWithTheReason(
            name: String, type: UInt32, reason: String
        ) async throws
    {
        try await withRig { rig in
            for number in [6, 7] as [UInt32] {
                let client = try await RawClient.greeted(rig.path)
                try await client.send(option(number, asking(for: name)))
                #expect(try await client.eventually { client.take() || client.received.count >= 20 })
                #expect(client.received.starts(with: Array(optionReply(number, type).prefix(16))))
                #expect(String(decoding: client.received, as: UTF8.self).contains(reason))
            }
            let old = try await RawClient.greeted(rig.path)
            try await old.send(option(1, Array(name.utf8)))
            #expect(try await old.ends())
            #expect(old.received.isEmpty)
            let error = await #expect(throws: NBDClientError.self) { try await rig.client(export: name) }
            #expect(error?.code == .refused)
            #expect(error?.message.contains(reason) == true)
        }
    }

    @Test func unknownOptionsAreAnsweredAndTheHandshakeGoesOn() async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            for number in [0, 4, 11, 77, .max] as [UInt32] {
                try await client.send(option(number, [1, 2, 3]))
                #expect(
                    try await client.answers(
                        optionReply(number, 0x8000_0001, Array("this option is not known here".utf8))))
            }
            try await client.send(option(5))
            #expect(try await client.answers(optionReply(5, 0x8000_0002, Array("TLS is not offered here".utf8))))
            // Too long to be looked at, but short enough to be skipped.
            try await client.send(option(77, [UInt8](repeating: 1, count: 100_000)))
            #expect(try await client.answers(optionReply(77, 0x8000_0009, Array("the option is too long".utf8))))
            try await client.send(option(2))
            #expect(try await client.answers(optionReply(2, 1)))
            #expect(try await client.ends())
        }
    }

    @Test func malformedExportRequestsAreRefused() async throws {  // S21
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            let whole = asking(for: "vol0", infos: [3])
            let malformed: [[UInt8]] = [
                [], [0, 0, 0], big(UInt32.max), big(UInt32.max) + Array("vol0".utf8), Array(whole.dropLast()),
                whole + [0],
                big(4097 as UInt32) + [UInt8](repeating: 97, count: 4097) + [0, 0], big(0 as UInt32) + big(UInt16.max),
            ]
            for data in malformed {
                try await client.send(option(7, data))
                #expect(try await client.answers(optionReply(7, 0x8000_0003, Array("the option is malformed".utf8))))
            }
            try await client.send(option(7, whole))
            #expect(try await client.answers(optionReply(7, 3, infoReply)))
        }
    }

    @Test func whoBreaksTheHandshakeLosesTheConnection() async throws {  // S21
        try await withRig { rig in
            var random = SplitMix64(seed: 3)
            let broken: [[UInt8]] = [
                big(7 as UInt32), big(UInt32.max), big(0 as UInt32) + option(3), big(2 as UInt32) + option(2),
                big(3 as UInt32) + option(77, claiming: (1 << 20) + 1), big(3 as UInt32) + option(77, claiming: .max),
                big(3 as UInt32) + option(1, claiming: 4097), big(3 as UInt32) + [UInt8](repeating: 0, count: 16),
                Array("GET / HTTP/1.1\r\n\r\n".utf8), random.bytes(1000), [UInt8](repeating: 0xff, count: 100_000),
            ]
            for (index, bytes) in broken.enumerated() {
                let client = try RawClient(rig.path)
                try await client.send(bytes)
                #expect(try await client.ends(), "\(index)")
            }
            try await rig.on { #expect($0.service.sessions.isEmpty) }
            #expect(try await rig.serves())
        }
    }

    @Test func whoSaysNothingIsNotWaitedFor() async throws {  // S21
        var limits = patientLimits
        limits.handshake = .milliseconds(30)
        try await withRig(limits) { rig in
            let silent = try RawClient(rig.path)
            let half = try await RawClient.greeted(rig.path)
            try await half.send(Array(option(7, asking(for: "vol0")).dropLast()))
            #expect(try await silent.ends())
            #expect(try await half.ends())
            #expect(try await eventuallyZero(rig))
        }
    }

    func eventuallyZero(_ rig: RemoteRig) async throws -> Bool {
        try await rig.eventually { $0.server.connectionCount == 0 }
    }

    @Test func aClientThatLeavesWhileItsVolumeOpensLeavesNoSession() async throws {  // S24
        try await withRig { rig in
            try await rig.on { $0.service.holdsOpens = true }
            do {
                let client = try await RawClient.greeted(rig.path)
                try await client.send(option(7, asking(for: "vol0")))
                #expect(try await rig.eventually { $0.service.heldOpens.count == 1 })
            }
            #expect(try await eventuallyZero(rig))
            try await rig.on { rig in
                #expect(rig.service.givenUpOpens == 1)
                rig.service.holdsOpens = false
                for open in rig.service.heldOpens { open() }
                #expect(rig.service.sessions.map(\.isClosed) == [true])
            }
            #expect(try await rig.serves())
        }
    }

    /// A client may send requests before it has read the answer to GO.
    @Test func requestsBehindGoWaitForTheSession() async throws {
        try await withRig { rig in
            try await rig.on { $0.service.holdsOpens = true }
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(7, asking(for: "vol0")) + request(0, cookie: 5, offset: 0, length: 4))
            #expect(try await rig.eventually { $0.service.heldOpens.count == 1 })
            try await rig.on { rig in
                rig.service.bytes.replaceSubrange(0..<4, with: [1, 2, 3, 4])
                for open in rig.service.heldOpens { open() }
            }
            for reply in [infoReply, blockSizeReply] { #expect(try await client.answers(optionReply(7, 3, reply))) }
            #expect(try await client.answers(optionReply(7, 1) + simpleReply(0, cookie: 5) + [1, 2, 3, 4]))
        }
    }

    @Test("O4, A3: who finds no place is told so, and by what limit") func connectionsAreBounded() async throws {
        var limits = patientLimits
        limits.connections = 5
        try await withRig(limits) { rig in
            var clients: [RawClient] = []
            for _ in 0..<5 { clients.append(try await RawClient.opened(rig.path)) }
            let text = "all 5 connections of this node are taken"
            let surplus = try await RawClient.greeted(rig.path)
            try await surplus.send(option(3) + option(7, asking(for: "vol0")))
            #expect(
                try await surplus.answers(
                    optionReply(3, 0x8000_0002, Array(text.utf8)) + optionReply(7, 0x8000_0002, Array(text.utf8))))
            // Those who are told of it are bounded, too.
            var further: [RawClient] = []
            for _ in 0..<32 { further.append(try await RawClient.greeted(rig.path)) }
            #expect(try await surplus.ends())
            try await rig.on { #expect($0.server.refusedCount == 33) }
            try await clients[0].send(request(3))
            #expect(try await clients[0].answers(simpleReply(0)))
            clients.removeLast()
            #expect(try await rig.eventually { $0.server.connectionCount == 4 })
            #expect(try await rig.serves())
        }
    }
}
