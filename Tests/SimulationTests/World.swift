// Two nodes, a coordinator, a medium and clients under virtual time, from one seed. Nothing here decides anything about
// the group: that is the production machines' part.

import ClusterProtocol
import Coordination
import Foundation
import LogModel
import SimulationSupport
import TestSupport

/// All that a pool holds.
struct PoolImage {
    var pool: UUID128
    var region: RegionModel?
    var standing: LocalStanding
}

/// A server: what stays when its process dies.
final class SimNode {
    let index: Int
    let name: NodeID
    var pool: UUID128
    var region: RegionModel?
    /// The log that was set aside last, in a file beside the pool.
    var archive: RegionModel?
    /// What the region has seen of the coordinator.
    var standing = LocalStanding(generation: 0, counted: 0, epoch: .none)
    /// A copy of the pool as it was at some time.
    var image: PoolImage?
    /// The pool is an older copy, and the log in it was not begun anew since. A start counts it up, and may reach what was counted.
    var holdsOlderCopy = false
    var process: SimProcess?
    var starts: Int32 = 0
    /// How much faster than true time this node's clock runs.
    let driftPartsPerMillion: Int64
    let clockStart: UInt64
    var isCutFromCoordinator = false
    /// What makes a log durable here does not return; it goes on in the end.
    var isMemoryHung = false {
        didSet {
            guard !isMemoryHung else { return }
            let waiting = whenMemoryGoesOn
            whenMemoryGoesOn = []
            for body in waiting { body() }
        }
    }
    var whenMemoryGoesOn: [() -> Void] = []
    /// The path from here to the medium fails.
    var mediumFails = false
    /// Calls of the medium do not return here; they go on in the end.
    var isMediumHung = false {
        didSet {
            guard !isMediumHung else { return }
            let waiting = whenMediumGoesOn
            whenMediumGoesOn = []
            for body in waiting { body() }
        }
    }
    var whenMediumGoesOn: [() -> Void] = []

    /// What the boot clock counted while nothing here ran, timers included: a suspended machine.
    var slept: UInt64 = 0
    /// When memory under its log failed last.
    var memoryFailedAt: UInt64?

    func clock(_ now: UInt64) -> Nanos {
        clockStart + slept + UInt64(Int64(now) + Int64(now) / 1_000_000 * driftPartsPerMillion)
    }

    var contents: PoolImage {
        get {
            PoolImage(pool: pool, region: region, standing: standing)
        }
        set {
            pool = newValue.pool
            region = newValue.region
            standing = newValue.standing
        }
    }

    /// As the region does: a generation or an epoch below the one that is known is passed over.
    func note(generation: UInt64, epoch: Epoch) {
        if generation >= standing.generation { standing.counted = generation }
        standing.generation = max(standing.generation, generation)
        standing.epoch = max(standing.epoch, epoch)
    }

    init(index: Int, name: NodeID, pool: UUID128, drift: Int64, clockStart: UInt64) {
        self.index = index
        self.name = name
        self.pool = pool
        driftPartsPerMillion = drift
        self.clockStart = clockStart
    }
}

/// How often things happened that the simulator is there for.
struct Coverage: Sendable {
    var acknowledgedWrites = 0, reads = 0, publications = 0
    var takeovers = 0, claimsAnew = 0, fences = 0, takeoversWaiting = 0, staleRefusals = 0, staleWaits = 0
    var degrades = 0, catchUps = 0, farBehind = 0, amnesias = 0, leasesLost = 0
    var tailsInDoubt = 0, tailsLeftToPartner = 0, tailsDecidedAlone = 0, giftsTakenBack = 0
    var handovers = 0, handoversAborted = 0, givenAway = 0
    var leftForMedium = 0, keptThoughMediumFails = 0, releasesHung = 0, givenAwayUnreleased = 0
    var kills = 0, killsOfClaimers = 0, poolsLost = 0, pauses = 0, mirrorsStuck = 0, backPressure = 0,
        destageFailures = 0,
        unknownOutcomes = 0, lateSwaps = 0, pausesOfBoth = 0, poolsRolledBack = 0, coordinatorsRolledBack = 0,
        coordinatorsForgotten = 0, memoriesFailed = 0, forcedPublications = 0, forcedTakenBack = 0, claimsGivenBack = 0,
        barriers = 0, clockJumps = 0, recordsRotten = 0, recordsHealed = 0, readsRefused = 0, logsHealed = 0

    /// Every counter with its name.
    var all: [(String, Int)] {
        Mirror(reflecting: self).children.map { ($0.label ?? "", $0.value as? Int ?? 0) }
    }
}

