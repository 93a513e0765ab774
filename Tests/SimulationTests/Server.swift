// One start of a server process: the production engine of its groups, and this process as its host. What StorageNode's `ServerNode` drives
// is driven here: the start, ticks, renewals, looks at the peer, rails. Nothing here decides anything about a group.

import ClusterConfiguration
import ClusterProtocol
import Coordination
import Foundation
@testable import GroupEngine
import LogModel
import PersistentMemory
import RemoteMemory
import SimulationSupport
import StorageMedium

final class Server {
    let world: World
    /// Unsafe: the world has both, until nothing runs any more.
    unowned(unsafe) let node: SimNode
    let identity: ProcessIdentity
    let pool: Pool
    /// What was stored to the pool, where machines lose power.
    let recorded: RecordedMemory?
    let registry: VirtualRegistry
    @exclusivity(unchecked)
    private(set) var groups: NodeGroups!
    private lazy var mediumGuard = ProcessMediumGuard(self)
    private lazy var killingFence = KillingFence(self)

    @exclusivity(unchecked)
    private(set) var isPaused = false
    @exclusivity(unchecked)
    var isDying = false
    @exclusivity(unchecked)
    private(set) var isDead = false
    /// What waits for the end of a pause.
    private var inbox: [Action] = []
    /// What is to follow what runs now.
    @exclusivity(unchecked)
    private var turn: [Action] = []
    @exclusivity(unchecked)
    private var isInTurn = false

    private var fibers: [Fiber] = []
    @exclusivity(unchecked)
    private var running: Fiber?
    /// The call that a dying process is in may still take effect.
    private var isLanding = false

    private var coordinatorCalls: [() -> Void] = []
    private var isCalling = false
    private var isAnnouncing = false
    private var isWatching = false
    private var nextAnnouncement: UInt64 = 0
    private var presenceCounter: UInt64 = 0
    private var accepted: [AcceptedRail] = []

    init(
        _ world: World, _ node: SimNode, _ identity: ProcessIdentity, _ pool: Pool, recorded: RecordedMemory?
    ) {
        self.world = world
        self.node = node
        self.identity = identity
        self.pool = pool
        self.recorded = recorded
        registry = VirtualRegistry(world)
        groups = NodeGroups()
        for group in world.groups {
            guard let region = pool.region(of: group.id) else { preconditionFailure("the pool has a region") }
            groups.add(
                Group(
                    host: self, runtime: VirtualRuntime(self, group), configuration: group.configuration,
                    region: region,
                    machine: GroupMachine(
                        settings: world.settings(of: group, node, identity, pool: pool.identity.uuid),
                        freshLogUUID: .random(using: &world.random), now: clock)))
        }
    }

    func engine(of group: SimGroup) -> Group { groups.all[group.index] }

    var clock: Nanos { node.clock(world.now) }
    var name: String { "\(node.name).\(identity.pid)" }

    func isServing(_ group: SimGroup) -> Bool {
        let engine = engine(of: group)
        return engine.machine.isServing && engine.owner?.owned.isServing == true
    }

    /// A page under one of its logs has failed: it says so until it ends (S26).
    var hasFailedMemory: Bool { groups.all.contains { $0.region.memoryFault != nil } }

    func hasFailedMemory(of group: SimGroup) -> Bool { engine(of: group).region.memoryFault != nil }

    /// Nothing of the group goes on here without an operator.
    func isBlocked(_ group: SimGroup) -> Bool {
        let machine = engine(of: group).machine
        return machine.state(clock) == .unavailable && machine.record?.owner == node.name
    }

    // MARK: Turns

    /// Runs `body` if the process lives; after its pause if it is stopped. Inside of a turn it is a part of it.
    func perform(_ body: @escaping () -> Void) {
        guard !isDying, !isDead else { return }
        guard !isPaused else { return inbox.append(Action(body)) }
        guard !isInTurn else { return body() }
        isInTurn = true
        body()
        var next = 0
        while next < turn.count {
            turn[next].run()
            next += 1
        }
        turn = []
        isInTurn = false
        for group in world.groups where group.isHeldElsewhere && group.ownerPID == identity.pid && !isDead {
            group.oracle.checkTurn(of: self)
        }
    }

    func execute(_ body: @escaping () -> Void) { turn.append(Action(body)) }

    func later(_ delay: UInt64, _ body: @escaping () -> Void) {
        world.after(delay) { self.perform(body) }
    }

    /// What the process gave out of its hands: it happens though the process is stopped, until it is gone.
    func givenOut(_ delay: UInt64, _ body: @escaping () -> Void) {
        world.after(delay) { if !self.isDead { body() } }
    }

    // MARK: Fibers

