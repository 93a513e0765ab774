// Threads of their own for what blocks or spins, started together.

import Foundation
import Synchronization

/// Runs `body` on so many threads, started together, and waits for all of them. Their results are in their order.
func onThreads<Outcome: Sendable>(_ count: Int, _ body: @escaping @Sendable (Int) -> Outcome) -> [Outcome] {
    let run = ThreadRun<Outcome>()
    let group = DispatchGroup()
    for index in 0..<count {
        group.enter()
        Thread.detachNewThread {
            run.ready.add(1, ordering: .releasing)
            // Bounded by the start of the other threads, which happens at once.
            while run.ready.load(ordering: .acquiring) < count { sched_yield() }
            let outcome = body(index)
            run.outcomes.withLock { $0[index] = outcome }
            group.leave()
        }
    }
    group.wait()
    return run.outcomes.withLock { outcomes in outcomes.sorted { $0.key < $1.key }.map(\.value) }
}

private final class ThreadRun<Outcome: Sendable>: Sendable {
    let ready = Atomic<Int>(0)
    let outcomes = Mutex<[Int: Outcome]>([:])
}
