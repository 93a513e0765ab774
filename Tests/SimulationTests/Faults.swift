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
    var diesWhenItJoins: (node: SimNode, group: SimGroup)?
    /// Faults that come one after another need the time to be seen through.
    var restsUntil: UInt64 = 0
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
        let group = world.anyGroup()
        switch world.random.between(0, 184) {
        case 0..<15: kill(node)
        case 15..<18: world.nodes.forEach(kill)
        case 18..<34: pause(node)
        case 34..<37: pauseBoth()
        case 37..<48: world.cutConnections()
        case 48..<58: mute([node])
        case 58..<61: mute(world.nodes)
        case 61..<73: troubleCoordinator(node)
        case 73..<76: spell(longest: 5000, { group.media.fails = true }, { group.media.fails = false })
        case 76..<81: failMedium(of: node)
        case 81..<85: hangMedium(of: node)
        case 85..<87: spell({ group.media.isFull = true }, { group.media.isFull = false })
        case 87..<89: losePowerOfMedia()
        case 89..<91: spell({ self.world.fenceFails = true }, { self.world.fenceFails = false })
        case 91..<98: hangMemory(of: node)
        case 98..<102: jump()
        case 102..<104: nextJoinIsLate = true
        case 104..<110: command(.handOver, of: group, to: node)
        case 110..<115: command(.takeOver(force: false), of: group, to: node)
        case 115..<121: stop(node)
        case 121..<125: losePool(of: node)
        case 125..<128: copyPool(of: node)
        case 128..<131: rollBack(node)
        case 131..<140: rot(node, in: group)
        case 140..<143: copyRecord(of: group)
        case 143..<149: rollBackCoordinator(of: group)
        case 149..<153: losePower(of: node)
        case 153..<156: failMemory(of: node, under: group)
        case 156..<158: force(node, group)
        case 158..<163: losePoolBesideHungLog(of: group)
        case 163..<168: drain(node, group)
        default: troubleNetwork(node)
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

    /// Both nodes sleep: time that passes for one passes for the other, and what a node granted ends for both.
    private func jump() {
        world.coverage.clockJumps += 1
        world.sleep(world.nodes, world.random.between(100, 5000) * millisecond)
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

    /// Those whose media are on one array: one, or all.
    private func someGroups() -> [SimGroup] { world.random.chance(30) ? world.groups : [world.anyGroup()] }

    /// Media fail one node, and then its partner.
    private func failMedium(of node: SimNode) {
        let groups = someGroups()
        func set(_ node: SimNode, _ fails: Bool) { for group in groups { group.path(of: node).fails = fails } }
        let other = world.nodes[1 - node.index]
        spell(longest: 4000, { set(node, true) }) { [self] in
            set(node, false)
            spell(longest: 5000, { set(other, true) }, { set(other, false) })
        }
    }

    private func hangMedium(of node: SimNode) {
        let groups = someGroups()
        func set(_ hangs: Bool) { for group in groups { group.path(of: node).hang.isOn = hangs } }
        spell(longest: 5000, { set(true) }, { set(false) })
    }

    private func losePowerOfMedia() {
        world.note("the media lose power")
        world.coverage.lossesOfMediaPower += 1
        for group in world.groups { group.media.losePower(&world.random) }
    }

    private func losePower(of node: SimNode) {
        guard world.losesPower, let server = node.server, !server.isDying, !server.hasFailedMemory else { return }
        world.losePower(of: server)
        restart(node)
    }

    /// By mistake: soon after, the operator tells the other node to take the group back.
    private func force(_ node: SimNode, _ group: SimGroup) {
        command(.takeOver(force: true), of: group, to: node)
        let other = world.nodes[1 - node.index]
        if other.server == nil, !isBeingHealed { world.start(other) }
        world.after(world.random.between(1, 1500) * millisecond) { [self] in
            if !isOver, world.now >= restsUntil { command(.takeOver(force: false), of: group, to: other) }
        }
    }

    func command(_ command: Command, of group: SimGroup, to node: SimNode) {
        guard let server = node.server else { return }
        group.note("command \(command) to \(server.name)")
        if case .takeOver(let force) = command { group.oracle.willTakeOver(server, byForce: force) }
        server.perform {
            server.engine(of: group).command(command) { refusal in
                group.note("\(server.name) \(command) \(refusal.map { "refused: \($0)" } ?? "done")")
                group.oracle.commandDone(command, refusal)
            }
        }
    }

    private func drain(_ node: SimNode, _ group: SimGroup) {
        guard let server = node.server, server.isServing(group), !server.isDying else { return }
        group.note("\(server.name) is to drain its log")
        let askedAt = group.oracle.count()
        server.perform {
            server.engine(of: group).drain { refusal in
                if refusal == nil { group.oracle.drained(server, askedAt: askedAt) }
            }
        }
    }

    private func stop(_ node: SimNode) {
        guard let server = node.server else { return }
        world.note("\(server.name) is to stop")
        server.perform { [world] in server.groups.stop { world.exit(server) } }
        restart(node)
    }

    /// The swap that puts a mirror in sync is not answered and comes into effect later, and meanwhile the mirror is away.
    func takesLate(_ wanted: GroupRecord, of group: SimGroup) -> Bool {
        guard nextJoinIsLate, !isOver, wanted.phase == .published,
            wanted.holders.count > group.record?.holders.count ?? 2
        else { return false }
        nextJoinIsLate = false
        mute(world.nodes)
        world.cutConnections()
        return true
    }

    /// A claim made on suspicion of an owner that lives is long on its way, and meanwhile that owner has its coordinator again.
    func claimIsSlow(_ wanted: GroupRecord, of group: SimGroup) -> Bool {
        guard !isOver, wanted.phase == .claimed, let owner = group.record?.ownerProcess,
            group.record?.phase == .published,
            owner.node != wanted.owner, let living = world.livingServer(owner), !living.isDying, world.random.chance(50)
        else { return false }
        living.node.isCutFromCoordinator = false
        world.coverage.slowClaims += 1
        return true
    }

    func swapped(_ group: SimGroup, from old: GroupRecord?, to new: GroupRecord, by server: Server) {
        if let old, new.phase == .published, new.inSync.count > old.inSync.count { joined(group, new.holders) }
        gaveAway(group, to: new.owner, by: server)
        claimed(group, from: old, to: new, by: server)
    }

    /// Now and then an operator takes the group back by force from a partner that has not published it, for a node that gave it away
    /// because of its log.
    private func gaveAway(_ group: SimGroup, to owner: NodeID, by server: Server) {
        guard !isOver, owner != server.node.name, !group.isHolder(server.node), world.random.chance(15)
        else { return }
        let node = server.node
        world.after(world.random.between(0, 100) * millisecond) { [self] in if !isOver { force(node, group) } }
    }

    /// A claim was won: now and then its process dies before it publishes.
    private func claimed(_ group: SimGroup, from old: GroupRecord?, to new: GroupRecord, by server: Server) {
        guard !isOver, new.phase == .claimed, new.ownerProcess == server.identity, old?.epoch != new.epoch,
            world.random.chance(20)
        else { return }
        world.after(world.random.between(0, 40) * millisecond) { [self] in
            guard !isOver, let record = group.record, record.phase == .claimed,
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
