// What goes wrong in a run: at random times, for random lengths, until the faults are over and everything heals.

import ClusterProtocol
import Coordination
import LogModel

final class Faults {
    private unowned let world: World
    private let meanPause: UInt64
    private var isOver = false
    private var poolLost = false

    init(_ world: World) {
        self.world = world
        meanPause = world.random.between(40, 400) * millisecond
    }

    func begin() { next() }

    private func next() {
        world.after(world.random.between(1, 2 * meanPause)) { [self] in
            guard !isOver else { return }
            inject()
            next()
        }
    }

    private func inject() {}

    /// A claim was won: now and then its process dies before it publishes.
    func claimed(by process: SimProcess) {}

    /// Faults stop, everything heals, both nodes are up.
    func end() {
        isOver = true
        world.heal()
    }
}
