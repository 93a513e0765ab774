// The simulator's rails keep the contract that the engine was written against.

import Coordination
import Foundation
import LogModel
import PersistentMemory
import RemoteMemory
import RemoteMemorySupport
import Testing

struct WireTests {
    @Test("virtual rails:", arguments: VerbsConformance.cases)
    func conforms(_ verbs: VerbsCase) async throws {
        for seed in 1...5 as ClosedRange<UInt64> {
            let rails = try VirtualRails(seed: seed)
            defer { rails.end() }
            try await verbs.run(on: rails)
        }
    }
}

/// Two processes of a world whose engines were not begun, and a rail between them. One task at a time uses it, the test's.
private final class VirtualRails: RailRig, @unchecked Sendable {
    private let folder: String
    private let world: World
    private let dialer: Server, acceptor: Server
    private let ends: RailEnds

    init(seed: UInt64) throws {
        folder = "/dev/shm/twinlog-wire-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        let world = World(seed: seed, in: folder, several: false)
        self.world = world
        let servers = try world.nodes.map { node in
            let pool = try world.openPool(node.poolPath)
            let identity = ProcessIdentity(node: node.name, pid: 1, startTicks: 1, bootID: "boot")
            return Server(world, node, identity, pool, recorded: nil)
        }
        (dialer, acceptor) = (servers[0], servers[1])
        let pair = VirtualQueuePair.pair(
            dialer, acceptor, over: 0, windowRequests: RemoteMemoryLimits.windowRequests)
        ends = RailEnds(
            initiator: pair.dialer, target: pair.acceptor, registry: acceptor.registry,
            initiatorRegistry: dialer.registry
        ) { disturbance, region in
            switch disturbance {
            case .stall: Self.setMute(true, world, pair)
            case .goOn: Self.setMute(false, world, pair)
            case .cut: Self.cut(pair)
            case .tear(let bytes):
                region.onWritten = { if $0 >= bytes { Self.cut(pair) } }
                Self.setMute(false, world, pair)
            }
        }
    }

    private typealias Pair = (dialer: VirtualQueuePair, acceptor: VirtualQueuePair)

    private static func setMute(_ isMute: Bool, _ world: World, _ pair: Pair) {
        for node in world.nodes { world.setMute(node, isMute) }
        guard !isMute else { return }
        pair.dialer.releaseHeldBack()
        pair.acceptor.releaseHeldBack()
    }

    private static func cut(_ pair: Pair) {
        pair.dialer.cut()
        pair.acceptor.cut()
    }

    func on<Value: Sendable>(_ body: @escaping @Sendable (RailEnds) throws -> Value) async throws -> Value {
        var result: Result<Value, any Error>?
        dialer.perform { [self] in
            acceptor.perform { [self] in result = Result { try body(ends) } }
        }
        return try #require(result).get()
    }

    func eventually(_ condition: @escaping @Sendable (RailEnds) -> Bool) async throws -> Bool {
        world.run(until: world.now + 60 * 1_000_000_000) { condition(ends) }
    }

    func end() {
        for server in [dialer, acceptor] {
            server.die()
            server.dismantle()
        }
        world.dismantle()
        do {
            try FileManager.default.removeItem(atPath: folder)
        } catch {
            Issue.record(error)
        }
    }
}
