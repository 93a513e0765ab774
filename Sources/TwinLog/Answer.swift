// One answer that a callback gives and a task waits for.

internal import Synchronization

/// The first answer counts: the callback's, or the cancellation of the task that waits. Safe from any number of threads.
final class Answer<Value: Sendable>: Sendable {
    typealias Outcome = Result<Value, TwinLogError>

    private enum State {
        case open
        case awaited(CheckedContinuation<Outcome, Never>)
        case given(Outcome)
        case over
    }

    private let state = Mutex(State.open)

    /// Calls `begin` and returns what is given to the answer, or throws `cancelled`.
    static func wait(_ begin: (Answer) -> Void) async throws(TwinLogError) -> Value {
        let answer = Answer()
        let outcome = await withTaskCancellationHandler {
            begin(answer)
            return await withCheckedContinuation { answer.await($0) }
        } onCancel: {
            answer.give(.failure(.cancelled))
        }
        return try outcome.get()
    }

    private func await(_ continuation: CheckedContinuation<Outcome, Never>) {
        let given = state.withLock { state -> Outcome? in
            guard case .given(let outcome) = state else {
                state = .awaited(continuation)
                return nil
            }
            state = .over
            return outcome
        }
        if let given { continuation.resume(returning: given) }
    }

    /// If another answer came first, nobody hears of this one.
    func give(_ outcome: Outcome) {
        let awaiting = state.withLock { state -> CheckedContinuation<Outcome, Never>? in
            switch state {
            case .open:
                state = .given(outcome)
                return nil
            case .awaited(let continuation):
                state = .over
                return continuation
            case .given, .over: return nil
            }
        }
        awaiting?.resume(returning: outcome)
    }
}
