// Time, turns and blocking work: what a group's engine has in place of a clock, an event loop and threads. With ``Host`` it is all
// that is outside. The engine runs in one place: whatever the runtime calls, it calls there, one at a time.

package import ClusterProtocol
internal import Synchronization

/// Where a blocking body may run. A body that hangs keeps nothing from running but others of its kind and group.
package enum BlockingWork: Hashable, Sendable, CaseIterable {
    /// Clients' reads of the medium.
    case reads
    /// Batches on their way to the medium: one at a time.
    case destage
    /// The steps of a takeover and the release of the medium: the present one, and one that was given up and hangs.
    case steps
    /// Looks at the media of a group that another node owns: one at a time.
    case probe
    /// Making pool memory durable, and reading it whole.
    case memory
}

/// Bound to the engine's place; not thread-safe.
package protocol Runtime: AnyObject {
    /// Nanoseconds of a clock that counts suspension, and never goes back.
    var now: Nanos { get }

    /// Runs `body` after what is running now, before anything new comes in. In the order of the calls.
    func execute(_ body: @escaping () -> Void)

    /// Runs `body` after what came in meanwhile has had its turn.
    func executeNextTurn(_ body: @escaping () -> Void)

    /// Runs `body` when `delay` is over, or somewhat later.
    func execute(after delay: Nanos, _ body: @escaping () -> Void)

    /// Runs `body` where it may block, and then `done` in the engine's place: later, never from inside of this call. Those of one
    /// kind may end in any order. `done` is told an error, and `body` is not run, only when the process ends.
    func perform(
        _ work: BlockingWork, _ body: @escaping @Sendable () -> Void, _ done: @escaping ((any Error)?) -> Void)
}

extension Runtime {
    /// ``perform(_:_:_:)``, for what has a result. Inlined, so that it is compiled for each of them, whatever the runtime is.
    @inline(__always)
    func run<Value: Sendable>(
        _ work: BlockingWork, _ body: @escaping @Sendable () throws -> Value,
        _ done: @escaping (Result<Value, any Error>) -> Void
    ) {
        let outcome = Outcome<Value>()
        perform(work, outcome.whole(body), outcome.answer(done))
    }
}

/// What a body hands to whoever waits for its end.
private final class Outcome<Value: Sendable>: Sendable {
    private let result = Mutex<Result<Value, any Error>?>(nil)

    /// `body`, and what keeps its result.
    func whole(_ body: @escaping @Sendable () throws -> Value) -> @Sendable () -> Void {
        { [self] in
            let ended = Result { try body() }
            result.withLock { $0 = ended }
        }
    }

    /// Hands `done` the result, or why there is none.
    func answer(_ done: @escaping (Result<Value, any Error>) -> Void) -> ((any Error)?) -> Void {
        { [self] error in
            if let error { return done(.failure(error)) }
            guard let ended = result.withLock({ $0 }) else { preconditionFailure("the body has ended") }
            done(ended)
        }
    }
}
