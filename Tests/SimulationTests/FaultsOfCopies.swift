// Faults of what nodes keep: pools that are lost, replaced by older copies, or rot, and a coordinator that forgets. Each leaves a
// complete copy somewhere, or promises nothing.

import ClusterProtocol
import Coordination
import GroupEngine
import LogModel
import SimulationSupport

extension Faults {
    /// Whether a node's pool may go: it is down, and the other one has a complete copy of every group.
    private func isSpare(_ node: SimNode) -> Bool {
        node.server == nil && !isBeingHealed && isWell(world.nodes[1 - node.index])
            && world.groups.allSatisfy { isSpare(node, in: $0) }
    }

    private func isSpare(_ node: SimNode, in group: SimGroup) -> Bool {
        let other = world.nodes[1 - node.index]
        guard let record = group.record, record.isHolder(other.name), !record.setsAsideLog,
            group.lateSwapsPending == 0, !group.olderCopies.contains(other.index),
            record.members[other.name]?.pool == world.poolUUID(of: other)
        else { return false }
        return !group.isRotten(other)
    }

    /// One whose memory failed may be giving the group away still.
    private func isWell(_ node: SimNode) -> Bool {
        node.memoryFailedAt.map { world.now > $0 + 4 * second } ?? (node.server?.hasFailedMemory != true)
    }

    /// While the other copy is what the record takes it for.
    func failMemory(of node: SimNode, under group: SimGroup) {
        let other = world.nodes[1 - node.index]
        guard let server = node.server, !server.isDying, !server.hasFailedMemory,
            world.groups.allSatisfy({ isAsRecorded(other, in: $0) }),
            isWell(other), !world.isRotten(other), !world.isRotten(node)
        else { return }
        world.failMemory(of: server, under: group)
        world.after(world.random.between(500, 4000) * millisecond) { [self] in
            if !isOver, node.server === server { kill(node) }
        }
    }

    /// Its copy is what the record takes it for.
    private func isAsRecorded(_ node: SimNode, in group: SimGroup) -> Bool {
        guard let record = group.record else { return false }
        return !record.isHolder(node.name)
            || record.members[node.name]?.pool == world.poolUUID(of: node) && !group.olderCopies.contains(node.index)
    }

    /// The owner's log does not become durable, while its mirror comes back without its pool, joins, and dies again: what the first copy
    /// held says nothing of the second (S1).
    func losePoolBesideHungLog(of group: SimGroup) {
        guard world.persistsLater, let record = group.record, record.phase == .published,
            record.holders.count == 2, let owner = group.ownerNode, owner.server?.isPaused == false
        else { return }
        let mirror = world.nodes[1 - owner.index]
        spell(longest: 3000, { owner.hungMemory.isOn = true }, { owner.hungMemory.isOn = false })
        world.after(world.random.between(50, 200) * millisecond) { [self] in
            if let server = mirror.server { world.kill(server) }
            world.after(world.random.between(400, 900) * millisecond) { [self] in
                guard !isOver, isSpare(mirror) else { return restart(mirror) }
                world.replacePool(of: mirror)
                diesWhenItJoins = (mirror, group)
                world.start(mirror)
            }
        }
    }

    /// A mirror was put in sync.
    func joined(_ group: SimGroup, _ holders: [NodeID]) {
        guard let (mirror, joining) = diesWhenItJoins, joining === group, holders.contains(mirror.name), !isOver else {
            return
        }
        diesWhenItJoins = nil
        world.after(world.random.between(0, 3) * millisecond) { [self] in
            kill(mirror)
            world.after(world.random.between(5, 150) * millisecond) { [self] in
                world.nodes[1 - mirror.index].hungMemory.isOn = false
            }
        }
    }

    /// The node comes back with an empty pool (S20).
    func losePool(of node: SimNode) {
        if let server = node.server { world.kill(server) }
        world.after(world.random.between(20, 400) * millisecond) { [self] in
            if isSpare(node), !isOver { world.replacePool(of: node) }
            restart(node)
        }
    }

    func copyPool(of node: SimNode) { node.image = world.image(of: node) }

    /// An older copy of the node's pool takes its place (S20). One of the same start has no mark of its age.
    func rollBack(_ node: SimNode) {
        guard let image = node.image,
            zip(image.generations, world.groups).allSatisfy({ generation, group in
                generation < group.record?.members[node.name]?.generation ?? 0
            })
        else { return }
        if let server = node.server { world.kill(server) }
        world.after(world.random.between(20, 400) * millisecond) { [self] in
            if isSpare(node), !isOver, image.pool == world.poolUUID(of: node) { world.putBack(image, at: node) }
            restart(node)
        }
    }

