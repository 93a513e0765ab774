// Requests and replies: what reaches the volume, what the client hears, and what either side can make the other keep.

import Glibc
import NBDClient
import NBDServer
import NIOCore
import GroupEngine
import TestSupport
import Testing

struct TransmissionTests {
    // MARK: Through the project's client

    @Test(arguments: [true, false]) func everyCommandReachesTheVolume(structured: Bool) async throws {
        try await withRig { rig in
            let client = try await rig.client(structured: structured)
            #expect(client.sizeBytes == UInt64(volumeBytes))
            try await client.write(offset: 1001, ByteBuffer(bytes: [1, 2, 3]))
            try await client.write(offset: 1004, ByteBuffer(bytes: [4]), fua: true)
            try await client.flush()
            let read = try await client.read(offset: 1000, length: 6)
            #expect(Array(read.readableBytesView) == [0, 1, 2, 3, 4, 0])
            try await client.trim(offset: 1001, length: 1)
            try await client.writeZeroes(offset: 1002, length: 1)
            try await client.writeZeroes(offset: 1003, length: 1, noHole: true)
            let zeroed = try await client.read(offset: 1000, length: 6)
            #expect(Array(zeroed.readableBytesView) == [0, 0, 0, 0, 4, 0])
            let empty = try await client.read(offset: 5, length: 0)
            #expect(empty.readableBytes == 0)
            await client.disconnect()
            try await rig.on { rig in
                let expected = [
                    "write 1001 3", "write 1004 1", "flush", "read 1000 6", "discard 1001 1", "zero 1002 1 true",
                    "zero 1003 1 false", "read 1000 6", "read 5 0",
                ]
                #expect(rig.service.sessions[0].submitted == expected)
                #expect(rig.service.sessions[0].isClosed)
                #expect(Array(rig.service.bytes[1000..<1006]) == [0, 0, 0, 0, 4, 0])
            }
        }
    }

    /// Streams whose ends never meet the ends of what the socket brings.
    @Test func manyUnalignedRequestsAtOnce() async throws {
        try await withRig { rig in
            var random = SplitMix64(seed: 21)
            var model = [UInt8](repeating: 0, count: volumeBytes)
            let client = try await rig.client()
            for _ in 0..<8 {
                var pending: [EventLoopFuture<ByteBuffer?>] = []
                for _ in 0..<64 {
                    let offset = Int.random(in: 0..<volumeBytes, using: &random)
                    let length = min(Int.random(in: 1...20_000, using: &random), volumeBytes - offset)
                    let value = UInt8.random(in: 0...255, using: &random)
                    model.replaceSubrange(offset..<offset + length, with: repeatElement(value, count: length))
                    let payload = ByteBuffer(repeating: value, count: length)
                    pending.append(client.submit(.write(offset: UInt64(offset), payload: payload, fua: false)))
                }
                for future in pending { _ = try await future.get() }
            }
            var place = 0
            while place < volumeBytes {
                let bytes = try await client.read(offset: UInt64(place), length: 1 << 20)
                #expect(bytes == ByteBuffer(bytes: model[place..<place + (1 << 20)]))
                place += 1 << 20
            }
            await client.disconnect()
        }
    }

    @Test func theLargestRequestIsServed() async throws {
        try await withRig { rig in
            let client = try await rig.client()
            try await client.write(offset: 0, ByteBuffer(repeating: 7, count: volumeBytes))
            let bytes = try await client.read(offset: 0, length: volumeBytes)
            #expect(bytes == ByteBuffer(repeating: 7, count: volumeBytes))
            await client.disconnect()
        }
    }

