// Two nodes that run the production engine, a coordinator, media and clients in virtual time, from one seed. What lasts longer than a
// process is here: pools (real files in memory), media, the coordinator's record, the network.

import ClusterConfiguration
import ClusterProtocol
import Coordination
import Foundation
import GroupEngine
import LogModel
import PersistentMemory
import RemoteMemory
import SimulationSupport
import TestSupport

/// A server machine: what stays when its process dies.
final class SimNode {
    let index: Int
    let name: NodeID
    let poolPath: String
    var server: Server?
    /// The pool of a node that is down, while it is looked at. Whoever changes the file lets go of it first.
    var restingPool: Pool?
    var starts: Int32 = 0
    /// A copy of the pool as it was at some time.
    var image: PoolImage?
    /// When memory under one of its logs failed last.
    var memoryFailedAt: UInt64?
    var isCutFromCoordinator = false
    /// What it sends does not arrive.
    var isMute = false
    /// What makes pool memory durable does not return here.
    let hungMemory = Hang()
    /// How much faster than true time this node's clock runs.
    private let driftPartsPerMillion: Int64
    private let clockStart: UInt64
    /// What the boot clock counted while nothing here ran: a suspended machine.
    @exclusivity(unchecked)
    var slept: UInt64 = 0

    init(index: Int, name: NodeID, poolPath: String, drift: Int64, clockStart: UInt64) {
        self.index = index
        self.name = name
        self.poolPath = poolPath
        driftPartsPerMillion = drift
        self.clockStart = clockStart
    }

    func clock(_ now: UInt64) -> Nanos {
        clockStart + slept + UInt64(Int64(now) + Int64(now) / 1_000_000 * driftPartsPerMillion)
    }
}

/// One of the networks between the two nodes. What a node sends there is held back, or late.
struct VirtualNetwork {
    var mute: Set<Int> = []
    var isSlow = false
}

/// What it has besides the records of the groups, and how well it answers.
struct VirtualCoordinator {
    var presences: [NodeID: Presence] = [:]
    var isDown = false
    var isSlow = false
    /// Of its calls, how many fail without an answer.
    var failPercent: UInt64 = 0
}

final class World {
    static let ringBytes: UInt64 = 64 << 10
    static let volumeBytes: UInt64 = 24 << 10
    static let heartbeatInterval = 50 * millisecond
    static let heartbeatTimeout = 200 * millisecond
    static let lease = 600 * millisecond

    let seed: UInt64
    // Unchecked, here and in `Server`: touched with every action, and nothing runs while one of them is.
    @exclusivity(unchecked)
    var random: SplitMix64
    @exclusivity(unchecked)
    private var timeline = Timeline()
    private let folder: String
    private(set) var groups: [SimGroup] = []
    private(set) var nodes: [SimNode] = []
    private var servers: [Server] = []
    var coordinator = VirtualCoordinator()
    private(set) lazy var archives = CountedArchives(self)
    private(set) var networks: [VirtualNetwork]
    private var rails: [VirtualQueuePair] = []
    private var idleFibers: [Fiber] = []
    private var allFibers: [Fiber] = []
    var fenceFails = false
    /// Whether a process' death can be seen by its partner (one host), or only its silence.
    let seesDeath: Bool
    /// Pools are ordinary files, which a call makes durable, or persistent memory.
    let persistsLater: Bool
    /// Machines lose power, and pools what was not durable.
    let losesPower: Bool
    /// Standbys find out that they do not reach the media; else only when they have claimed.
    let looksFindFaults: Bool
    private let mediumMicros: UInt64
    private let memoryMicros: UInt64
    var writes = WriteNumbers()
    /// The most of a log that one WRITE carries: rings are far smaller than what a real one may carry.
    private let shipBytes: UInt64
    /// The first rule that was broken.
    private(set) var violation: String?
    private(set) lazy var faults = Faults(self)
    @exclusivity(unchecked)
    var coverage = Coverage()

    /// It stays for ever, and clients are in no hurry.
    let lastingFault: LastingFault?
    let isTraced: Bool
    private(set) var trace: [String] = []

