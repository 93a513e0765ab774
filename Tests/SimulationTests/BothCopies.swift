// A record that was promised is bad in both copies. Nobody can bring it back; so it must be said, and no catch-up, destage, read or
// takeover may pass over it (S5).

import ClusterProtocol
@testable import GroupEngine
import LogModel
import SimulationSupport

extension World {
    /// Precondition: there is one group.
    func liveWithoutAGoodCopy() { groups[0].liveWithoutAGoodCopy() }
}

extension SimGroup {
    fileprivate func liveWithoutAGoodCopy() {
        for node in world.nodes { world.start(node) }
        world.after(0) { self.clients.begin() }
        guard world.run(until: 10 * second, or: { self.world.nodes.allSatisfy(self.isMirrored) }),
            let owner = servingServer
        else {
            return oracle.expect(false, "the group is not mirrored before anything fails")
        }
        guard rotBothCopies(owner: owner) else {
            return oracle.expect(false, "no record is in both logs and not on the medium")
        }
        let healings = oracle.healings
        meetDamage(owner: owner)
        world.after(world.random.between(0, 100) * millisecond) { self.media.fails = false }
        world.after(second) { self.world.keepUp() }
        world.run(until: world.now + 10 * second)
        // The blocks may have been written anew, and the record that took the place reached the medium. Or the scrub had read the mirror's
        // record before that rotted.
        oracle.expect(
            oracle.damageSaid > 0 || oracle.isEverythingOnMedia || oracle.healings > healings,
            "a record is bad in both copies, and nobody says so")
    }

    /// The media take nothing meanwhile, for a moment: the group would be moved else. Answers whether there was such a record.
    private func rotBothCopies(owner: Server) -> Bool {
        for _ in 0..<50 {
            media.fails = true
            if world.run(until: world.now + 150 * millisecond, or: { self.rotsInBoth(owner) }) { return true }
            media.fails = false
            world.run(until: world.now + 500 * millisecond)
        }
        return false
    }

    private func rotsInBoth(_ owner: Server) -> Bool {
        // What a batch has written already is whole on the medium, though the head has not moved yet.
        let engine = owner.engine(of: self)
        guard let end = engine.snapshot.mirrored, let acknowledged = engine.snapshot.acknowledged,
            engine.owner?.owned.destage.isBusy == false
        else { return false }
        let mirror = world.nodes[1 - owner.node.index]
        guard rot(owner.node, below: min(end, acknowledged)), let line = rottenLines.last else { return false }
        guard rot(line.lsn, of: mirror) else {
            // Else the next line would count as damage beside this one, though no check covers it.
            engine.region.overwriteLine(at: line.lsn, with: line.good)
            rottenLines.removeLast()
            return false
        }
        hitsBothCopies = true
        return true
    }

    /// A catch-up, a takeover, both, or the destage alone.
    private func meetDamage(owner: Server) {
        let mirror = world.nodes[1 - owner.node.index].server
        if world.random.chance(50), let mirror { world.kill(mirror) }
        if world.random.chance(50) { world.kill(owner) }
    }
}
