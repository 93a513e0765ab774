// The node's pool at rest, looked at every two seconds: its name, and what its head holds. A pool without a name cannot be opened again, so
// its groups leave it while it still serves; where they cannot, it goes on serving, and `status` says so.

internal import ClusterProtocol
internal import Coordination
internal import GroupEngine
internal import LogModel
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory

/// What one look found.
struct PoolSight: Sendable {
    /// Why the pool could not be opened again under its path.
    var nameProblem: String?
    /// Places of the file that were written anew.
    var restored: [UInt64] = []
    /// Why something could not be.
    var restoreProblem: String?

    /// Blocks.
    static func take(_ pool: Pool) -> PoolSight {
        var sight = PoolSight(nameProblem: pool.nameProblem())
        do throws(PoolError) {
            sight.restored = try pool.restoreHead()
        } catch {
            sight.restoreProblem = error.description
        }
        return sight
    }
}

/// One look at a time, on a thread of its own: a file system that hangs holds up nothing else. Lives on the node's event loop.
final class PoolWatch {
    static let interval: Nanos = 2_000_000_000

    private let pool: Pool
    private let eventLoop: any EventLoop
    let thread = NIOThreadPool(numberOfThreads: 1)
    private var lookedAt: Nanos = 0
    private var isLooking = false
    /// Of the last look.
    private(set) var nameProblem: String?
    private var restoreProblem: String?

    init(_ pool: Pool, eventLoop: any EventLoop) {
        self.pool = pool
        self.eventLoop = eventLoop
        thread.start()
    }

    /// Looks, if it is time to. `report` is told what is new, `seen` when the look has ended.
    func tick(_ now: Nanos, report: @escaping (Report) -> Void, seen: @escaping () -> Void) {
        guard !isLooking, now >= lookedAt + Self.interval else { return }
        lookedAt = now
        isLooking = true
        let pool = pool
        thread.runIfActive(eventLoop: eventLoop) { PoolSight.take(pool) }.assumeIsolated().whenComplete { result in
            self.isLooking = false
            guard case .success(let sight) = result else { return }
            self.note(sight, report)
            seen()
        }
    }

    private func note(_ sight: PoolSight, _ report: (Report) -> Void) {
        if sight.nameProblem != nameProblem {
            nameProblem = sight.nameProblem
            report(
                nameProblem.map { Report(.poolUnnamed, $0) }
                    ?? Report(.poolNamed, "\(pool.path) leads to the pool in use again"))
        }
        if !sight.restored.isEmpty {
            let places = sight.restored.map(String.init).joined(separator: ", ")
            report(
                Report(
                    .poolRestored,
                    "\(pool.path): somebody wrote over the pool at offset \(places); it was written anew from memory"))
        }
        if sight.restoreProblem != restoreProblem {
            restoreProblem = sight.restoreProblem
            if let restoreProblem { report(Report(.poolDamaged, restoreProblem)) }
        }
    }

    /// For operators.
    var problem: String? {
        nameProblem.map {
            "\($0); what is in it is lost when the node ends, so give it its name back, or make a new one beside a partner in sync"
        }
            ?? restoreProblem
    }
}
