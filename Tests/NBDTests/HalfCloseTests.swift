// A client that sends no more is still owed its replies, and what it sent is carried out (O10, O27).

import NBDServer
import Testing

struct HalfCloseTests {
    @Test("O10, C2: replies come after the client closed its half, then the end", arguments: [true, false])
    func repliesComeAfterTheEndOfInput(onTCP: Bool) async throws {
        try await withRig(onTCP: onTCP) { rig in
            let client = try await rig.raw().opened()
            try await rig.on { $0.service.isHolding = true }
            try await client.send(
                request(1, cookie: 1, length: 2) + [5, 6] + request(3, cookie: 2) + request(0, cookie: 3, length: 2))
            try client.endInput()
            #expect(try await rig.eventually { $0.service.sessions[0].isInputEnded })
            try await rig.on { rig in
                #expect(rig.service.sessions[0].held.count == 3)
                for _ in 0..<3 { rig.service.sessions[0].release() }
            }
            #expect(try await client.ends())
            #expect(
                client.received == simpleReply(0, cookie: 1) + simpleReply(0, cookie: 2) + simpleReply(0, cookie: 3) + [
                    5, 6,
                ])
            try await rig.on { #expect($0.service.bytes[..<2] == [5, 6]) }
            #expect(try await rig.eventually { $0.service.sessions[0].isClosed && $0.server.connectionCount == 0 })
        }
    }

    /// More is owed than the socket takes at once.
    @Test("C2: a large reply is sent whole after the client closed its half") func aLargeReplyIsSentWhole() async throws
    {
        try await withRig { rig in
            let client = try await RawClient.opened(rig.path)
            try await client.send(repeated(request(0, length: UInt32(volumeBytes)), 4) + request(2))
            try client.endInput()
            #expect(try await client.ends())
            #expect(client.received.count == 4 * (16 + volumeBytes))
        }
    }

    @Test("S24: a WRITE that the client did not send whole is not carried out") func halfAWriteIsDropped() async throws
    {
        try await withRig { rig in
            let client = try await RawClient.opened(rig.path)
            try await client.send(
                request(1, cookie: 1, length: 1) + [7] + request(1, length: 100) + [UInt8](repeating: 1, count: 99))
            try client.endInput()
            #expect(try await client.ends())
            #expect(client.received == simpleReply(0, cookie: 1))
            try await rig.on { #expect($0.service.sessions[0].submitted == ["write 0 1"]) }
        }
    }

    @Test("O27: WRITE and DISC, then close at once: the write is carried out", arguments: [true, false])
    func aGoodbyeOfAClientThatIsGone(onTCP: Bool) async throws {
        try await withRig(onTCP: onTCP) { rig in
            try await rig.on { $0.service.isHolding = true }
            do {
                let client = try await rig.raw().opened()
                try await client.send(repeated(request(1, length: 1) + [9], 3) + request(2))
            }
            #expect(try await rig.eventually { $0.service.sessions[0].held.count == 3 })
            // Nobody is there for the first reply; the others are carried out all the same.
            for remaining in [2, 1, 0] {
                try await rig.on { rig in
                    try #require(rig.service.sessions[0].held.count == remaining + 1)
                    rig.service.sessions[0].release()
                }
            }
            try await rig.on { #expect($0.service.bytes[0] == 9) }
            #expect(try await rig.eventually { $0.service.sessions[0].isClosed && $0.server.connectionCount == 0 })
        }
    }

    @Test("C2: a handshake that ends in its middle is closed") func aHandshakeThatEnds() async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(3))
            try client.endInput()
            #expect(try await client.ends())
            #expect(client.received.suffix(20) == optionReply(3, 1)[...])
            #expect(try await rig.eventually { $0.server.connectionCount == 0 })
        }
    }
}
