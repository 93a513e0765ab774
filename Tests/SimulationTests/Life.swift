// One run from its first start to its last check.

import ClusterConfiguration
import ClusterProtocol
@testable import GroupEngine
import LogModel
import NIOCore
import SimulationSupport

extension World {
    static let faultsFor = 6 * second
    /// After the faults, the groups must be whole again in so much time.
    static let healsWithin = 20 * second
    private static let checkInterval = 250 * millisecond

    func live() {
        for node in nodes {
            after(random.between(0, 100) * millisecond) { if node.server == nil { self.start(node) } }
        }
        after(0) { for group in self.groups { group.clients.begin() } }
        checkCopies()
        faults.begin()
        run(until: Self.faultsFor)
        faults.end()
        run(until: now + Self.healsWithin) { self.groups.allSatisfy(\.isWhole) }
        guard violation == nil else { return }
        for group in groups {
            group.oracle.expect(group.isWhole, "the group does not become mirrored: \(group.state)")
            group.oracle.checkBothInSync()
            group.clients.areDone = true
        }
        run(until: now + second)
        // What failed before may have moved a group once more.
        run(until: now + Self.healsWithin) { self.groups.allSatisfy { $0.servingServer != nil } }
        for group in groups {
            group.readEverything()
            group.drainEverything()
        }
        guard violation == nil else { return }
        for group in groups { group.oracle.checkMedia() }
    }

    private func checkCopies() {
        for group in groups { group.oracle.checkCopiesNow() }
        after(Self.checkInterval) { self.checkCopies() }
    }
}

extension SimGroup {
    /// Through the owner, after the last write.
    func readEverything() {
        guard world.violation == nil else { return }
        guard let server = servingServer else { return oracle.expect(false, "nobody serves at the end") }
        var answered = 0
        for (index, volume) in volumes.enumerated() {
            server.perform { [self] in
                _ = server.engine(of: self).open(volume) { [self] result in
                    guard case .success(let session) = result else { return }
                    read(all: index, session, server) { answered += 1 }
                }
            }
        }
        let isDone = world.run(until: world.now + 5 * second) { answered == volumes.count }
        oracle.expect(isDone, "reads are not answered at the end: " + describe(server.node))
    }

    private func read(all volume: Int, _ session: any VolumeSession, _ server: Server, _ done: @escaping () -> Void) {
        let askedAt = oracle.count()
        session.submit(.read(offset: 0, length: Blocks.perVolume * Blocks.bytes)) { [self] result in
            guard case .success(let bytes?) = result else {
                return oracle.expect(false, "a read at the end: \(result)")
            }
            oracle.readAnswered(
                0..<Blocks.perVolume, of: volume, bytes, askedAt: askedAt, by: server)
            session.close()
            done()
        }
    }

    func drainEverything() {
        guard world.violation == nil else { return }
        var isDrained = false
        /// Of whoever serves: a medium that failed before may move the group meanwhile.
        func ask() {
            guard let server = servingServer else { return world.after(100 * millisecond) { ask() } }
            server.perform { [self] in
                server.engine(of: self).drain { [world] refusal in
                    // What waited for space may have been issued since.
                    let owner = server.engine(of: self).owner
                    isDrained =
                        refusal == nil && owner?.requests.isEmpty == true
                        && owner?.owned.destage.undestagedWrites == 0
                    if !isDrained { world.after(100 * millisecond) { ask() } }
                }
            }
        }
        ask()
        let isDone = world.run(until: world.now + 10 * second) { isDrained }
        oracle.expect(isDone, "the log is not drained at the end")
    }
}
