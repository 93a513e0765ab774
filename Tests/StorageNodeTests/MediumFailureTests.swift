// The owner's medium fails or hangs for good while everything else lives: the partner writes what is in its mirror log.

import AdminProtocol
import ClusterProtocol
import Coordination
import Glibc
import LogModel
import NIOCore
import StorageMedium
import Synchronization
import TestSupport
import Testing

@testable import GroupEngine
@testable import StorageNode

/// Ends a process that is the test's own.
private struct OwnProcessFence: Fence {
    let kill: @Sendable (NodeID) -> Void

    func confirmDead(
        _ process: ProcessIdentity, by node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        kill(process.node)
        return GroupRecord.Fence.Confirmation(method: "process", by: node.rawValue, at: "now")
    }

    func isGone(_ process: ProcessIdentity) throws(FenceError) -> Bool { false }

    func confirmEnded(
        predecessor: ProcessIdentity, of node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation? { nil }
}

struct MediumFailureTests {
    private static let group =
        "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}"
    private static let second: Nanos = 1_000_000_000
    private static let block = 4096

    /// Both nodes, with limits that a test can wait for, and `kill` for the end of a process that is the test's own.
    private func run(
        groups: String = group, _ media: FaultyMedia, kill: @escaping @Sendable (NodeID) -> Void = { _ in },
        _ body: (PairRig.Runner) async throws -> Void
    ) async throws {
        try await PairRig.run(
            groups: groups,
            adjust: { node, parts in
                media.take(their: node, &parts)
                parts.fence = OwnProcessFence(kill: kill)
                parts.settings = {
                    $0.mediumLimit = 2 * Self.second
                    $0.releaseLimit = Self.second / 2
                    // How long a handover takes does not matter here.
                    $0.evacuationLimit = 60 * Self.second
                }
            }, body)
    }

    /// Writes blocks at `node`, and waits until they are acknowledged.
    private func write(_ blocks: Range<Int>, at node: String, _ on: PairRig.Runner) async throws {
        try await on { rig in
            for block in blocks {
                let payload = ByteBuffer(repeating: UInt8(block + 1), count: Self.block)
                rig.submit(
                    .write(offset: UInt64(block * Self.block), payload: payload), to: "vol0",
                    at: node == "alpha" ? rig.alpha : rig.beta, as: "write \(block)")
            }
        }
        try await on.eventually("writes \(blocks) are acknowledged") { rig in
            blocks.allSatisfy { rig.done["write \($0)"] == "done" }
        }
    }

    /// As a client does whose server has lost the group: on a busy machine it may move at any time.
    private func writeWhereServed(_ blocks: Range<Int>, _ on: PairRig.Runner) async throws {
        try await on.eventually("writes \(blocks) are acknowledged by whoever serves") { rig in
            let node = rig.beta.groups[GroupID("g0")]?.machine.isServing == true ? rig.beta : rig.alpha
            for block in blocks where rig.done["write \(block)"] != "done" {
                let payload = ByteBuffer(repeating: UInt8(block + 1), count: Self.block)
                rig.submit(
                    .write(offset: UInt64(block * Self.block), payload: payload), to: "vol0", at: node,
                    as: "write \(block)")
            }
            return blocks.allSatisfy { rig.done["write \($0)"] == "done" }
        }
    }

    private func expect(_ blocks: Range<Int>, on medium: FaultInjectingMedium) throws {
        #expect(try holds(blocks, medium))
    }

    private func holds(_ blocks: Range<Int>, _ medium: FaultInjectingMedium) throws -> Bool {
        var bytes = [UInt8](repeating: 0, count: blocks.count * Self.block)
        try bytes.withUnsafeMutableBytes { try medium.read(into: $0, at: UInt64(blocks.lowerBound * Self.block)) }
        let expected = blocks.flatMap { [UInt8](repeating: UInt8($0 + 1), count: Self.block) }
        return bytes == expected
    }

