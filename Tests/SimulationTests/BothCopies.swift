// A record that was promised is bad in both copies. Nobody can bring it back; so it must be said, and no catch-up, destage, read or
// takeover may pass over it (S5).

import ClusterProtocol
import LogModel
import SimulationSupport

extension World {
    func liveWithoutAGoodCopy() {
        for node in nodes { start(node) }
        after(0) { self.clients.begin() }
        guard run(until: 10 * second, or: { self.nodes.allSatisfy(self.isMirrored) }), let owner = servingOwner?.node
        else { return oracle.expect(false, "the group is not mirrored before anything fails") }
        let mirror = nodes[1 - owner.index]
        guard let victim = waitForRecord(of: owner, mirror) else {
            return oracle.expect(false, "no record is in both logs and not on the medium")
        }
        hitsBothCopies = true
        note("--- the record at LSN \(victim.lsn) rots in both copies")
        for node in nodes { node.region?.rot(victim.lsn, at: victim.lsn) }
        meetDamage(owner: owner, mirror: mirror)
        after(random.between(0, 100) * millisecond) { self.medium.fails = false }
        after(second) { self.keepUp() }
        run(until: now + 10 * second)
        // A batch may have been read just before, or the block been written anew.
        let isOnMedium = medium.durable[victim.block] >= victim.stamp
        oracle.expect(
            oracle.damageSaid > 0 || isOnMedium, "a record is bad in both copies, and nobody says so")
    }

    /// The medium takes nothing meanwhile, for a moment: the group would be moved else.
    private func waitForRecord(of owner: SimNode, _ mirror: SimNode) -> Record? {
        for _ in 0..<50 {
            medium.fails = true
            var victim: Record?
            run(until: now + 150 * millisecond) {
                victim = self.judgeableInBoth(owner, mirror)
                return victim != nil
            }
            if let victim { return victim }
            medium.fails = false
            run(until: now + 500 * millisecond)
        }
        return nil
    }

    private func judgeableInBoth(_ owner: SimNode, _ mirror: SimNode) -> Record? {
        guard let mine = owner.region, let theirs = mirror.region else { return nil }
        let end = min(mine.judgeable, theirs.judgeable)
        return mine.records.first {
            $0.lsn >= mine.head && $0.end <= end && theirs.record(at: $0.lsn)?.isSound == true
        }
    }

    /// A catch-up, a takeover, both, or the destage alone.
    private func meetDamage(owner: SimNode, mirror: SimNode) {
        if random.chance(50), let process = mirror.process { kill(process) }
        if random.chance(50), let process = owner.process { kill(process) }
    }
}