    func startFiber(_ body: @escaping () -> Void, done: @escaping () -> Void) {
        let fiber = world.idleFiber()
        fibers.append(fiber)
        let end = { [self] in
            guard fiber.isIdle else { return false }
            fibers.removeAll { $0 === fiber }
            world.returnFiber(fiber)
            return true
        }
        switching(to: fiber) { fiber.start(body) }
        whenEnded[ObjectIdentifier(fiber)] = { [self] in
            if end() { later(world.random.between(1, 50) * microsecond, done) }
        }
        ended(fiber)
    }

    private var whenEnded: [ObjectIdentifier: () -> Void] = [:]

    private func ended(_ fiber: Fiber) {
        guard fiber.isIdle else { return }
        whenEnded.removeValue(forKey: ObjectIdentifier(fiber))?()
    }

    private func switching(to fiber: Fiber, _ body: () -> Void) {
        running = fiber
        body()
        running = nil
    }

    /// The call under way takes `duration`, and as long as `hang` is on. False: the process died meanwhile. A call outside of a fiber
    /// takes no time.
    func spend(_ duration: UInt64, hang: Hang?) -> Bool {
        guard !isDead else { return false }
        guard let fiber = running else { return true }
        let wait = fiber.waits
        let wake = { [self] in
            perform { [self] in
                guard fiber.waits == wait, fibers.contains(where: { $0 === fiber }) else { return }
                switching(to: fiber) { fiber.resume() }
                ended(fiber)
            }
        }
        world.after(duration) { if let hang { hang.pass(wake) } else { wake() } }
        fiber.wait()
        return !isDead
    }

    /// False for what a dead process did not begin before its death.
    var mayTouchMedia: Bool {
        guard isDead else { return true }
        defer { isLanding = false }
        return isLanding
    }

    // MARK: Life

    func begin() {
        perform { [self] in groups.begin() }
        tick()
    }

    func pause() {
        isPaused = true
        world.note("\(name) is stopped")
    }

    func resume() {
        guard isPaused, !isDying, !isDead else { return }
        world.note("\(name) goes on")
        isPaused = false
        let waiting = inbox
        inbox = []
        for body in waiting { perform(body.run) }
    }

    func die() {
        guard !isDead else { return }
        isDead = true
        world.note("\(name) is gone")
        for fiber in fibers {
            isLanding = world.random.chance(50)
            switching(to: fiber) { fiber.resume() }
            precondition(fiber.isIdle, "nothing waits for a dead process")
            world.returnFiber(fiber)
        }
        fibers = []
        whenEnded = [:]
        for group in world.groups where group.media.holder === self { group.media.holder = nil }
        world.cutRails(of: self)
        pool.close()
        node.server = nil
        for group in world.groups { group.clients.died(self) }
    }

    /// Breaks the circles of references.
    func dismantle() {
        inbox = []
        turn = []
        accepted = []
        coordinatorCalls = []
        for group in groups.all {
            group.owner?.revoke()
            // Who waits for what never comes: a READ of the mirror, a step, a batch.
            group.owner?.detachMirror()
            group.onRegionPrepared = nil
            group.onStepsDone = nil
            group.owner?.owned.onQuiet = nil
        }
        groups = nil
    }

    // MARK: Time

    private func tick() {
        guard !isDying, !isDead else { return }
        perform { [self] in
            groups.tick()
            for rail in accepted { rail.closeIfIdle() }
            announceIfDue()
            watchPeer()
            for group in world.groups { group.oracle.ticked(self) }
            world.after(World.heartbeatInterval) { self.tick() }
        }
    }

    private func announceIfDue() {
        guard !isAnnouncing, clock >= nextAnnouncement else { return }
        isAnnouncing = true
        nextAnnouncement = clock + World.lease / 3
        presenceCounter += 1
        let presence = Presence(
            process: identity, counter: presenceCounter, pool: pool.identity.uuid, problems: groups.problemsToAnnounce)
        var startedAt: Nanos = 0
        call(
            begun: { [self] in startedAt = clock },
            { [self] in
                world.coordinator.presences[node.name] = presence
                for group in world.groups { group.oracle.announced(self) }
                return world.groups.map { ($0.id, $0.record) }
            },
            { [self] result in
                isAnnouncing = false
                guard case .success(let records) = result else { return }
                for (group, record) in records { groups.renewed(group, startedAt: startedAt, record: record) }
            })
    }

    private func watchPeer() {
        let watched = groups.watchedPeers
        guard !isWatching, !watched.isEmpty else { return }
        isWatching = true
        var askedAt: Nanos = 0
        call(
            begun: { [self] in askedAt = clock },
            { [self] in
                watched.map { one in
                    let dead = one.process.flatMap { killingFence.isGone($0) ? $0 : nil }
                    return (one, world.coordinator.presences[one.peer], dead)
                }
            },
            { [self] result in
                isWatching = false
                guard case .success(let seen) = result else { return }
                for (one, presence, dead) in seen { groups.seen(one, presence, dead: dead, askedAt: askedAt) }
            })
    }