    private func kinds(_ node: KeyPath<PairRig, ServerNode>, _ on: PairRig.Runner) async throws -> [String] {
        nonisolated(unsafe) let node = node
        return try await on { rig in rig[keyPath: node].journal.kept.map(\.kind) }
    }

    @Test("claims 2, 10: when the owner's medium fails for good, its partner writes everything that was acknowledged")
    func failsForGood() async throws {
        let media = FaultyMedia()
        try await run(media) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            try await write(0..<10, at: "alpha", on)
            let failing = try media.medium("alpha", "vol0")
            failing.inject(.tear(errno: EIO), on: .write, count: .max)
            failing.inject(.fail(errno: EIO), on: .flush, count: .max)
            try await writeWhereServed(10..<20, on)
            try await on.eventually("beta serves") { $0.beta.groups[GroupID("g0")]?.machine.isServing == true }
            try await on.eventually("all of it is on beta's medium") { _ in
                try holds(0..<20, media.medium("beta", "vol0"))
            }
            try await write(20..<30, at: "beta", on)
            let kinds = try await kinds(\.alpha, on)
            #expect(kinds.contains("medium-failed") && !kinds.contains("release-hangs"))
        }
    }

    @Test("S9: what a failed flush left behind on the medium is written over by what came later")
    func flushFails() async throws {
        let media = FaultyMedia()
        try await run(media) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            try media.medium("alpha", "vol0").inject(.fail(errno: EROFS), on: .flush, count: .max)
            for _ in 0..<3 {
                try await on { $0.done = [:] }
                try await writeWhereServed(0..<10, on)
            }
            try await on.eventually("beta serves") { $0.beta.groups[GroupID("g0")]?.machine.isServing == true }
            try expect(0..<10, on: media.medium("beta", "vol0"))
        }
    }

    /// A process whose end can be awaited and granted.
    private final class Execution: Sendable {
        private let state = Mutex<(asked: NodeID?, isGranted: Bool)>((nil, false))
        var asked: NodeID? { state.withLock { $0.asked } }
        func grant() { state.withLock { $0.isGranted = true } }
        @Sendable func kill(_ node: NodeID) {
            state.withLock { $0.asked = node }
            while !state.withLock({ $0.isGranted }) { usleep(500) }
        }
    }

    @Test(
        "claim 10, S16: a medium that hangs: the partner writes when the owner's process is gone, whose other groups left it"
    )
    func hangs() async throws {
        let groups = Self.group + "\n" + Self.group.replacing("g0", with: "g1").replacing("vol0", with: "vol1")
        let media = FaultyMedia()
        let execution = Execution()
        try await run(groups: groups, media, kill: execution.kill) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") && $0.isMirrored($0.alpha, "g1") }
            try await write(0..<10, at: "alpha", on)
            let hung = try media.medium("alpha", "vol0")
            defer {
                hung.removeFaults()
                hung.releaseHeld()
                execution.grant()
            }
            hung.inject(.hold, on: .write, count: 1)
            try await write(5..<15, at: "alpha", on)
            try await on.eventually("alpha is to be fenced") { _ in execution.asked == NodeID("alpha") }
            #expect(hung.heldCalls == 1)
            #expect(media.find("beta", "vol0") == nil, "beta does not touch the medium yet")
            let others = try await on { rig in
                [rig.alpha, rig.beta].map { $0.groups[GroupID("g1")]?.machine.isServing == true }
            }
            #expect(others == [false, true])

            // The process ends: what hung still reaches the medium, and nothing after it.
            hung.inject(.fail(errno: EIO), on: .write, count: .max)
            hung.inject(.fail(errno: EIO), on: .flush, count: .max)
            hung.releaseHeld()
            execution.grant()
            try await on.eventually("beta serves") { $0.beta.groups[GroupID("g0")]?.machine.isServing == true }
            try expect(0..<15, on: media.medium("beta", "vol0"))
            let kinds = try await kinds(\.alpha, on)
            #expect(kinds.contains("medium-failed") && kinds.contains("release-hangs"))
        }
    }

    @Test("a handover that the medium keeps from ending says why, and ends")
    func handoverHangs() async throws {
        let media = FaultyMedia()
        let execution = Execution()
        try await run(media, kill: execution.kill) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            let hung = try media.medium("alpha", "vol0")
            hung.inject(.hold, on: .flush, count: 1)
            try await write(0..<10, at: "alpha", on)
            try await on { rig in
                rig.alpha.groups[GroupID("g0")]?.command(.handOver) { rig.done["handover"] = $0 ?? "done" }
            }
            try await on.eventually("the handover's end") { $0.done["handover"] != nil }
            let answer = try await on { $0.done["handover"] ?? "" }
            #expect(answer.contains("vol0.img: a flush does not return"), "\(answer)")
            hung.releaseHeld()
            execution.grant()
            try await on.eventually("beta serves") { $0.beta.groups[GroupID("g0")]?.machine.isServing == true }
            try expect(0..<10, on: media.medium("beta", "vol0"))
        }
    }

    @Test("without a partner in sync the owner keeps trying, and says that its log is full and why")
    func fullAlone() async throws {
        let media = FaultyMedia()
        try await run(media) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            try await on.eventLoop.flatSubmit { on.rig.value.beta.stop() }.get()
            // A node that has stopped mirrors until its process ends.
            try await on { $0.beta.groups[GroupID("g0")]?.sealRegion {} }
            try await on.eventually("degraded") {
                $0.alpha.groups[GroupID("g0")]?.machine.state(BootClock.now) == .degraded
            }
            let failing = try media.medium("alpha", "vol0")
            failing.inject(.fail(errno: ENOSPC), on: .write, count: .max)
            try await on { rig in
                let payload = ByteBuffer(repeating: 7, count: 1 << 20)
                for number in 0..<8 {
                    rig.submit(.write(offset: 0, payload: payload), to: "vol0", at: rig.alpha, as: "write \(number)")
                }
            }
            try await on.eventually("stalled, with its reason") { rig in
                guard let status = rig.alpha.status().groups.first?.status else { return false }
                return status.state == "stalled" && status.reason?.contains("No space left on device") == true
                    && status.reason?.contains("keeps the group") == true
            }
            failing.removeFaults()
            try await on.eventually("all are acknowledged") { rig in
                (0..<8).allSatisfy { rig.done["write \($0)"] == "done" }
            }
            try await on.eventually("the recovery is told") { rig in
                rig.alpha.journal.kept.contains { $0.kind == "medium-recovered" }
            }
        }
    }

    @Test(
        "C5: a medium that is full keeps its owner, and its reads, however long it is full", arguments: [true, false])
    func fullMedium(ofUser: Bool) async throws {
        let media = FaultyMedia()
        try await run(media) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            let full = try media.medium("alpha", "vol0")
            full.inject(.fail(errno: ofUser ? EDQUOT : ENOSPC), on: .write, count: .max)
            try await write(0..<10, at: "alpha", on)
            // Said when the time is over after which a failing path would have moved the group.
            try await on.eventually("the medium is said to be full") { rig in
                rig.alpha.journal.kept.contains { $0.kind == "medium-full" }
            }
            try await on { rig in
                rig.submit(.read(offset: 0, length: Self.block), to: "vol0", at: rig.alpha, as: "overlaid")
                rig.submit(.read(offset: 512 << 10, length: Self.block), to: "vol0", at: rig.alpha, as: "medium")
            }
            try await on.eventually("reads are answered") {
                $0.done["overlaid"] == "done" && $0.done["medium"] == "done"
            }
            let isMirrored = try await on { $0.isMirrored($0.alpha, "g0") }
            #expect(isMirrored)
            #expect(media.find("beta", "vol0") == nil, "the group has not moved")
            full.removeFaults()
            try await on.eventually("all is on the medium") { rig in
                rig.alpha.groups[GroupID("g0")]?.owner?.owned.destage.undestagedWrites == 0
            }
            try expect(0..<10, on: full)
        }
    }
}
