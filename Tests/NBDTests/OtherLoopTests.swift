// Volumes that are served on an event loop of their own: a client goes there once it has named one, with its place and nothing lost.

import AdminProtocol
import GroupEngine
import LogModel
@testable import NBDServer
import NIOCore
import NIOPosix
import Testing

struct OtherLoopTests {
    /// `vol1` is served on another loop than the one where clients arrive, and so is `vol0` from there.
    private func withTwoLoops(
        _ limits: NBDServerLimits = patientLimits, withTLS: Bool = false,
        _ body: (RemoteRig, NIOLoopBound<FakeService>) async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        try await withRig(limits, requiresTLS: withTLS ? true : nil, passesTLS: withTLS) { rig in
            let home = try await rig.on { NIOLoopBound($0.service, eventLoop: $0.server.eventLoop) }
            let other = try await loop.submit {
                let service = FakeService()
                service.volume = "vol1"
                service.places["vol0"] = VolumePlace(eventLoop: home.eventLoop) { home.value }
                return NIOLoopBound(service, eventLoop: loop)
            }.get()
            try await rig.on { $0.service.places["vol1"] = VolumePlace(eventLoop: loop) { other.value } }
            try await body(rig, other)
        }
        try await group.shutdownGracefully()
    }

    private func on<Value: Sendable>(
        _ service: NIOLoopBound<FakeService>, _ body: @escaping @Sendable (FakeService) -> Value
    ) async throws -> Value {
        try await service.eventLoop.submit { body(service.value) }.get()
    }

    private func write(_ byte: UInt8) -> [UInt8] {
        request(1, length: 512) + [UInt8](repeating: byte, count: 512)
    }

    @Test("S28: a client is served on the loop of its volume, and is one client all the time") func itMoves()
        async throws
    {
        try await withTwoLoops { rig, other in
            var client: RawClient? = try await RawClient.opened(rig.path, "vol1")
            try await client?.send(write(7) + request(0, length: 512))
            let replies = simpleReply(0) + simpleReply(0) + [UInt8](repeating: 7, count: 512)
            #expect(try await client?.answers(replies) == true)
            #expect(try await on(other) { $0.sessions.count == 1 && $0.bytes[511] == 7 })
            try await rig.on { rig in
                #expect(rig.service.sessions.isEmpty && rig.server.connectionCount == 1 && rig.clients.isEmpty)
            }
            #expect(try await rig.told { rig, answer in rig.server.clients { answer($0.map(\.export)) } } == ["vol1"])
            client = nil
            #expect(try await rig.eventually { $0.server.connectionCount == 0 })
            #expect(try await on(other) { $0.sessions[0].isClosed })
        }
    }

    @Test("A client that asks about one volume and opens another goes from loop to loop") func itMovesBack()
        async throws
    {
        try await withTwoLoops { rig, other in
            let client = try await RawClient.greeted(rig.path)
            for name in ["vol1", "vol0", "vol1", "vol0"] {
                try await client.send(option(6, asking(for: name)))
                let about = big(0 as UInt16) + big(UInt64(volumeBytes)) + big(transmissionFlags)
                let sizes = big(3 as UInt16) + big(1 as UInt32) + big(4096 as UInt32) + big(32 << 20 as UInt32)
                let replies = optionReply(6, 3, about) + optionReply(6, 3, sizes) + optionReply(6, 1)
                try #require(try await client.answers(replies))
            }
            try await client.send(option(1, Array("vol0".utf8)))
            try #require(try await client.answers(big(UInt64(volumeBytes)) + big(transmissionFlags)))
            try await client.send(write(3))
            #expect(try await client.answers(simpleReply(0)))
            try await rig.on { #expect($0.service.sessions.count == 1 && $0.clients.count == 1) }
            #expect(try await on(other) { $0.sessions.isEmpty })
        }
    }

    @Test("O4: places are counted on all loops together, and a refused client is told so where it arrives")
    func placesAreCounted() async throws {
        var limits = patientLimits
        limits.connections = 1
        try await withTwoLoops(limits) { rig, _ in
            var client: RawClient? = try await RawClient.opened(rig.path, "vol1")
            let refused = try await RawClient.greeted(rig.path)
            try await refused.send(option(7, asking(for: "vol1")))
            try #require(try await refused.eventually { refused.take() || refused.received.count >= 20 })
            #expect(refused.received.starts(with: Array(optionReply(7, 1 << 31 | 2).prefix(12))))
            #expect(try await client?.answers([]) == true)
            client = nil
            // The refused one has no place.
            #expect(try await rig.eventually { $0.server.connectionCount == 0 })
            let next = try await RawClient.opened(rig.path, "vol1")
            try await next.send(request(3))
            #expect(try await next.answers(simpleReply(0)))
        }
    }

    @Test("O5: memory is lent to the clients of all loops, and who sits on it on one loses it to another's")
    func memoryIsShared() async throws {
        var limits = patientLimits
        limits.connections = 8
        limits.memoryBytes = 3 << 20
        limits.patience = .milliseconds(100)
        try await withTwoLoops(limits) { rig, _ in
            for (first, second) in [("vol0", "vol1"), ("vol1", "vol0")] {
                let hog = try await RawClient.opened(rig.path, first)
                try await hog.send(request(1, length: UInt32(volumeBytes)) + [1])
                #expect(try await rig.eventually { $0.server.rooms.commons.memory.lentBytes > 0 })
                var reader: RawClient? = try await RawClient.opened(rig.path, second)
                try await reader?.send(request(0, length: UInt32(volumeBytes)))
                #expect(try await hog.ends())
                let data = simpleReply(0) + [UInt8](repeating: 0, count: volumeBytes)
                #expect(try await reader?.answers(data) == true)
                reader = nil
                #expect(try await rig.eventually { $0.server.rooms.commons.memory.lentBytes == 0 })
            }
        }
    }

    @Test("What a client has sent behind the name of its volume moves with it, and so does the end of its half")
    func whatIsUnderWayMoves() async throws {
        try await withTwoLoops { rig, other in
            for _ in 0..<20 {
                let client = try await RawClient.greeted(rig.path)
                try await client.send(option(1, Array("vol1".utf8)) + write(9) + request(2))
                try client.endInput()
                #expect(
                    try await client.answers(
                        big(UInt64(volumeBytes)) + big(transmissionFlags) + simpleReply(0)))
                #expect(try await client.ends())
            }
            #expect(try await rig.eventually { $0.server.connectionCount == 0 })
            #expect(try await on(other) { $0.sessions.count == 20 && $0.sessions.allSatisfy(\.isClosed) })
        }
    }

