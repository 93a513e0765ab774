// Two nodes in one process, and a stranger on the mirror's port who says that he is the owner.

import ClusterConfiguration
import ClusterHarness
import ClusterProtocol
import Coordination
import Foundation
import LogModel
import Logging
import NIOCore
import NIOPosix
import RemoteMemory
import RemoteMemoryTCP
import Testing

@testable import StorageNode

struct RailsTests {
    /// Bound to its event loop.
    final class Rig {
        let alpha: ServerNode
        let beta: ServerNode
        let mirrorAddress: RailAddress
        let eventLoop: any EventLoop
        let registry = TCPRegionRegistry()
        var strangers: [TCPQueuePair] = []
        let delegate = Stranger()

        init(_ configuration: ClusterConfiguration, _ pools: [OpenedPool], _ eventLoop: any EventLoop) throws {
            var logger = Logger(label: "rails")
            logger.logLevel = .critical
            self.eventLoop = eventLoop
            alpha = try ServerNode(
                configuration: configuration, node: NodeID("alpha"), pool: pools[0], eventLoop: eventLoop,
                logger: logger)
            beta = try ServerNode(
                configuration: configuration, node: NodeID("beta"), pool: pools[1], eventLoop: eventLoop, logger: logger
            )
            mirrorAddress = try #require(RailAddress(configuration.node(NodeID("beta"))?.mirror[0] ?? ""))
        }

        var mirrorGroup: Group? { beta.groups[GroupID("g0")] }
        var isMirrored: Bool { alpha.groups[GroupID("g0")]?.machine.state(BootClock.now) == .mirrored }

        /// Dials the mirror as alpha would, and says `message`.
        func intrude(_ message: PeerMessage?) {
            TCPMirrorDialer.dial(
                mirrorAddress, as: alpha.railIdentity, expecting: beta.id, registry: registry, timeout: .seconds(5),
                on: eventLoop
            ) { [self] result in
                guard case .success(let queuePair) = result else { return delegate.ended.append("not welcome") }
                queuePair.delegate = delegate
                strangers.append(queuePair)
                // The greeting handler puts the queue pair into the pipeline when this returns.
                eventLoop.assumeIsolated().execute {
                    if let message { try? queuePair.send(message.encoded) }
                }
            }
        }
    }

    final class Stranger: QueuePairDelegate {
        var answers: [PeerMessage?] = []
        var ended: [String] = []
        func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) { answers.append(PeerMessage(message)) }
        func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) { ended.append(error.message) }
        func queuePairHeard(_ queuePair: any QueuePair) {}
        func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {}
        func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
    }

    @Test("S12, S21: a stranger with a stale epoch, or with nothing to say, costs nothing but his connection")
    func strangers() async throws {
        try await withRig { on in
            try await eventually(on) { $0.isMirrored && $0.mirrorGroup?.mirrorTarget != nil }
            let before = try await on { rig in ObjectIdentifier(try #require(rig.mirrorGroup?.mirrorRail)) }
            try await on { rig in
                let stale = AttachRequest(
                    group: GroupID("g0"), from: NodeID("alpha"), epoch: .none, logUUID: .zero, incarnation: .none,
                    head: .zero, acknowledged: .zero, ringBytes: 4 << 20)
                rig.intrude(.attach(stale))
                rig.intrude(nil)
            }
            try await eventually(on) { $0.delegate.ended.count == 2 }
            try await on { rig in
                #expect(rig.delegate.answers.count == 1)
                guard case .refused(_, _, .staleEpoch, _) = rig.delegate.answers.first else {
                    return #expect(Bool(false), "not refused")
                }
                #expect(rig.isMirrored)
                #expect(rig.mirrorGroup?.mirrorRail.map { ObjectIdentifier($0) } == before)
                #expect(rig.mirrorGroup?.candidateRail == nil)
            }
        }
    }

    // MARK: The rig

    private func withRig(_ body: (Runner) async throws -> Void) async throws {
        let folder = "/dev/shm/twinlog-rails-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { _ = Result { try FileManager.default.removeItem(atPath: folder) } }
        let text = """
            cluster: demo
            coordinator: {type: file, path: coordinator}
            heartbeat: {interval: 20ms, timeout: 400ms}
            lease: 1s
            nodes:
              alpha: {mirror: [127.0.0.1:\(try LocalCluster.freePort())], nbd: unix:a.nbd, admin: a.sock, pool: {path: alpha.pool, size: 8MiB}}
              beta: {mirror: [127.0.0.1:\(try LocalCluster.freePort())], nbd: unix:b.nbd, admin: b.sock, pool: {path: beta.pool, size: 8MiB}}
            groups:
              g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}
            """
        let configuration = try ClusterConfiguration.parse(text, file: "cluster.yaml", baseDirectory: folder)
        let logger = Logger(label: "rails")
        let pools = try ["alpha", "beta"].map {
            try ServerNode.openPool(configuration: configuration, node: NodeID($0), logger: logger)
        }
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let rig = try await eventLoop.submit {
            NIOLoopBound(try Rig(configuration, pools, eventLoop), eventLoop: eventLoop)
        }.get()
        try await eventLoop.flatSubmit { rig.value.alpha.start() }.get()
        try await eventLoop.flatSubmit { rig.value.beta.start() }.get()
        try await body(Runner(rig: rig, eventLoop: eventLoop))
        try await eventLoop.flatSubmit { rig.value.beta.stop() }.get()
        try await eventLoop.flatSubmit { rig.value.alpha.stop() }.get()
    }

    struct Runner {
        let rig: NIOLoopBound<Rig>
        let eventLoop: any EventLoop
        func callAsFunction<Value: Sendable>(
            _ body: @escaping @Sendable (Rig) throws -> Value
        ) async throws -> Value {
            try await eventLoop.submit { try body(rig.value) }.get()
        }
    }

    private func eventually(_ on: Runner, _ holds: @escaping @Sendable (Rig) throws -> Bool) async throws {
        for _ in 0..<2000 {
            if try await on(holds) { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw NotYet()
    }

    struct NotYet: Error {}
}
