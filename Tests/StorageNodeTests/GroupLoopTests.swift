// Groups with event loops of their own: rails and volumes find the loop of their group, and what concerns several groups crosses from loop to loop.

import AdminProtocol
import ClusterProtocol
import Coordination
import Dispatch
import Glibc
import GroupEngine
import LogModel
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import StorageNode

struct GroupLoopTests {
    private static let loops = Array(MultiThreadedEventLoopGroup(numberOfThreads: 2).makeIterator())
    private static let groups = """
          g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}
          g1: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol1: {medium: vol1.img, size: 1MiB}}}
          g2: {home: beta, mirror: alpha, log: 4MiB, volumes: {vol2: {medium: vol2.img, size: 1MiB}}}
        """

    private func withPair(_ body: (PairRig.Runner) async throws -> Void) async throws {
        try await PairRig.run(groups: Self.groups, groupLoops: Self.loops, body)
    }

    /// What the node says of itself.
    private func status(
        _ node: @escaping @Sendable (PairRig) -> ServerNode, _ on: PairRig.Runner
    ) async throws -> NodeStatus {
        try await on.eventLoop.flatSubmit {
            let told = on.eventLoop.makePromise(of: NodeStatus.self)
            node(on.rig.value).status { told.succeed($0) }
            return told.futureResult
        }.get()
    }

