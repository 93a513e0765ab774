// Two nodes with two rails, of which the one with the session fails in one direction, or ends.

import AdminProtocol
import Coordination
import LogModel
import NIOCore
import PersistentMemory
import RemoteMemory
import Testing
import WriteLog

@testable import ClusterProtocol
@testable import GroupEngine
@testable import StorageNode

struct SessionMoveTests {
    private static let group = """
          g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}
        """

    /// A mirrored group, both rails up and heard of.
    private func withTwoRails(_ body: (PairRig.Runner) async throws -> Void) async throws {
        let hold: @Sendable (NodeID, inout NodeParts) -> Void = { node, parts in
            guard node == NodeID("alpha") else { return }
            let rails = parts.rails
            parts.rails = { HeldRails(rails($0)) }
        }
        try await PairRig.run(groups: Self.group, rails: 2, adjust: hold) { on in
            try await on.eventually("mirrored, with a rail that stands by") { rig in
                rig.isMirrored(rig.alpha, "g0") && rig.railStates.sorted() == ["session", "standby"]
                    && rig.ownerGroup?.railSnapshots.allSatisfy { $0.roundTrip != nil } == true
                    && rig.mirrorGroup?.standbyRails.count == 1
            }
            try await body(on)
        }
    }

    private func expectUndisturbed(_ on: PairRig.Runner, moves: Int, epoch: Epoch?) async throws {
        try await on { rig in
            let kinds = rig.alpha.journal.kept.map(\.kind) + rig.beta.journal.kept.map(\.kind)
            #expect(kinds.count { $0 == "rail-moved" } == moves)
            for kind in ["mirror-lost", "degraded", "suspect", "lease-lost"] { #expect(!kinds.contains(kind)) }
            #expect(rig.ownerGroup?.machine.record?.inSync == [NodeID("alpha"), NodeID("beta")])
            #expect(rig.ownerGroup?.machine.record?.epoch == epoch)
        }
    }

    @Test(
        "S11, S12: what is posted on a rail that fails is posted again on the next one, and what arrives late on the old one is not stored"
    )
    func lateWrites() async throws {
        try await withTwoRails { on in
            let epoch = try await on { $0.ownerGroup?.machine.record?.epoch }
            let (old, completed) = try await on { rig in
                let rail = try #require(rig.sessionRail)
                rail.isHeld = true
                rig.write(1, as: "first")
                return (NIOLoopBound(rail, eventLoop: rig.eventLoop), rail.completed)
            }
            try await on.eventually("the write is acknowledged over the other rail") { $0.done["first"] == "done" }
            // While a client waits, ticks and heartbeats that are late are not waited for.
            try await on { rig in
                let left = rig.ownerGroup?.railSnapshots.first { $0.address == old.value.place }
                #expect(left?.lastError?.contains("has answered nothing") == true, "\(left?.lastError ?? "")")
            }
            // The ring comes round: in the place of what is held back stand other bytes.
            for lap in 0..<12 {
                try await on { $0.write(UInt8(lap), count: 512 << 10, as: "lap \(lap)") }
                try await on.eventually("lap \(lap)") { $0.done["lap \(lap)"] == "done" }
            }
            try await on { _ in old.value.letGo() }
            try await on.eventually("the old rail has ended, at the mirror's side") { _ in old.value.hasEnded }
            try await on { rig in
                #expect(old.value.completed == completed)
                #expect(rig.sessionRail !== old.value)
            }
            try await expectUndisturbed(on, moves: 1, epoch: epoch)
            try await on.eventually("the logs are the same") { rig in try rig.hasSameLogs() }
        }
    }

    @Test("a rail that ends is left at once, stands by again later, and takes the session when the other one ends")
    func ends() async throws {
        try await withTwoRails { on in
            let epoch = try await on { $0.ownerGroup?.machine.record?.epoch }
            for round in 0..<2 {
                let old = try await on { rig in
                    let rail = try #require(rig.sessionRail)
                    rail.close()
                    return rail.place
                }
                try await on.eventually("mirrored over the other rail") { rig in
                    rig.isMirrored(rig.alpha, "g0") && rig.sessionRail?.place != old
                        && rig.ownerGroup?.railSnapshots.first { $0.address == old }?.lastError != nil
                }
                try await on { $0.write(1, as: "\(round)") }
                try await on.eventually("a write") { $0.done["\(round)"] == "done" }
                try await on.eventually("it stands by") { $0.railStates.sorted() == ["session", "standby"] }
                try await on.eventually("it is heard of") { rig in
                    rig.ownerGroup?.railSnapshots.allSatisfy { $0.roundTrip != nil } == true
                }
            }
            try await expectUndisturbed(on, moves: 2, epoch: epoch)
            try await on.eventually("the logs are the same") { rig in try rig.hasSameLogs() }
        }
    }
}

extension PairRig {
    fileprivate var ownerGroup: Group? { alpha.groups[GroupID("g0")] }
    fileprivate var mirrorGroup: Group? { beta.groups[GroupID("g0")] }
    fileprivate var railStates: [String] { ownerGroup?.railSnapshots.map(\.state.rawValue) ?? [] }
    fileprivate var sessionRail: HeldQueuePair? { ownerGroup?.rail as? HeldQueuePair }

    fileprivate func write(_ byte: UInt8, count: Int = 4096, as name: String) {
        let payload = ByteBuffer(repeating: byte, count: count)
        submit(.write(offset: 0, payload: payload), to: "vol0", at: alpha, as: name)
    }

    /// What the owner has not trimmed is at the mirror, byte for byte.
    fileprivate func hasSameLogs() throws -> Bool {
        let owner = try #require(ownerGroup?.owner), mirror = try #require(mirrorGroup)
        let head = owner.owned.destage.head
        let count = Int(owner.log.durable - head)
        guard owner.shipper.durable == owner.log.durable else { return false }
        func bytes(of group: Group) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: count)
            bytes.withUnsafeMutableBytes { group.region.readRing(from: head, into: $0) }
            return bytes
        }
        return bytes(of: try #require(ownerGroup)) == bytes(of: mirror)
    }
}
