// Which threads may block on what. A call that hangs keeps its thread, so what must go on has others: making pool memory
// durable shares no thread with a medium, a group shares none with another group, and its reads share none with its
// destage. Groups per node are few, so their threads are too; those that wait cost a stack.

package import ClusterProtocol
internal import Coordination
package import GroupEngine
package import NIOCore
package import NIOPosix

/// The threads of one group on this node. Each pool has room for all that its group ever has under way in it, but for the
/// reads, which wait for each other.
package struct GroupThreads {
    /// Clients' reads of the medium. 4 keep a disk busy; when all of them hang, further reads wait, and nothing else.
    let reads: NIOThreadPool
    /// Batches on their way to the medium: one at a time (DestageMachine).
    let destage: NIOThreadPool
    /// The steps of a takeover and the release of the medium. 2: the machine's present step, and one that hangs on the
    /// medium though the machine has given up what it is for.
    let steps: NIOThreadPool
    /// Looks at the media of a group that another node owns: one at a time, and a hang harms nothing else.
    let probe: NIOThreadPool
    /// The node's, see ``memoryThreadCount(groups:)``.
    let memory: NIOThreadPool

    init(
        reads: NIOThreadPool, destage: NIOThreadPool, steps: NIOThreadPool, probe: NIOThreadPool, memory: NIOThreadPool
    ) {
        self.reads = reads
        self.destage = destage
        self.steps = steps
        self.probe = probe
        self.memory = memory
    }

    /// With pools of its own, not started.
    init(memory: NIOThreadPool) {
        self.init(
            reads: NIOThreadPool(numberOfThreads: 4), destage: NIOThreadPool(numberOfThreads: 1),
            steps: NIOThreadPool(numberOfThreads: 2), probe: NIOThreadPool(numberOfThreads: 1), memory: memory)
    }

    /// Those of a node with one group, started.
    package static func ofOneGroup() -> GroupThreads {
        let threads = GroupThreads(memory: NIOThreadPool(numberOfThreads: memoryThreadCount(groups: 1)))
        threads.memory.start()
        threads.start()
        return threads
    }

    /// Starts the group's own.
    func start() {
        for pool in [reads, destage, steps, probe] { pool.start() }
    }

    /// What makes pool memory durable, for all groups: the pool is one file, so what hangs for one hangs for all. A region has
    /// at once at most the persist of its log, that of its head, the drain of a healing, and the check of a catch-up or a
    /// preparation for an owner.
    static func memoryThreadCount(groups: Int) -> Int { 4 * max(1, groups) }
}

/// A group's runtime on an event loop, with threads for what blocks.
package final class LoopRuntime: Runtime {
    private let eventLoop: any EventLoop
    private let threads: GroupThreads

    package init(eventLoop: any EventLoop, threads: GroupThreads) {
        self.eventLoop = eventLoop
        self.threads = threads
    }

    /// For what only makes memory durable: the mirror of a log that belongs to no group.
    package convenience init(eventLoop: any EventLoop, memory: NIOThreadPool) {
        self.init(eventLoop: eventLoop, threads: GroupThreads(memory: memory))
    }

    package var now: Nanos { BootClock.now }

    package func execute(_ body: @escaping () -> Void) { eventLoop.assumeIsolated().execute(body) }

    package func executeNextTurn(_ body: @escaping () -> Void) { eventLoop.assumeIsolated().executeNextTurn(body) }

    package func execute(after delay: Nanos, _ body: @escaping () -> Void) {
        _ = eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(Int64(clamping: delay)), body)
    }

    package func perform(
        _ work: BlockingWork, _ body: @escaping @Sendable () -> Void, _ done: @escaping ((any Error)?) -> Void
    ) {
        let pool =
            switch work {
            case .reads: threads.reads
            case .destage: threads.destage
            case .steps: threads.steps
            case .probe: threads.probe
            case .memory: threads.memory
            }
        pool.runIfActive(eventLoop: eventLoop, body).assumeIsolated().whenComplete { result in
            switch result {
            case .success: done(nil)
            case .failure(let error): done(error)
            }
        }
    }
}
