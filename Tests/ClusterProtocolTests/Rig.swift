// One machine, its clock, and short words for what the tests say to it.

import ClusterProtocol
import Coordination
import LogModel
import RecordSupport

let millis: Nanos = 1_000_000

final class Rig {
    static let alpha = NodeID("alpha")
    static let beta = NodeID("beta")
    /// A second partner, of the tests that have one.
    static let gamma = NodeID("gamma")
    static let heartbeat = 100 * millis
    static let timeout = 1000 * millis
    static let lease = 3000 * millis
    static let logUUID = UUID128(high: 7, low: 7)

    static func process(_ node: NodeID, _ pid: Int32 = 1) -> ProcessIdentity {
        ProcessIdentity(node: node, pid: pid, startTicks: UInt64(pid), bootID: "boot")
    }

    static let standing = LocalStanding(generation: 1, counted: 0, epoch: .none)

    static func pool(_ node: NodeID) -> UUID128 { UUID128(high: 1, low: node == alpha ? 1 : node == beta ? 2 : 3) }

    /// Published by alpha unless told otherwise.
    static func record(
        owner: NodeID = alpha, epoch: UInt64 = 5, phase: GroupRecord.Phase = .published,
        holders: [NodeID] = [alpha, beta], mustFence: [ProcessIdentity] = [], version: UInt64 = 10,
        incarnation: UInt64? = nil
    ) -> GroupRecord {
        GroupRecord(
            version: version, group: GroupID("g0"), logUUID: logUUID, owner: owner, epoch: Epoch(epoch), phase: phase,
            holders: holders, mustFence: mustFence, ownerProcess: process(owner),
            pools: ["alpha": pool(alpha), "beta": pool(beta)], incarnation: Incarnation(incarnation ?? epoch))
    }

    /// Whatever had to be fenced is confirmed dead.
    static let fenced: StepAnswer = {
        let confirmation = GroupRecord.Fence.Confirmation(method: "process", by: "test", at: "now")
        let processes = [alpha, beta].flatMap { node in (1...9).map { process(node, $0) } }
        return .fenced(processes.map { GroupRecord.Fence(target: $0, confirmed: confirmation) }, problem: nil)
    }()

    var machine: GroupMachine
    var now: Nanos = 1_000_000 * millis
    let node: NodeID
    var peer: NodeID { node == Self.alpha ? Self.beta : Self.alpha }

    init(_ node: NodeID, pid: Int32 = 1, pool: UUID128? = nil, partners: [NodeID]? = nil, degrades: Bool = true) {
        self.node = node
        let settings = GroupSettings(
            group: GroupID("g0"), node: node, partners: partners ?? [node == Self.alpha ? Self.beta : Self.alpha],
            home: Self.alpha,
            process: Self.process(node, pid), pool: pool ?? Self.pool(node), heartbeatInterval: Self.heartbeat,
            heartbeatTimeout: Self.timeout, lease: Self.lease, degradeOnMirrorLoss: degrades)
        machine = GroupMachine(settings: settings, freshLogUUID: Self.logUUID, now: now)
    }

    /// One event, after so much time; what the machine says, without its reports.
    @discardableResult
    func take(_ event: Event, after delay: Nanos = 0) -> [Directive] {
        now += delay
        var out: [Directive] = []
        machine.handle(event, now: now, into: &out)
        if case .step(.fenced) = event, out.swap != nil, machine.record?.phase == .claimed {
            // The confirmations are recorded at once, beside what follows.
            out.removeAll { if case .coordinator(.swap) = $0 { true } else { false } }
            var recorded: [Directive] = []
            machine.handle(.coordinator(.swapped(.won)), now: now, into: &recorded)
            precondition(recorded.filter { $0 != .rail(peer, .tellRecordChanged) } == [])
        }
        // That this start is counted is said once, whenever it becomes known.
        return out.filter { if case .report = $0 { false } else { $0 != .region(.confirmStart) } }
    }

    // What it is told, by sender.

    @discardableResult
    func take(_ answer: CoordinatorAnswer, after delay: Nanos = 0) -> [Directive] {
        take(.coordinator(answer), after: delay)
    }

    @discardableResult
    func take(_ event: RailEvent, after delay: Nanos = 0) -> [Directive] { take(.rail(peer, event), after: delay) }

    @discardableResult
    func take(_ answer: StepAnswer, after delay: Nanos = 0) -> [Directive] { take(.step(answer), after: delay) }

    @discardableResult
    func take(_ event: MediumEvent) -> [Directive] { take(.medium(event)) }