    /// The pools are files of `folder`, which exists. `lasting`: for runs with one fault that stays.
    /// `several`: now and then there are several groups.
    init(seed: UInt64, in folder: String, traced: Bool = false, lasting: LastingFault? = nil, several: Bool = true) {
        self.seed = seed
        self.folder = folder
        isTraced = traced
        lastingFault = lasting
        random = SplitMix64(seed: seed)
        let degrades = random.chance(lasting.map { $0.needsStall ? 0 : 100 } ?? 85)
        let hasTwoNetworks = random.chance(lasting == nil ? 60 : 100)
        networks = Array(repeating: VirtualNetwork(), count: hasTwoNetworks ? 2 : 1)
        seesDeath = random.chance(70)
        persistsLater = random.chance(30)
        losesPower = random.chance(25)
        looksFindFaults = random.chance(70)
        mediumMicros = random.chance(40) ? random.between(1000, 20_000) : random.between(20, 500)
        memoryMicros = random.chance(30) ? random.between(500, 5000) : random.between(5, 100)
        shipBytes = random.chance(50) ? MirrorSession.maximumShipBytes : random.between(1, 64) * (1 << 10)
        let groupCount = several ? Self.groupCount(&random) : 1
        for (index, name) in ["alpha", "beta"].enumerated() {
            nodes.append(
                SimNode(
                    index: index, name: NodeID(name), poolPath: "\(folder)/\(name).pool",
                    drift: Int64(random.between(0, 40_000)) - 20_000, clockStart: random.between(1, 1000) * second))
        }
        for index in 0..<groupCount { groups.append(makeGroup(index, degrades: degrades)) }
        coverage.severalGroups += groupCount > 1 ? 1 : 0
        for node in nodes { createPool(of: node) }
    }

    func violate(_ rule: String) {
        guard violation == nil else { return }
        violation = rule
        note("VIOLATION: \(rule)")
    }

    func settings(
        of group: SimGroup, _ node: SimNode, _ process: ProcessIdentity, pool: UUID128
    ) -> GroupSettings {
        var settings = GroupSettings(
            group: group.id, node: node.name, partners: [nodes[1 - node.index].name], home: group.configuration.home,
            process: process, pool: pool, heartbeatInterval: Self.heartbeatInterval,
            heartbeatTimeout: Self.heartbeatTimeout, lease: Self.lease,
            degradeOnMirrorLoss: group.configuration.degradeOnMirrorLoss)
        settings.completionLimit = 1000 * millisecond
        settings.mediumLimit = 1500 * millisecond
        settings.releaseLimit = 300 * millisecond
        settings.mediumRest = 4000 * millisecond
        settings.drainAloneLimit = 5000 * millisecond
        settings.claimLimit = 1500 * millisecond
        settings.doubtLimit = 1200 * millisecond
        settings.shipBytes = shipBytes
        return settings
    }

    // MARK: Time

    var now: UInt64 { timeline.now }

    func after(_ delay: UInt64, _ action: @escaping () -> Void) { timeline.schedule(after: delay, action) }

    /// Runs until `deadline`, or until `condition` holds, or a rule is broken.
    @discardableResult
    func run(until deadline: UInt64, or condition: () -> Bool = { false }) -> Bool {
        while violation == nil {
            if condition() { return true }
            guard let action = timeline.next(until: deadline) else { return condition() }
            action.run()
        }
        return false
    }

    /// One line of the timeline. The folder has another name in every run.
    func note(_ text: @autoclosure () -> String) {
        guard isTraced else { return }
        let text = text().replacing(folder + "/", with: "")
        let micros = String(now / microsecond % 1000)
        trace.append(
            "\(now / millisecond)." + String(repeating: "0", count: 3 - micros.count) + "\(micros) ms  \(text)")
    }

    func mediumCallTime() -> UInt64 { random.between(1, mediumMicros) * microsecond }

    /// Some reads of a medium take much longer than its other calls.
    func readTime() -> UInt64 { random.chance(10) ? random.between(1, 20) * mediumCallTime() : mediumCallTime() }

    func memoryTime() -> UInt64 { random.between(1, memoryMicros) * microsecond }

    // MARK: Fibers

    func idleFiber() -> Fiber {
        if let fiber = idleFibers.popLast() { return fiber }
        let fiber = Fiber()
        allFibers.append(fiber)
        return fiber
    }

