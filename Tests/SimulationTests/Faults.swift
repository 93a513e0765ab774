// What goes wrong in a run: at random times, for random lengths, until the faults are over and everything heals.

import ClusterProtocol
import Coordination
import LogModel

final class Faults {
    private unowned let world: World
    private let meanPause: UInt64
    private var isOver = false
    private var poolLost = false

    init(_ world: World) {
        self.world = world
        meanPause = world.random.between(60, 500) * millisecond
    }

    func begin() { next() }

    private func next() {
        world.after(world.random.between(1, 2 * meanPause)) { [self] in
            guard !isOver else { return }
            inject()
            next()
        }
    }

    private func inject() {
        let node = world.nodes[Int(world.random.between(0, 1))]
        switch world.random.between(0, 99) {
        case 0..<13: kill(node)
        case 13..<16: hangMemory(of: node)
        case 16..<19: world.nodes.forEach(kill)
        case 19..<35: pause(node)
        case 35..<47: world.cutConnections()
        case 47..<57: block([node.index])
        case 57..<61: block([0, 1])
        case 61..<72: troubleCoordinator(node)
        case 72..<74: spell({ self.world.medium.fails = true }, { self.world.medium.fails = false })
        case 74..<77: failMedium(of: node)
        case 77..<80: spell(longest: 5000, { node.isMediumHung = true }, { node.isMediumHung = false })
        case 80..<82: losePowerOfMedium()
        case 82..<84: spell({ self.world.fenceFails = true }, { self.world.fenceFails = false })
        case 84..<86: losePool(of: node)
        case 86..<91: command(.handOver, to: node)
        case 91..<96: command(.takeOver(force: false), to: node)
        default: command(.stop, to: node)
        }
    }

    /// Something is so for a while.
    private func spell(longest: UInt64 = 2000, _ begin: () -> Void, _ end: @escaping () -> Void) {
        begin()
        world.after(world.random.between(10, longest) * millisecond) { [self] in if !isOver { end() } }
    }

    private func restart(_ node: SimNode) {
        world.after(world.random.between(10, 2500) * millisecond) { [self] in
            if !isOver, node.process == nil { world.start(node) }
        }
    }

    private func kill(_ node: SimNode) {
        if let process = node.process { world.kill(process) }
        restart(node)
    }

    private func pause(_ node: SimNode) {
        guard let process = node.process, !process.isPaused, !process.isDying else { return }
        world.coverage.pauses += 1
        spell({ process.pause() }, { process.resume() })
    }

    private func block(_ senders: [Int]) {
        spell(
            { for sender in senders { world.setBlocked(from: sender, true) } },
            { for sender in senders { self.world.setBlocked(from: sender, false) } })
        world.note("messages of \(senders.map { world.nodes[$0].name }) are held back")
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
        world.note("the mirror log of \(node.name) does not become durable")
        spell(longest: 3000, { node.isMemoryHung = true }, { node.isMemoryHung = false })
    }

    /// It fails one node, and then its partner.
    private func failMedium(of node: SimNode) {
        let other = world.nodes[1 - node.index]
        spell(longest: 3000, { node.mediumFails = true }) { [self] in
            node.mediumFails = false
            spell(longest: 3000, { other.mediumFails = true }, { other.mediumFails = false })
        }
    }

    private func losePowerOfMedium() {
        world.note("the medium loses power")
        world.medium.losePower(&world.random)
    }

    private func command(_ command: Command, to node: SimNode) {
        guard let process = node.process else { return }
        world.note("command \(command) to \(process.name)")
        if case .takeOver = command { world.oracle.willTakeOver(process) }
        process.perform { process.handle(.command(command, CommandID(rawValue: 1))) }
        if command == .stop { restart(node) }
    }

    /// Once in a run, and only while another copy is complete: the node comes back with an empty pool (S20).
    private func losePool(of node: SimNode) {
        guard !poolLost else { return }
        poolLost = true
        if let process = node.process { world.kill(process) }
        world.after(world.random.between(20, 400) * millisecond) { [self] in
            let other = world.nodes[1 - node.index]
            let isSafe =
                node.process == nil && world.coordinator.holders().contains(other.name)
                && world.coordinator.record?.members[other.name]?.pool == other.pool
            if isSafe {
                world.note("\(node.name) loses its pool")
                world.coverage.poolsLost += 1
                node.pool = UUID128.random(using: &world.random)
                node.region = nil
                node.standing = LocalStanding(generation: 0, epoch: .none)
                node.isStartConfirmed = true
            }
            restart(node)
        }
    }

    /// A claim was won: now and then its process dies before it publishes.
    func claimed(by process: SimProcess) {
        guard !isOver, world.random.chance(20) else { return }
        world.after(world.random.between(0, 40) * millisecond) { [self] in
            guard !isOver, let record = world.coordinator.record, record.phase == .claimed,
                record.ownerProcess == process.identity
            else { return }
            world.coverage.killsOfClaimers += 1
            kill(process.node)
        }
    }

    /// Faults stop, everything heals, both nodes are up.
    func end() {
        isOver = true
        world.heal()
    }
}
