// What clients may cost the node, together and each (S28): places, memory, patience.

import AdminProtocol
import Glibc
import NBDClient
@testable import NBDServer
import NIOCore
import GroupEngine
import Testing

struct ClientCostTests {
    /// Shares of 64 KiB, and 1.5 MiB to lend.
    private var smallBudget: NBDServerLimits {
        var limits = patientLimits
        limits.connections = 8
        limits.memoryBytes = 3 << 20
        limits.patience = .seconds(60)
        return limits
    }

    // MARK: Places

    @Test("O4, A3: clients that vanish without a word are found, and their places are free")
    func vanishedClientsAreFound() async throws {
        var limits = patientLimits
        limits.connections = 3
        limits.liveness.idleSeconds = 1
        limits.liveness.intervalSeconds = 1
        limits.liveness.userTimeoutSeconds = 2
        try await withRig(limits, onTCP: true) { rig in
            for _ in 0..<3 {
                let client = try await rig.raw().opened()
                guard client.willVanish() else { return print("skipped: TCP_REPAIR needs CAP_NET_ADMIN") }
            }
            #expect(try await rig.eventually { $0.server.connectionCount == 0 })
            #expect(try await rig.serves())
        }
    }

    @Test("O22: what a client sent before it vanished, and nobody had taken, is dropped")
    func unreadRequestsOfAVanishedClientAreDropped() async throws {
        var limits = patientLimits
        limits.parkedBytes = 100_000
        limits.liveness.idleSeconds = 1
        limits.liveness.intervalSeconds = 1
        limits.liveness.userTimeoutSeconds = 2
        try await withRig(limits, onTCP: true) { rig in
            try await rig.on { $0.service.isHolding = true }
            do {
                let client = try await rig.raw().opened()
                let write = request(1, length: 65536) + [UInt8](repeating: 1, count: 65536)
                try await client.send(repeated(write, 20))
                #expect(try await rig.eventually { $0.service.sessions[0].held.count == 2 })
                guard client.willVanish() else { return print("skipped: TCP_REPAIR needs CAP_NET_ADMIN") }
            }
            #expect(try await rig.eventually { $0.server.connectionCount == 0 })
            try await rig.on { rig in
                #expect(rig.service.sessions[0].isClosed && rig.service.sessions[0].submitted.count == 2)
                #expect(rig.service.bytes[0] == 0)
            }
        }
    }

    @Test(
        "S24, O22: a client that names itself ends its older connection, and what nobody took of it, before it is served"
    )
    func namedClients() async throws {
        var limits = patientLimits
        limits.parkedBytes = 100_000
        try await withRig(limits) { rig in
            try await rig.on { $0.service.isHolding = true }
            let older = try await RawClient.opened(rig.path, "vol0@host7")
            let other = try await RawClient.opened(rig.path, "vol0@host8")
            let unnamed = try await RawClient.opened(rig.path)
            let write = request(1, length: 65536) + [UInt8](repeating: 1, count: 65536)
            try await older.send(repeated(write, 20))
            #expect(try await rig.eventually { $0.service.sessions[0].held.count == 2 })
            let newer = try await RawClient.opened(rig.path, "vol0@host7")
            #expect(try await older.ends())
            try await rig.on { rig in
                #expect(rig.service.sessions[0].isClosed && rig.service.sessions[0].submitted.count == 2)
                #expect(rig.service.sessions.count == 4 && rig.server.connectionCount == 3)
                #expect(rig.service.sessions.dropFirst().allSatisfy { !$0.isClosed })
                #expect(rig.clients.map(\.export) == ["vol0", "vol0", "vol0"])
                #expect(rig.clients.compactMap(\.name).sorted() == ["host7", "host8"])
                rig.service.isHolding = false
            }
            for client in [newer, other, unnamed] {
                try await client.send(request(3))
                #expect(try await client.answers(simpleReply(0)))
            }
        }
    }

    @Test("a name that is none is part of the volume's", arguments: ["vol0@", "vol0@-x", "vol0@a@b", "@a"])
    func notAName(export: String) async throws {
        try await withRig { rig in
            let client = try await RawClient.greeted(rig.path)
            try await client.send(option(1, Array(export.utf8)))
            #expect(try await client.ends())
        }
    }

    @Test("O4: who says nothing in its handshake gives way to a new client") func theSilentGiveWay() async throws {
        var limits = patientLimits
        limits.connections = 2
        limits.handshake = .minutes(60)
        try await withRig(limits) { rig in
            let silent = try RawClient(rig.path)
            let served = try await RawClient.opened(rig.path)
            #expect(try await rig.eventually { $0.server.connectionCount == 2 })
            var hasPlace = false
            for _ in 0..<300 where !hasPlace {
                let newcomer = try await RawClient.greeted(rig.path)
                try await newcomer.send(option(7, asking(for: "vol0")))
                try #require(try await newcomer.eventually { newcomer.take() || newcomer.received.count >= 20 })
                hasPlace = newcomer.received.starts(with: Array(optionReply(7, 3).prefix(16)))
                if !hasPlace { try await Task.sleep(for: .milliseconds(100)) }
            }
            #expect(hasPlace)
            #expect(try await silent.ends())
            try await served.send(request(3))
            #expect(try await served.answers(simpleReply(0)))
        }
    }

