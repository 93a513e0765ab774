// Who is inside of a log right now, so that closing it waits for them: a store through a closed pool would trap.

internal import Synchronization

/// Safe from any number of threads; entering and leaving take no lock.
final class UseCount: Sendable {
    /// Beyond any number of threads.
    private static let closed = 1 << 40
    private let users = Atomic<Int>(0)
    private let lastOne = Mutex<CheckedContinuation<Void, Never>?>(nil)

    /// Runs `body`, or throws `closed`. `body` is short: it never waits.
    func use<Value>(_ body: () throws(TwinLogError) -> Value) throws(TwinLogError) -> Value {
        defer { leave() }
        guard enter() else { throw TwinLogError(.closed, "the log is closed") }
        return try body()
    }

    /// The same, `nil` once it is closed.
    func useIfOpen<Value>(_ body: () -> Value) -> Value? {
        defer { leave() }
        return enter() ? body() : nil
    }

    private func enter() -> Bool { users.wrappingAdd(1, ordering: .acquiring).oldValue < Self.closed }

    private func leave() {
        guard users.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == Self.closed else { return }
        let waiting = lastOne.withLock { $0.take() }
        waiting?.resume()
    }

    /// Lets nobody in any more and waits until everybody has left. False if it was closed before.
    func close() async -> Bool {
        var wasOpen = false
        await withCheckedContinuation { continuation in
            // Whoever leaves from here on finds the continuation.
            let isEmpty = lastOne.withLock { waiting in
                let earlier = users.bitwiseOr(Self.closed, ordering: .acquiringAndReleasing).oldValue
                wasOpen = earlier < Self.closed
                guard wasOpen, earlier > 0 else { return true }
                waiting = continuation
                return false
            }
            if isEmpty { continuation.resume() }
        }
        return wasOpen
    }
}
