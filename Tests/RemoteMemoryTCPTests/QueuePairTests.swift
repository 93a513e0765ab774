// The verbs between two nodes over loopback: what is complete is durable (S11), sealed is sealed (S12), and the window holds.

import LogModel
import NIOCore
import RemoteMemory
import RemoteMemoryTCP
import Testing

struct QueuePairTests {
    @Test func writesArriveDurableInOrder() async throws {  // S11
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                #expect(rig.accepted[0].peer.node == NodeID("alpha"))
                let posted = [
                    try rig.write([1, 2, 3, 4], at: 100), try rig.write([9, 9], at: 101),
                    try rig.rail!.postAtomicWrite(0x0807_0605_0403_0201, key: rig.key, offset: 4096),
                    try rig.write([5], at: UInt64(rig.region.bytes.count) - 1), try rig.rail!.postFlush(key: rig.key),
                ]
                #expect(posted == [1, 2, 3, 4, 5])
            }
            #expect(try await rig.eventually { $0.recorder.completed == 5 })
            try await rig.on { rig in
                #expect(rig.region.durable[99..<105] == [0, 1, 9, 9, 4, 0])
                #expect(rig.region.durable[4096..<4104] == [1, 2, 3, 4, 5, 6, 7, 8])
                #expect(rig.region.durable.last == 5)
                #expect(rig.recorder.hasHeard && rig.recorder.failure == nil)
            }
        }
    }

    @Test func readsAnswerWhatWasWrittenBeforeThem() async throws {
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                try rig.rail!.postRead(key: rig.key, offset: 50, length: 3)
                try rig.write([1, 2, 3], at: 50)
                try rig.rail!.postRead(key: rig.key, offset: 49, length: 5)
                try rig.rail!.postRead(key: rig.key, offset: 0, length: 0)
                try rig.rail!.postRead(key: rig.key, offset: 0, length: RemoteMemoryLimits.maximumTransferBytes)
            }
            #expect(try await rig.eventually { $0.recorder.completed == 5 })
            try await rig.on { rig in
                #expect(rig.recorder.reads.map(\.id) == [1, 3, 4, 5])
                #expect(rig.recorder.reads[0].bytes == [0, 0, 0])
                #expect(rig.recorder.reads[1].bytes == [0, 1, 2, 3, 0])
                #expect(rig.recorder.reads[2].bytes == [])
                #expect(rig.recorder.reads[3].bytes == rig.region.bytes)
            }
        }
    }

    @Test func messagesGoBothWays() async throws {
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                try rig.rail!.send([1, 2])
                try rig.rail!.send([])
                try rig.accepted[0].queuePair.send([UInt8](repeating: 3, count: 1 << 20))
            }
            #expect(try await rig.eventually { $0.accepted[0].recorder.messages == [[1, 2], []] })
            #expect(try await rig.eventually { $0.recorder.messages == [[UInt8](repeating: 3, count: 1 << 20)] })
        }
    }

    // MARK: Persistence

    @Test func nothingIsCompleteBeforeItIsPersisted() async throws {  // S11
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                rig.region.holdsPersists = true
                try rig.write([1], at: 0)
                try rig.rail!.postFlush(key: rig.key)
            }
            #expect(try await rig.eventually { $0.region.held.count == 1 && $0.region.bytes[0] == 1 })
            // A later write is stored while the first persist is under way, and is not covered by it.
            try await rig.on { try $0.write([2], at: 1) }
            #expect(try await rig.eventually { $0.region.bytes[1] == 2 })
            // A message is behind the writes and needs no persist: when it is here, a completion would be too.
            try await rig.on { try $0.accepted[0].queuePair.send([0]) }
            #expect(try await rig.eventually { !$0.recorder.messages.isEmpty })
            try await rig.on { rig in
                #expect(rig.recorder.completed == 0)
                rig.region.finishPersists()
                rig.region.holdsPersists = true
            }
            #expect(
                try await rig.eventually {
                    $0.recorder.completed == 3 && $0.region.durable[..<2] == [1, 2] || $0.region.held.count == 1
                })
            try await rig.on { rig in
                #expect(rig.recorder.completed <= 2 || rig.region.durable[1] == 2)
                rig.region.finishPersists()
            }
            #expect(try await rig.eventually { $0.recorder.completed == 3 })
            try await rig.on { #expect($0.region.durable[..<2] == [1, 2]) }
        }
    }

    @Test func aPersistThatFailsCompletesNothing() async throws {  // S11
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                rig.region.persistError = RemoteMemoryError(.remoteOperation, "the memory is broken")
                try rig.write([1], at: 0)
            }
            #expect(try await rig.eventually { $0.recorder.failure != nil })
            try await rig.on { rig in
                #expect(rig.recorder.failure?.code == .remoteOperation)
                #expect(rig.recorder.failure?.message.contains("the memory is broken") == true)
                #expect(rig.recorder.completed == 0)
                #expect(throws: RemoteMemoryError.self) { try rig.write([1], at: 0) }
                #expect(rig.rail?.creditBytes == 0)
            }
        }
    }

    // MARK: Access

    @Test func aSealedRegionTakesNothingMore() async throws {  // S12
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { try $0.write([1], at: 0) }
            #expect(try await rig.eventually { $0.recorder.completed == 1 })
            try await rig.on { rig in
                // Both are on the way when the key is revoked.
                try rig.write([2], at: 0)
                try rig.write([2], at: 1)
                var isSealed = false
                rig.registry.revoke(rig.key) { isSealed = true }
                #expect(isSealed)
            }
            #expect(try await rig.eventually { $0.recorder.failure != nil })
            try await rig.on { rig in
                #expect(rig.recorder.failure?.code == .access)
                #expect(rig.recorder.completed == 1)
                #expect(rig.region.bytes[..<2] == [1, 0])
            }
        }
    }

    /// With a full window on the way, the refusal must not be lost in the reset of the connection.
    @Test(arguments: 1...5) func aStaleOwnerInFullFlightHearsThatItIsRefused(round: Int) async throws {  // S12
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                let block = [UInt8](repeating: 2, count: 1 << 20)
                for _ in 0..<4 { try rig.write(block, at: 0) }
                rig.registry.revoke(rig.key) {}
            }
            #expect(try await rig.eventually { $0.recorder.failure != nil })
            try await rig.on { rig in
                #expect(rig.recorder.failure?.code == .access)
                #expect(rig.region.bytes.allSatisfy { $0 == 0 })
            }
        }
    }

    @Test func sealingWaitsForPersistsUnderWay() async throws {  // S12
        try await withRig { rig in
            try await rig.connect()
            let isSealed = try await rig.on { rig in
                rig.region.holdsPersists = true
                try rig.write([1], at: 0)
                return NIOLoopBoundBox(false, eventLoop: rig.loop)
            }
            #expect(try await rig.eventually { $0.region.held.count == 1 })
            try await rig.on { rig in
                rig.registry.revoke(rig.key) { isSealed.value = true }
                #expect(!isSealed.value)
                rig.region.finishPersists()
                #expect(isSealed.value)
                #expect(rig.region.durable[0] == 1)
            }
            #expect(try await rig.eventually { $0.recorder.completed == 1 })
        }
    }

    /// A new epoch has a new key for the same memory; the old key stays dead.
    @Test func theKeyOfAnotherEpochIsNoKey() async throws {  // S12
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                let old = rig.key
                rig.registry.revoke(old) {}
                let new = rig.registry.register(rig.region, lengthBytes: UInt64(rig.region.bytes.count))
                #expect(new != old)
                try rig.write([1], at: 0, key: new)
                try rig.write([2], at: 0, key: old)
            }
            #expect(try await rig.eventually { $0.recorder.failure != nil })
            try await rig.on { rig in
                #expect(rig.recorder.failure?.code == .access)
                #expect(rig.recorder.completed == 1)
                #expect(rig.region.durable[0] == 1)
            }
        }
    }

    @Test(arguments: [(1 << 20, 1), ((1 << 20) - 1, 2), (-1, 1), (-16, 32)] as [(Int, Int)])
    func aRangeOutsideTheRegionIsAnAccessError(offset: Int, count: Int) async throws {  // S21
        try await withRig { rig in
            try await rig.connect()
            try await rig.on {
                try $0.write([UInt8](repeating: 1, count: count), at: UInt64(bitPattern: Int64(offset)))
            }
            #expect(try await rig.eventually { $0.recorder.failure != nil })
            try await rig.on { rig in
                #expect(rig.recorder.failure?.code == .access)
                #expect(rig.region.bytes.allSatisfy { $0 == 0 })
            }
        }
    }

    // MARK: The window

    @Test func theWindowOfBytesIsBoundedAndComesBack() async throws {
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                rig.region.holdsPersists = true
                let block = [UInt8](repeating: 1, count: 1 << 20)
                #expect(rig.rail!.creditBytes == RemoteMemoryLimits.windowBytes)
                for _ in 0..<4 { try rig.write(block, at: 0) }
                #expect(rig.rail!.creditBytes == 0)
                let error = #expect(throws: RemoteMemoryError.self) { try rig.write([1], at: 0) }
                #expect(error?.code == .noCredit)
                let read = #expect(throws: RemoteMemoryError.self) {
                    try rig.rail!.postRead(key: rig.key, offset: 0, length: 1)
                }
                #expect(read?.code == .noCredit)
            }
            #expect(try await rig.eventually { !$0.region.held.isEmpty })
            try await rig.on { $0.region.finishPersists() }
            #expect(try await rig.eventually { $0.recorder.completed == 4 })
            try await rig.on { rig in
                #expect(rig.rail!.creditBytes == RemoteMemoryLimits.windowBytes)
                // What was refused was not posted: the numbers have no hole.
                let next = try rig.write([1], at: 0)
                #expect(next == 5)
            }
            #expect(try await rig.eventually { $0.recorder.completed == 5 && $0.recorder.failure == nil })
        }
    }

    @Test func theWindowOfRequestsIsBounded() async throws {
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                for _ in 0..<RemoteMemoryLimits.windowRequests { try rig.write([1], at: 0) }
                #expect(rig.rail!.creditBytes == 0)
                #expect(throws: RemoteMemoryError.self) { try rig.rail!.postFlush(key: rig.key) }
            }
            #expect(
                try await rig.eventually { $0.recorder.completed == WorkRequestID(RemoteMemoryLimits.windowRequests) })
            try await rig.on { #expect($0.rail!.creditBytes > 0) }
        }
    }

    // MARK: The end

    @Test func aConnectionCutInTheMiddleCompletesNothingMore() async throws {  // S11
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { try $0.write([1], at: 0) }
            #expect(try await rig.eventually { $0.recorder.completed == 1 })
            try await rig.on { rig in
                rig.region.holdsPersists = true
                try rig.write([2], at: 0)
            }
            #expect(try await rig.eventually { $0.region.held.count == 1 })
            try await rig.on { rig in
                rig.accepted[0].queuePair.close()
                // The persist ends when nobody can be told any more.
                rig.region.finishPersists()
            }
            #expect(try await rig.eventually { $0.recorder.failure != nil && $0.accepted[0].recorder.failure != nil })
            try await rig.on { rig in
                #expect(rig.recorder.failure?.code == .disconnected)
                #expect(rig.recorder.completed == 1)
                #expect(throws: RemoteMemoryError.self) { try rig.rail!.postFlush(key: rig.key) }
            }
        }
    }

    @Test func closingIsHeardOnceAndNeverFromInside() async throws {
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { rig in
                rig.rail?.close()
                rig.rail?.close()
                #expect(rig.recorder.failure == nil)
            }
            #expect(try await rig.eventually { $0.recorder.failure?.code == .disconnected })
            #expect(try await rig.eventually { $0.accepted[0].recorder.failure?.code == .disconnected })
        }
    }
}