final class World {
    static let blocks = 6
    static let group = GroupID("g0")
    static let heartbeatInterval = 50 * millisecond
    static let heartbeatTimeout = 200 * millisecond
    static let lease = 600 * millisecond
    static let completionLimit = 1000 * millisecond
    static let releaseLimit = 300 * millisecond
    static let mediumRest = 4000 * millisecond
    static let drainAloneLimit = 5000 * millisecond
    static let doubtLimit = 1200 * millisecond

    let seed: UInt64
    var random: SplitMix64
    private var timeline = Timeline()
    private(set) var nodes: [SimNode] = []
    private var processes: [SimProcess] = []
    var coordinator = CoordinatorModel()
    var medium = MediumModel(blocks: World.blocks)
    private var rails: [Rail] = []
    /// By sender: its messages do not arrive.
    private var blocked = [false, false]
    var fenceFails = false
    let degradeOnMirrorLoss: Bool
    /// Whether a process' death can be seen by its partner (one host), or only its silence.
    let seesDeath: Bool
    /// Memory that needs a call to become persistent, instead of a drain.
    let persistsLater: Bool
    let losesPoolsAgain: Bool
    /// This version's mirrors let no other bytes take the place of a good record; those of an earlier one store what comes.
    let mirrorsRefuseOtherBytes: Bool
    /// No copy of some records is left.
    var hitsBothCopies = false
    /// Standbys look whether they reach the medium; else they find out when they have claimed.
    let probesMedia: Bool
    let mediumMicros: UInt64
    /// A batch is at most two calls of the medium for every block, and four for the flush. One that has ended is known a moment later.
    var mediumCallLimit: UInt64 {
        2 * World.heartbeatInterval + (2 * UInt64(World.blocks) + 4) * mediumMicros * microsecond
    }
    let thinkMicros: UInt64
    private let largeRecordPercent: UInt64
    private(set) lazy var clients = Clients(self)
    private(set) lazy var oracle = Oracle(self)
    private(set) lazy var faults = Faults(self)
    var coverage = Coverage()
    var history = History(blocks: World.blocks)
    /// Swaps that nobody knows of and that may come into effect.
    private(set) var lateSwapsPending = 0
    var nextKey: UInt64 = 0
    private var lastStamp: UInt64 = 0

    /// One fault stays for ever, and a usable copy must be served all the same.
    let isLasting: Bool
    let isTraced: Bool
    private(set) var trace: [String] = []

    init(seed: UInt64, traced: Bool = false, lasting: Bool = false) {
        self.seed = seed
        isLasting = lasting
        isTraced = traced
        random = SplitMix64(seed: seed)
        degradeOnMirrorLoss = random.chance(lasting ? 100 : 85)
        seesDeath = random.chance(70)
        persistsLater = random.chance(30)
        losesPoolsAgain = random.chance(50)
        probesMedia = random.chance(50)
        mirrorsRefuseOtherBytes = random.chance(50)
        mediumMicros = random.chance(40) ? random.between(2000, 60_000) : random.between(50, 1000)
        thinkMicros = random.between(30_000, 300_000) * (lasting ? 10 : 1)
        largeRecordPercent = random.between(0, 60)
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
        let micros = String(now / microsecond % 1000)
        trace.append(
            "\(now / millisecond)." + String(repeating: "0", count: 3 - micros.count) + "\(micros) ms  \(text())")
    }

    func nextStamp() -> UInt64 {
        lastStamp += 1
        return lastStamp
    }

    func recordBytes() -> UInt64 {
        let kibibytes = random.chance(largeRecordPercent) ? random.between(256, 2048) : random.between(4, 64)
        return kibibytes * 1024 + LSN.alignment
    }

    // MARK: The network

    func isBlocked(from sender: Int) -> Bool { blocked[sender] }

    func networkDelay() -> UInt64 {
        random.chance(3) ? random.between(1, 80) * millisecond : random.between(30, 400) * microsecond
    }

    func connect(_ dialer: SimProcess, _ acceptor: SimProcess) -> Rail {
        rails.removeAll { $0.isDone }
        let rail = Rail(self, dialer: dialer, acceptor: acceptor)
        rails.append(rail)
        return rail
    }

