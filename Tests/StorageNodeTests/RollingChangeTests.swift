// A pair takes a changed file node by node: while one has the old one and one the new one, it mirrors and serves what both know (S27).

import AdminProtocol
import ClusterProtocol
import Coordination
import LogModel
import NIOCore
import TestSupport
import Testing

@testable import GroupEngine
@testable import StorageNode

struct RollingChangeTests {
    private static let old =
        "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}"
    private static let added =
        "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}, vol1: {medium: vol1.img, size: 1MiB}}}"
    private static let grown =
        "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 2MiB}}}"
    private static let g0 = GroupID("g0")

    @Test(
        "S27: with a volume more on the mirror the pair mirrors, and either node can own it; the volume waits for both")
    func volumeAdded() async throws {
        try await PairRig.run(groups: Self.old, betaText: { $0.replacing(Self.old, with: Self.added) }) { on in
            try await on.eventually("they mirror each other") { $0.isMirrored($0.alpha, "g0") }
            try await on { rig in
                for node in [rig.alpha, rig.beta] {
                    let status = node.status().groups[0].status
                    #expect(
                        status.reason?.contains("groups.g0.volumes.vol1.size is missing on alpha and '1048576' on beta")
                            == true)
                }
                rig.submit(
                    .write(offset: 0, payload: ByteBuffer(repeating: 1, count: 4096)), to: "vol0", at: rig.alpha,
                    as: "old")
                guard case .failure(let refusal) = rig.alpha.find("vol1") else {
                    Issue.record("alpha, which does not know vol1, serves it")
                    return
                }
                #expect(refusal.code == .unknownVolume)
            }
            try await on.eventually("what both know is served") { $0.done["old"] == "done" }
        }
    }

    @Test("S27: an owner with a volume more than its mirror serves the others, and says what the one waits for")
    func volumeAddedAtTheOwner() async throws {
        try await PairRig.run(groups: Self.added, betaText: { $0.replacing(Self.added, with: Self.old) }) { on in
            try await on.eventually("they mirror each other") { $0.isMirrored($0.alpha, "g0") }
            try await on { rig in
                guard case .failure(let refusal) = rig.alpha.find("vol1") else {
                    Issue.record("vol1 is served, and beta could not take it over")
                    return
                }
                #expect(
                    refusal.message
                        == "volume 'vol1' is not served yet: the configuration of beta does not have it; restart beta with the file of alpha"
                )
                rig.submit(
                    .write(offset: 0, payload: ByteBuffer(repeating: 1, count: 4096)), to: "vol0", at: rig.alpha,
                    as: "old")
            }
            try await on.eventually("what both know is served") { $0.done["old"] == "done" }
        }
    }

    @Test("S27: of a volume that has grown on one node only, clients get what both know")
    func volumeGrown() async throws {
        for (alpha, beta) in [(Self.old, Self.grown), (Self.grown, Self.old)] {
            try await PairRig.run(groups: alpha, betaText: { $0.replacing(alpha, with: beta) }) { on in
                try await on.eventually("they mirror each other") { $0.isMirrored($0.alpha, "g0") }
                try await on { rig in
                    let offered = try rig.alpha.find("vol0").get()
                    #expect(offered.sizeBytes == 1 << 20)
                    #expect(rig.alpha.status().groups[0].status.volumes.map(\.sizeBytes) == [1 << 20])
                }
            }
        }
    }

    @Test("S27: a mirror that does not know what clients were offered is refused, and told why")
    func offeredBeyondTheMirror() async throws {
        try await PairRig.run(groups: Self.added, betaText: { $0.replacing(Self.added, with: Self.old) }) { on in
            try await on.eventually("they mirror each other") { $0.isMirrored($0.alpha, "g0") }
            try await on { rig in
                let group = try #require(rig.alpha.groups[Self.g0])
                try #require(group.owner).offered[VolumeID(name: "vol1")] = 4096
                try #require(rig.beta.groups[Self.g0]?.mirrorRail).close()
            }
            let reason =
                "clients of vol1 were offered 4096 bytes here, and the configuration of beta has 0: restart beta with the file of alpha"
            try await on.eventually("beta is counted out") { rig in
                rig.alpha.groups[Self.g0]?.machine.record?.inSync == [NodeID("alpha")]
            }
            try await on.eventually("the reason is in the status") { rig in
                rig.alpha.status().groups[0].status.reason?.contains(reason) == true
            }
        }
    }
}
