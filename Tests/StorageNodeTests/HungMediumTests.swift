// Reads of one group's medium that hang, as those of a disk whose path is gone, and everything that must go on beside them.

import ClusterProtocol
import LogModel
import NIOCore
import StorageMedium
import TestSupport
import Testing

@testable import GroupEngine
@testable import StorageNode

struct HungMediumTests {
    private static let groups = """
          g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}
          g1: {home: beta, mirror: alpha, log: 4MiB, volumes: {vol1: {medium: vol1.img, size: 1MiB}}}
        """

    /// More than there are threads for the reads of a group.
    private static let reads = 16

    @Test("claim 10: reads that hang hold up neither their group's destage nor any other group's writes and takeovers")
    func hungReads() async throws {
        let media = FaultyMedia()
        // On a disk: there it takes a thread to make something durable.
        try await PairRig.run(groups: Self.groups, in: "/tmp", adjust: media.take) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") && $0.isMirrored($0.beta, "g1") }
            let hung = try media.medium("alpha", "vol0")
            defer {
                hung.removeFaults()
                hung.releaseHeld()
            }
            hung.inject(.hold, on: .read, count: Self.reads)
            try await on { rig in
                for index in 0..<Self.reads {
                    rig.submit(.read(offset: 0, length: 4096), to: "vol0", at: rig.alpha, as: "read \(index)")
                }
            }
            try await on.eventually("four reads hang") { _ in hung.heldCalls >= 4 }

            try await on { rig in
                let payload = ByteBuffer(repeating: 7, count: 8192)
                rig.submit(.write(offset: 0, payload: payload), to: "vol0", at: rig.alpha, as: "own write")
                rig.submit(.write(offset: 0, payload: payload), to: "vol1", at: rig.beta, as: "other write")
            }
            try await on.eventually("a write that the other group's mirror makes durable here") {
                $0.done["other write"] == "done"
            }
            try await on.eventually("a write of the group itself") { $0.done["own write"] == "done" }
            try await on.eventually("its destage") { rig in
                let owner = try #require(rig.alpha.groups[GroupID("g0")]?.owner)
                return owner.owned.destage.head > .zero && owner.owned.destage.head == owner.owned.acknowledgedWriteEnd
            }

            try await on { rig in
                rig.beta.groups[GroupID("g1")]?.command(.handOver) { rig.done["handover"] = $0 ?? "done" }
            }
            try await on.eventually("a takeover of the other group") {
                $0.done["handover"] == "done" && $0.alpha.groups[GroupID("g1")]?.machine.isServing == true
            }
            #expect(hung.heldCalls >= 4)
            let answered = try await on { rig in rig.done.keys.filter { $0.hasPrefix("read") } }
            #expect(answered == [])
        }
    }
}
