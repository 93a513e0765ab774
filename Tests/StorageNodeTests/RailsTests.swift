// Two nodes, and a stranger on the mirror's port who says that he is the owner.

import ClusterConfiguration
import ClusterProtocol
import Coordination
import LogModel
import NIOCore
import NIOPosix
import RemoteMemory
import RemoteMemoryTCP
import Testing

@testable import StorageNode

struct RailsTests {
    private static let group = """
          g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}
        """

    /// Dials beta as alpha would. Bound to the rig's event loop.
    final class Intruder {
        private let rig: PairRig
        private let registry = TCPRegionRegistry()
        private var queuePairs: [TCPQueuePair] = []
        let delegate = Stranger()

        init(_ rig: PairRig) { self.rig = rig }

        /// Dials, and says `message`.
        func intrude(_ message: PeerMessage?) throws {
            let address = try #require(RailAddress(rig.beta.configuration.node(rig.beta.id)?.mirror[0] ?? ""))
            TCPMirrorDialer.dial(
                address, as: rig.alpha.railIdentity, expecting: rig.beta.id, registry: registry, timeout: .seconds(5),
                on: rig.eventLoop
            ) { [self] result in
                guard case .success(let queuePair) = result else { return delegate.ended.append("not welcome") }
                queuePair.delegate = delegate
                queuePairs.append(queuePair)
                // The greeting handler puts the queue pair into the pipeline when this returns.
                rig.eventLoop.assumeIsolated().execute {
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

    /// Two nodes of which beta mirrors, and somebody who says that he is alpha.
    private func withIntruder(_ body: (PairRig.Runner, NIOLoopBound<Intruder>) async throws -> Void) async throws {
        try await PairRig.run(groups: Self.group) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") && $0.mirrorGroup?.mirrorTarget != nil }
            let intruder = try await on { NIOLoopBound(Intruder($0), eventLoop: $0.eventLoop) }
            try await body(on, intruder)
        }
    }

    @Test("S12, S21: a stranger with a stale epoch, or with nothing to say, costs nothing but his connection")
    func strangers() async throws {
        try await withIntruder { on, intruder in
            let before = try await on { rig in ObjectIdentifier(try #require(rig.mirrorGroup?.mirrorRail)) }
            try await on { rig in
                let stale = AttachRequest(
                    group: GroupID("g0"), from: NodeID("alpha"), epoch: .none, logUUID: .zero, incarnation: .none,
                    head: .zero, acknowledged: .zero, ringBytes: 4 << 20)
                try intruder.value.intrude(.attach(stale))
                try intruder.value.intrude(nil)
            }
            try await on.eventually("both connections end") { _ in intruder.value.delegate.ended.count == 2 }
            try await on { rig in
                #expect(intruder.value.delegate.answers.count == 1)
                guard case .refused(_, _, .staleEpoch, _) = intruder.value.delegate.answers.first else {
                    return #expect(Bool(false), "not refused")
                }
                #expect(rig.isMirrored(rig.alpha, "g0"))
                #expect(rig.mirrorGroup?.mirrorRail.map { ObjectIdentifier($0) } == before)
                #expect(rig.mirrorGroup?.candidateRail == nil)
            }
        }
    }
}

extension PairRig {
    fileprivate var mirrorGroup: Group? { beta.groups[GroupID("g0")] }
}