    // MARK: The coordinator

    /// One call after the other, as on the coordinator's thread.
    private func call<Answer>(
        begun: @escaping () -> Void = {}, _ effect: @escaping () -> Answer,
        _ done: @escaping (Result<Answer, any Error>) -> Void
    ) {
        queueCall { [self] ended in
            begun()
            world.coordinate(self, effect) { result in
                ended()
                done(result)
            }
        }
    }

    private func queueCall(_ begin: @escaping (_ ended: @escaping () -> Void) -> Void) {
        coordinatorCalls.append { [self] in
            begin { [self] in
                isCalling = false
                nextCall()
            }
        }
        nextCall()
    }

    private func nextCall() {
        guard !isCalling, !coordinatorCalls.isEmpty else { return }
        isCalling = true
        coordinatorCalls.removeFirst()()
    }

    // MARK: Rails

    func accept(_ queuePair: VirtualQueuePair, from peer: NodeID) {
        let rail = AcceptedRail(queuePair: queuePair, peer: Self.railPeer(peer), host: self)
        accepted.append(rail)
        queuePair.delegate = rail
    }

    private static func railPeer(_ node: NodeID) -> RailPeer {
        RailPeer(node: node, version: 1, features: 0, hasSameConfiguration: true)
    }
}

extension Server: RailKeeper {
    var id: NodeID { node.name }
    var now: Nanos { clock }
    var process: ProcessIdentity { identity }
    var poolUUID: UUID128 { pool.identity.uuid }
    var fence: any Fence { killingFence }
    var media: any MediumGuard { mediumGuard }
    var archives: any LogArchives { world.archives }
    var regions: any RegionRegistry { registry }
    var heartbeatTimeout: Nanos { World.heartbeatTimeout }

    var knownMedia: [UUID128: String] { groups.knownMedia }

    func report(_ report: Report, group id: GroupID?) {
        guard let id, let group = world.group(id) else {
            return world.note("\(name) \(report.kind.rawValue): \(report.message)")
        }
        group.note("\(name) \(report.kind.rawValue): \(report.message)")
        group.oracle.reported(report, by: self)
    }

    func debug(_ text: String) { world.note("  \(name): \(text)") }

    func warn(_ text: String) { world.note("\(name) warns: \(text)") }

    func readRecord(of group: GroupID, _ done: @escaping (Result<GroupRecord?, any Error>) -> Void) {
        call({ [self] in world.group(group)?.record }, done)
    }

    func swapRecord(
        of group: GroupID, expecting: UInt64, to record: GroupRecord,
        _ done: @escaping (Result<SwapOutcome, any Error>) -> Void
    ) {
        guard let group = world.group(group), record.group == group.id else {
            return world.violate("\(name) swaps the record of \(record.group) as that of \(group)")
        }
        queueCall { [self] ended in
            world.coordinateSwap(self, of: group, expecting: expecting, to: record) { result in
                ended()
                done(result)
            }
        }
    }

    func rails(of peer: NodeID) -> [String] { world.networks.indices.map { "\(peer):\($0)" } }

    func dial(
        _ peer: NodeID, rail: Int,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        world.connect(from: self, to: peer, over: rail) { result in done(result.map { ($0, Self.railPeer(peer)) }) }
    }

    func nobodyListens(at peer: NodeID, _ done: @escaping (Bool) -> Void) { world.knock(from: self, at: peer, done) }

    func mirrorSide(of group: GroupID) -> (any MirrorSide)? { groups[group] }

    func forget(_ rail: AcceptedRail) { accepted.removeAll { $0 === rail } }

    var configurationEntries: ConfigurationEntries { ConfigurationEntries([]) }

    func configurationDiffers(from peer: NodeID, _ theirs: ConfigurationEntries) {
        world.violate("\(name) takes the configuration of \(peer) for another one")
    }

    func configurationAgrees(with peer: NodeID) {}

    func knownDifference(from peer: NodeID) -> String? { nil }
    func knowsConfiguration(of peer: NodeID) -> Bool { true }
    func agreement(on group: GroupID, with peer: NodeID) -> GroupAgreement { .whole }

    func difference(from peer: NodeID) -> String { "nothing" }

    var problem: String? { nil }

    /// Here nothing is unseen, so the pool's lock is never asked.
    var isPoolNew: Bool { false }

    func evacuate(for group: GroupID, _ done: @escaping () -> Void) {
        world.coverage.evacuations += 1
        groups.evacuate(for: group, done)
    }
}
