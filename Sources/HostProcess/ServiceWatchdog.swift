// The supervisor's watchdog, fed only by a node that does its work: the event loop has turned and a thread that works on a medium has
// answered since it was fed last.

internal import Foundation
internal import Synchronization

public final class ServiceWatchdog: Sendable {
    private let hasAnswered = Atomic(true)

    /// `ask` is called from a thread of its own, and answers from wherever. Does nothing if no supervisor waits.
    public static func start(
        _ notification: ServiceNotification, ask: @escaping @Sendable (_ answer: @escaping @Sendable () -> Void) -> Void
    ) {
        guard let micros = notification.watchdogMicros else { return }
        let watchdog = ServiceWatchdog()
        Thread.detachNewThread {
            while true {
                // One question at a time; nothing is asked while one waits for its answer.
                if watchdog.hasAnswered.exchange(false, ordering: .relaxed) {
                    notification.feedWatchdog()
                    ask { watchdog.hasAnswered.store(true, ordering: .relaxed) }
                }
                // Two answers may be late before the supervisor has waited too long.
                Thread.sleep(forTimeInterval: Double(micros) / 3_000_000)
            }
        }
    }
}