    @discardableResult
    func take(_ event: RegionEvent) -> [Directive] { take(.region(event)) }

    /// The numbers of the session with the mirror.
    @discardableResult
    func progress(local: LSN, mirror: LSN, pending: UInt64? = nil) -> [Directive] {
        take(.progress(local: local, of: peer, durable: mirror, pending: pending))
    }

    @discardableResult
    func command(_ command: Command, id: UInt64 = 1) -> [Directive] {
        take(.command(command, CommandID(rawValue: id)))
    }

    /// What the coordinator says of the peer.
    var presence: Presence?

    /// Ticks until `time` has passed, with signs of life as told; everything that the machine says.
    @discardableResult
    func pass(_ time: Nanos, heard: Bool = false, asking: Bool = true, renewing: GroupRecord? = nil) -> [Directive] {
        var out: [Directive] = []
        let end = now + time
        while now < end {
            now += Self.heartbeat
            if let renewing { out += take(.renewed(startedAt: now, record: renewing)) }
            if heard { out += take(.heard) }
            if asking { out += take(.presence(of: peer, presence, deadProcess: nil, askedAt: now)) }
            out += take(.tick)
        }
        return out
    }

    /// Started with `record` at the coordinator.
    @discardableResult
    func start(
        local: LocalLog? = nil, generation: UInt64 = 1, counted: UInt64? = nil, seen epoch: UInt64 = 0,
        _ record: GroupRecord?
    ) -> [Directive] {
        let standing = LocalStanding(generation: generation, counted: counted ?? generation - 1, epoch: Epoch(epoch))
        precondition(take(.started(local: local, standing)) == [.coordinator(.read)])
        return take(.recordRead(record))
    }

    static func standby(_ record: GroupRecord = record(), degrades: Bool = true) -> Rig {
        let rig = Rig(beta, degrades: degrades)
        rig.start(local: LocalLog(logUUID: logUUID, incarnation: Incarnation(5)), record)
        // Past its first lease, in which a dead owner's next process may be on its way.
        rig.now += lease
        rig.take(.heard)
        return rig
    }

    /// A published owner, alpha, that serves alone; the record is at version 3 and epoch 2.
    static func owner(partners: [NodeID]? = nil, degrades: Bool = true) -> Rig {
        let rig = Rig(alpha, partners: partners, degrades: degrades)
        let first = record(epoch: 1, holders: [alpha], version: 1)
        rig.start(local: LocalLog(logUUID: logUUID, incarnation: Incarnation(1)), first)
        rig.take(.swapped(.won))
        rig.take(.renewed(startedAt: rig.now, record: rig.machine.record))
        rig.takeOver()
        return rig
    }

    /// The steps from a won claim to publication.
    func takeOver(end: UInt64 = 640) {
        for answer in [Self.fenced, .mediaLocked([:]), .sealed, .recovered(end: LSN(end)), .logOpened] { take(answer) }
        take(.swapped(.won))
        precondition(machine.isOwner)
    }

    /// An owner whose mirror is attached and in sync.
    static func mirrored(degrades: Bool = true) -> Rig {
        let rig = owner(degrades: degrades)
        rig.attach()
        rig.take(.swapped(.won))
        precondition(rig.machine.state(rig.now) == .mirrored)
        return rig
    }

    func attach(
        _ mirror: NodeID = Rig.beta, durable: UInt64 = 640, kept: Bool = false, pool: UUID128? = nil,
        generation: UInt64 = 1
    ) {
        take(.rail(mirror, .up))
        let contents = MirrorContents(pool: pool ?? Self.pool(mirror), generation: generation, isKept: kept)
        take(.rail(mirror, .attached(durable: LSN(durable), contents)))
    }
}

extension [Directive] {
    /// Whether this is asked for on a rail.
    func contains(onRail wanted: RailDirective) -> Bool {
        contains { if case .rail(_, let directive) = $0 { directive == wanted } else { false } }
    }

    /// The one swap among them.
    var swap: GroupRecord? {
        for directive in self { if case .coordinator(.swap(_, let record)) = directive { return record } }
        return nil
    }

    /// With which code an attach was refused.
    var attachRefusal: AttachRefusal? {
        for directive in self { if case .rail(_, .refuseAttach(_, let refusal, _)) = directive { return refusal } }
        return nil
    }

    var refusal: String? {
        for directive in self { if case .commandDone(_, _, let refusal) = directive { return refusal } }
        return nil
    }
}
