// What goes wrong in a run: at random times, for random lengths, until the faults are over and everything heals.

import ClusterProtocol
import Coordination
import LogModel
import SimulationSupport

final class Faults {
    private unowned let world: World
    private let meanPause: UInt64
    private var isOver = false
    private var poolLost = false
    /// Faults that come one after another need the time to be seen through.
    private var restsUntil: UInt64 = 0
    private var imageOfRecord: GroupRecord?
    private var diesWhenItJoins: SimNode?
    private var nextJoinIsLate = false
    /// An operator has stopped both nodes, or is about to.
    private(set) var isBeingHealed = false

    init(_ world: World) {
        self.world = world
        meanPause = world.random.between(60, 500) * millisecond
    }

    func begin() { next() }

    private func next() {
        world.after(world.random.between(1, 2 * meanPause)) { [self] in
            guard !isOver else { return }
            if world.now >= restsUntil { inject() }
            next()
        }
    }

    private func inject() {
        let node = world.nodes[Int(world.random.between(0, 1))]
        switch world.random.between(0, 143) {
        case 100..<103: pauseBoth()
        case 103..<106: node.image = node.contents
        case 106..<109: rollBack(node)
        case 109..<112:
            if let record = world.coordinator.record, record.phase == .published, record.holders.count == 2 {
                imageOfRecord = record
            }
        case 112..<116: rollBackCoordinator()
        case 116..<118: failMemory(of: node)
        case 118: force(node)
        case 120..<132: rot(node)
        case 132..<136: jump(node)
        case 136..<138: hangMemory(of: node)
        case 142..<144: nextJoinIsLate = true
        case 140..<142: losePoolBesideHungLog()
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
            if !isOver, node.process == nil, !isBeingHealed { world.start(node) }
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

    /// The machine that both run on sleeps; each wakes a little later than the other.
    private func pauseBoth() {
        let processes = world.nodes.compactMap(\.process).filter { !$0.isPaused && !$0.isDying }
        guard processes.count == 2 else { return }
        world.coverage.pausesOfBoth += 1
        let length = world.random.between(300, 5000) * millisecond
        for process in processes {
            process.pause()
            world.after(length + world.random.between(0, 80) * millisecond) { process.resume() }
        }
    }

    /// By mistake: soon after, the operator tells the other node to take the group back.
    private func force(_ node: SimNode) {
        command(.takeOver(force: true), to: node)
        let other = world.nodes[1 - node.index]
        if other.process == nil { world.start(other) }
        world.after(world.random.between(1, 1500) * millisecond) { [self] in
            if !isOver, world.now >= restsUntil { command(.takeOver(force: false), to: other) }
        }
    }

    /// While the other copy is what the record takes it for.
    private func failMemory(of node: SimNode) {
        let other = world.nodes[1 - node.index]
        guard let process = node.process, !process.isDying, let record = world.coordinator.record,
            !record.isHolder(other.name) || record.members[other.name]?.pool == other.pool && !other.holdsOlderCopy,
            other.region?.hasRot != true
        else { return }
        world.coverage.memoriesFailed += 1
        world.note("memory of \(process.name) fails")
        process.hasMemoryFailed = true
        node.memoryFailedAt = world.now
        world.after(world.random.between(500, 4000) * millisecond) { [self] in
            if !isOver, node.process === process { kill(node) }
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

    /// A line of a record, while the other node holds the record too and nothing is known against that copy.
    private func rot(_ node: SimNode) {
        let other = world.nodes[1 - node.index]
        guard let mine = node.region, let theirs = other.region, mine.logUUID == theirs.logUUID,
            mine.incarnation == theirs.incarnation, other.memoryFailedAt == nil, !other.holdsOlderCopy,
            !isBeingHealed, world.coordinator.record?.members[other.name]?.pool == other.pool
        else { return }
        let end = min(mine.judgeable, shippedFor(node))
        let candidates = mine.records.filter { record in
            record.lsn >= mine.head && record.end <= end && record.isSound
                && theirs.record(at: record.lsn).map { $0.isSound && $0.isCopy(of: record) } == true
        }
        guard !candidates.isEmpty else { return }
        let record = candidates[Int(world.random.between(0, UInt64(candidates.count) - 1))]
        world.coverage.recordsRotten += 1
        world.note("the record at LSN \(record.lsn) rots at \(node.name)")
        node.region?.rot(
            record.lsn, at: record.lsn + world.random.between(0, record.bytes / LSN.alignment - 1) * LSN.alignment)
    }

    /// What has passed its checks and rots before it is shipped is found by the mirror. One of an earlier version does not look.
    private func shippedFor(_ node: SimNode) -> LSN {
        guard !world.mirrorsRefuseOtherBytes, let mirror = node.process?.owner?.mirror else { return .maximum }
        return mirror.session.durable
    }

    /// A node is blocked by a damaged log. Its message names the ways out, and the operator takes the first that is open: back to the
    /// other log where that was complete; else both nodes are stopped, `twinlog-recover heal` is run, and they are started again.
    func blocked(byDamageAt node: SimNode) {
        guard !isBeingHealed else { return }
        isBeingHealed = true
        world.after(200 * millisecond) { [self] in
            let other = world.nodes[1 - node.index]
            if world.coordinator.record?.previousHolders.contains(other.name) == true {
                isBeingHealed = false
                if other.process == nil { world.start(other) }
                return goBack(to: other, until: world.now + 20 * second)
            }
            for process in world.nodes.compactMap(\.process) { world.kill(process) }
            healWhenStopped(node)
        }
    }

    private func goBack(to node: SimNode, until deadline: UInt64) {
        guard world.now < deadline, world.coordinator.record?.previousHolders.contains(node.name) == true else {
            return
        }
        command(.takeOver(force: false), to: node)
        // It may not have read the record yet, or the coordinator does not answer.
        world.after(300 * millisecond) { self.goBack(to: node, until: deadline) }
    }

    /// From the other pool, or from the log that was set aside beside it.
    private func heal(_ node: SimNode, from other: SimNode) {
        guard let mine = node.region, mine.hasRot else { return }
        for theirs in [other.region, other.archive].compactMap(\.self)
        where theirs.logUUID == mine.logUUID && theirs.incarnation == mine.incarnation {
            world.note("\(node.name)'s log is healed from \(other.name)'s")
            world.coverage.logsHealed += 1
            node.region?.heal(from: theirs.records)
        }
    }

    private func healWhenStopped(_ node: SimNode) {
        let other = world.nodes[1 - node.index]
        guard node.process == nil, other.process == nil else {
            return world.after(10 * millisecond) { self.healWhenStopped(node) }
        }
        isBeingHealed = false
        heal(node, from: other)
        heal(other, from: node)
        for node in world.nodes { world.start(node) }
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
        if case .takeOver(let force) = command { world.oracle.willTakeOver(process, byForce: force) }
        process.perform { process.handle(.command(command, CommandID(rawValue: 1))) }
        if command == .stop { restart(node) }
    }

    /// Whether a node's copy may go: it is down, and the other one is complete.
    private func isSpare(_ node: SimNode) -> Bool {
        let other = world.nodes[1 - node.index]
        guard node.process == nil, let record = world.coordinator.record, record.isHolder(other.name),
            record.members[other.name]?.pool == other.pool, !record.setsAsideLog, world.lateSwapsPending == 0
        else { return false }
        // One whose memory failed may be giving the group away still.
        let isWell = other.memoryFailedAt.map { world.now > $0 + 4 * second } ?? true
        return !other.holdsOlderCopy && other.region?.hasRot != true && isWell && !isBeingHealed
    }

    /// An older copy of the node's pool takes its place (S20). One of the same start has no mark of its age.
    private func rollBack(_ node: SimNode) {
        guard let image = node.image, image.pool == node.pool, let record = world.coordinator.record,
            image.standing.generation < record.members[node.name]?.generation ?? 0
        else { return }
        if let process = node.process { world.kill(process) }
        world.after(world.random.between(20, 400) * millisecond) { [self] in
            if isSpare(node), !isOver {
                world.note("\(node.name) gets an older copy of its pool, of start \(image.standing.generation)")
                world.coverage.poolsRolledBack += 1
                node.contents = image
                node.holdsOlderCopy = true
            }
            restart(node)
        }
    }

    /// The coordinator forgets that a mirror was counted out (S13, S20). Both nodes were down; the operator makes the pool right
    /// that refuses it.
    private func rollBackCoordinator() {
        guard let image = imageOfRecord, let record = world.coordinator.record, record.phase == .published,
            image.phase == .published, image.owner == record.owner, image.epoch < record.epoch,
            image.members[image.owner]?.incarnation == record.members[record.owner]?.incarnation,
            record.holders == [record.owner], image.holders.count == 2,
            let owner = world.nodes.first(where: { $0.name == record.owner }),
            owner.process?.hasMemoryFailed != true, owner.pool == record.members[record.owner]?.pool
        else { return }
        restsUntil = world.now + 6 * second
        for process in world.nodes.compactMap(\.process) { world.kill(process) }
        world.after(500 * millisecond) { [self] in
            guard world.nodes.allSatisfy({ $0.process == nil }), world.coordinator.record == record else { return }
            world.note("the coordinator is an older copy: version \(image.version)")
            world.coverage.coordinatorsRolledBack += 1
            world.coordinator.record = image
            // A node that knows better must be heard in time: nothing tells the other one.
            world.coordinator.isDown = false
            world.coordinator.isSlow = false
            world.coordinator.failPercent = 0
            for node in world.nodes {
                node.isCutFromCoordinator = false
                world.after(world.random.between(0, 200) * millisecond) { [self] in
                    if node.process == nil { world.start(node) }
                }
            }
            decide(by: owner, until: world.now + 20 * second)
        }
    }

    /// By whoever `owner` has given the group to meanwhile, if that one refuses the coordinator too.
    private func decide(by owner: SimNode, until deadline: UInt64) {
        guard world.now < deadline else { return }
        let holder = world.nodes.first { $0.name == world.coordinator.record?.owner } ?? owner
        if let process = [owner, holder].compactMap(\.process).first(where: \.isBlocked) {
            world.coverage.coordinatorsForgotten += 1
            process.perform { process.handle(.command(.forgetCoordinator, CommandID(rawValue: 2))) }
        }
        // The coordinator may have been busy: said again until it is heard.
        world.after(300 * millisecond) { self.decide(by: owner, until: deadline) }
    }

    /// The node comes back with an empty pool (S20): in some runs once, in others again and again.
    private func losePool(of node: SimNode) {
        guard !poolLost || world.losesPoolsAgain else { return }
        poolLost = true
        if let process = node.process { world.kill(process) }
        world.after(world.random.between(20, 400) * millisecond) { [self] in
            if isSpare(node) { replacePool(of: node) }
            restart(node)
        }
    }

    /// The owner's log does not become durable, while its mirror comes back without its pool, joins, and dies again: what the first copy
    /// held says nothing of the second (S1).
    private func losePoolBesideHungLog() {
        guard world.persistsLater, let record = world.coordinator.record, record.phase == .published,
            record.holders.count == 2, let owner = world.nodes.first(where: { $0.name == record.owner }),
            owner.process?.isPaused == false
        else { return }
        let mirror = world.nodes[1 - owner.index]
        spell(longest: 3000, { owner.isMemoryHung = true }, { owner.isMemoryHung = false })
        world.after(world.random.between(50, 200) * millisecond) { [self] in
            if let process = mirror.process { world.kill(process) }
            world.after(world.random.between(400, 900) * millisecond) { [self] in
                guard !isOver, isSpare(mirror) else { return restart(mirror) }
                replacePool(of: mirror)
                diesWhenItJoins = mirror
                world.start(mirror)
            }
        }
    }

    /// The swap that puts a mirror in sync is not answered and comes into effect later, and meanwhile the mirror is away.
    func takesJoinLate() -> Bool {
        guard nextJoinIsLate, !isOver else { return false }
        nextJoinIsLate = false
        block([0, 1])
        world.cutConnections()
        return true
    }

    /// A mirror was put in sync.
    func joined(_ holders: [NodeID]) {
        guard let mirror = diesWhenItJoins, holders.contains(mirror.name), !isOver else { return }
        diesWhenItJoins = nil
        world.after(world.random.between(0, 3) * millisecond) { [self] in
            kill(mirror)
            world.after(world.random.between(5, 150) * millisecond) { [self] in
                world.nodes[1 - mirror.index].isMemoryHung = false
            }
        }
    }

    private func replacePool(of node: SimNode) {
        world.note("\(node.name) loses its pool")
        world.coverage.poolsLost += 1
        node.pool = UUID128.random(using: &world.random)
        node.region = nil
        node.holdsOlderCopy = false
        node.standing = LocalStanding(generation: 0, counted: 0, epoch: .none)
    }

    /// A claim was won: now and then its process dies before it publishes.
    func claimed(by process: SimProcess) {
        guard !isOver, !world.isLasting, world.random.chance(20) else { return }
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
