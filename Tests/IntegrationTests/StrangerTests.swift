// Strangers on the rails of real nodes (S27): they keep nobody in office, get nothing of a client's, and count for nothing.
// And what a mirror must be able to say across the wire (C6).

import AdminProtocol
import ClusterConfiguration
import ClusterHarness
import ClusterProtocol
import ConfiguredCoordinator
import Coordination
import Foundation
import LogModel
import NBDClient
import NIOCore
import NIOPosix
import RemoteMemory
import RemoteMemoryTCP
import Synchronization
import Testing

extension Cluster {
    @Suite(.serialized) struct StrangerTests {
        private func configuration(of cluster: LocalCluster) throws -> ClusterConfiguration {
            try ClusterConfiguration.load(path: cluster.configurationPath)
        }

        private func address(of node: String, _ cluster: LocalCluster) throws -> TCPAddress {
            let entry = try #require(try configuration(of: cluster).node(NodeID(node)))
            return try #require(TCPAddress(entry.mirror[0]))
        }

        /// Who says that he is `node`, with a secret of his own or the cluster's.
        private func identity(_ node: String, _ cluster: LocalCluster, hasSecret: Bool) throws -> RailIdentity {
            let configuration = try configuration(of: cluster)
            let coordinator = try ConfiguredCoordinator(forNodeOf: configuration)
            return RailIdentity(
                cluster: configuration.cluster, node: NodeID(node),
                secret: hasSecret ? try coordinator.readSecret() : .random(),
                configurationDigest: configuration.sharedDigest)
        }

        @Test(
            "D1: attaches that are refused keep a dead owner in office no longer, from a stranger or from a proved peer",
            arguments: [false, true])
        func falseSignsOfLife(hasSecret: Bool) async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let loop = eventLoops.next()
                let identity = try identity(owner, cluster, hasSecret: hasSecret)
                let address = try address(of: mirror, cluster)
                let spammer = try await loop.submit {
                    let spammer = Spammer(address, as: identity, to: NodeID(mirror), loop)
                    spammer.begin()
                    return NIOLoopBound(spammer, eventLoop: loop)
                }.get()
                // Attempts that the mirror has dealt with, so that it is under fire when its owner dies.
                try await cluster.wait("spammed") { try loop.submit { spammer.value.refused }.wait() > 20 }
                cluster.kill(owner)
                try await cluster.wait("taken over") { cluster.owner() == mirror }
                try await loop.submit { spammer.value.end() }.get()
                #expect(try cluster.record()?.owner == NodeID(mirror))
            }
        }

        @Test("D2: whoever listens in a dead mirror's place gets nothing, and is never in sync")
        func fakeMirror() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let address = try address(of: mirror, cluster)
                cluster.kill(mirror)
                let loop = eventLoops.next()
                let accepted = Mutex(0)
                let identity = try identity(mirror, cluster, hasSecret: false)
                let fake = try await loop.flatSubmit {
                    let listener = TCPMirrorListener(identity: identity, registry: TCPRegionRegistry(), eventLoop: loop)
                    {
                        _, _ in accepted.withLock { $0 += 1 }
                    }
                    let bound = NIOLoopBound(listener, eventLoop: loop)
                    return listener.listen(on: address).map { _ in bound }
                }.get()
                try await cluster.wait("refused") {
                    guard case .events(let events) = try cluster.ask(owner, .events(after: 0, wait: false)) else {
                        return false
                    }
                    return events.contains { $0.kind == "rail-refused" && $0.message.contains("secret") }
                }
                try await cluster.wait("degraded") { cluster.state()?.state == "degraded" }
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 1))
                await client.disconnect()
                #expect(accepted.withLock { $0 } == 0)
                #expect(try cluster.record()?.inSync == [NodeID(owner)])
                #expect(cluster.state()?.takeoverPossible == false)

                try await loop.submit { fake.value.close() }.get()
                try cluster.start(mirror)
                try await cluster.waitUntilMirrored()
            }
        }

        @Test("C6, O16: a mirror that lost its log says so, is counted out and begun anew, with `stall` too")
        func lostLog() async throws {
            var options = LocalClusterOptions.patient
            options.onMirrorLoss = "stall"
            try await withCluster(options) { cluster in
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, Stamp.block(0, stamp: 1))
                cluster.kill(mirror)
                // Both slots of the region's identity and head (docs/FORMATS.md, "The pool file").
                let pool = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(cluster.folder)/run/\(mirror).pool"))
                try pool.seek(toOffset: 16384)
                try pool.write(contentsOf: Data(count: 8192))
                try pool.close()
                try cluster.start(mirror)
                try await client.write(offset: 4096, Stamp.block(1, stamp: 2))
                try await cluster.waitUntilMirrored()
                #expect(try await client.read(offset: 4096, length: 4096) == Stamp.block(1, stamp: 2))
                await client.disconnect()
                cluster.kill(owner)
                try await cluster.wait("taken over") { cluster.owner() == mirror }
                let other = try await cluster.connect(to: mirror)
                #expect(try await other.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 1))
                #expect(try await other.read(offset: 4096, length: 4096) == Stamp.block(1, stamp: 2))
                await other.disconnect()
            }
        }

        @Test("S22: a secret that others may read is refused at the start, by path")
        func openSecret() async throws {
            try await withCluster(started: false) { cluster in
                let path = "\(cluster.folder)/psk"
                #expect(try twinlog(cluster, "init-keys", path).code == 0)
                #expect(try twinlog(cluster, "init-keys", path).code == 1, "never made over one that is there")
                let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
                try text.replacingOccurrences(of: "doubt: 2s", with: "doubt: 2s\nsecurity: {psk-file: psk}")
                    .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                #expect(chmod(path, 0o644) == 0)
                let refused = try run(
                    builtBinaries() + "/twinlogd", "--config", cluster.configurationPath, "--node", "alpha")
                #expect(refused.code == 1 && refused.output.contains(path) && refused.output.contains("chmod 600"))

                #expect(chmod(path, 0o600) == 0)
                for node in LocalCluster.nodes { try cluster.start(node) }
                try await cluster.waitUntilMirrored()
                #expect(!FileManager.default.fileExists(atPath: "\(cluster.folder)/run/coordinator/secret"))
                let secret = try String(contentsOfFile: path, encoding: .utf8).prefix(16)
                #expect(!cluster.logs().contains(secret))
            }
        }
    }
}

