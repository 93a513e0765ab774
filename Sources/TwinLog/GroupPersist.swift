// Making appends durable where that takes an `msync`: one call for everybody who waits when it begins.

internal import LogModel
internal import Synchronization

/// Safe from any number of threads.
final class GroupPersist: Sendable {
    private struct State {
        var isRunning = false
        /// Something was published since the present call began.
        var isAsked = false
    }

    private let store: LogStore
    private let thread: BlockingThread
    private let state = Mutex(State())
    /// Told on the thread, after each call.
    private let persisted: @Sendable (Result<LSN, TwinLogError>) -> Void

    init(
        _ store: LogStore, on thread: BlockingThread, persisted: @escaping @Sendable (Result<LSN, TwinLogError>) -> Void
    ) {
        self.store = store
        self.thread = thread
        self.persisted = persisted
    }

    /// What is published now will be made durable.
    func ask() {
        let begins = state.withLock { state in
            defer { state.isRunning = true }
            if state.isRunning { state.isAsked = true }
            return !state.isRunning
        }
        if begins { begin() }
    }

    /// One call at a time: what else the thread is for has its turn between two.
    private func begin() {
        thread.begin { [self] in
            persisted(Result { () throws(TwinLogError) in try store.persist() })
            if goesOn() { begin() }
        }
    }

    private func goesOn() -> Bool {
        state.withLock { state in
            state.isRunning = state.isAsked
            state.isAsked = false
            return state.isRunning
        }
    }
}