    private func eventually(
        _ node: @escaping @Sendable (PairRig) -> ServerNode, _ on: PairRig.Runner, _ holds: (NodeStatus) -> Bool
    ) async throws {
        for _ in 0..<6000 {
            if holds(try await status(node, on)) { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw PairRig.NotYet(what: "the status is as wanted")
    }

    private func allMirrored(_ on: PairRig.Runner) async throws {
        try await eventually(\.alpha, on) {
            $0.groups.filter { $0.isOwner && $0.status.state == "mirrored" }.count == 2
        }
        try await eventually(\.beta, on) { $0.groups.filter { $0.isOwner && $0.status.state == "mirrored" }.count == 1 }
    }

    /// Writes to a volume and reads it back, on the loop where it is served.
    private func writeAndRead(
        _ byte: UInt8, _ volume: String, at node: @escaping @Sendable (PairRig) -> ServerNode, _ on: PairRig.Runner
    ) async throws -> [UInt8] {
        let place = try await on { try #require(node($0).place(of: volume)) }
        return try await place.eventLoop.flatSubmit {
            let read = place.eventLoop.makePromise(of: [UInt8].self)
            place.service().open(volume) { opened in
                switch opened {
                case .failure(let refusal): read.fail(refusal)
                case .success(let session):
                    session.submit(.write(offset: 0, payload: ByteBuffer(repeating: byte, count: 512))) { _ in
                        session.submit(.read(offset: 0, length: 512)) { result in
                            session.close()
                            read.completeWith(
                                result.map { $0.map { Array($0.readableBytesView) } ?? [] }.mapError { $0 })
                        }
                    }
                }
            }
            return read.futureResult
        }.get()
    }

    @Test("S28: each group lives on its own loop, in both directions, and status tells of all") func eachOnItsOwn()
        async throws
    {
        try await withPair { on in
            try await allMirrored(on)
            try await on { rig in
                #expect(rig.alpha.place(of: "vol0")?.eventLoop === Self.loops[0])
                #expect(rig.alpha.place(of: "vol1")?.eventLoop === Self.loops[1])
                #expect(rig.alpha.place(of: "vol2")?.eventLoop === Self.loops[0])
                #expect(rig.alpha.place(of: "none") == nil && rig.alpha.groups.all.isEmpty)
                #expect(rig.alpha.arriving.isEmpty && rig.beta.arriving.isEmpty)
            }
            #expect(try await writeAndRead(1, "vol0", at: \.alpha, on) == [UInt8](repeating: 1, count: 512))
            #expect(try await writeAndRead(2, "vol1", at: \.alpha, on) == [UInt8](repeating: 2, count: 512))
            #expect(try await writeAndRead(3, "vol2", at: \.beta, on) == [UInt8](repeating: 3, count: 512))
            #expect(try await status(\.alpha, on).groups.map(\.status.name) == ["g0", "g1", "g2"])
        }
    }

    @Test("S28, O24: what keeps one group's loop busy keeps no other group waiting") func nobodyWaits() async throws {
        try await withPair { on in
            try await allMirrored(on)
            let isFree = DispatchSemaphore(value: 0)
            Self.loops[1].execute { isFree.wait() }
            defer { isFree.signal() }
            #expect(try await writeAndRead(4, "vol0", at: \.alpha, on) == [UInt8](repeating: 4, count: 512))
            #expect(try await writeAndRead(5, "vol2", at: \.beta, on) == [UInt8](repeating: 5, count: 512))
        }
    }

    @Test("a command finds its group, and its refusal finds whoever asked") func commands() async throws {
        try await withPair { on in
            try await allMirrored(on)
            func administer(_ request: AdminRequest) async throws -> AdminResponse {
                try await on.eventLoop.flatSubmit {
                    let told = on.eventLoop.makePromise(of: AdminResponse.self)
                    on.rig.value.alpha.administer(request) { told.succeed($0) }
                    return told.futureResult
                }.get()
            }
            guard case .refused(let here) = try await administer(.handover(group: "g1", to: "alpha")),
                case .refused(let nowhere) = try await administer(.drain(group: "g9"))
            else {
                Issue.record("both are refused")
                return
            }
            #expect(here == "alpha owns g1 already" && nowhere == "alpha takes no part in a group 'g9'")
            guard case .done = try await administer(.handover(group: "g1", to: "beta")) else {
                Issue.record("g1 moves")
                return
            }
            try await eventually(\.beta, on) { $0.groups.contains { $0.status.name == "g1" && $0.isOwner } }
            // Its group alone.
            #expect(try await status(\.alpha, on).groups.filter(\.isOwner).map(\.status.name) == ["g0"])
        }
    }

    @Test("S18: what one group evacuates for is every group that the node owns, wherever it lives") func evacuation()
        async throws
    {
        try await withPair { on in
            try await allMirrored(on)
            try await on.eventLoop.flatSubmit {
                let alpha = on.rig.value.alpha
                let done = on.eventLoop.makePromise(of: Void.self)
                alpha.loops.evacuate(for: GroupID("g0"), from: on.eventLoop) { done.succeed() }
                return done.futureResult
            }.get()
            #expect(try await status(\.alpha, on).groups.filter(\.isOwner).map(\.status.name) == ["g0"])
            try await eventually(\.beta, on) { $0.groups.filter(\.isOwner).count == 2 }
        }
    }

    @Test("S18: a group knows the media of those on other loops") func media() async throws {
        try await withPair { on in
            try await allMirrored(on)
            for loop in Self.loops {
                // The records come with the renewals of the lease.
                var known: [String] = []
                for _ in 0..<6000 where known != ["vol0", "vol1", "vol2"] {
                    known = try await loop.submit { [beta = try await on { $0.beta.loops }] in
                        beta.all.first { $0.eventLoop === loop }?.value.knownMedia.values.sorted() ?? []
                    }.get()
                    if known.count < 3 { try await Task.sleep(for: .milliseconds(10)) }
                }
                #expect(known == ["vol0", "vol1", "vol2"])
            }
        }
    }

    @Test("S27: nodes with different configurations tell each other so before a rail has a group") func differences()
        async throws
    {
        // Beta makes no rail itself: it hears of it on those that arrive.
        let group = Self.groups.split(separator: "\n")[0]
        let other: (String) -> String = { $0.replacing("vol0.img", with: "vol9.img") }
        try await PairRig.run(groups: String(group), groupLoops: Self.loops, betaText: other) { on in
            try await on.eventually("both say what differs") { rig in
                [rig.alpha, rig.beta].allSatisfy { node in
                    node.journal.kept.contains { $0.kind == "configuration-differs" }
                }
            }
        }
    }

    @Test(
        "S17: a record that a renewal has read reaches its group before a swap that came after it, whatever the node does"
    )
    func recordsInTheirOrder() async throws {
        let coordinator = HeldCoordinator()
        let hold: @Sendable (NodeID, inout NodeParts) -> Void = { node, parts in
            if node == NodeID("alpha") { parts.coordinator = coordinator.before(parts.coordinator) }
        }
        try await PairRig.run(groups: Self.groups, groupLoops: Self.loops, adjust: hold) { on in
            try await allMirrored(on)
            let group = try await on { try #require($0.alpha.loops.loop(of: GroupID("g0"))) }
            func version() async throws -> UInt64 {
                try await group.eventLoop.submit {
                    group.value.groups[GroupID("g0")]?.machine.record?.version ?? 0
                }.get()
            }
            coordinator.holdRenewal()
            try await until { coordinator.isHolding }
            let before = try await version()
            // The node is busy from here on, and g0 moves.
            let isFree = DispatchSemaphore(value: 0)
            on.eventLoop.execute { isFree.wait() }
            group.tell { $0.groups[GroupID("g0")]?.command(.handOver) { _ in } }
            coordinator.letGo()
            try await until { try await version() > before }
            let after = try await version()
            isFree.signal()
            try await on { _ in }
            #expect(try await version() >= after)
        }
    }

    private func until(_ holds: () async throws -> Bool) async throws {
        for _ in 0..<6000 {
            if try await holds() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw PairRig.NotYet(what: "what the test waits for")
    }
}

/// A coordinator one of whose renewals is answered late, though it has read what there was.
private final class HeldCoordinator: Coordinator {
    private enum State { case open, wanted, holding }

    private let behind = Mutex<(any Coordinator)?>(nil)
    private let state = Mutex(State.open)

    func before(_ coordinator: any Coordinator) -> HeldCoordinator {
        behind.withLock { $0 = coordinator }
        return self
    }

    private var inner: any Coordinator {
        guard let coordinator = behind.withLock(\.self) else { preconditionFailure("it stands before a coordinator") }
        return coordinator
    }

    func holdRenewal() { state.withLock { $0 = .wanted } }
    var isHolding: Bool { state.withLock { $0 == .holding } }
    func letGo() { state.withLock { $0 = .open } }

    func renew(
        _ presence: Presence, reading groups: [GroupID]
    ) throws(CoordinationError) -> [GroupID: Result<GroupRecord?, CoordinationError>] {
        let read = try inner.renew(presence, reading: groups)
        state.withLock { if $0 == .wanted { $0 = .holding } }
        while isHolding { usleep(1000) }
        return read
    }

    func read(_ group: GroupID) throws(CoordinationError) -> GroupRecord? { try inner.read(group) }

    func swap(expecting expected: UInt64, to record: GroupRecord) throws(CoordinationError) -> SwapOutcome {
        try inner.swap(expecting: expected, to: record)
    }

    func announce(_ presence: Presence) throws(CoordinationError) { try inner.announce(presence) }
    func presence(of node: NodeID) throws(CoordinationError) -> Presence? { try inner.presence(of: node) }
}