    func returnFiber(_ fiber: Fiber) { idleFibers.append(fiber) }

    // MARK: The network

    func isBlocked(from node: SimNode, over network: Int) -> Bool {
        node.isMute || networks[network].mute.contains(node.index)
    }

    /// Over a slow network everything takes longer than heartbeats may.
    func networkDelay(over network: Int) -> UInt64 {
        networkDelay() + (networks[network].isSlow ? random.between(100, 300) * millisecond : 0)
    }

    private func networkDelay() -> UInt64 {
        random.chance(3) ? random.between(1, 80) * millisecond : random.between(30, 400) * microsecond
    }

    /// A dial is given up after the heartbeat timeout, whatever keeps it.
    func connect(
        from dialer: Server, to peer: NodeID, over network: Int,
        _ done: @escaping (Result<VirtualQueuePair, RemoteMemoryError>) -> Void
    ) {
        var isDone = false
        let finish = { (result: Result<VirtualQueuePair, RemoteMemoryError>) in
            guard !isDone else {
                if case .success(let late) = result { late.close() }
                return
            }
            isDone = true
            done(result)
        }
        dialer.later(Self.heartbeatTimeout) {
            finish(.failure(RemoteMemoryError(.disconnected, "\(peer) does not answer")))
        }
        after(networkDelay()) { [self] in
            guard let node = nodes.first(where: { $0.name == peer }), let acceptor = node.server, !acceptor.isDying
            else {
                return dialer.later(networkDelay()) {
                    finish(.failure(RemoteMemoryError(.disconnected, "nobody listens at \(peer)")))
                }
            }
            guard !nodes.contains(where: { isBlocked(from: $0, over: network) }) else { return }
            acceptor.perform { [self] in
                let ends = VirtualQueuePair.pair(dialer, acceptor, over: network)
                rails.removeAll(where: \.isDone)
                rails += [ends.dialer, ends.acceptor]
                acceptor.accept(ends.acceptor, from: dialer.node.name)
                dialer.later(networkDelay()) { finish(.success(ends.dialer)) }
            }
        }
    }

    /// Whether a host says that nobody listens there. Where the network says so of a process that lives, its fence ends it.
    func knock(from server: Server, at peer: NodeID, _ done: @escaping (Bool) -> Void) {
        guard !networks.indices.contains(where: { network in nodes.contains { isBlocked(from: $0, over: network) } })
        else {
            return server.later(Self.heartbeatTimeout) { done(false) }
        }
        after(networkDelay()) { [self] in
            let listener = nodes.first { $0.name == peer }?.server
            let isRefused = listener?.isDying != false || random.chance(5)
            if isRefused { coverage.refusals += 1 }
            server.later(networkDelay()) { done(isRefused) }
        }
    }

    /// Every connection is lost, or every one over a network.
    func cutConnections(over network: Int? = nil) {
        note(network.map { "every connection over network \($0) is cut" } ?? "every connection is cut")
        let cut = rails.filter { network == nil || $0.network == network }
        for rail in cut { rail.cut() }
        rails.removeAll { network == nil || $0.network == network }
    }

    /// What a process sent that is gone may still arrive, before the end of the connection or instead of it.
    func cutRails(of server: Server) {
        let its = rails.filter { $0.server === server }
        for rail in its { rail.abandon(sayingSo: random.chance(50)) }
    }

    func setMute(_ node: SimNode, _ isMute: Bool) {
        note(isMute ? "what \(node.name) sends does not arrive" : "what \(node.name) sent arrives")
        node.isMute = isMute
        release()
    }

    /// What `node` sends over one network does not arrive, or arrives again.
    func setMute(_ node: SimNode, over network: Int, _ isMute: Bool) {
        note("what \(node.name) sends over network \(network) \(isMute ? "does not arrive" : "arrives")")
        if isMute { networks[network].mute.insert(node.index) } else { networks[network].mute.remove(node.index) }
        release()
    }

    func setSlow(_ network: Int, _ isSlow: Bool) {
        note("network \(network) is \(isSlow ? "slow" : "as fast as ever")")
        networks[network].isSlow = isSlow
    }

    /// What is held back no more arrives.
    private func release() {
        for rail in rails where !isBlocked(from: rail.server.node, over: rail.network) { rail.releaseHeldBack() }
    }

