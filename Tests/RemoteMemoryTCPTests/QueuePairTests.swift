// What TCP adds to the verbs' rules (ConformanceTests): a refusal reaches a peer that is still sending.

import LogModel
import NIOCore
import RemoteMemory
import RemoteMemorySupport
import RemoteMemoryTCP
import Testing

struct QueuePairTests {
    @Test func thePeerIsWhoItSaid() async throws {  // S27
        try await withRig { rig in
            try await rig.connect()
            try await rig.on { #expect($0.accepted[0].peer.node == NodeID("alpha")) }
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
}
