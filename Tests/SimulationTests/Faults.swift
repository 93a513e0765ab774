// What goes wrong in a run: at random times, for random lengths, until the faults are over and everything heals.

import ClusterProtocol
import Coordination
import GroupEngine
import LogModel
import SimulationSupport

final class Faults {
    unowned let world: World
    private let meanPause: UInt64
    /// Before they begin, too: runs under one lasting fault have no others.
    private(set) var isOver = true
    private var nextJoinIsLate = false
    var diesWhenItJoins: SimNode?
    /// Faults that come one after another need the time to be seen through.
    var restsUntil: UInt64 = 0
    var imageOfRecord: GroupRecord?
    /// An operator has stopped both nodes, or is about to.
    var isBeingHealed = false

    init(_ world: World) {
        self.world = world
        meanPause = world.random.between(60, 500) * millisecond
    }

    func begin() {
        isOver = false
        next()
    }

    private func next() {
        world.after(world.random.between(1, 2 * meanPause)) { [self] in
            guard !isOver else { return }
            if world.now >= restsUntil { inject() }
            next()
        }
    }

    private func inject() {
        let node = world.nodes[Int(world.random.between(0, 1))]
        switch world.random.between(0, 174) {
        case 0..<15: kill(node)
        case 15..<18: world.nodes.forEach(kill)
        case 18..<34: pause(node)
        case 34..<37: pauseBoth()
        case 37..<48: world.cutConnections()
        case 48..<58: mute([node])
        case 58..<61: mute(world.nodes)
        case 61..<73: troubleCoordinator(node)
        case 73..<75: spell(longest: 5000, { self.world.media.fails = true }, { self.world.media.fails = false })
        case 75..<78: failMedium(of: node)
        case 78..<82: spell(longest: 5000, { node.hungMedium.isOn = true }, { node.hungMedium.isOn = false })
        case 82..<84: spell({ self.world.media.isFull = true }, { self.world.media.isFull = false })
        case 84..<86: losePowerOfMedia()
        case 86..<88: spell({ self.world.fenceFails = true }, { self.world.fenceFails = false })
        case 88..<92: hangMemory(of: node)
        case 92..<96: jump(node)
        case 96..<98: nextJoinIsLate = true
        case 98..<103: command(.handOver, to: node)
        case 103..<108: command(.takeOver(force: false), to: node)
        case 108..<114: stop(node)
        case 114..<117: losePool(of: node)
        case 117..<120: copyPool(of: node)
        case 120..<123: rollBack(node)
        case 123..<132: rot(node)
        case 132..<135: copyRecord()
        case 135..<140: rollBackCoordinator()
        case 140..<144: losePower(of: node)
        case 144..<147: failMemory(of: node)
        case 147..<149: force(node)
        case 149..<153: losePoolBesideHungLog()
        case 153..<157: drain(node)
        case 160..<175: troubleNetwork(node)
        default: hangMemory(of: node)
        }
    }

    /// Something is so for a while.
    func spell(longest: UInt64 = 2000, _ begin: () -> Void, _ end: @escaping () -> Void) {
        begin()
        world.after(world.random.between(10, longest) * millisecond) { [self] in if !isOver { end() } }
    }

    func restart(_ node: SimNode) {
        world.after(world.random.between(10, 2500) * millisecond) { [self] in
            if !isOver, node.server == nil, !isBeingHealed { world.start(node) }
        }
    }

    func kill(_ node: SimNode) {
        if let server = node.server { world.kill(server) }
        restart(node)
    }

    private func pause(_ node: SimNode) {
        guard let server = node.server, !server.isPaused, !server.isDying else { return }
        world.coverage.pauses += 1
        spell({ server.pause() }, { server.resume() })
    }

    /// The machine that both run on sleeps; each wakes a little later than the other.
    private func pauseBoth() {
        let servers = world.nodes.compactMap(\.server).filter { !$0.isPaused && !$0.isDying }
        guard servers.count == 2 else { return }
        world.coverage.pausesOfBoth += 1
        let length = world.random.between(300, 5000) * millisecond
        for server in servers {
            server.pause()
            world.after(length + world.random.between(0, 80) * millisecond) { server.resume() }
        }
    }

    /// Its boot clock goes on while the machine sleeps, its timers do not. Two processes on one host sleep together.
    private func jump(_ node: SimNode) {
        world.coverage.clockJumps += 1
        let length = world.random.between(100, 5000) * millisecond
        for sleeper in world.seesDeath ? world.nodes : [node] {
            world.note("\(sleeper.name) has slept for \(length / millisecond) ms")
            sleeper.slept += length
        }
    }

    private func mute(_ nodes: [SimNode]) {
        let world = world
        spell({ for node in nodes { world.setMute(node, true) } }, { for node in nodes { world.setMute(node, false) } })
    }

    /// One network fails in one way: its connections are lost, what one node or both send there does not arrive, or is late.
    private func troubleNetwork(_ node: SimNode) {
        let world = world
        let network = Int(world.random.between(0, UInt64(world.networks.count - 1)))
        let both = world.nodes
        switch world.random.between(0, 3) {
        case 0: world.cutConnections(over: network)
        case 1:
            spell(
                { for node in both { world.setMute(node, over: network, true) } },
                { for node in both { world.setMute(node, over: network, false) } })
        case 2: spell({ world.setMute(node, over: network, true) }, { world.setMute(node, over: network, false) })
        default: spell({ world.setSlow(network, true) }, { world.setSlow(network, false) })
        }
    }

