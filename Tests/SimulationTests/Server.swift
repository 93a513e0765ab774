// One start of a server process: the production engine of its group, and this process as its host. What StorageNode's `ServerNode` drives
// is driven here: the start, ticks, renewals, looks at the peer, rails. Nothing here decides anything about the group.

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
    unowned let node: SimNode
    let identity: ProcessIdentity
    let pool: Pool
    /// What was stored to the pool, where machines lose power.
    let recorded: RecordedMemory?
    let registry: VirtualRegistry
    private(set) var group: Group!
    private lazy var mediumGuard = ProcessMediumGuard(self)
    private lazy var killingFence = KillingFence(self)

    private(set) var isPaused = false
    var isDying = false
    private(set) var isDead = false
    /// What waits for the end of a pause.
    private var inbox: [() -> Void] = []
    /// What is to follow what runs now.
    private var turn: [() -> Void] = []
    private var isInTurn = false

    private var threads: [BlockingThread] = []
    private var running: BlockingThread?
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
        _ world: World, _ node: SimNode, _ identity: ProcessIdentity, _ pool: Pool, recorded: RecordedMemory?,
        freshLogUUID: UUID128
    ) {
        self.world = world
        self.node = node
        self.identity = identity
        self.pool = pool
        self.recorded = recorded
        registry = VirtualRegistry(world)
        guard let region = pool.region(of: world.configuration.id) else { preconditionFailure("the pool has a region") }
        group = Group(
            host: self, runtime: VirtualRuntime(self), configuration: world.configuration, region: region,
            machine: GroupMachine(
                settings: world.settings(of: node, identity, pool: pool.identity.uuid), freshLogUUID: freshLogUUID,
                now: clock))
    }

    var clock: Nanos { node.clock(world.now) }
    var name: String { "\(node.name).\(identity.pid)" }
    var isServing: Bool { group.machine.isServing && group.owner?.owned.isServing == true }

    /// A page under its log has failed: it says so until it ends (S26).
    var hasFailedMemory: Bool { group.region.memoryFault != nil }

    /// Nothing here goes on without an operator.
    var isBlocked: Bool {
        group.machine.state(clock) == .unavailable && group.machine.record?.owner == node.name
    }

    // MARK: Turns

    /// Runs `body` if the process lives; after its pause if it is stopped. Inside of a turn it is a part of it.
    func perform(_ body: @escaping () -> Void) {
        guard !isDying, !isDead else { return }
        guard !isPaused else { return inbox.append(body) }
        guard !isInTurn else { return body() }
        isInTurn = true
        body()
        var next = 0
        while next < turn.count {
            turn[next]()
            next += 1
        }
        turn = []
        isInTurn = false
        world.oracle.checkRule(of: self)
        world.oracle.checkSpace(of: self)
    }

    func execute(_ body: @escaping () -> Void) { turn.append(body) }

    func later(_ delay: UInt64, _ body: @escaping () -> Void) {
        world.after(delay) { self.perform(body) }
    }

    /// What the process gave out of its hands: it happens though the process is stopped, until it is gone.
    func givenOut(_ delay: UInt64, _ body: @escaping () -> Void) {
        world.after(delay) { if !self.isDead { body() } }
    }

    // MARK: Threads

    func startThread(_ body: @escaping () -> Void, done: @escaping () -> Void) {
        let thread = world.idleThread()
        threads.append(thread)
        let end = { [self] in
            guard thread.isIdle else { return false }
            threads.removeAll { $0 === thread }
            world.returnThread(thread)
            return true
        }
        switching(to: thread) { thread.start(body) }
        whenEnded[ObjectIdentifier(thread)] = { [self] in
            if end() { later(world.random.between(1, 50) * microsecond, done) }
        }
        ended(thread)
    }

    private var whenEnded: [ObjectIdentifier: () -> Void] = [:]

    private func ended(_ thread: BlockingThread) {
        guard thread.isIdle else { return }
        whenEnded.removeValue(forKey: ObjectIdentifier(thread))?()
    }

    private func switching(to thread: BlockingThread, _ body: () -> Void) {
        running = thread
        body()
        running = nil
    }

    /// The call under way takes `duration`, and as long as `hang` is on. False: the process died meanwhile. A call outside of a thread
    /// takes no time.
    func spend(_ duration: UInt64, hang: Hang?) -> Bool {
        guard !isDead else { return false }
        guard let thread = running else { return true }
        let wait = thread.waits
        let wake = { [self] in
            perform { [self] in
                guard thread.waits == wait, threads.contains(where: { $0 === thread }) else { return }
                switching(to: thread) { thread.resume() }
                ended(thread)
            }
        }
        world.after(duration) { if let hang { hang.pass(wake) } else { wake() } }
        thread.wait()
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
        let region = group.region
        let local = region.identity.flatMap {
            $0.role == .empty ? nil : LocalLog(logUUID: $0.logUUID, incarnation: $0.incarnation)
        }
        let standing = region.standing
        perform { [self] in
            group.handle(
                .started(
                    local: local,
                    LocalStanding(generation: standing.generation, counted: standing.counted, epoch: standing.epoch)))
        }
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
        for body in waiting { perform(body) }
    }

    func die() {
        guard !isDead else { return }
        isDead = true
        world.note("\(name) is gone")
        for thread in threads {
            isLanding = world.random.chance(50)
            switching(to: thread) { thread.resume() }
            precondition(thread.isIdle, "nothing waits for a dead process")
            world.returnThread(thread)
        }
        threads = []
        whenEnded = [:]
        if world.media.holder === self { world.media.holder = nil }
        world.cutRails(of: self)
        pool.close()
        node.server = nil
        world.clients.died(self)
    }

    /// Breaks the circles of references.
    func dismantle() {
        inbox = []
        turn = []
        accepted = []
        coordinatorCalls = []
        group.owner?.revoke()
        group = nil
    }

    // MARK: Time

    private func tick() {
        guard !isDying, !isDead else { return }
        perform { [self] in
            group.tick()
            for rail in accepted { rail.closeIfIdle() }
            announceIfDue()
            watchPeer()
            world.oracle.ticked(self)
            world.after(World.heartbeatInterval) { self.tick() }
        }
    }

    private func announceIfDue() {
        guard !isAnnouncing, clock >= nextAnnouncement else { return }
        isAnnouncing = true
        nextAnnouncement = clock + World.lease / 3
        presenceCounter += 1
        let problems = group.machine.problemToAnnounce.map { [group.id.rawValue: String($0.prefix(200))] }
        let presence = Presence(
            process: identity, counter: presenceCounter, pool: pool.identity.uuid, problems: problems)
        var startedAt: Nanos = 0
        call(
            begun: { [self] in startedAt = clock },
            { [self] in
                world.coordinator.presences[node.name] = presence
                world.oracle.announced(self)
                return world.coordinator.record
            },
            { [self] result in
                isAnnouncing = false
                guard case .success(let record) = result else { return }
                group.handle(.coordinator(.renewed(startedAt: startedAt, record: record)))
            })
    }

    private func watchPeer() {
        guard !isWatching, !group.machine.isOwner else { return }
        let process = group.machine.record?.ownerProcess
        let watched = process?.node == node.name ? nil : process
        isWatching = true
        var askedAt: Nanos = 0
        call(
            begun: { [self] in askedAt = clock },
            { [self] in
                let dead = watched.flatMap { killingFence.isGone($0) ? $0 : nil }
                return (world.coordinator.presences[group.peer], dead)
            },
            { [self] result in
                isWatching = false
                guard case .success(let (presence, dead)) = result else { return }
                group.handle(
                    .coordinator(.presence(of: group.peer, presence, deadProcess: dead, askedAt: askedAt)))
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

    var knownMedia: [UUID128: String] {
        (group.machine.record?.media ?? [:]).reduce(into: [:]) { known, medium in known[medium.value] = medium.key }
    }

    func report(_ report: Report, group: GroupID?) {
        world.note("\(name) \(report.kind.rawValue): \(report.message)")
        world.oracle.reported(report, by: self)
    }

    func debug(_ text: String) { world.note("  \(name): \(text)") }

    func warn(_ text: String) { world.note("\(name) warns: \(text)") }

    func readRecord(of group: GroupID, _ done: @escaping (Result<GroupRecord?, any Error>) -> Void) {
        call({ [self] in world.coordinator.record }, done)
    }

    func swapRecord(
        of group: GroupID, expecting: UInt64, to record: GroupRecord,
        _ done: @escaping (Result<SwapOutcome, any Error>) -> Void
    ) {
        queueCall { [self] ended in
            world.coordinateSwap(self, expecting: expecting, to: record) { result in
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

    func mirrorSide(of id: GroupID) -> (any MirrorSide)? { id == group.id ? group : nil }

    func forget(_ rail: AcceptedRail) { accepted.removeAll { $0 === rail } }

    var configurationEntries: ConfigurationEntries { ConfigurationEntries([]) }

    func configurationDiffers(from peer: NodeID, _ theirs: ConfigurationEntries) {
        world.oracle.expect(false, "\(name) takes the configuration of \(peer) for another one")
    }

    func configurationAgrees(with peer: NodeID) {}

    func knownDifference(from peer: NodeID) -> String? { nil }
    func knowsConfiguration(of peer: NodeID) -> Bool { true }
    func agreement(on group: GroupID, with peer: NodeID) -> GroupAgreement { .whole }

    func difference(from peer: NodeID) -> String { "nothing" }

    var problem: String? { nil }

    /// Here nothing is unseen, so the pool's lock is never asked.
    var isPoolNew: Bool { false }

    func evacuate(for group: GroupID, _ done: @escaping () -> Void) { done() }
}