    /// Every connection is lost.
    func cutConnections() {
        for rail in rails { rail.reset() }
        rails = []
    }

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
        let identity = ProcessIdentity(
            node: node.name, pid: node.starts, startTicks: UInt64(node.starts), bootID: "boot")
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
        note("\(process.name) is killed")
        coverage.kills += 1
        process.isDying = true
        after(random.chance(70) ? random.between(0, 5) * millisecond : random.between(0, 300) * millisecond) {
            process.die()
        }
    }

    /// SIGTERM has been obeyed.
    func exit(_ process: SimProcess) {
        note("\(process.name) exits")
        after(0) { process.die() }
    }

    /// Faults are over: whatever was broken works again, and both nodes are up.
    func heal() {
        note("--- faults are over")
        fenceFails = false
        medium.fails = false
        coordinator.isDown = false
        coordinator.isSlow = false
        coordinator.failPercent = 0
        for node in nodes {
            node.isCutFromCoordinator = false
            node.isMemoryHung = false
            // Failed memory is replaced, and the node started again.
            if let process = node.process, process.hasMemoryFailed { kill(process) }
            node.mediumFails = false
            node.isMediumHung = false
            setBlocked(from: node.index, false)
            node.process?.resume()
        }
        keepUp()
    }

    /// A supervisor that starts what is not running.
    func keepUp() {
        for node in nodes where node.process == nil && !faults.isBeingHealed { start(node) }
        after(100 * millisecond) { self.keepUp() }
    }

    /// Breaks the circles of references.
    func dismantle() {
        timeline = Timeline()
        clients.end()
        nodes = []
        processes = []
        rails = []
        medium.holder = nil
    }

    // MARK: The coordinator

    /// One call of `process`: delayed, and it may fail before or after `effect`; then `answer` gets `nil`.
    func coordinate<Answer>(
        _ process: SimProcess, _ effect: @escaping () -> Answer, _ answer: @escaping (Answer?) -> Void
    ) {
        let back = coordinatorDelay()
        let failsBefore = random.chance(coordinator.failPercent)
        let failsAfter = random.chance(coordinator.failPercent)
        process.givenOut(coordinatorDelay()) { [self] in
            guard !coordinator.isDown, !process.node.isCutFromCoordinator, !failsBefore else {
                return process.later(back) { answer(nil) }
            }
            let result = effect()
            if failsAfter { coverage.unknownOutcomes += 1 }
            process.later(back) { answer(failsAfter ? nil : result) }
        }
    }

    /// A swap by `process`, which may also be answered by nothing and come into effect later, if nobody else was quicker.
    func coordinateSwap(
        _ process: SimProcess, to wanted: GroupRecord, _ effect: @escaping () -> SwapOutcome,
        _ answer: @escaping (SwapOutcome?) -> Void
    ) {
        let back = coordinatorDelay()
        let failsBefore = random.chance(coordinator.failPercent)
        let failsAfter = random.chance(coordinator.failPercent)
        let isJoin = wanted.phase == .published && wanted.holders.count > coordinator.holders().count
        let isLate = random.chance(coordinator.failPercent / 2) || isJoin && faults.takesJoinLate()
        process.givenOut(coordinatorDelay()) { [self] in
            guard !coordinator.isDown, !process.node.isCutFromCoordinator, !failsBefore else {
                return process.later(back) { answer(nil) }
            }
            if isLate {
                coverage.lateSwaps += 1
                lateSwapsPending += 1
                after(random.between(1, 3000) * millisecond) { [self] in
                    lateSwapsPending -= 1
                    _ = effect()
                }
                return process.later(back) { answer(.unknown("no answer")) }
            }
            let result = effect()
            if failsAfter { coverage.unknownOutcomes += 1 }
            process.later(back) { answer(failsAfter ? .unknown("no answer") : result) }
        }
    }

    private func coordinatorDelay() -> UInt64 {
        coordinator.isSlow ? random.between(1, 250) * millisecond : random.between(50, 2000) * microsecond
    }

    /// As it comes back from where records are kept.
    private func reread(_ record: GroupRecord) -> GroupRecord {
        do {
            let copy = try JSONDecoder().decode(GroupRecord.self, from: JSONEncoder().encode(record))
            oracle.expect(copy == record, "the record of version \(record.version) does not come back as it was")
            return copy
        } catch {
            oracle.expect(false, "the record of version \(record.version) does not come back: \(error)")
            return record
        }
    }

    func swapRecord(expecting expected: UInt64, to wanted: GroupRecord, by process: SimProcess) -> SwapOutcome {
        guard (coordinator.record?.version ?? 0) == expected else { return .lost(coordinator.record) }
        let old = coordinator.record
        if var same = old {
            same.version += 1
            if same == wanted { coverage.barriers += 1 }
        }
        coordinator.record = reread(wanted)
        note(
            "\(process.name) swaps version \(wanted.version): \(wanted.owner) \(wanted.phase) epoch \(wanted.epoch), in sync "
                + "\(wanted.inSync), sources \(wanted.sources), fence \(wanted.mustFence.map { "\($0.node).\($0.pid)" })"
        )
        oracle.swapped(from: old, to: wanted, by: process)
        return .won
    }
}
