// Two nodes in one process, over a real coordinator, real sockets.

import AdminProtocol
import ClusterConfiguration
import ClusterHarness
import ClusterProtocol
import Coordination
import Foundation
import LogModel
import Logging
import NIOCore
import NIOPosix
import StorageMedium
import Synchronization
import TestSupport
import Testing

@testable import GroupEngine
@testable import NodeAssembly
@testable import StorageNode

/// Bound to its event loop.
final class PairRig {
    let alpha: ServerNode
    let beta: ServerNode
    let eventLoop: any EventLoop
    /// What the nodes did for a test, by its name for it.
    var done: [String: String] = [:]

    private static let names = ["alpha", "beta"]
    /// So many pairs at once leave each of them enough of a small machine that its time-outs mean silence.
    private static let places = Places(16)

    private init(
        _ configurations: [ClusterConfiguration], _ pools: [OpenedPool], _ eventLoop: any EventLoop,
        _ groupLoops: [any EventLoop], _ adjust: (NodeID, inout NodeParts) -> Void
    ) throws {
        var logger = Logger(label: "pair")
        logger.logLevel = .critical
        self.eventLoop = eventLoop
        let nodes = try [0, 1].map { index in
            let name = NodeID(Self.names[index])
            var parts = try NodeParts.described(
                by: configurations[index], name, pools[index], try WireSecurity(configurations[index], node: name),
                eventLoop)
            adjust(name, &parts)
            return try ServerNode(
                configuration: configurations[index], node: name, pool: pools[index], eventLoop: eventLoop,
                groupLoops: groupLoops, logger: logger, parts: parts)
        }
        (alpha, beta) = (nodes[0], nodes[1])
    }

    /// Starts both nodes with `groups`, runs `body`, stops them. `betaText` makes beta's configuration of the common one.
    /// `timeout` is what a busy machine does not reach; a test of silence names a shorter one. `rails`: of each node. The groups live on
    /// `groupLoops`, or on the nodes' own loop.
    static func run(
        groups: String, rails: Int = 1, timeout: String = "5s", in parent: String = "/dev/shm",
        groupLoops: [any EventLoop] = [],
        betaText: (String) -> String = { $0 },
        adjust: @escaping @Sendable (NodeID, inout NodeParts) -> Void = { _, _ in },
        _ body: (Runner) async throws -> Void
    ) async throws {
        await places.take()
        defer { places.give() }
        let folder = "\(parent)/twinlog-pair-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { _ = Result { try FileManager.default.removeItem(atPath: folder) } }
        func node(_ name: String) throws -> String {
            let places = try (0..<rails).map { _ in "127.0.0.1:\(try LocalCluster.freePort())" }
            return """
                  \(name): {mirror: [\(places.joined(separator: ", "))], nbd: unix:\(name).nbd, admin: \(name).sock, pool: {path: \(name).pool, size: 24MiB}}
                """
        }
        let text = """
            cluster: demo
            coordinator: {type: file, path: coordinator}
            heartbeat: {interval: 20ms, timeout: \(timeout)}
            lease: 10s
            doubt: 2s
            nodes:
            \(try node("alpha"))
            \(try node("beta"))
            groups:
            \(groups)
            """
        let configurations = try [text, betaText(text)].map {
            try ClusterConfiguration.parse($0, file: "cluster.yaml", baseDirectory: folder)
        }
        let logger = Logger(label: "pair")
        let pools = try zip(configurations, names).map {
            try ServerNode.openPool(configuration: $0, node: NodeID($1), logger: logger)
        }
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let rig = try await eventLoop.submit {
            NIOLoopBound(try PairRig(configurations, pools, eventLoop, groupLoops, adjust), eventLoop: eventLoop)
        }.get()
        try await eventLoop.flatSubmit { rig.value.alpha.start() }.get()
        try await eventLoop.flatSubmit { rig.value.beta.start() }.get()
        try await body(Runner(rig: rig, eventLoop: eventLoop))
        try await eventLoop.flatSubmit { rig.value.beta.stop() }.get()
        try await eventLoop.flatSubmit { rig.value.alpha.stop() }.get()
    }

    func isMirrored(_ node: ServerNode, _ group: String) -> Bool {
        node.groups[GroupID(group)]?.machine.state(BootClock.now) == .mirrored
            && node.groups[GroupID(group)]?.machine.isOwner == true
    }

    /// Submits `request` to `volume` at `node`; what came of it is noted as `name`.
    func submit(_ request: VolumeRequest, to volume: String, at node: ServerNode, as name: String) {
        node.open(volume) { result in
            switch result {
            case .success(let session):
                session.submit(request) { result in
                    switch result {
                    case .success: self.done[name] = "done"
                    case .failure(let error): self.done[name] = "\(error)"
                    }
                }
            case .failure(let refusal): self.done[name] = refusal.message
            }
        }
    }

    struct Runner {
        let rig: NIOLoopBound<PairRig>
        let eventLoop: any EventLoop

        func callAsFunction<Value: Sendable>(
            _ body: @escaping @Sendable (PairRig) throws -> Value
        ) async throws -> Value {
            try await eventLoop.submit { try body(rig.value) }.get()
        }

        func eventually(_ what: String, _ holds: @escaping @Sendable (PairRig) throws -> Bool) async throws {
            for _ in 0..<6000 {
                if try await self(holds) { return }
                try await Task.sleep(for: .milliseconds(10))
            }
            throw NotYet(what: what)
        }
    }

    struct NotYet: Error { var what: String }
}

/// Of nodes whose groups live on their own loop.
extension ServerNode {
    var groups: NodeGroups { loops.all[0].value.groups }

    var host: GroupLoop { loops.all[0].value }

    func status() -> NodeStatus {
        var told: NodeStatus?
        status { told = $0 }
        guard let told else { preconditionFailure("what lives on one loop answers at once") }
        return told
    }
}

/// The media that the nodes hold, newest last.
final class FaultyMedia: Sendable {
    private let all = Mutex<[(node: NodeID, volume: VolumeID, medium: FaultInjectingMedium)]>([])

    /// In place of the media that a node would take.
    @Sendable func take(their node: NodeID, _ parts: inout NodeParts) {
        parts.media = FileMediumGuard { volume, medium in
            let faulty = FaultInjectingMedium(medium, seed: 1)
            self.all.withLock { $0.append((node, volume, faulty)) }
            return faulty
        }
    }

    /// The one that `node` got last.
    func find(_ node: String, _ volume: String) -> FaultInjectingMedium? {
        all.withLock { media in media.last { $0.node == NodeID(node) && $0.volume == VolumeID(name: volume) }?.medium }
    }

    func medium(_ node: String, _ volume: String) throws -> FaultInjectingMedium { try #require(find(node, volume)) }
}
