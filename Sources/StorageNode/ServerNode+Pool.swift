// What a node does about a pool that lost its name.

internal import ClusterProtocol
internal import Coordination
internal import GroupEngine
internal import Logging

extension ServerNode {
    func watchPool() {
        poolWatch.tick(BootClock.now) { [unowned self] in
            report($0, group: nil)
        } seen: { [unowned self] in
            if poolWatch.nameProblem != nil { leavePool() }
        }
    }

    /// Groups whose partner could serve them without loss go there.
    private func leavePool() {
        for group in groups.all where group.machine.isServing && !poolWatch.left.contains(group.id) {
            let id = group.id
            guard group.machine.takeoverPossible(BootClock.now) else { continue }
            poolWatch.left.insert(id)
            group.command(.handOver) { [unowned self] refusal in
                guard let refusal else { return }
                // Asked again after the next look.
                poolWatch.left.remove(id)
                logger.notice("\(id): cannot leave a pool without a name: \(refusal)")
            }
        }
    }
}
