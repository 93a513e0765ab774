// STARTTLS in clear, byte by byte as the specification has it: what is refused before it, and what may not come with it (S27).

import NBDServer
import NIOCore
import Testing

struct StartTLSTests {
    private static let tlsRequired: UInt32 = 0x8000_0005, policy: UInt32 = 0x8000_0002

    private func refusal(_ number: UInt32) -> [UInt8] {
        optionReply(number, Self.tlsRequired, Array("TLS is required here: use STARTTLS first".utf8))
    }

    @Test("S27: where TLS is required, a client in clear is told so, and nothing else")
    func required() async throws {
        try await withRig(requiresTLS: true) { rig in
            let client = try await RawClient.greeted(rig.path)
            for (number, data) in [(3, []), (6, asking(for: "vol0")), (7, asking(for: "vol0")), (8, []), (99, [])]
                as [(UInt32, [UInt8])]
            {
                try await client.send(option(number, data))
                #expect(try await client.answers(refusal(number)), "option \(number)")
            }
            try await client.send(option(5))
            #expect(try await client.answers(optionReply(5, 1)))
            // From here on it is TLS: what is said in clear is not heard.
            try await client.send(option(7, asking(for: "vol0")))
            try await rig.on { #expect($0.service.sessions.isEmpty) }
            let other = try await RawClient.greeted(rig.path)
            try await other.send(option(1, Array("vol0".utf8)))
            #expect(try await other.ends() && other.received.isEmpty, "EXPORT_NAME has no reply for it")
            let third = try await RawClient.greeted(rig.path)
            try await third.send(option(2))
            #expect(try await third.answers(optionReply(2, 1)))
        }
    }

    @Test("S27: what comes in clear with STARTTLS is not taken for a client's word within TLS")
    func injected() async throws {
        try await withRig(requiresTLS: true) { rig in
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(5) + option(7, asking(for: "vol0")))
            #expect(try await client.ends() && client.received.isEmpty)
            try await rig.on { #expect($0.service.sessions.isEmpty) }
        }
    }

    @Test("S27: where TLS is allowed, clients in clear are served as ever")
    func allowed() async throws {
        try await withRig(requiresTLS: false) { rig in
            #expect(try await rig.serves())
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(5, [1]))
            #expect(try await client.answers(optionReply(5, 0x8000_0003, Array("STARTTLS takes no data".utf8))))
            try await client.send(option(5))
            #expect(try await client.answers(optionReply(5, 1)))
        }
    }

    @Test("where there is none, TLS is refused by policy")
    func notOffered() async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(5))
            #expect(try await client.answers(optionReply(5, Self.policy, Array("TLS is not offered here".utf8))))
        }
    }
}
