// Two nodes, a coordinator, a medium and clients under virtual time, from one seed. Nothing here decides anything about
// the group: that is the production machines' part.

import ClusterProtocol
import Coordination
import LogModel

/// A server: what stays when its process dies.
final class SimNode {
    let index: Int
    let name: NodeID
    var pool: UUID128
    var region: RegionModel?
    var process: SimProcess?
    var starts: Int32 = 0
    /// How much faster than true time this node's clock runs.
    let driftPartsPerMillion: Int64
    let clockStart: UInt64
    var isCutFromCoordinator = false

    init(index: Int, name: NodeID, pool: UUID128, drift: Int64, clockStart: UInt64) {
        self.index = index
        self.name = name
        self.pool = pool
        driftPartsPerMillion = drift
        self.clockStart = clockStart
    }
}

final class World {
    static let blocks = 6
    static let group = GroupID("g0")

    let seed: UInt64
    var random: SplitMix64
    private var timeline = Timeline()
    var nodes: [SimNode] = []
    var processes: [SimProcess] = []
    var coordinator = CoordinatorModel()
    var medium = MediumModel(stamps: Array(repeating: 0, count: World.blocks))
    var rails: [Rail] = []
    /// By sender: its messages do not arrive.
    private var blocked = [false, false]
    var fenceFails = false
    let degradeOnMirrorLoss: Bool
    /// Whether a process' death can be seen by its partner (one host), or only its silence.
    let seesDeath: Bool
    lazy var clients = Clients(self)
    lazy var oracle = Oracle(self)
    var faultsAreOver = false
    var nextKey: UInt64 = 0

    let isTraced: Bool
    private(set) var trace: [String] = []

    init(seed: UInt64, traced: Bool = false) {
        self.seed = seed
        isTraced = traced
        random = SplitMix64(seed: seed)
        degradeOnMirrorLoss = random.chance(85)
        seesDeath = random.chance(70)
        for (index, name) in ["alpha", "beta"].enumerated() {
            nodes.append(
                SimNode(
                    index: index, name: NodeID(name), pool: UUID128.random(using: &random),
                    drift: Int64(random.between(0, 40_000)) - 20_000, clockStart: random.between(1, 1000) * second))
        }
    }

    var now: UInt64 { timeline.now }

    func after(_ delay: UInt64, _ action: @escaping () -> Void) { timeline.schedule(after: delay, action) }

    /// Runs until `deadline`, or until `condition` holds, or a rule is broken.
    @discardableResult
    func run(until deadline: UInt64, or condition: () -> Bool = { false }) -> Bool {
        while oracle.violation == nil {
            if condition() { return true }
            guard let action = timeline.next(until: deadline) else { return condition() }
            action()
        }
        return false
    }

    func note(_ text: @autoclosure () -> String) {
        guard isTraced else { return }
        let milliseconds = String(now / millisecond)
        let micros = String(now / microsecond % 1000)
        trace.append(milliseconds + "." + String(repeating: "0", count: 3 - micros.count) + "ms " + text())
    }

    // MARK: The network

    func isBlocked(from sender: Int) -> Bool { blocked[sender] }

    func setBlocked(from sender: Int, _ value: Bool) {
        blocked[sender] = value
        guard !value else { return }
        rails.removeAll { $0.isDone }
        for rail in rails { rail.releaseHeld() }
    }

    // MARK: Processes

    func start(_ node: SimNode) {
        precondition(node.process == nil)
        node.starts += 1
        let identity = ProcessIdentity(node: node.name, pid: node.starts, startTicks: UInt64(node.starts), bootID: "boot")
        let process = SimProcess(self, node, identity, freshLogUUID: UUID128.random(using: &random))
        node.process = process
        processes.append(process)
        note("\(node.name) starts as process \(identity.pid)")
        process.begin()
    }

    func process(_ identity: ProcessIdentity) -> SimProcess? { processes.first { $0.identity == identity } }

    /// SIGKILL. The process runs nothing any more; what it gave to the medium may land until it is dead.
    func kill(_ process: SimProcess) {
        guard !process.isDying, !process.isDead else { return }
        note("\(process.node.name) process \(process.identity.pid) is killed")
        process.isDying = true
        after(random.chance(70) ? random.between(0, 5) * millisecond : random.between(0, 300) * millisecond) {
            process.die()
        }
    }

    // MARK: The coordinator

    /// One call of `process`: delayed, and it may fail before or after `effect`; then `answer` gets `nil`.
    func coordinate<Answer>(
        _ process: SimProcess, _ effect: @escaping () -> Answer, _ answer: @escaping (Answer?) -> Void
    ) {
        let there = coordinatorDelay()
        let back = coordinatorDelay()
        let failsBefore = random.chance(coordinator.failPercent)
        let failsAfter = random.chance(coordinator.failPercent)
        process.later(there) { [self] in
            guard !coordinator.isDown, !process.node.isCutFromCoordinator, !failsBefore else {
                return process.later(back) { answer(nil) }
            }
            let result = effect()
            process.later(back) { answer(failsAfter ? nil : result) }
        }
    }

    private func coordinatorDelay() -> UInt64 {
        coordinator.isSlow ? random.between(1, 250) * millisecond : random.between(50, 2000) * microsecond
    }

    func swapRecord(expecting expected: UInt64, to wanted: GroupRecord, by process: SimProcess) -> SwapOutcome {
        guard (coordinator.record?.version ?? 0) == expected else { return .lost(coordinator.record) }
        let old = coordinator.record
        coordinator.record = wanted
        note("coordinator: version \(wanted.version) \(wanted.owner) \(wanted.phase) epoch \(wanted.epoch) in sync \(wanted.inSync) sources \(wanted.sources) fence \(wanted.mustFence.map { "\($0.node)\($0.pid)" })")
        oracle.swapped(from: old, to: wanted, by: process)
        return .won
    }
}
