// Turns of the event loop. What one connection asks for must not keep the loop from the sockets of the others (S28).

package import NIOCore

extension NIOIsolatedEventLoop {
    /// Runs `body` after the sockets were looked at again. `execute` alone does not give them a turn: the loop carries out
    /// all that is due, also what that adds, before it polls.
    package func executeNextTurn(_ body: @escaping () -> Void) {
        // After what is due already, so that it does not outlast the delay: then the loop would not poll in between.
        execute { _ = self.scheduleTask(in: .microseconds(20), body) }
    }
}
