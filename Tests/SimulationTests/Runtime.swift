// Turns and blocking work of one process, in virtual time.

import ClusterProtocol
import GroupEngine
import SimulationSupport

/// The runtime of one group in one server process. What may wait in the middle of its work (batches, the steps of a takeover) has a fiber;
/// everything else that blocks takes effect at one moment of the time that it takes.
final class VirtualRuntime: Runtime {
    // Unsafe: both end with the world, and nothing runs in it then.
    private unowned(unsafe) let server: Server
    private unowned(unsafe) let group: SimGroup

    init(_ server: Server, _ group: SimGroup) {
        self.server = server
        self.group = group
    }

    var now: Nanos { server.clock }

    func execute(_ body: @escaping () -> Void) { server.execute(body) }

    func executeNextTurn(_ body: @escaping () -> Void) {
        server.later(server.world.random.between(1, 20) * microsecond, body)
    }

    func execute(after delay: Nanos, _ body: @escaping () -> Void) {
        server.later(delay + server.world.random.between(0, 1000) * microsecond, body)
    }

    func perform(
        _ work: BlockingWork, _ body: @escaping @Sendable () -> Void, _ done: @escaping ((any Error)?) -> Void
    ) {
        switch work {
        case .destage:
            runInFiber(body) { [server, group] error in
                done(error)
                group.oracle.batchEnded(server)
            }
        case .steps: runInFiber(body, done)
        case .reads: runAtOnce(body, done, duration: server.world.readTime(), group.path(of: server.node).hang)
        case .probe: runAtOnce(body, done, duration: server.world.mediumCallTime(), group.path(of: server.node).hang)
        case .memory: runAtOnce(body, done, duration: server.world.memoryTime(), server.node.hungMemory)
        }
    }

    private func runInFiber(_ body: @escaping () -> Void, _ done: @escaping ((any Error)?) -> Void) {
        let server = server
        server.later(server.world.random.between(1, 100) * microsecond) {
            server.startFiber(body) { done(nil) }
        }
    }

    /// The effect comes at any moment of the `duration`, or when what it needs does not hang any more.
    private func runAtOnce(
        _ body: @escaping () -> Void, _ done: @escaping ((any Error)?) -> Void, duration: UInt64,
        _ hang: Hang
    ) {
        let server = server
        let before = server.world.random.between(0, duration)
        server.later(before) {
            hang.pass {
                server.perform {
                    body()
                    server.later(duration - before) { done(nil) }
                }
            }
        }
    }
}

/// Something that may not return for a while.
final class Hang {
    private var waiting: [() -> Void] = []
    var isOn = false {
        didSet {
            guard !isOn else { return }
            let ready = waiting
            waiting = []
            for body in ready { body() }
        }
    }

    /// What waits never goes on.
    func forget() { waiting = [] }

    /// Calls `body` now, or when it does not hang any more.
    func pass(_ body: @escaping () -> Void) {
        if isOn { waiting.append(body) } else { body() }
    }
}
