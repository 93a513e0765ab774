// Bytes from the network: whole and true frames are carried out, everything else costs its connection and nothing else (S21).

import Glibc
import LogModel
import NIOCore
import RemoteMemory
import RemoteMemorySupport
import RemoteMemoryTCP
import Testing

struct WireTests {
    // MARK: Frames

    @Test func aFrameMadeElsewhereIsUnderstood() async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let peer = try await RawPeer.greeted(rig.port)
            let bytes =
                frame(Kind.write, [1, 2, 3], request: 1, key: key, offset: 10)
                + frame(Kind.atomicWrite, [8, 7, 6, 5, 4, 3, 2, 1], request: 2, key: key, offset: 16)
                + frame(Kind.read, request: 3, key: key, offset: 9, readBytes: 5)
                + frame(Kind.flush, request: 4, key: key)
            // In single bytes: a frame may arrive in any pieces.
            for byte in bytes { try await peer.send([byte]) }
            var expected: [UInt8] = frame(Kind.readData, [0, 1, 2, 3, 0], request: 3)
            expected += frame(Kind.complete, request: 4)
            #expect(try await peer.eventually { !peer.take() && peer.received.suffix(48) == expected.suffix(48) })
            #expect(
                peer.received.indices.contains {
                    peer.received[$0...].starts(with: frame(Kind.readData, [0, 1, 2, 3, 0], request: 3))
                })
            try await rig.on { rig in
                #expect(rig.region.durable[9..<14] == [0, 1, 2, 3, 0])
                #expect(rig.region.durable[16..<24] == [8, 7, 6, 5, 4, 3, 2, 1])
            }
        }
    }

    @Test func everyFlippedByteIsRefused() async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let whole = frame(Kind.write, [9, 9, 9, 9, 9], request: 1, key: key, offset: 10)
            for place in whole.indices {
                let peer = try await RawPeer.greeted(rig.port)
                var damaged = whole
                damaged[place] ^= UInt8(1 << (place % 8))
                // The rest of the flood would make the receiver wait no more for a length that was damaged.
                try await peer.send(damaged + [UInt8](repeating: 0, count: 200))
                #expect(try await peer.ends(), "byte \(place)")
                #expect(!peer.kinds.contains(Kind.complete), "byte \(place)")
            }
            try await rig.on { #expect($0.region.bytes.allSatisfy { $0 == 0 }) }
            #expect(try await rig.serves())
        }
    }

    @Test func halfAFrameIsNotCarriedOut() async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let whole = frame(Kind.write, [9, 9, 9], request: 1, key: key, offset: 10)
            for count in [1, 20, 47, 48, 50] {
                let peer = try await RawPeer.greeted(rig.port)
                try await peer.send(Array(whole[..<count]))
                shutdown(peer.descriptor, Int32(SHUT_WR))
                #expect(try await peer.ends())
                #expect(peer.kinds.isEmpty)
            }
            try await rig.on { #expect($0.region.bytes.allSatisfy { $0 == 0 }) }
            #expect(try await rig.serves())
        }
    }

    @Test func hostileFramesCostTheirConnection() async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let hostile: [[UInt8]] = [
                frame(Kind.write, claiming: .max, request: 1, key: key),
                frame(Kind.write, claiming: (1 << 20) + 1, request: 1, key: key),
                frame(Kind.message, claiming: (1 << 20) + 1),
                frame(Kind.read, request: 1, key: key, readBytes: .max),
                frame(Kind.read, request: 1, key: key, readBytes: (1 << 20) + 1),
                frame(Kind.read, request: 1, key: key, offset: .max, readBytes: 1),
                frame(Kind.write, [1], request: 1, key: key, offset: .max),
                frame(Kind.write, [1], request: 0, key: key), frame(Kind.write, [1], request: 2, key: key),
                frame(Kind.write, [1], request: .max, key: key), frame(Kind.write, [1], request: 1, key: 0),
                frame(Kind.write, [1], request: 1, key: key ^ 1),
                frame(Kind.atomicWrite, [1, 2, 3, 4, 5, 6, 7], request: 1, key: key),
                frame(Kind.atomicWrite, [UInt8](repeating: 1, count: 9), request: 1, key: key),
                frame(Kind.atomicWrite, [UInt8](repeating: 1, count: 8), request: 1, key: key, offset: 4),
                frame(Kind.complete, request: 1), frame(Kind.complete, request: .max),
                frame(Kind.readData, [1], request: 1), frame(Kind.error, [UInt8](repeating: 0xff, count: 5000)),
                frame(0), frame(14), frame(255), hello(), frame(Kind.welcome), frame(Kind.refuse), frame(Kind.proof),
                frame(Kind.accept),
            ]
            for (index, bytes) in hostile.enumerated() {
                let peer = try await RawPeer.greeted(rig.port)
                try await peer.send(bytes)
                #expect(try await peer.ends(), "frame \(index)")
                #expect(!peer.kinds.contains(Kind.complete), "frame \(index)")
            }
            try await rig.on { #expect($0.region.bytes.allSatisfy { $0 == 0 }) }
            #expect(try await rig.serves())
        }
    }

    /// A thousand READs of a megabyte fit into one packet; their answers would fill the memory.
    @Test func aPeerThatAsksAndNeverReadsIsCutOff() async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let peer = try await RawPeer.greeted(rig.port)
            var flood: [UInt8] = []
            for request in 1...1000 as ClosedRange<UInt64> {
                flood += frame(Kind.read, request: request, key: key, readBytes: 1 << 20)
            }
            try await peer.send(flood)
            #expect(try await rig.eventually { $0.accepted[0].recorder.failure != nil })
            try await rig.on { #expect($0.region.readCount < 64) }
            #expect(try await rig.serves())
        }
    }

    @Test func aPeerThatAsksForALittleAtATimeAndNeverReadsIsCutOff() async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let peer = try await RawPeer.greeted(rig.port)
            var isOver = false
            var request: UInt64 = 0
            for _ in 0..<400 where !isOver {
                var batch: [UInt8] = []
                for _ in 0..<16 {
                    request += 1
                    batch += frame(Kind.read, request: request, key: key, readBytes: 65536)
                }
                let isCut = try await peer.send(batch) < batch.count
                let hasFailed = try await rig.on { $0.accepted[0].recorder.failure != nil }
                isOver = isCut || hasFailed
            }
            #expect(isOver)
            #expect(try await rig.serves())
        }
    }

    // MARK: A lying target

    /// The accepted side posts too: to it, the raw peer is a target.
    func withPosted(
        _ post: @escaping @Sendable (TCPQueuePair) throws -> Void, answer: [UInt8]
    ) async throws -> (RemoteMemoryError?, WorkRequestID, Int) {
        nonisolated(unsafe) var seen: (RemoteMemoryError?, WorkRequestID, Int) = (nil, 0, 0)
        try await withRig { rig in
            let peer = try await RawPeer.greeted(rig.port)
            try await rig.on { try post($0.accepted[0].queuePair) }
            try await peer.send(answer)
            #expect(try await rig.eventually { $0.accepted[0].recorder.failure != nil })
            seen = try await rig.on { rig in
                let recorder = rig.accepted[0].recorder
                return (recorder.failure, recorder.completed, recorder.reads.count)
            }
        }
        return seen
    }

    @Test func onlyWhatWasPostedCanBeCompleted() async throws {  // S11
        let (failure, completed, _) = try await withPosted(
            { try $0.postFlush(key: RegionKey(rawValue: 1)) }, answer: frame(Kind.complete, request: 2))
        #expect(failure?.code == .protocolViolation)
        #expect(completed == 0)
    }

    @Test(
        arguments: [
            (1, [1, 2, 3]), (1, [1, 2, 3, 4, 5]), (2, [1, 2, 3, 4]), (0, [1, 2, 3, 4]),
        ] as [(UInt64, [UInt8])]) func onlyTheBytesAskedForAnswerARead(request: UInt64, bytes: [UInt8]) async throws
    {
        let (failure, _, reads) = try await withPosted(
            { try $0.postRead(key: RegionKey(rawValue: 1), offset: 0, length: 4) },
            answer: frame(Kind.readData, bytes, request: request))
        #expect(failure?.code == .protocolViolation)
        #expect(reads == 0)
    }

    @Test func aReadIsNotCompleteWithoutItsBytes() async throws {
        let (failure, completed, _) = try await withPosted(
            { try $0.postRead(key: RegionKey(rawValue: 1), offset: 0, length: 4) },
            answer: frame(Kind.complete, request: 1))
        #expect(failure?.code == .protocolViolation)
        #expect(completed == 0)
    }

    // MARK: Nobody there

    @Test func nobodyThereIsDisconnected() async throws {
        try await withRig { rig in
            try await rig.on { rig in
                rig.stop()
                rig.dial()
            }
            #expect(try await rig.eventually { $0.dialError?.code == .disconnected })
        }
    }

    @Test func addressesAreParsedOrRefused() {
        #expect(TCPAddress("127.0.0.1:7101")?.host == "127.0.0.1")
        #expect(TCPAddress("[::1]:7101")?.host == "::1")
        #expect(TCPAddress("[::1]:7101")?.description == "[::1]:7101")
        for text in ["", ":", ":7", "host", "host:", "host:-1", "host:65536", "host:x", "[]:7"] {
            #expect(TCPAddress(text) == nil, "\(text)")
        }
    }
}