    private func troubleCoordinator(_ node: SimNode) {
        let world = world
        switch world.random.between(0, 3) {
        case 0: spell({ world.coordinator.isDown = true }, { world.coordinator.isDown = false })
        case 1: spell({ node.isCutFromCoordinator = true }, { node.isCutFromCoordinator = false })
        case 2: spell({ world.coordinator.isSlow = true }, { world.coordinator.isSlow = false })
        default:
            spell(
                { world.coordinator.failPercent = world.random.between(10, 60) }, { world.coordinator.failPercent = 0 })
        }
    }

    private func hangMemory(of node: SimNode) {
        world.note("the memory of \(node.name) does not become durable")
        spell(longest: 3000, { node.hungMemory.isOn = true }, { node.hungMemory.isOn = false })
    }

    /// It fails one node, and then its partner.
    private func failMedium(of node: SimNode) {
        let other = world.nodes[1 - node.index]
        spell(longest: 4000, { node.mediumFails = true }) { [self] in
            node.mediumFails = false
            spell(longest: 5000, { other.mediumFails = true }, { other.mediumFails = false })
        }
    }

    private func losePowerOfMedia() {
        world.note("the media lose power")
        world.coverage.lossesOfMediaPower += 1
        world.media.losePower(&world.random)
    }

    private func losePower(of node: SimNode) {
        guard world.losesPower, let server = node.server, !server.isDying, !server.hasFailedMemory else { return }
        world.losePower(of: server)
        restart(node)
    }

    /// By mistake: soon after, the operator tells the other node to take the group back.
    private func force(_ node: SimNode) {
        command(.takeOver(force: true), to: node)
        let other = world.nodes[1 - node.index]
        if other.server == nil, !isBeingHealed { world.start(other) }
        world.after(world.random.between(1, 1500) * millisecond) { [self] in
            if !isOver, world.now >= restsUntil { command(.takeOver(force: false), to: other) }
        }
    }

    func command(_ command: Command, to node: SimNode) {
        guard let server = node.server else { return }
        world.note("command \(command) to \(server.name)")
        if case .takeOver(let force) = command { world.oracle.willTakeOver(server, byForce: force) }
        server.perform { [world] in
            server.group.command(command) { refusal in
                world.note("\(server.name) \(command) \(refusal.map { "refused: \($0)" } ?? "done")")
                world.oracle.commandDone(command, refusal)
            }
        }
    }

    private func drain(_ node: SimNode) {
        guard let server = node.server, server.isServing, !server.isDying else { return }
        world.note("\(server.name) is to drain its log")
        let askedAt = world.oracle.count()
        server.perform { [world] in
            server.group.drain { refusal in
                if refusal == nil { world.oracle.drained(server, askedAt: askedAt) }
            }
        }
    }

    private func stop(_ node: SimNode) {
        guard let server = node.server else { return }
        world.note("\(server.name) is to stop")
        server.perform { [world] in server.group.stop { world.exit(server) } }
        restart(node)
    }

    /// The swap that puts a mirror in sync is not answered and comes into effect later, and meanwhile the mirror is away.
    func takesLate(_ wanted: GroupRecord) -> Bool {
        guard nextJoinIsLate, !isOver, wanted.phase == .published,
            wanted.holders.count > world.coordinator.record?.holders.count ?? 2
        else { return false }
        nextJoinIsLate = false
        mute(world.nodes)
        world.cutConnections()
        return true
    }

    func swapped(from old: GroupRecord?, to new: GroupRecord, by server: Server) {
        if let old, new.phase == .published, new.inSync.count > old.inSync.count { joined(new.holders) }
        gaveAway(to: new.owner, by: server)
        claimed(from: old, to: new, by: server)
    }

    /// Now and then an operator takes the group back by force from a partner that has not published it, for a node that gave it away
    /// because of its log.
    private func gaveAway(to owner: NodeID, by server: Server) {
        guard !isOver, owner != server.node.name, world.coordinator.record?.isHolder(server.node.name) == false,
            world.random.chance(15)
        else { return }
        let node = server.node
        world.after(world.random.between(0, 100) * millisecond) { [self] in if !isOver { force(node) } }
    }

    /// A claim was won: now and then its process dies before it publishes.
    private func claimed(from old: GroupRecord?, to new: GroupRecord, by server: Server) {
        guard !isOver, new.phase == .claimed, new.ownerProcess == server.identity, old?.epoch != new.epoch,
            world.random.chance(20)
        else { return }
        world.after(world.random.between(0, 40) * millisecond) { [self] in
            guard !isOver, let record = world.coordinator.record, record.phase == .claimed,
                record.ownerProcess == server.identity
            else { return }
            world.coverage.killsOfClaimers += 1
            kill(server.node)
        }
    }

    /// Faults stop, everything heals, both nodes are up.
    func end() {
        isOver = true
        world.heal()
    }
}