    // MARK: Processes

    func createPool(of node: SimNode) {
        do {
            node.restingPool = nil
            try? FileManager.default.removeItem(atPath: node.poolPath)
            let pool = try Pool.create(
                path: node.poolPath, sizeBytes: UInt64(groups.count) * (Self.ringBytes + (32 << 10)) + (32 << 10),
                identity: PoolIdentity(uuid: .random(using: &random), cluster: "virtual", node: node.name),
                persistence: .volatile)
            for group in groups { _ = try pool.allocateRegion(group: group.id, ringBytes: Self.ringBytes) }
            pool.close()
        } catch {
            preconditionFailure("\(error)")
        }
    }

    func start(_ node: SimNode) {
        precondition(node.server == nil)
        node.restingPool = nil
        do {
            let recorded = losesPower ? RecordedMemory(opened: try fileBytes(of: node)) : nil
            let pool = try openPool(node.poolPath, recorder: recorded?.recorder)
            for group in groups { try countStart(of: group, pool) }
            node.starts += 1
            let identity = ProcessIdentity(
                node: node.name, pid: Int32(1000 * (node.index + 1)) + node.starts, startTicks: UInt64(node.starts),
                bootID: "boot")
            let server = Server(self, node, identity, pool, recorded: recorded)
            node.memoryFailedAt = nil
            node.server = server
            servers.append(server)
            note("\(server.name) starts")
            server.begin()
        } catch {
            violate("\(node.name) cannot open its pool: \(error)")
        }
    }

    /// In persistent memory, or as an ordinary file.
    func openPool(_ path: String, recorder: OpaquePointer? = nil) throws(PoolError) -> Pool {
        try Pool.open(
            path: path, expecting: nil, persistence: persistsLater ? .msync : .volatile, readOnly: false,
            recorder: recorder, isOrdinaryFile: persistsLater)
    }

    /// As ``Region/countStart()``, from the seed.
    private func countStart(of group: SimGroup, _ pool: Pool) throws(PoolError) {
        guard let region = pool.region(of: group.id) else { preconditionFailure("the pool has a region") }
        var next = region.standing
        guard next.counted == next.generation else { return }
        next.generation += random.between(1, 1000)
        try region.note(next)
    }

    func livingServer(_ process: ProcessIdentity) -> Server? {
        servers.first { $0.identity == process && !$0.isDead }
    }

    /// SIGKILL. The process runs nothing any more; what it gave to the medium may land until it is dead.
    func kill(_ server: Server) {
        guard !server.isDying, !server.isDead else { return }
        note("\(server.name) is killed")
        coverage.kills += 1
        server.isDying = true
        after(random.chance(70) ? random.between(0, 5) * millisecond : random.between(0, 300) * millisecond) {
            server.die()
        }
    }

    /// SIGTERM has been obeyed.
    func exit(_ server: Server) {
        note("\(server.name) exits")
        after(0) { server.die() }
    }

    /// Faults are over: whatever was broken works again, and both nodes are up.
    func heal() {
        note("--- faults are over")
        fenceFails = false
        for group in groups {
            group.media.fails = false
            group.media.isFull = false
            for path in group.paths { path.heal() }
        }
        coordinator.isDown = false
        coordinator.isSlow = false
        coordinator.failPercent = 0
        for network in networks.indices {
            setSlow(network, false)
            for node in nodes { setMute(node, over: network, false) }
        }
        for node in nodes {
            node.isCutFromCoordinator = false
            node.hungMemory.isOn = false
            setMute(node, false)
            // Failed memory is replaced, and the node started again.
            if let server = node.server, server.hasFailedMemory { kill(server) }
            node.server?.resume()
        }
        keepUp()
    }

    /// Boot clocks go on while machines sleep, their timers do not.
    func sleep(_ sleepers: [SimNode], _ length: UInt64) {
        for sleeper in sleepers {
            note("\(sleeper.name) has slept for \(length / millisecond) ms")
            sleeper.slept += length
        }
    }

    /// A supervisor that starts what is not running.
    func keepUp() {
        for node in nodes where node.server == nil && !faults.isBeingHealed { start(node) }
        after(100 * millisecond) { self.keepUp() }
    }