    @Test(arguments: [true, false]) func aReadThatFailsIsAnErrorAndTheSessionGoesOn(structured: Bool) async throws {
        try await withRig { rig in
            let client = try await rig.client(structured: structured)
            try await rig.on { $0.service.readError = .readFailed("the medium is broken") }
            let error = await #expect(throws: NBDClientError.self) { try await client.read(offset: 0, length: 10) }
            #expect(error?.code == .failed(errno: 5))
            if structured { #expect(error?.message.contains("the medium is broken") == true) }
            try await rig.on { $0.service.readError = nil }
            let bytes = try await client.read(offset: 0, length: 10)
            #expect(bytes.readableBytes == 10)
            await client.disconnect()
        }
    }

    // MARK: Byte by byte

    @Test func repliesComeInTheOrderOfCompletion() async throws {
        try await withRig { rig in
            let client = try await RawClient.opened(rig.path)
            try await rig.on { $0.service.isHolding = true }
            try await client.send(
                request(1, cookie: 11, length: 2) + [5, 6] + request(3, cookie: 12) + request(0, cookie: 13, length: 3))
            #expect(try await rig.eventually { $0.service.sessions[0].held.count == 3 })
            try await rig.on { $0.service.sessions[0].release(2) }
            #expect(try await client.answers(simpleReply(0, cookie: 13) + [0, 0, 0]))
            // Nobody is answered before the volume has acknowledged (S1).
            try await rig.on { #expect($0.service.bytes[0] == 0) }
            #expect(client.received.isEmpty)
            try await rig.on { $0.service.sessions[0].release(1) }
            #expect(try await client.answers(simpleReply(0, cookie: 12)))
            try await rig.on { $0.service.sessions[0].release(0) }
            #expect(try await client.answers(simpleReply(0, cookie: 11)))
            try await rig.on { #expect($0.service.bytes[..<2] == [5, 6]) }
        }
    }

    @Test func impossibleRequestsAreRefusedAndTheSessionGoesOn() async throws {  // S21
        try await withRig { rig in
            let client = try await RawClient.opened(rig.path)
            let end = UInt64(volumeBytes)
            let refused: [([UInt8], UInt32)] = [
                (request(0, offset: end, length: 1), 22), (request(0, offset: .max, length: 2), 22),
                (request(0, offset: 0, length: .max), 22), (request(0, length: (32 << 20) + 1), 22),
                (request(1, offset: end - 1, length: 2) + [1, 2], 28), (request(1, offset: .max, length: 1) + [1], 28),
                (request(4, offset: end - 1, length: 2), 22), (request(6, offset: end - 1, length: 2), 28),
                (request(3, length: 1), 22), (request(3, offset: 1), 22), (request(7, length: 9), 22),
                (request(99), 22), (request(.max), 22), (request(0, length: 1, flags: 2), 22),
                (request(1, length: 1, flags: 2) + [1], 22), (request(3, flags: 1 << 15), 22),
                (request(1, length: (32 << 20) + 1) + [UInt8](repeating: 1, count: (32 << 20) + 1), 22),
                (request(1, length: (64 << 20) + 1) + [UInt8](repeating: 1, count: (64 << 20) + 1), 22),
            ]
            for (index, (bytes, code)) in refused.enumerated() {
                try await client.send(bytes, patienceMillis: 5000)
                #expect(try await client.answers(simpleReply(code)), "\(index)")
            }
            try await client.send(
                request(0, offset: end, length: 0) + request(1, offset: end - 1, length: 1, flags: 1) + [3])
            #expect(try await client.answers(simpleReply(0) + simpleReply(0)))
            try await rig.on { rig in
                #expect(rig.service.sessions[0].submitted == ["read \(end) 0", "write \(end - 1) 1"])
                #expect(rig.service.bytes == [UInt8](repeating: 0, count: volumeBytes - 1) + [3])
            }
        }
    }

    @Test func nonsenseCostsItsConnectionAndNothingElse() async throws {  // S21
        try await withRig { rig in
            var random = SplitMix64(seed: 5)
            let nonsense: [[UInt8]] = [
                [UInt8](repeating: 0, count: 28), random.bytes(28), random.bytes(100_000),
                request(3) + [0] + request(3) + request(3),
            ]
            for (index, bytes) in nonsense.enumerated() {
                let client = try await RawClient.opened(rig.path)
                try await client.send(bytes)
                #expect(try await client.ends(), "\(index)")
            }
            #expect(try await rig.eventually { rig in rig.service.sessions.allSatisfy(\.isClosed) })
            try await rig.on { #expect($0.service.bytes == [UInt8](repeating: 0, count: volumeBytes)) }
            #expect(try await rig.serves())
        }
    }

    @Test func halfAWriteIsNotCarriedOut() async throws {  // S24
        try await withRig { rig in
            do {
                let client = try await RawClient.opened(rig.path)
                try await client.send(request(1, length: 100) + [UInt8](repeating: 1, count: 99))
                // The server has it: a second connection is served after it.
                #expect(try await rig.serves())
            }
            #expect(try await rig.eventually { $0.server.connectionCount == 0 })
            try await rig.on { rig in
                #expect(rig.service.sessions[0].submitted.isEmpty && rig.service.sessions[0].isClosed)
                #expect(rig.service.bytes == [UInt8](repeating: 0, count: volumeBytes))
            }
        }
    }

    @Test func aClientThatLeavesInTheMiddleEndsItsSession() async throws {  // S24
        try await withRig { rig in
            try await rig.on { $0.service.isHolding = true }
            do {
                let client = try await RawClient.opened(rig.path)
                try await client.send(request(1, length: 1) + [1])
                #expect(try await rig.eventually { $0.service.sessions[0].held.count == 1 })
            }
            #expect(try await rig.eventually { $0.service.sessions[0].isClosed && $0.server.connectionCount == 0 })
            try await rig.on { $0.service.isHolding = false }
            #expect(try await rig.serves())
        }
    }

    @Test func aGoodbyeWaitsForWhatIsPending() async throws {
        try await withRig { rig in
            try await rig.on { $0.service.isHolding = true }
            let client = try await RawClient.opened(rig.path)
            try await client.send(request(1, cookie: 4, length: 1) + [1] + request(2) + request(3, cookie: 5))
            #expect(try await rig.eventually { $0.service.sessions[0].held.count == 1 })
            try await rig.on { $0.service.sessions[0].release() }
            #expect(try await client.ends())
            #expect(client.received == simpleReply(0, cookie: 4))
            try await rig.on { #expect($0.service.sessions[0].submitted == ["write 0 1"]) }
        }
    }

    /// Ownership is lost: whatever is pending is never answered (S1, S12).
    @Test func aRevokedSessionEndsWithoutAnAnswer() async throws {
        try await withRig { rig in
            let client = try await rig.client()
            try await rig.on { $0.service.isHolding = true }
            let write = client.submit(.write(offset: 0, payload: ByteBuffer(bytes: [1]), fua: false))
            #expect(try await rig.eventually { $0.service.sessions[0].held.count == 1 })
            try await rig.on { $0.service.sessions[0].onRevoked?() }
            let error = await #expect(throws: NBDClientError.self) { try await write.get() }
            #expect(error?.code == .disconnected)
            #expect(try await rig.eventually { $0.service.sessions[0].isClosed })
        }
    }

    @Test func theServersEndIsHeard() async throws {
        try await withRig { rig in
            let client = try await rig.client()
            try await rig.on { $0.server.stop() }
            let error = await #expect(throws: NBDClientError.self) { try await client.read(offset: 0, length: 1) }
            #expect(error?.code == .disconnected)
        }
    }

    // MARK: Back-pressure

    @Test func aSlowVolumeBoundsWhatAConnectionParks() async throws {  // S6, S21
        var limits = patientLimits
        limits.parkedBytes = 1 << 20
        try await withRig(limits) { rig in
            try await rig.on { $0.service.isHolding = true }
            let client = try await RawClient.opened(rig.path)
            let write = request(1, length: 65536) + [UInt8](repeating: 1, count: 65536)
            let flood = repeated(write, 600)
            let sent = try await client.send(flood, patienceMillis: 200)
            #expect(sent < flood.count)
            try await rig.on { #expect($0.service.sessions[0].parkedBytes <= (1 << 20) + 65536) }
            // Others are not affected, and space makes it go on.
            try await rig.on { $0.service.isHolding = false }
            #expect(try await rig.serves())
            try await rig.on { rig in
                while !rig.service.sessions[0].held.isEmpty { rig.service.sessions[0].release() }
            }
            try await client.send(Array(flood[sent...]), patienceMillis: 30_000)
            let expected = repeated(simpleReply(0), 600)
            #expect(try await client.answers(expected))
        }
    }

    @Test func requestsOnTheWayAreBounded() async throws {  // S21
        var limits = patientLimits
        limits.requests = 10
        try await withRig(limits) { rig in
            try await rig.on { $0.service.isHolding = true }
            let client = try await RawClient.opened(rig.path)
            try await client.send((0..<100).flatMap { request(3, cookie: $0) })
            #expect(try await rig.eventually { $0.service.sessions[0].held.count == 10 })
            let isDone = try await rig.eventually { rig in
                let session = rig.service.sessions[0]
                if !session.held.isEmpty { session.release() }
                #expect(session.held.count <= 10)
                return session.submitted.count == 100 && session.held.isEmpty
            }
            #expect(isDone)
            #expect(try await client.answers((0..<100).flatMap { simpleReply(0, cookie: $0) }))
        }
    }

    /// What a client can make the server do without ever reading a reply: reads of a megabyte, or requests that are answered
    /// by a few bytes each.
    @Test(arguments: [
        request(0, length: 1 << 20), request(3), request(0, offset: .max, length: 1), request(5),
        request(4, length: 512),
    ]) func aClientThatNeverReadsIsNotServedForEver(bytes: [UInt8]) async throws {  // S21
        var limits = patientLimits
        limits.readBytes = 2 << 20
        limits.unsentBytes = 1 << 20
        try await withRig(limits) { rig in
            let client = try await RawClient.opened(rig.path)
            let batch = repeated(bytes, 20_000)
            var taken = 0
            var isStopped = false
            // Without a limit the server takes all of it, 55 MB of requests.
            for _ in 0..<100 where !isStopped {
                let count = try await client.send(batch, patienceMillis: 300)
                taken += count
                isStopped = count < batch.count
            }
            #expect(isStopped)
            #expect(try await rig.serves())
            // As soon as it reads, it is served again: every request that was taken is answered.
            let expected = min(8 << 20, taken / bytes.count * 16)
            #expect(try await client.eventually { !client.take() && client.received.count >= expected })
        }
    }

    /// The input buffer is given back while a stream never ends with a request.
    @Test func anEndlessStreamDoesNotGrowTheServer() async throws {  // S21
        try await withRig { rig in
            let client = try await RawClient.opened(rig.path)
            let write = request(1, length: 100_000) + [UInt8](repeating: 1, count: 100_000)
            let round = repeated(write, 50)
            // Always half a request ahead.
            try await client.send(Array(write[..<50_000]))
            let shifted = Array(write[50_000...]) + round.dropLast(write.count) + write[..<50_000]
            try await client.send(shifted, patienceMillis: 30_000)
            let before = try residentBytes()
            for _ in 0..<60 {
                try await client.send(shifted, patienceMillis: 30_000)
                _ = client.take()
            }
            // 300 MB went through.
            #expect(try residentBytes() < before + (150 << 20))
        }
    }

    func residentBytes() throws -> Int {
        let file = try #require(fopen("/proc/self/statm", "r"))
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        try #require(fgets(&line, 256, file) != nil)
        let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        return try #require(Int(text.split(separator: " ")[1])) * 4096
    }
}
