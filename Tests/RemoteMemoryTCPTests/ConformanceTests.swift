// The transports that must pass the verbs' conformance suite: TCP over loopback sockets, plain and beneath TLS, and the one in memory.

import NIOCore
import NIOPosix
import RemoteMemory
import RemoteMemorySupport
import RemoteMemoryTCP
import Testing
import TransportSecurity

struct ConformanceTests {
    @Test("TCP:", arguments: VerbsConformance.cases)
    func plain(_ verbs: VerbsCase) async throws {
        try await withRig { rig in try await verbs.run(on: try await TCPRails(rig, over: nil)) }
    }

    @Test("TCP beneath TLS:", arguments: VerbsConformance.cases)
    func encrypted(_ verbs: VerbsCase) async throws {
        let security = try SharedKeyRails(secret: Rig.secret)
        try await withRig(over: security) { rig in
            try await verbs.run(on: try await TCPRails(rig, over: security))
        }
    }

    @Test("in memory:", arguments: VerbsConformance.cases)
    func inMemory(_ verbs: VerbsCase) async throws {
        try await verbs.run(on: MemoryRails())
    }
}

/// A dialed rail and its accepted end, on one loop, with a relay between them.
private struct TCPRails: RailRig {
    private let rig: RemoteRig
    private let ends: NIOLoopBound<RailEnds>

    init(_ rig: RemoteRig, over security: (any RailSecurity)?) async throws {
        self.rig = rig
        let loop = rig.group.next(), target = rig.port
        let relay = try await loop.submit { NIOLoopBound(Relay(loop), eventLoop: loop) }.get()
        let port = try await loop.flatSubmit { relay.value.listen(to: target) }.get()
        try await rig.on { $0.dial(port: port, over: security) }
        try #require(try await rig.eventually { $0.rail != nil && !$0.accepted.isEmpty })
        ends = try await rig.on { rig in
            let ends = RailEnds(
                initiator: rig.rail!, target: rig.accepted[0].queuePair, registry: rig.registry,
                initiatorRegistry: rig.dialerRegistry
            ) { disturbance, _ in relay.value.disturb(disturbance) }
            return NIOLoopBound(ends, eventLoop: loop)
        }
    }

    func on<Value: Sendable>(_ body: @escaping @Sendable (RailEnds) throws -> Value) async throws -> Value {
        try await rig.on { [ends] _ in try body(ends.value) }
    }

    func eventually(_ condition: @escaping @Sendable (RailEnds) -> Bool) async throws -> Bool {
        try await rig.eventually { [ends] _ in condition(ends.value) }
    }
}

/// One task at a time uses it, the test's.
private final class MemoryRails: RailRig, @unchecked Sendable {
    private let rail: MemoryRail
    private let ends: RailEnds

    init() {
        let initiatorRegistry = MemoryRegistry(), registry = MemoryRegistry()
        let rail = MemoryRail(initiator: initiatorRegistry, target: registry)
        self.rail = rail
        ends = RailEnds(
            initiator: rail.initiator, target: rail.target, registry: registry, initiatorRegistry: initiatorRegistry
        ) { disturbance, _ in rail.disturb(disturbance) }
    }

    func on<Value: Sendable>(_ body: @escaping @Sendable (RailEnds) throws -> Value) async throws -> Value {
        try body(ends)
    }

    func eventually(_ condition: @escaping @Sendable (RailEnds) -> Bool) async throws -> Bool {
        while !condition(ends) {
            guard rail.step() else { return false }
        }
        return true
    }
}
