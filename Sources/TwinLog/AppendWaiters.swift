// Tasks that wait until the log is promised up to the end of what they appended.
//
// Invariant: each continuation is resumed once: by what is reached, by a failure, or by its task's cancellation.

internal import LogModel
internal import Synchronization

/// Safe from any number of threads. Nobody who waits for nothing takes its lock.
final class AppendWaiters: Sendable {
    private struct Waiter {
        let end: LSN
        let continuation: CheckedContinuation<TwinLogError?, Never>
    }

    private struct State {
        var waiting: [UInt64: Waiter] = [:]
        /// Why nothing is promised any more.
        var failure: TwinLogError?
    }

    private let state = Mutex(State())
    private let count = Atomic<Int>(0)
    private let lastID = Atomic<UInt64>(0)

    /// Whether anybody waits. Whoever has published an append before this is seen by a waiter, or sees it here.
    var isEmpty: Bool {
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return count.load(ordering: .sequentiallyConsistent) == 0
    }

    /// Returns when ``reached(_:)`` has passed `end`. `ask` is called once the wait has begun: what was reached before counts if it
    /// tells ``reached(_:)``. Throws `cancelled`, or what ``fail(_:)`` was told.
    func wait(for end: LSN, asking ask: () -> Void) async throws(TwinLogError) {
        let id = lastID.wrappingAdd(1, ordering: .relaxed).newValue
        let failure = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard enter(id, Waiter(end: end, continuation: continuation)) else { return }
                ask()
            }
        } onCancel: {
            leave(id)
        }
        if let failure { throw failure }
    }

    /// False if the wait is over at once.
    private func enter(_ id: UInt64, _ waiter: Waiter) -> Bool {
        let failure = state.withLock { state -> TwinLogError? in
            // A cancellation that has not found this waiter is seen here: both are under the lock.
            if let failure = Task.isCancelled ? .cancelled : state.failure { return failure }
            state.waiting[id] = waiter
            count.store(state.waiting.count, ordering: .sequentiallyConsistent)
            return nil
        }
        guard let failure else {
            atomicMemoryFence(ordering: .sequentiallyConsistent)
            return true
        }
        waiter.continuation.resume(returning: failure)
        return false
    }

    private func leave(_ id: UInt64) {
        let waiter = state.withLock { state in
            defer { count.store(state.waiting.count, ordering: .sequentiallyConsistent) }
            return state.waiting.removeValue(forKey: id)
        }
        waiter?.continuation.resume(returning: .cancelled)
    }

    /// Everything below `end` is promised. Answers the greatest end of an append that this promises.
    @discardableResult
    func reached(_ end: LSN) -> LSN? {
        let ready = take { $0.end <= end }
        for waiter in ready { waiter.continuation.resume(returning: nil) }
        return ready.map(\.end).max()
    }

    /// Nobody who waits now gets what they wait for.
    func fail(_ error: TwinLogError) {
        for waiter in take({ _ in true }) { waiter.continuation.resume(returning: error) }
    }

    /// Nor does anybody who comes later.
    func failForEver(_ error: TwinLogError) {
        state.withLock { $0.failure = $0.failure ?? error }
        fail(error)
    }

    private func take(_ isTaken: (Waiter) -> Bool) -> [Waiter] {
        state.withLock { state in
            let taken = state.waiting.filter { isTaken($0.value) }
            for id in taken.keys { state.waiting[id] = nil }
            count.store(state.waiting.count, ordering: .sequentiallyConsistent)
            return Array(taken.values)
        }
    }
}
