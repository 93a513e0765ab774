// A record that was promised is bad in both copies. Nobody can bring it back; so it must be said, and no catch-up, destage, read or
// takeover may pass over it (S5).

import ClusterProtocol
@testable import GroupEngine
import LogModel
import SimulationSupport

extension World {
    func liveWithoutAGoodCopy() {
        for node in nodes { start(node) }
        after(0) { self.clients.begin() }
        guard run(until: 10 * second, or: { self.nodes.allSatisfy(self.isMirrored) }), let owner = servingServer else {
            return oracle.expect(false, "the group is not mirrored before anything fails")
        }
        guard rotBothCopies(owner: owner) else {
            return oracle.expect(false, "no record is in both logs and not on the medium")
        }
        let healings = oracle.healings
        meetDamage(owner: owner)
        after(random.between(0, 100) * millisecond) { self.media.fails = false }
        after(second) { self.keepUp() }
        run(until: now + 10 * second)
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
            if run(until: now + 150 * millisecond, or: { self.rotsInBoth(owner) }) { return true }
            media.fails = false
            run(until: now + 500 * millisecond)
        }
        return false
    }

    private func rotsInBoth(_ owner: Server) -> Bool {
        // What a batch has written already is whole on the medium, though the head has not moved yet.
        guard let end = owner.group.snapshot.mirrored, let acknowledged = owner.group.snapshot.acknowledged,
            owner.group.owner?.owned.destage.isBusy == false
        else { return false }
        let mirror = nodes[1 - owner.node.index]
        guard rot(owner.node, below: min(end, acknowledged)), let line = rottenLines.last else { return false }
        guard rot(line.lsn, of: mirror) else {
            // Else the next line would count as damage beside this one, though no check covers it.
            owner.group.region.overwriteLine(at: line.lsn, with: line.good)
            rottenLines.removeLast()
            return false
        }
        hitsBothCopies = true
        return true
    }

    /// A catch-up, a takeover, both, or the destage alone.
    private func meetDamage(owner: Server) {
        let mirror = nodes[1 - owner.node.index].server
        if random.chance(50), let mirror { kill(mirror) }
        if random.chance(50) { kill(owner) }
    }
}