    /// Ends every process, fiber and circle of references.
    func dismantle() {
        for server in servers { server.die() }
        for server in servers { server.dismantle() }
        timeline = Timeline()
        for fiber in allFibers { fiber.end() }
        for node in nodes {
            node.hungMemory.forget()
            for group in groups { group.path(of: node).hang.forget() }
        }
        for group in groups { group.dismantle() }
        servers = []
        nodes = []
        groups = []
        rails = []
        allFibers = []
        idleFibers = []
    }

    // MARK: The coordinator

    private func coordinatorDelay() -> UInt64 {
        coordinator.isSlow ? random.between(1, 250) * millisecond : random.between(50, 2000) * microsecond
    }

    private static var silence: CoordinationError { CoordinationError(.unreachable, "no answer") }

    /// One call: delayed, and it may fail before or after `effect`.
    func coordinate<Answer>(
        _ server: Server, _ effect: @escaping () -> Answer, _ done: @escaping (Result<Answer, any Error>) -> Void
    ) {
        let back = coordinatorDelay()
        let failsBefore = random.chance(coordinator.failPercent)
        let failsAfter = random.chance(coordinator.failPercent)
        server.givenOut(coordinatorDelay()) { [self] in
            guard isReachable(from: server), !failsBefore else {
                return server.later(back) { done(.failure(Self.silence)) }
            }
            let answer = effect()
            server.later(back) { done(failsAfter ? .failure(Self.silence) : .success(answer)) }
        }
    }

    private func isReachable(from server: Server) -> Bool {
        !coordinator.isDown && !server.node.isCutFromCoordinator
    }

    /// A swap, which may also be answered by nothing and come into effect later, if nobody else was quicker.
    func coordinateSwap(
        _ server: Server, of group: SimGroup, expecting: UInt64, to record: GroupRecord,
        _ done: @escaping (Result<SwapOutcome, any Error>) -> Void
    ) {
        let back = coordinatorDelay()
        let failsBefore = random.chance(coordinator.failPercent)
        let failsAfter = random.chance(coordinator.failPercent)
        let isLate = random.chance(coordinator.failPercent / 2) || faults.takesLate(record, of: group)
        let isSlow = faults.claimIsSlow(record, of: group)
        server.givenOut(isSlow ? random.between(50, 2500) * millisecond : coordinatorDelay()) { [self] in
            guard isReachable(from: server), !failsBefore else {
                return server.later(back) { done(.failure(Self.silence)) }
            }
            if isLate {
                coverage.lateSwaps += 1
                group.lateSwapsPending += 1
                after(random.between(1, 3000) * millisecond) { [self] in
                    group.lateSwapsPending -= 1
                    _ = swap(group, expecting: expecting, to: record, by: server)
                }
                return server.later(back) { done(.success(.unknown("no answer"))) }
            }
            let outcome = swap(group, expecting: expecting, to: record, by: server)
            if failsAfter { coverage.unknownOutcomes += 1 }
            server.later(back) { done(.success(failsAfter ? .unknown("no answer") : outcome)) }
        }
    }

    private func swap(
        _ group: SimGroup, expecting: UInt64, to wanted: GroupRecord, by server: Server
    ) -> SwapOutcome {
        guard (group.record?.version ?? 0) == expecting else { return .lost(group.record) }
        let old = group.record
        group.record = reread(wanted)
        group.note(
            "\(server.name) swaps version \(wanted.version): \(wanted.owner) \(wanted.phase) epoch \(wanted.epoch), holders "
                + "\(wanted.holders), fence \(wanted.mustFence.map { "\($0.node).\($0.pid)" })")
        group.oracle.swapped(from: old, to: wanted, by: server)
        faults.swapped(group, from: old, to: wanted, by: server)
        return .won
    }

    /// As it comes back from where records are kept.
    private func reread(_ record: GroupRecord) -> GroupRecord {
        do {
            let copy = try JSONDecoder().decode(GroupRecord.self, from: JSONEncoder().encode(record))
            if copy != record { violate("the record of version \(record.version) does not come back as it was") }
            return copy
        } catch {
            violate("the record of version \(record.version) does not come back: \(error)")
            return record
        }
    }
}