    /// A line of either log, where both hold the same.
    func rot(_ node: SimNode, in group: SimGroup) {
        guard let record = group.record, record.phase == .published, record.holders.count == 2,
            let owner = world.nodes.compactMap(\.server).first(where: { $0.identity == record.ownerProcess }),
            owner.isServing(group), !isBeingHealed, world.nodes.allSatisfy(isWell),
            group.olderCopies.isEmpty, let mirrored = owner.engine(of: group).snapshot.mirrored,
            let acknowledged = owner.engine(of: group).snapshot.acknowledged
        else { return }
        _ = group.rot(node, below: min(mirrored, acknowledged))
    }

    /// Now and then a line of the log rots between the check of a batch and its write.
    func willWrite(_ server: Server, _ group: SimGroup) {
        if !isOver, world.random.between(0, 999) == 0 { rot(server.node, in: group) }
    }

    /// A node is blocked by a damaged log. Its message names the ways out, and the operator takes the first that is open: back to the
    /// other log where that was complete; else both nodes are stopped, `twinlog-recover heal` is run, and they are started again.
    func blocked(_ group: SimGroup, byDamageAt node: SimNode) {
        guard !isBeingHealed else { return }
        isBeingHealed = true
        world.after(200 * millisecond) { [self] in
            let other = world.nodes[1 - node.index]
            if group.record?.previousHolders.contains(other.name) == true {
                isBeingHealed = false
                if other.server == nil { world.start(other) }
                return goBack(group, to: other, until: world.now + 20 * second)
            }
            for server in world.nodes.compactMap(\.server) { world.kill(server) }
            healWhenStopped()
        }
    }

    private func goBack(_ group: SimGroup, to node: SimNode, until deadline: UInt64) {
        guard world.now < deadline, group.record?.previousHolders.contains(node.name) == true else {
            return
        }
        command(.takeOver(force: false), of: group, to: node)
        // It may not have read the record yet, or the coordinator does not answer.
        world.after(300 * millisecond) { self.goBack(group, to: node, until: deadline) }
    }

    private func healWhenStopped() {
        guard world.nodes.allSatisfy({ $0.server == nil }) else {
            return world.after(10 * millisecond) { self.healWhenStopped() }
        }
        isBeingHealed = false
        for group in world.groups { group.healLogs() }
        for node in world.nodes { world.start(node) }
    }

    func copyRecord(of group: SimGroup) {
        if let record = group.record, record.phase == .published, record.holders.count == 2 {
            group.imageOfRecord = record
        }
    }

    /// The coordinator forgets that a mirror of one group was counted out (S13, S20). Both nodes were down; the operator makes the pool right
    /// that refuses it.
    func rollBackCoordinator(of group: SimGroup) {
        guard let image = group.imageOfRecord, let record = group.record, record.phase == .published,
            image.owner == record.owner, image.epoch < record.epoch, record.holders == [record.owner],
            image.members[image.owner]?.incarnation == record.members[record.owner]?.incarnation,
            let owner = group.ownerNode, isWell(owner),
            world.poolUUID(of: owner) == record.members[record.owner]?.pool
        else { return }
        restsUntil = world.now + 6 * second
        for server in world.nodes.compactMap(\.server) { world.kill(server) }
        world.after(500 * millisecond) { [self] in
            guard world.nodes.allSatisfy({ $0.server == nil }), group.record == record else { return }
            group.note("the coordinator is an older copy: version \(image.version)")
            world.coverage.coordinatorsRolledBack += 1
            group.record = image
            group.wasRolledBack = true
            // A node that knows better must be heard in time: nothing tells the other one.
            world.coordinator.isDown = false
            world.coordinator.isSlow = false
            world.coordinator.failPercent = 0
            for node in world.nodes {
                node.isCutFromCoordinator = false
                world.after(world.random.between(0, 200) * millisecond) { [self] in
                    if node.server == nil { world.start(node) }
                }
            }
            decide(group, by: owner, until: world.now + 20 * second)
        }
    }

    /// By whoever `owner` has given the group to meanwhile, if that one refuses the coordinator too.
    private func decide(_ group: SimGroup, by owner: SimNode, until deadline: UInt64) {
        guard world.now < deadline else { return }
        let holder = group.ownerNode ?? owner
        if let server = [owner, holder].compactMap(\.server).first(where: { $0.isBlocked(group) }) {
            world.coverage.coordinatorsForgotten += 1
            command(.forgetCoordinator, of: group, to: server.node)
        }
        // The coordinator may have been busy: said again until it is heard.
        world.after(300 * millisecond) { self.decide(group, by: owner, until: deadline) }
    }
}