/// Asks to attach with a stale epoch, again and again, as d7 of the cases did. Bound to its event loop.
private final class Spammer: QueuePairDelegate {
    private let address: TCPAddress
    private let identity: RailIdentity
    private let peer: NodeID
    private let loop: any EventLoop
    private let registry = TCPRegionRegistry()
    private var rail: TCPQueuePair?
    private var isOver = false
    /// Attempts that were refused, by whatever part of the node.
    private(set) var refused = 0

    init(_ address: TCPAddress, as identity: RailIdentity, to peer: NodeID, _ loop: any EventLoop) {
        self.address = address
        self.identity = identity
        self.peer = peer
        self.loop = loop
    }

    func begin() {
        guard !isOver else { return }
        TCPMirrorDialer.dial(
            address, as: identity, expecting: peer, registry: registry, timeout: .seconds(5), on: loop
        ) { [self] result in
            switch result {
            case .failure:
                refused += 1
                later { $0.begin() }
            case .success(let (queuePair, _)):
                queuePair.delegate = self
                rail = queuePair
                later { $0.ask() }
            }
        }
    }

    func end() {
        isOver = true
        rail?.close()
    }

    private func later(_ body: @escaping (Spammer) -> Void) {
        loop.assumeIsolated().scheduleTask(in: .milliseconds(10)) { body(self) }
    }

    private func ask() {
        guard !isOver, let rail else { return }
        let request = AttachRequest(
            group: GroupID("g0"), from: identity.node, epoch: .none, logUUID: .zero, incarnation: .none, head: .zero,
            acknowledged: .zero, ringBytes: 16 << 20)
        do {
            try rail.send(PeerMessage.attach(request).encoded)
        } catch {
            // The rail has failed, and the delegate dials anew.
        }
    }

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
        if case .success(.refused) = Result(catching: { try PeerMessage(message) }) { refused += 1 }
        later { $0.ask() }
    }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) { later { $0.begin() } }
    func queuePairHeard(_ queuePair: any QueuePair) {}
    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {}
    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
}
