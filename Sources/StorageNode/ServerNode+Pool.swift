// What a node does about a pool that lost its name.

internal import ClusterProtocol
internal import Coordination
internal import GroupEngine
internal import Synchronization

extension ServerNode {
    func watchPool() {
        poolWatch.tick(BootClock.now) { [unowned self] in
            commons.report($0, group: nil)
        } seen: { [unowned self] in
            let problem = poolWatch.problem
            commons.poolProblem.withLock { $0 = problem }
            guard poolWatch.nameProblem != nil else { return }
            for loop in loops.all { loop.tell { $0.leavePool() } }
        }
    }
}
