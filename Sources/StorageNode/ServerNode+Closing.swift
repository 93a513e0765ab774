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
        let closed = eventLoop.makePromise(of: Void.self)
        // Before the pool: no peer's WRITE meets one that is closed.
        parts.transport.close()
        for rail in arriving.values { rail.close() }
        loops.all.ask(from: eventLoop) { loop, isClosed in
            loop.close()
            isClosed(())
        } _: { _ in
            closed.succeed()
        }
        journal.stopWaiting()
        let pool = pool
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return closed.futureResult.flatMap {
            let node = bound.value
            return EventLoopFuture.andAllSucceed(node.ownThreads.map(node.shutDown), on: node.eventLoop)
        }.flatMap {
            // What the threads have ended comes back to the groups before their memory goes.
            let node = bound.value
            let hasCome = node.eventLoop.makePromise(of: Void.self)
            node.loops.all.ask(from: node.eventLoop) { _, hasTurned in
                hasTurned(())
            } _: { _ in
                hasCome.succeed()
            }
            return hasCome.futureResult
        }.map { pool.close() }
    }

    private var ownThreads: [NIOThreadPool] {
        threads.values.flatMap { [$0.reads, $0.destage, $0.steps, $0.probe] }
            + [memoryThreads, commons.coordinatorThread, journal.thread, poolWatch.thread]
    }

    private func shutDown(_ pool: NIOThreadPool) -> EventLoopFuture<Void> {
        let done = eventLoop.makePromise(of: Void.self)
        pool.shutdownGracefully { error in
            if let error { done.fail(error) } else { done.succeed() }
        }
        return done.futureResult
    }
}
