// One run from its first start to its last check.

import ClusterConfiguration
import ClusterProtocol
import GroupEngine
import LogModel
import NIOCore
import SimulationSupport

extension World {
    static let faultsFor = 6 * second
    /// After the faults, the group must be whole again in so much time.
    static let healsWithin = 20 * second
    private static let checkInterval = 250 * millisecond

    func live() {
        for node in nodes {
            after(random.between(0, 100) * millisecond) { if node.server == nil { self.start(node) } }
        }
        after(0) { self.clients.begin() }
        checkCopies()
        faults.begin()
        run(until: Self.faultsFor)
        faults.end()
        let isWhole = run(until: now + Self.healsWithin) {
            self.servingServer != nil && self.nodes.allSatisfy(self.isMirrored)
        }
        guard oracle.violation == nil else { return }
        oracle.expect(isWhole, "the group does not become mirrored: " + nodes.map(describe).joined(separator: "; "))
        oracle.checkBothInSync()
        clients.areDone = true
        run(until: now + second)
        // What failed before may have moved the group once more.
        run(until: now + Self.healsWithin) { self.servingServer != nil }
        readEverything()
        drainEverything()
        guard oracle.violation == nil else { return }
        oracle.checkMedia()
    }

    private func checkCopies() {
        oracle.checkCopiesNow()
        after(Self.checkInterval) { self.checkCopies() }
    }

    /// The one process that serves.
    var servingServer: Server? {
        let serving = nodes.compactMap(\.server).filter { !$0.isDying && $0.isServing }
        oracle.expect(serving.count < 2, "S15: two processes serve")
        return serving.first
    }

    func isMirrored(_ node: SimNode) -> Bool {
        node.server.map { $0.group.machine.state($0.clock) == .mirrored } ?? false
    }

    func describe(_ node: SimNode) -> String {
        guard let server = node.server else { return "\(node.name) is down" }
        let machine = server.group.machine
        let reason = machine.reason(server.clock) ?? "no reason"
        return "\(server.name) is \(machine.state(server.clock)) (\(reason)), its log \(server.group.snapshot)"
    }

    /// Through the owner, after the last write.
    private func readEverything() {
        guard oracle.violation == nil else { return }
        guard let server = servingServer else { return oracle.expect(false, "nobody serves at the end") }
        var answered = 0
        for (index, volume) in configuration.volumes.enumerated() {
            server.perform { [self] in
                _ = server.group.open(volume) { [self] result in
                    guard case .success(let session) = result else { return }
                    read(all: index, session, server) { answered += 1 }
                }
            }
        }
        let isDone = run(until: now + 5 * second) { answered == configuration.volumes.count }
        oracle.expect(isDone, "reads are not answered at the end: " + describe(server.node))
    }

    private func read(all volume: Int, _ session: any VolumeSession, _ server: Server, _ done: @escaping () -> Void) {
        let askedAt = oracle.count()
        session.submit(.read(offset: 0, length: Blocks.perVolume * Blocks.bytes)) { [self] result in
            guard case .success(let bytes?) = result else {
                return oracle.expect(false, "a read at the end: \(result)")
            }
            oracle.readAnswered(
                0..<Blocks.perVolume, of: volume, Array(bytes.readableBytesView), askedAt: askedAt, by: server)
            session.close()
            done()
        }
    }

    private func drainEverything() {
        guard oracle.violation == nil else { return }
        var isDrained = false
        /// Of whoever serves: a medium that failed before may move the group meanwhile.
        func ask() {
            guard let server = servingServer else { return after(100 * millisecond) { ask() } }
            server.perform {
                server.group.drain { [self] refusal in
                    isDrained = refusal == nil
                    if !isDrained { after(100 * millisecond) { ask() } }
                }
            }
        }
        ask()
        let isDone = run(until: now + 10 * second) { isDrained }
        oracle.expect(isDone, "the log is not drained at the end")
    }
}