    // MARK: TLS, which stays on the loop where it began

    private func secured(_ rig: RemoteRig) async throws -> RawClient {
        let client = try await RawClient.greeted(rig.path)
        try await client.send(option(5))
        try #require(try await client.answers(optionReply(5, 1)))
        return client
    }

    private func opened(_ rig: RemoteRig) async throws -> RawClient {
        let client = try await secured(rig)
        try await client.send(option(1, Array("vol1".utf8)))
        try #require(try await client.answers(big(UInt64(volumeBytes)) + big(transmissionFlags)))
        return client
    }

    @Test("S28: a client with TLS is carried from loop to loop by one pair of sockets, and has one place to its end")
    func oneRelay() async throws {
        try await withTwoLoops(withTLS: true) { rig, other in
            var client: RawClient? = try await secured(rig)
            for name in ["vol1", "vol0", "vol1", "vol0", "vol1"] {
                try await client?.send(option(6, asking(for: name)))
                let about = big(0 as UInt16) + big(UInt64(volumeBytes)) + big(transmissionFlags)
                let sizes = big(3 as UInt16) + big(1 as UInt32) + big(4096 as UInt32) + big(32 << 20 as UInt32)
                let replies = optionReply(6, 3, about) + optionReply(6, 3, sizes) + optionReply(6, 1)
                #expect(try await client?.answers(replies) == true)
            }
            try await client?.send(option(1, Array("vol1".utf8)))
            let opening = big(UInt64(volumeBytes)) + big(transmissionFlags)
            #expect(try await client?.answers(opening) == true)
            try await client?.send(write(5))
            #expect(try await client?.answers(simpleReply(0)) == true)
            #expect(try await rig.on { $0.server.room.outerCount == 1 && $0.server.connectionCount == 1 })
            #expect(try await on(other) { $0.sessions.count == 1 && $0.bytes[0] == 5 })
            client = nil
            #expect(try await rig.eventually { $0.server.room.outerCount == 0 && $0.server.connectionCount == 0 })
        }
    }

    @Test(
        "S24: the end of a client is seen before what it sent is taken, and one that is gone leaves nothing behind it",
        arguments: [true, false])
    func endsOvertake(isHalf: Bool) async throws {
        var limits = patientLimits
        limits.parkedBytes = 64 << 10
        try await withTwoLoops(limits, withTLS: true) { rig, other in
            _ = try await on(other) { $0.isHolding = true }
            var client: RawClient? = try await opened(rig)
            // Far more than is taken, and than fits in between.
            let part = request(1, length: 64 << 10) + [UInt8](repeating: 1, count: 64 << 10)
            let sent = try await client?.send(repeated(part, 64))
            #expect(sent != nil && sent != 64 * part.count)
            if isHalf { try client?.endInput() } else { client = nil }
            var hasEnded = false
            for _ in 0..<15000 where !hasEnded {
                hasEnded = try await on(other) { $0.sessions[0].isInputEnded || $0.sessions[0].isClosed }
                if !hasEnded { try await Task.sleep(for: .milliseconds(2)) }
            }
            #expect(hasEnded)
            withExtendedLifetime(client) {}
        }
    }
}
