// Where calls of files and memory may block: never the caller's thread, which may be one of few.

internal import NIOPosix

/// A thread of one log: a disk that hangs holds up nothing else. Safe from any number of threads.
final class BlockingThread: Sendable {
    private let pool = NIOThreadPool(numberOfThreads: 1)

    init() { pool.start() }
    // The pool outlives this call: the callback holds it.
    deinit { pool.shutdownGracefully { _ in } }

    /// Runs `body` there; in the order of the calls.
    func run<Value: Sendable>(
        _ body: @escaping @Sendable () throws(TwinLogError) -> Value
    ) async throws(TwinLogError) -> Value {
        try await Self.run(body, on: pool)
    }

    /// Begins `body` there and goes on.
    func begin(_ body: @escaping @Sendable () -> Void) { pool.submit { _ in body() } }

    /// For what belongs to no log yet: runs `body` on one of the process' threads for that.
    static func runAnywhere<Value: Sendable>(
        _ body: @escaping @Sendable () throws(TwinLogError) -> Value
    ) async throws(TwinLogError) -> Value {
        try await run(body, on: NIOThreadPool.singleton)
    }

    private static func run<Value: Sendable>(
        _ body: @escaping @Sendable () throws(TwinLogError) -> Value, on pool: NIOThreadPool
    ) async throws(TwinLogError) -> Value {
        let result = await withCheckedContinuation {
            (continuation: CheckedContinuation<Result<Value, TwinLogError>, Never>) in
            pool.submit { state in
                guard case .active = state else {
                    return continuation.resume(
                        returning: .failure(TwinLogError(.closed, "the threads of this process have ended")))
                }
                continuation.resume(returning: Result { () throws(TwinLogError) in try body() })
            }
        }
        return try result.get()
    }
}
