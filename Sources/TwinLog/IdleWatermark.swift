// An idle log gets one record of its own that says how far it was promised, so that damage to its last record is told from an append
// that a crash cut (S5).

internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import Synchronization
internal import WriteLog

/// Looks once a second, until it is stopped or gone. Safe from any number of threads.
final class IdleWatermark: Sendable {
    private static let interval = TimeAmount.seconds(1)

    private let store: LogStore
    private let users: UseCount
    private let written: @Sendable () -> Void
    private let lastTail: Mutex<LSN>
    private let task = Mutex<RepeatedTask?>(nil)

    /// `written` is called when something is to be made durable.
    init(_ store: LogStore, _ users: UseCount, written: @escaping @Sendable () -> Void) {
        self.store = store
        self.users = users
        self.written = written
        lastTail = Mutex(store.log.tail)
        let repeated = MultiThreadedEventLoopGroup.singleton.any().scheduleRepeatedTask(
            initialDelay: Self.interval, delay: Self.interval
        ) { [weak self] _ in
            self?.look()
        }
        task.withLock { $0 = repeated }
    }

    deinit { stop() }

    func stop() { task.withLock { $0.take() }?.cancel() }

    private func look() {
        let tail = store.log.tail
        let isIdle = lastTail.withLock { last in
            defer { last = tail }
            return last == tail
        }
        guard isIdle, users.useIfOpen({ store.mark() }) == true else { return }
        written()
    }
}
