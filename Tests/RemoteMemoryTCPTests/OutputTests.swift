// What a queue pair sends reaches the wire in order and unchanged, whether the socket takes it at once or the channel keeps it.

import RemoteMemory
import RemoteMemorySupport
import RemoteMemoryTCP
import TestSupport
import Testing

struct OutputTests {
    private struct Sent: Equatable {
        var kind: UInt8
        var payload: [UInt8]
    }

    /// Posts a window of WRITEs of all sizes, out of memory that is used again at once, with messages between them. When the socket is
    /// full, `peer` takes what is there, so that it has room again while the channel has bytes that it did not take.
    private static func postEverything(on queuePair: TCPQueuePair, to peer: RawPeer, seed: UInt64) throws -> [Sent] {
        var random = SplitMix64(seed: seed)
        var sent: [Sent] = []
        var sentBytes = 0
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 64)
        defer { memory.deallocate() }
        while sentBytes < 5 << 20 {
            let size = [0, 1, 64, 1000, 1024, 4160, 80_000, 120_000].randomElement(using: &random) ?? 0
            let fill = UInt8.random(in: 0...255, using: &random)
            let payload = UnsafeMutableRawBufferPointer(rebasing: memory[..<size])
            payload.initializeMemory(as: UInt8.self, repeating: fill)
            guard queuePair.creditBytes >= max(1, size) else { return sent }
            try queuePair.postWrite(UnsafeRawBufferPointer(payload), key: RegionKey(rawValue: 1), offset: 0)
            payload.initializeMemory(as: UInt8.self, repeating: ~fill)
            sent.append(Sent(kind: Kind.write, payload: [UInt8](repeating: fill, count: size)))
            sentBytes += size
            // More than the socket took, or nearly so: it gets room from here on.
            if sentBytes > 4 << 20 { _ = peer.take() }
            guard Bool.random(using: &random) else { continue }
            let message = [UInt8](repeating: fill, count: [2, 40_000].randomElement(using: &random) ?? 2)
            try queuePair.send(message)
            sent.append(Sent(kind: Kind.message, payload: message))
            sentBytes += message.count
        }
        return sent
    }

    @Test("S11: a payload is the caller's again when it is posted, and frames keep their order", arguments: 1...6)
    func orderAndPayloads(seed: UInt64) async throws {
        try await withRig { rig in
            let peer = try await RawPeer.greeted(rig.port)
            // Used on the loop while the test waits for it, and in the test afterwards.
            nonisolated(unsafe) let reader = peer
            let sent = try await rig.on {
                try Self.postEverything(on: $0.accepted[0].queuePair, to: reader, seed: seed)
            }
            var bytes = 0
            for frame in sent { bytes += 48 + frame.payload.count }
            #expect(try await peer.eventually { !peer.take() && peer.received.count >= bytes })
            #expect(peer.received.count == bytes)
            #expect(peer.frames.map { Sent(kind: $0.kind, payload: $0.payload) } == sent)
        }
    }

    @Test("S21: frames that are cut anywhere by the wire are put together again", arguments: 1...4)
    func framesInPieces(seed: UInt64) async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let peer = try await RawPeer.greeted(rig.port)
            var random = SplitMix64(seed: seed)
            var bytes: [UInt8] = []
            var expected: [UInt8] = []
            for request in 1...24 as ClosedRange<UInt64> {
                let size = [1, 47, 4000, 60_000].randomElement(using: &random) ?? 1
                let payload = (0..<size).map { UInt8(truncatingIfNeeded: $0 &+ Int(request)) }
                bytes += frame(Kind.write, payload, request: request, key: key, offset: 0)
                expected.replaceSubrange(0..<min(size, expected.count), with: payload)
            }
            var place = 0
            while place < bytes.count {
                let end = min(bytes.count, place + Int.random(in: 1...30_000, using: &random))
                try await peer.send(Array(bytes[place..<end]))
                place = end
            }
            let image = expected
            #expect(try await rig.eventually { $0.region.durable[..<image.count].elementsEqual(image) })
        }
    }
}