    @Test("An operator sees each client, what it has under way, and what it waits for") func clientsAreDescribed()
        async throws
    {
        var limits = smallBudget
        limits.parkedBytes = 1 << 20
        try await withRig(limits) { rig in
            let shaking = try RawClient(rig.path)
            #expect(try await rig.eventually { $0.server.connectionCount == 1 })
            let idle = try await RawClient.opened(rig.path)
            let parked = try await RawClient.opened(rig.path)
            let half = try await RawClient.opened(rig.path)
            let asking = try await RawClient.opened(rig.path)
            try await rig.on { $0.service.isHolding = true }
            try await parked.send(repeated(request(1, length: 512) + [UInt8](repeating: 1, count: 512), 2))
            try await half.send(request(1, length: UInt32(volumeBytes)) + [1])
            #expect(try await rig.eventually { $0.server.clientTotals.lentBytes > 1 << 20 })
            try await asking.send(request(0, length: UInt32(volumeBytes)))
            #expect(try await rig.eventually { $0.clients.last?.waitsFor == "memory that other clients hold" })
            try await rig.on { rig in
                let clients = rig.clients
                #expect(
                    clients.map(\.waitsFor) == [
                        "the client's handshake", nil, "space in the log", "the rest of a payload",
                        "memory that other clients hold",
                    ])
                #expect(clients.map(\.export) == [nil, "vol0", "vol0", "vol0", "vol0"])
                #expect(clients.map(\.inFlight) == [0, 0, 2, 0, 0] && clients[2].parkedBytes == 1024)
                #expect(clients.allSatisfy { $0.address == "unix, process \(getpid())" })
                #expect(rig.server.clientTotals.connections == 5 && rig.server.clientTotals.refused == 0)
            }
            withExtendedLifetime([shaking, idle]) {}
        }
    }

    // MARK: Memory

    @Test("O5, A4: clients that never read wait for each other; an honest one does not wait")
    func clientsThatNeverReadAreBounded() async throws {
        try await withRig(smallBudget) { rig in
            var hogs: [RawClient] = []
            for _ in 0..<6 {
                let hog = try await RawClient.opened(rig.path)
                try await hog.send(repeated(request(0, length: 1 << 20), 4))
                hogs.append(hog)
            }
            #expect(try await rig.serves())
            let honest = try await rig.client()
            for _ in 0..<100 {
                try await honest.write(offset: 0, ByteBuffer(repeating: 3, count: 4096))
                _ = try await honest.read(offset: 0, length: 4096)
            }
            await honest.disconnect()
            // A second read of a megabyte would be more than there is to lend.
            try await rig.on { rig in
                #expect(rig.service.sessions.prefix(6).map(\.submitted.count) == [1, 0, 0, 0, 0, 0])
            }
            // Who reads goes on: everything that was asked for comes.
            #expect(
                try await hogs[0].eventually {
                    hogs.filter { !$0.take() && $0.received.count >= 4 * (16 + (1 << 20)) }.count == hogs.count
                })
        }
    }

    @Test("O5, A4: payload is not kept without memory for it") func halfSentWritesAreBounded() async throws {
        try await withRig(smallBudget) { rig in
            let half = request(1, length: UInt32(volumeBytes)) + [UInt8](repeating: 1, count: volumeBytes / 2)
            var taken: [Int] = []
            var hogs: [RawClient] = []
            for _ in 0..<6 {
                let hog = try await RawClient.opened(rig.path)
                taken.append(try await hog.send(half, patienceMillis: 300))
                hogs.append(hog)
            }
            // The first has all that can be lent; of the others no more is taken than sockets hold.
            #expect(taken[0] == half.count)
            #expect(taken.dropFirst().allSatisfy { $0 < half.count }, "\(taken)")
            #expect(try await rig.serves())
            // When it goes, the next one has its turn.
            hogs.removeFirst()
            try await hogs[0].send(
                Array(half[taken[1]...]) + [UInt8](repeating: 1, count: volumeBytes / 2), patienceMillis: 30_000)
            #expect(try await hogs[0].answers(simpleReply(0)))
        }
    }

    @Test("O5: who sits on memory that others wait for loses it") func whoSitsOnMemoryLosesIt() async throws {
        var limits = smallBudget
        limits.patience = .milliseconds(100)
        try await withRig(limits) { rig in
            let hog = try await RawClient.opened(rig.path)
            try await hog.send(request(1, length: UInt32(volumeBytes)) + [1])
            let reader = try await RawClient.opened(rig.path)
            // Alone it may take its time.
            #expect(try await rig.eventually { $0.server.rooms.commons.memory.lentBytes > 0 })
            #expect(try await rig.on { !$0.server.rooms.isWatchingMemory } && !hog.take())
            try await reader.send(request(0, length: UInt32(volumeBytes)))
            #expect(try await hog.ends())
            #expect(try await reader.answers(simpleReply(0) + [UInt8](repeating: 0, count: volumeBytes)))
        }
    }

    @Test("S28: one request that is larger than what can be lent is let in alone") func theLargestIsServed()
        async throws
    {
        var limits = smallBudget
        limits.memoryBytes = 1 << 20
        try await withRig(limits) { rig in
            let client = try await rig.client()
            try await client.write(offset: 0, ByteBuffer(repeating: 7, count: volumeBytes))
            let bytes = try await client.read(offset: 0, length: volumeBytes)
            #expect(bytes == ByteBuffer(repeating: 7, count: volumeBytes))
            await client.disconnect()
        }
    }
}
