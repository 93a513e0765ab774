// What a node that does not own a group knows of the group's media before it is asked to take them over.

import AdminProtocol
import ClusterConfiguration
import ClusterProtocol
import Coordination
import Foundation
import LogModel
import NIOCore
import NIOPosix
import StorageMedium
import Synchronization
import Testing

@testable import GroupEngine
@testable import NodeAssembly
@testable import StorageNode

struct StandbyMediaTests {
    private static let groups = """
          g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}
          g1: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol1: {medium: vol1.img, size: 1MiB}}}
        """

    /// Both nodes mirror; what the media are called is left to `body`.
    private func run(_ body: (PairRig.Runner, _ folder: String) async throws -> Void) async throws {
        try await PairRig.run(groups: Self.groups) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") && $0.isMirrored($0.alpha, "g1") }
            try await body(on, try await on { $0.alpha.configuration.baseDirectory })
        }
    }

    private func eventually(
        _ what: String, _ node: KeyPath<PairRig, ServerNode>, of group: String = "g0", _ on: PairRig.Runner,
        _ holds: @escaping @Sendable (GroupStatus) -> Bool
    ) async throws {
        nonisolated(unsafe) let node = node
        try await on.eventually(what) { rig in
            rig[keyPath: node].status().groups.first { $0.status.name == group }.map { holds($0.status) } == true
        }
    }

    @Test("S18: the record knows each medium's identity once the group is published")
    func recorded() async throws {
        try await run { on, folder in
            let media = try await on { rig in
                ["g0", "g1"].map { rig.beta.groups[GroupID($0)]?.machine.record?.media ?? [:] }
            }
            for (index, known) in media.enumerated() {
                let medium = try FileMedium.look(path: "\(folder)/vol\(index).img", sizeBytes: 1 << 20)
                #expect(try medium.readIdentity() == known["vol\(index)"].map { .known($0) })
            }
            #expect(media[0]["vol0"] != media[1]["vol1"])
        }
    }

    @Test("S18, A9: a medium that goes missing under a standby is said at once, and so is that it is back")
    func missing() async throws {
        try await run { on, folder in
            try await eventually("all is well", \.beta, on) { $0.takeoverPossible }
            try FileManager.default.moveItem(atPath: folder + "/vol0.img", toPath: folder + "/away.img")
            try await eventually("the missing medium", \.beta, on) {
                !$0.takeoverPossible
                    && $0.reason?.contains("\(folder)/vol0.img: does not exist; mount what it is on") == true
            }
            try await eventually("the other group", \.beta, of: "g1", on) { $0.takeoverPossible }
            try FileManager.default.moveItem(atPath: folder + "/away.img", toPath: folder + "/vol0.img")
            try await eventually("it is back", \.beta, on) { $0.takeoverPossible && $0.reason == nil }
            let kinds = try await on { $0.beta.journal.kept.map(\.kind) }
            #expect(kinds.contains("takeover-impossible") && kinds.contains("takeover-possible"))
        }
    }

    @Test("S18, O9: media that were exchanged are told by their names before anybody dies, and not taken")
    func exchanged() async throws {
        try await run { on, folder in
            let files = FileManager.default
            try files.moveItem(atPath: folder + "/vol0.img", toPath: folder + "/x.img")
            try files.moveItem(atPath: folder + "/vol1.img", toPath: folder + "/vol0.img")
            try files.moveItem(atPath: folder + "/x.img", toPath: folder + "/vol1.img")
            for (volume, other, group) in [("vol0", "vol1", "g0"), ("vol1", "vol0", "g1")] {
                try await eventually("\(volume) is not itself", \.beta, of: group, on) {
                    !$0.takeoverPossible
                        && $0.reason?.contains("\(folder)/\(volume).img: is \(other)'s medium (id ") == true
                        && $0.reason?.contains("not \(volume)'s (id ") == true
                }
            }
        }
    }

    @Test("O21: a medium that was cut is seen by both: its owner refuses reads, its standby takes nothing over")
    func cut() async throws {
        try await run { on, folder in
            try await on { rig in
                rig.submit(
                    .write(offset: 0, payload: ByteBuffer(repeating: 7, count: 4096)), to: "vol0", at: rig.alpha,
                    as: "write")
            }
            try await on.eventually("written") { $0.done["write"] == "done" }
            try #require(truncate(folder + "/vol0.img", 4096) == 0)
            try await eventually("beta sees it", \.beta, on) {
                !$0.takeoverPossible && $0.reason?.contains("is 4096 bytes, but the configuration says 1048576") == true
            }
            try await on { rig in
                rig.submit(.read(offset: 8192, length: 4096), to: "vol0", at: rig.alpha, as: "read")
                rig.submit(
                    .write(offset: 65536, payload: ByteBuffer(repeating: 8, count: 4096)), to: "vol0", at: rig.alpha,
                    as: "late")
            }
            try await on.eventually("the read is refused") {
                $0.done["read"]?.contains("was cut to 4096 bytes") == true
            }
            try await eventually("alpha says why its medium takes nothing", \.alpha, on) {
                $0.reason?.contains("was cut to 4096 bytes while it was in use, the configuration says 1048576") == true
            }
            #expect(try FileManager.default.attributesOfItem(atPath: folder + "/vol0.img")[.size] as? Int == 4096)
        }
    }

    /// A copy of the medium as it was, with its identity: as a backup or a detached half of a RAID leaves one.
    private func putOldCopy(of path: String, keeping original: String) throws {
        guard case .known(let identity) = try FileMedium.look(path: path, sizeBytes: 1 << 20).readIdentity() else {
            throw MediumError(.otherMedium, "\(path) has no identity")
        }
        let files = FileManager.default
        try files.moveItem(atPath: path, toPath: original)
        try #require(files.createFile(atPath: path, contents: Data(count: 1 << 20)))
        try FileMedium.open(path: path, sizeBytes: 1 << 20, createIfMissing: false).adopt(identity)
    }

    @Test(
        "S18: a mirror that reaches an older copy of the medium, identity and all, takes nothing over and says so on both"
    )
    func olderCopy() async throws {
        try await run { on, folder in
            try putOldCopy(of: folder + "/vol0.img", keeping: folder + "/current.img")
            try await on { rig in
                rig.submit(
                    .write(offset: 4096, payload: ByteBuffer(repeating: 7, count: 8192)), to: "vol0", at: rig.alpha,
                    as: "write")
            }
            try await eventually("beta knows it", \.beta, on) {
                !$0.takeoverPossible
                    && $0.reason?.contains("vol0.img: holds other bytes than the owner of g0 writes for vol0") == true
            }
            try await eventually("alpha knows it", \.alpha, on) {
                !$0.takeoverPossible && $0.reason?.contains("beta could not take over") == true
                    && $0.reason?.contains("vol0.img: holds other bytes") == true
            }
            try await eventually("the other group", \.beta, of: "g1", on) { $0.takeoverPossible }
            let expected = try await on { rig in
                let group = rig.beta.groups[GroupID("g0")]
                return group?.expectedMedia(group?.machine.record?.media ?? [:]) ?? []
            }
            let refusal = try #require(throws: MediumError.self) { _ = try FileMediumGuard().take(expected) }.message
            #expect(refusal.contains("holds other bytes"))
            try FileManager.default.removeItem(atPath: folder + "/vol0.img")
            try FileManager.default.moveItem(atPath: folder + "/current.img", toPath: folder + "/vol0.img")
            try await eventually("beta proves it", \.beta, on) { $0.takeoverPossible }
            try await eventually("alpha hears of it", \.alpha, on) { $0.takeoverPossible }
        }
    }

    @Test("S18: an owner that has written nothing yet proves its mirror's medium by what it reads")
    func readSample() throws {
        let path = "/dev/shm/twinlog-sample-\(UUID128.random())"
        let medium = try FileMedium.open(path: path, sizeBytes: 1 << 20, createIfMissing: true)
        defer { unlink(path) }
        #expect(try MediumSample.find(on: medium, round: 1) == nil, "zeros are like other zeros")
        let block = [UInt8](repeating: 3, count: 4096)
        // One block of 256 is met in time.
        try block.withUnsafeBytes { try medium.write([$0], at: 200 * 4096) }
        let met = try (1...32).compactMap { try MediumSample.find(on: medium, round: $0) }
        #expect(!met.isEmpty && met.allSatisfy { $0 == MediumProof.Sample(offset: 200 * 4096, bytes: block) })
        try block.withUnsafeBytes { try medium.write([$0], at: 0) }
        #expect(try MediumSample.find(on: medium, round: 1) == MediumProof.Sample(offset: 0, bytes: block))
    }

    // MARK: The probe itself

    @Test("C3: a look that does not return counts as a problem, and no second one is begun beside it")
    func hangs() async throws {
        let thread = NIOThreadPool(numberOfThreads: 1)
        thread.start()
        let threads = GroupThreads(
            reads: thread, destage: thread, steps: thread, probe: thread, memory: thread)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let looks = Mutex(0)
        let gate = DispatchSemaphore(value: 0)
        let told = Mutex<[String?]>([])
        let probe = try await loop.submit {
            NIOLoopBound(StandbyProbe(runtime: LoopRuntime(eventLoop: loop, threads: threads)), eventLoop: loop)
        }.get()
        @Sendable func tick(_ seconds: UInt64) {
            probe.value.tick(seconds * 1_000_000_000) {
                looks.withLock { $0 += 1 }
                gate.wait()
                return MediaLook()
            } seen: {
                let problem = probe.value.problem
                told.withLock { $0.append(problem) }
            }
        }
        try await loop.submit { for second in 10...16 { tick(UInt64(second)) } }.get()
        #expect(told.withLock { $0 } == ["a look at the media has not returned for 5 s"])
        #expect(looks.withLock { $0 } <= 1)
        gate.signal()
        for _ in 0..<2000 where told.withLock({ $0.count }) < 2 { try await Task.sleep(for: .milliseconds(5)) }
        #expect(told.withLock { $0.last } == .some(nil))
        try await thread.shutdownGracefully()
    }

    @Test("C3: a stranger that holds the lock counts when it is seen twice")
    func strangers() async throws {
        let thread = NIOThreadPool(numberOfThreads: 1)
        thread.start()
        let threads = GroupThreads(
            reads: thread, destage: thread, steps: thread, probe: thread, memory: thread)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let probe = try await loop.submit {
            NIOLoopBound(StandbyProbe(runtime: LoopRuntime(eventLoop: loop, threads: threads)), eventLoop: loop)
        }.get()
        /// One look, and what the probe says when it has ended.
        func look(at second: UInt64, stranger: String?) async throws -> String? {
            let isOver = loop.makePromise(of: Void.self)
            try await loop.submit {
                probe.value.tick(second * 1_000_000_000) {
                    MediaLook(problem: nil, stranger: stranger)
                } seen: {
                }
                thread.runIfActive(eventLoop: loop) {}.cascade(to: isOver)
            }.get()
            try await isOver.futureResult.get()
            return try await loop.submit { probe.value.problem }.get()
        }
        #expect(try await look(at: 10, stranger: "process 7") == nil)
        #expect(try await look(at: 20, stranger: nil) == nil)
        #expect(try await look(at: 30, stranger: "process 7") == nil)
        #expect(try await look(at: 40, stranger: "process 7") == "process 7")
        try await thread.shutdownGracefully()
    }
}
