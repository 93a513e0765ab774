// Two nodes, and a stranger on the mirror's port who says that he is the owner.

import AdminProtocol
import ClusterConfiguration
import ClusterProtocol
import ConfiguredCoordinator
import Coordination
import LogModel
import NIOCore
import NIOPosix
import PersistentMemory
import RemoteMemory
import Testing
import WriteLog

@testable import ClusterProtocol
@testable import RemoteMemoryTCP
@testable import GroupEngine
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

        /// Dials with alpha's secret, and says `message`.
        func intrude(_ message: PeerMessage?, digest: [UInt8]? = nil) throws {
            try intrude(message.map { [$0.encoded] } ?? [], digest: digest)
        }

        func intrude(_ messages: [[UInt8]], digest: [UInt8]? = nil) throws {
            let address = try #require(TCPAddress(rig.beta.configuration.node(rig.beta.id)?.mirror[0] ?? ""))
            let configuration = rig.alpha.configuration
            var identity = RailIdentity(
                cluster: configuration.cluster, node: rig.alpha.id,
                secret: try ConfiguredCoordinator(forNodeOf: configuration).readSecret(),
                configurationDigest: configuration.sharedDigest)
            if let digest { identity.configurationDigest = digest }
            TCPMirrorDialer.dial(
                address, as: identity, expecting: rig.beta.id, registry: registry, timeout: .seconds(60),
                on: rig.eventLoop
            ) { [self] result in
                guard case .success(let (queuePair, _)) = result else {
                    return delegate.ended.append("not welcome: \(result)")
                }
                queuePair.delegate = delegate
                queuePairs.append(queuePair)
                // The queue pair gets its place in the pipeline when this returns.
                rig.eventLoop.assumeIsolated().execute {
                    for message in messages { try? queuePair.send(message) }
                }
            }
        }
    }

    final class Stranger: QueuePairDelegate {
        var answers: [PeerMessage] = []
        var ended: [String] = []
        func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
            do throws(PeerMessageError) {
                let message = try PeerMessage(message)
                if case .heartbeat = message { return }
                answers.append(message)
            } catch {
                ended.append("\(error)")
            }
        }
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
                #expect(intruder.value.delegate.answers.count == 1, "\(intruder.value.delegate.ended)")
                guard case .refused(_, _, .staleEpoch, _) = intruder.value.delegate.answers.first else {
                    return #expect(Bool(false), "not refused")
                }
                #expect(rig.isMirrored(rig.alpha, "g0"))
                #expect(rig.mirrorGroup?.mirrorRail.map { ObjectIdentifier($0) } == before)
                #expect(rig.mirrorGroup?.candidateRail == nil)
            }
        }
    }

    /// What alpha itself would say now, with another head or incarnation.
    private static func request(
        _ rig: PairRig, head: UInt64? = nil, incarnation: Incarnation? = nil, attempt: UInt64 = 0
    ) throws -> PeerMessage {
        let alpha = try #require(rig.alpha.groups[GroupID("g0")])
        let identity = try #require(alpha.region.identity)
        return .attach(
            AttachRequest(
                group: GroupID("g0"), from: rig.alpha.id, epoch: try #require(alpha.machine.record).epoch,
                logUUID: identity.logUUID, incarnation: incarnation ?? identity.incarnation,
                head: LSN(head ?? alpha.region.head.rawValue), acknowledged: .zero, ringBytes: 4 << 20,
                attempt: attempt))
    }

    /// Says each of `messages` on a connection of its own: all are refused, and the mirror goes on as it was.
    private func expectRefused(_ messages: @escaping @Sendable (PairRig) throws -> [PeerMessage]) async throws {
        try await withIntruder { on, intruder in
            let before = try await on { rig -> (ObjectIdentifier, RegionIdentity?, Int) in
                let mirror = try #require(rig.mirrorGroup)
                let messages = try messages(rig)
                for message in messages { try intruder.value.intrude(message) }
                return (ObjectIdentifier(try #require(mirror.mirrorRail)), mirror.region.identity, messages.count)
            }
            try await on.eventually("every connection is answered") { _ in
                intruder.value.delegate.answers.count == before.2
            }
            try await on { rig in
                for answer in intruder.value.delegate.answers {
                    guard case .refused(_, _, .notReady, let reason) = answer else {
                        #expect(Bool(false), "not refused: \(answer)")
                        continue
                    }
                    #expect(!reason.isEmpty)
                }
                #expect(rig.mirrorGroup?.region.identity == before.1)
                #expect(rig.mirrorGroup?.mirrorRail.map { ObjectIdentifier($0) } == before.0)
            }
            try await on {
                $0.submit(.write(offset: 0, payload: ByteBuffer(string: "x")), to: "vol0", at: $0.alpha, as: "w")
            }
            try await on.eventually("a write that is mirrored") {
                $0.done["w"] == "done" && $0.isMirrored($0.alpha, "g0")
            }
        }
    }

    @Test("S14: while every mirror is in sync, news of the log waits for the next event, and is heard before it")
    func progressIsHeardBeforeAnythingElse() async throws {
        try await PairRig.run(groups: Self.group) { on in
            try await on.eventually("mirrored") {
                $0.isMirrored($0.alpha, "g0") && $0.ownerGroup?.machine.isSteady == true
            }
            let known = try await on { rig in
                let group = try #require(rig.ownerGroup)
                let log = try #require(group.owner).log.durable
                var known: [LSN] = []
                func note() {
                    guard case .owner(let owner) = group.machine.role else { return }
                    known.append(LSN(owner.durable - log))
                }
                group.handle(.recordChanged)
                for bytes in [0, 64, 128] as [UInt64] {
                    group.tell(OwnedLog.Progress(local: log + bytes, mirror: log, pending: bytes))
                    note()
                }
                group.handle(.recordChanged)
                note()
                return known
            }
            #expect(known == [LSN(0), LSN(0), LSN(0), LSN(128)])
        }
    }

    @Test("S21: a head where no record can begin is refused, and costs nothing but the connection")
    func impossibleHeads() async throws {
        try await expectRefused { rig in
            try [1, LSN.maximum.rawValue + 64, UInt64.max].flatMap { head in
                try [nil, Incarnation.none].map { try Self.request(rig, head: head, incarnation: $0) }
            }
        }
    }

    @Test("D1: only the rail that was accepted for the group is a sign of life; another is neither heard nor missed")
    func candidatesAreNoSignOfLife() async throws {
        try await withIntruder { on, _ in
            let (known, seen, isRailUp) = try await on { rig in
                let mirror = try #require(rig.mirrorGroup)
                let peer = RailPeer(node: rig.alpha.id, version: 2, features: 0, hasSameConfiguration: true)
                let queuePair = TCPQueuePair(
                    eventLoop: rig.eventLoop, registry: TCPRegionRegistry(), isPlain: true)
                let rail = AcceptedRail(queuePair: queuePair, peer: peer, host: rig.beta.host)
                let known = mirror.machine.partners.first
                // In one turn of the loop nothing arrives from alpha itself.
                let stale = AttachRequest(
                    group: GroupID("g0"), from: rig.alpha.id, epoch: .none, logUUID: .zero, incarnation: .none,
                    head: .zero, acknowledged: .zero, ringBytes: 4 << 20)
                rail.queuePairHeard(queuePair)
                rail.queuePair(queuePair, received: PeerMessage.attach(stale).encoded)
                rail.queuePairHeard(queuePair)
                let suspended = Heartbeat(isSuspended: true, problem: "none")
                rail.queuePair(queuePair, received: PeerMessage.heartbeat(suspended).encoded)
                let seen = mirror.machine.partners.first
                rail.queuePair(queuePair, failed: RemoteMemoryError(.disconnected, "gone"))
                return (known, seen, mirror.machine.partners.first.isRailUp && mirror.mirrorRail != nil)
            }
            #expect(seen.lastHeard == known.lastHeard && seen.heartbeat == known.heartbeat)
            #expect(isRailUp)
            try await on.eventually("a write that is mirrored") { rig in
                if rig.done.isEmpty {
                    rig.submit(.write(offset: 0, payload: ByteBuffer(string: "x")), to: "vol0", at: rig.alpha, as: "w")
                }
                return rig.done["w"] == "done" && rig.isMirrored(rig.alpha, "g0")
            }
        }
    }

    @Test("S16: a rail that stands by is a sign of life of the owner whose log is here, and of no other claim")
    func standbyIsASignOfLife() async throws {
        try await withIntruder { on, _ in
            try await on { rig in
                let mirror = try #require(rig.mirrorGroup)
                let peer = RailPeer(node: rig.alpha.id, version: 2, features: 0, hasSameConfiguration: true)
                let queuePair = TCPQueuePair(eventLoop: rig.eventLoop, registry: TCPRegionRegistry(), isPlain: true)
                let rail = AcceptedRail(queuePair: queuePair, peer: peer, host: rig.beta.host)
                let incarnation = try #require(mirror.mirrorTarget).incarnation
                // In one turn of the loop nothing arrives from alpha itself.
                func say(_ incarnation: Incarnation) -> Partner {
                    let heartbeat = RailHeartbeat(
                        group: GroupID("g0"), incarnation: incarnation, isSuspended: true, sent: 1)
                    rail.queuePair(queuePair, received: PeerMessage.railHeartbeat(heartbeat).encoded)
                    return mirror.machine.partners.first
                }
                let known = mirror.machine.partners.first
                let stranger = say(Incarnation(incarnation.rawValue + 1))
                #expect(stranger.lastHeard == known.lastHeard && !stranger.heartbeat.isSuspended)
                let owner = say(incarnation)
                #expect(owner.lastHeard > known.lastHeard && owner.heartbeat.isSuspended)
                #expect(mirror.standbyRails.contains { $0 === rail } && mirror.mirrorRail !== rail)
                rail.close()
                mirror.candidateEnded(rail)
                #expect(mirror.machine.partners.first.isRailUp)
            }
        }
    }

    @Test("S12: a request to attach that comes late, on a rail that the owner has left, takes nothing from the session")
    func lateAttach() async throws {
        try await withIntruder { on, _ in
            try await on { rig in
                let mirror = try #require(rig.mirrorGroup)
                let (incarnation, newest) = try #require(mirror.newestAttach)
                #expect(newest > 0)
                let session = try #require(mirror.mirrorRail)
                let peer = RailPeer(node: rig.alpha.id, version: 2, features: 0, hasSameConfiguration: true)
                let queuePair = TCPQueuePair(eventLoop: rig.eventLoop, registry: TCPRegionRegistry(), isPlain: true)
                let rail = AcceptedRail(queuePair: queuePair, peer: peer, host: rig.beta.host)
                let request = try Self.request(rig, incarnation: incarnation, attempt: newest)
                rail.queuePair(queuePair, received: request.encoded)
                #expect(mirror.mirrorRail === session && mirror.candidateRail == nil)
                rail.close()
            }
            try await on { #expect($0.isMirrored($0.alpha, "g0")) }
        }
    }

    @Test("S28: one owner has a bounded number of rails that stand by, and a silent one is closed")
    func boundedStandbys() async throws {
        try await withIntruder { on, intruder in
            try await on { rig in
                let incarnation = try #require(rig.mirrorGroup?.mirrorTarget).incarnation
                let heartbeat = RailHeartbeat(group: GroupID("g0"), incarnation: incarnation, sent: 1)
                for _ in 0..<20 { try intruder.value.intrude(.railHeartbeat(heartbeat)) }
            }
            try await on.eventually("all are answered, and the oldest gave way") { rig in
                intruder.value.delegate.answers.count == 20 && intruder.value.delegate.ended.count >= 12
            }
            try await on.eventually("the rest is closed, too", { $0.mirrorGroup?.standbyRails.isEmpty == true })
            try await on { #expect($0.isMirrored($0.alpha, "g0")) }
        }
    }

    @Test("S21: a group that is not there, and an answer that nobody asked for, cost the rail")
    func falseHeartbeats() async throws {
        try await withIntruder { on, intruder in
            let elsewhere = RailHeartbeat(group: GroupID("g9"), incarnation: .none, sent: 1)
            try await on { _ in
                try intruder.value.intrude(.railHeartbeat(elsewhere))
                try intruder.value.intrude(.railAnswer(sent: 1))
            }
            try await on.eventually("both rails end") { _ in intruder.value.delegate.ended.count == 2 }
            try await on { rig in
                #expect(rig.mirrorGroup?.standbyRails.isEmpty == true && rig.isMirrored(rig.alpha, "g0"))
            }
        }
    }

    @Test("S21: what a later version adds is passed over, and what cannot be costs the rail")
    func laterMessages() async throws {
        try await withIntruder { on, intruder in
            try await on { rig in
                var later = FieldWriter(prefix: try Self.request(rig, incarnation: Incarnation.none).encoded)
                later.put(250, bytes: "later".utf8)
                try intruder.value.intrude([[99, 1, 2, 3], later.bytes])
            }
            try await on.eventually("the message behind an unknown one is answered") { _ in
                intruder.value.delegate.answers.count == 1
            }
            let lacking = PeerMessage.heartbeat(Heartbeat(isSuspended: false, problem: nil)).encoded.dropLast(4)
            for bytes in [Array(lacking), [], PeerMessage.configuration(ConfigurationEntries([])).encoded] {
                let before = try await on { _ in intruder.value.delegate.ended.count }
                try await on { _ in try intruder.value.intrude([bytes]) }
                try await on.eventually("the rail ends") { _ in intruder.value.delegate.ended.count > before }
            }
            try await on { #expect($0.isMirrored($0.alpha, "g0")) }
        }
    }

    @Test("S13: a log that counts as in sync is not begun anew for another incarnation of it")
    func anotherIncarnation() async throws {
        try await expectRefused { [try Self.request($0, incarnation: Incarnation.none)] }
    }

    // MARK: Configurations that differ

    private static let difference =
        "groups.g0.volumes.vol0.medium is 'vol0.img' on alpha and 'vol9.img' on beta"

    @Test("S27, O9: nodes with different configurations do not mirror each other, and both say which key differs")
    func differentConfigurations() async throws {
        let betaText = { (text: String) in text.replacing("vol0.img", with: "vol9.img") }
        try await PairRig.run(groups: Self.group, betaText: betaText) { on in
            for node in [\PairRig.alpha, \PairRig.beta] as [KeyPath<PairRig, ServerNode> & Sendable] {
                try await on.eventually("the difference is in the status") { rig in
                    rig[keyPath: node].status().groups[0].status.reason?.contains(Self.difference) == true
                }
            }
            let dials = try await on { $0.alpha.groups[GroupID("g0")]?.rails.choice.rails[0].dials ?? 0 }
            try await on.eventually("it is tried again and again") { rig in
                (rig.alpha.groups[GroupID("g0")]?.rails.choice.rails[0].dials ?? 0) > dials + 5
            }
            try await on { rig in
                for node in [rig.alpha, rig.beta] {
                    let said = node.journal.kept.filter { $0.kind == "configuration-differs" }
                    #expect(said.map(\.message) == [Self.difference], "once")
                    #expect(!node.status().groups[0].status.takeoverPossible)
                }
                let refusals = Array(rig.alpha.journal.kept).filter { $0.kind == "attach-refused" }
                #expect(refusals.count == 1 && refusals[0].message.contains(Self.difference))
                #expect(rig.alpha.groups[GroupID("g0")]?.machine.record?.inSync == [NodeID("alpha")])
                #expect(rig.mirrorGroup?.mirrorRail == nil && rig.mirrorGroup?.region.identity == nil)
            }
        }
    }

    @Test("S27: an attach over a rail whose digests differ is refused, though its peer has the secret")
    func attachOverDifferingDigests() async throws {
        try await withIntruder { on, intruder in
            try await on { rig in
                let other = [UInt8](repeating: 1, count: RailIdentity.digestByteCount)
                try intruder.value.intrude(try Self.request(rig), digest: other)
            }
            try await on.eventually("it is answered") { _ in
                intruder.value.delegate.answers.contains {
                    if case .refused(_, _, .differentConfiguration, _) = $0 { true } else { false }
                }
            }
            try await on { rig in
                #expect(rig.isMirrored(rig.alpha, "g0"))
                let told = intruder.value.delegate.answers.contains {
                    if case .configuration(let entries) = $0 {
                        entries == rig.beta.commons.partners.entries
                    } else {
                        false
                    }
                }
                #expect(told)
            }
        }
    }

    @Test("S27: nobody is told the configuration whose digest agrees")
    func configurationIsNotTold() async throws {
        try await withIntruder { on, intruder in
            try await on { rig in
                try intruder.value.intrude(try Self.request(rig, incarnation: Incarnation.none))
            }
            try await on.eventually("it is answered") { _ in !intruder.value.delegate.answers.isEmpty }
            try await on { _ in
                let told = intruder.value.delegate.answers.contains {
                    if case .configuration = $0 { true } else { false }
                }
                #expect(!told)
            }
        }
    }
}

extension PairRig {
    fileprivate var mirrorGroup: Group? { beta.groups[GroupID("g0")] }
    fileprivate var ownerGroup: Group? { alpha.groups[GroupID("g0")] }
}
