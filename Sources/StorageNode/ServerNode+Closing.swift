// The end of a node whose process goes on: everything that it took is given back, so that the same node can start again.

internal import GroupEngine
public import NIOCore
internal import NIOPosix
internal import PersistentMemory

extension ServerNode {
    /// Ends the rails, the listeners and the threads, and releases the pool. The future succeeds when all of it is done, which takes as long
    /// as the calls do that still run on a thread. Precondition: ``stop()`` has succeeded, or ``start()`` has failed; nobody calls
    /// the node any more.
    public func close() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        endTurns()
        // Before the pool: no peer's WRITE meets one that is closed.
        for rail in accepted.values { rail.close() }
        for group in groups.all { group.closeRails() }
        parts.transport.close()
        journal.stopWaiting()
        let pool = pool
        return EventLoopFuture.andAllSucceed(ownThreads.map(shutDown), on: eventLoop).map { pool.close() }
    }

    private var ownThreads: [NIOThreadPool] {
        threads.values.flatMap { [$0.reads, $0.destage, $0.steps, $0.probe] }
            + [memoryThreads, coordinatorThread, journal.thread, poolWatch.thread]
    }

    private func shutDown(_ pool: NIOThreadPool) -> EventLoopFuture<Void> {
        let done = eventLoop.makePromise(of: Void.self)
        pool.shutdownGracefully { error in
            if let error { done.fail(error) } else { done.succeed() }
        }
        return done.futureResult
    }
}
