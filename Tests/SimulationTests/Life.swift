// One run from its first start to its last check.

import ClusterProtocol
import LogModel
import SimulationSupport

extension World {
    static let faultsFor = 6 * second
    /// After the faults, the group must be whole again in so much time.
    static let healsWithin = 20 * second

    func live() {
        for node in nodes {
            after(random.between(0, 100) * millisecond) { if node.process == nil { self.start(node) } }
        }
        after(0) { self.clients.begin() }
        faults.begin()
        run(until: Self.faultsFor)
        faults.end()
        let isWhole = run(until: now + Self.healsWithin) {
            self.servingOwner != nil && self.nodes.allSatisfy(self.isMirrored)
        }
        guard oracle.violation == nil else { return }
        oracle.expect(isWhole, "the group does not become mirrored: " + nodes.map(describe).joined(separator: "; "))
        oracle.checkBothInSync()
        clients.areDone = true
        run(until: now + second)
        // What failed before may have moved the group once more.
        run(until: now + Self.healsWithin) { self.servingOwner != nil }
        readEverything()
        drainEverything()
        oracle.checkMedium()
        // What an operator gave up by force is gone for clients too.
        guard coverage.forcedPublications == 0, let problem = history.violation() else { return }
        oracle.expect(false, "not linearizable: \(problem)")
    }

    /// The one process that serves.
    var servingOwner: SimProcess? {
        let serving = nodes.compactMap(\.process).filter { $0.machine.isServing && $0.owner?.isServing == true }
        oracle.expect(serving.count < 2, "S15: two processes serve")
        return serving.first
    }

    func isMirrored(_ node: SimNode) -> Bool {
        node.process.map { $0.machine.state($0.clock) == .mirrored } ?? false
    }

    func describe(_ node: SimNode) -> String {
        guard let process = node.process else { return "\(node.name) is down" }
        let state = process.machine.state(process.clock)
        return "\(process.name) is \(state.rawValue) (\(process.machine.reason(process.clock) ?? "no reason"))"
    }

    /// Through the owner, after the last write.
    private func readEverything() {
        guard oracle.violation == nil else { return }
        guard let process = servingOwner, let owner = process.owner else {
            return oracle.expect(false, "nobody serves at the end")
        }
        var answered = 0
        let begun = now
        let session = ClientSession(Client(self, number: 0), process, owner)
        for block in 0..<World.blocks {
            owner.read(block, session) { [self] stamp in
                answered += 1
                oracle.expect(stamp != nil, "block \(block) cannot be read at the end")
                if let stamp { history.read(block, stamp, begun: begun, end: now) }
            }
        }
        let isDone = run(until: now + 5 * second) { answered == World.blocks }
        oracle.expect(isDone, "reads are not answered at the end")
    }

    private func drainEverything() {
        guard oracle.violation == nil, let owner = servingOwner?.owner else { return }
        var isDrained = false
        owner.drain(thenStop: false) { isDrained = true }
        let isDone = run(until: now + 10 * second) { isDrained }
        oracle.expect(isDone, "the log is not drained at the end")
    }
}
