// One start of a server process: the production machine of its group, and a model of the hands that carry out its
// directives in production (StorageNode's Group). Events and directives mean the same here as there.

import ClusterProtocol
import Coordination
import LogModel
import SimulationSupport

final class SimProcess {
    let world: World
    unowned let node: SimNode
    let identity: ProcessIdentity
    private(set) var machine: GroupMachine
    private(set) var owner: OwnerModel?

    /// As owner: the rail to the mirror.
    var rail: Rail?
    var dials = 0
    /// As mirror: the rail that the owner made, the one that asks to take its place, and the region that the owner writes.
    var mirrorRail: Rail?
    var candidateRail: Rail?
    var mirrorTarget: MirrorTargetModel?
    var isPreparingRegion = false
    var onRegionPrepared: (() -> Void)?

    private var holdsMedia = false
    private var stepsUnderWay = 0
    private var onStepsDone: (() -> Void)?
    private var events: [Event] = []
    private var isHandling = false

    private(set) var isPaused = false
    /// What this process stores from now on does not become durable (S26).
    var hasMemoryFailed = false
    var isDying = false
    private(set) var isDead = false
    private var inbox: [() -> Void] = []
    private var coordinatorCalls: [() -> Void] = []
    private var isCalling = false
    private var isAnnouncing = false
    private var isWatching = false
    private var nextAnnouncement: UInt64 = 0
    private var presenceCounter: UInt64 = 0

    init(_ world: World, _ node: SimNode, _ identity: ProcessIdentity, freshLogUUID: UUID128) {
        self.world = world
        self.node = node
        self.identity = identity
        var settings = GroupSettings(
            group: World.group, node: node.name, peer: world.nodes[1 - node.index].name, home: world.nodes[0].name,
            process: identity, pool: node.pool, heartbeatInterval: World.heartbeatInterval,
            heartbeatTimeout: World.heartbeatTimeout, lease: World.lease,
            degradeOnMirrorLoss: world.degradeOnMirrorLoss)
        settings.completionLimit = World.completionLimit
        settings.mediumLimit = world.mediumCallLimit + 200 * millisecond
        settings.releaseLimit = World.releaseLimit
        settings.mediumRest = World.mediumRest
        settings.drainAloneLimit = World.drainAloneLimit
        settings.claimLimit = settings.mediumLimit
        settings.doubtLimit = World.doubtLimit
        machine = GroupMachine(settings: settings, freshLogUUID: freshLogUUID, now: node.clock(world.now))
    }

    var isBlocked: Bool { machine.state(clock) == .unavailable && machine.record?.owner == node.name }

    var clock: Nanos { node.clock(world.now) }
    var name: String { "\(node.name).\(identity.pid)" }
    var peer: SimNode { world.nodes[1 - node.index] }

    // MARK: Life

    func begin() {
        if node.standing.counted == node.standing.generation {
            node.standing.generation += world.random.between(1, 1000)
        }
        let local = node.region.map { LocalLog(logUUID: $0.logUUID, incarnation: $0.incarnation) }
        handle(.started(local: local, node.standing))
        tick()
    }

    /// Runs `body` if the process lives; after its pause if it is stopped.
    func perform(_ body: @escaping () -> Void) {
        guard !isDying, !isDead else { return }
        if isPaused { inbox.append(body) } else { body() }
    }

    func later(_ delay: UInt64, _ body: @escaping () -> Void) {
        world.after(delay) { self.perform(body) }
    }

    /// What the process gave out of its hands: it happens though the process is stopped or killed, until it is gone.
    func givenOut(_ delay: UInt64, _ body: @escaping () -> Void) {
        world.after(delay) { if !self.isDead { body() } }
    }

    func pause() {
        isPaused = true
        world.note("\(name) is stopped")
    }

    func resume() {
        guard isPaused, !isDying, !isDead else { return }
        world.note("\(name) goes on")
        isPaused = false
        let waiting = inbox
        inbox = []
        for body in waiting { perform(body) }
    }

    func die() {
        guard !isDead else { return }
        isDead = true
        world.note("\(name) is gone")
        owner?.processDied()
        mirrorTarget?.processDied()
        if world.medium.holder === self { world.medium.holder = nil }
        node.process = nil
        // What it sent may still arrive, before the end of the connection or instead of it.
        for rail in [rail, mirrorRail] {
            if world.random.chance(50) { rail?.close(by: self) } else { rail?.reset() }
        }
        world.clients.processDied(self)
    }

    // MARK: Events in, directives out

    func handle(_ event: Event) {
        events.append(event)
        guard !isHandling else { return }
        isHandling = true
        while !events.isEmpty {
            var directives: [Directive] = []
            machine.handle(events.removeFirst(), now: clock, into: &directives)
            for directive in directives { carryOut(directive) }
            world.oracle.checkRule(of: self)
            world.oracle.checkReason(of: self)
        }
        isHandling = false
    }

    private func carryOut(_ directive: Directive) {
        switch directive {
        case .readRecord: readRecord()
        case .swap(let expected, let record): swapRecord(expected, record)
        case .dial: dial()
        case .closeRail: closeRail()
        case .sendAttach(let epoch, let counts): sendAttach(epoch, counts: counts)
        case .acceptAttach(let request, let generation): acceptAttach(request, generation: generation)
        case .refuseAttach(_, let refusal, let reason): refuseAttach(refusal, reason)
        case .sendHeartbeat: rail?.say(.heartbeat(machine.heartbeat), from: self)
        case .confirmStart: later(world.random.between(0, 2) * millisecond) { self.confirmStart() }
        case .noteEpoch(let epoch): noteEpoch(epoch)
        case .tellRecordChanged: (rail ?? mirrorRail)?.say(.recordChanged, from: self)
        case .fence(let processes): fence(processes)
        case .lockMedia: lockMedia()
        case .sealRegion: sealRegion { self.handle(.sealed) }
        case .recover(let askingFirst): recover(askingFirst: askingFirst)
        case .setLogAside: setLogAside()
        case .openLog(let incarnation, let logUUID, let start, let generation):
            openLog(incarnation, logUUID, start, generation)
        case .serve: owner?.serve()
        case .suspend: owner?.suspend()
        case .stopServing: owner?.revoke()
        case .acknowledge: owner?.schedulePump()
        case .drain: owner?.drain(thenStop: true) { [weak self] in self?.handle(.drained) }
        case .releaseMedia: releaseMedia()
        case .evacuate: handle(.evacuated)
        case .stopped: world.exit(self)
        case .report(let report):
            world.note("\(name) \(report.kind): \(report.message)")
            world.oracle.reported(report, by: self)
        case .commandDone(let command, _, let refusal):
            world.note("\(name) \(command) \(refusal.map { "refused: \($0)" } ?? "done")")
            world.oracle.commandDone(command, refusal, by: self)
        }
    }

    private func confirmStart() { node.standing.counted = node.standing.generation }

    private func noteEpoch(_ epoch: Epoch) {
        later(world.random.between(0, 3) * millisecond) { [self] in
            guard !node.isMemoryHung else {
                return node.whenMemoryGoesOn.append { [self] in perform { self.noteEpoch(epoch) } }
            }
            node.standing.epoch = max(node.standing.epoch, epoch)
            handle(.epochNoted(epoch))
        }
    }

    // MARK: Taking over

    /// Runs `body` on a thread for `delay`; its result comes back as an event. Meanwhile the medium is not released.
    private func step(_ delay: UInt64, _ body: @escaping (@escaping (Event) -> Void) -> Void) {
        stepsUnderWay += 1
        later(delay) { [self] in
            body { [self] event in
                stepsUnderWay -= 1
                if stepsUnderWay == 0, let done = onStepsDone {
                    onStepsDone = nil
                    done()
                }
                handle(event)
            }
        }
    }

    private func fence(_ identities: [ProcessIdentity]) {
        let processes = identities.compactMap { world.process($0) }
        step(world.random.between(0, 2) * millisecond) { [self] done in
            guard !world.fenceFails || processes.allSatisfy(\.isDead) else {
                return done(.fenced([], problem: "the fence is not confirmed"))
            }
            for process in processes where !process.isDead {
                world.coverage.fences += 1
                world.kill(process)
            }
            waitUntilDead(processes, until: world.now + 2 * second, done)
        }
    }

    private func waitUntilDead(_ processes: [SimProcess], until deadline: UInt64, _ done: @escaping (Event) -> Void) {
        let confirmation = GroupRecord.Fence.Confirmation(method: "process", by: name, at: "\(world.now)")
        let dead = processes.filter(\.isDead).map { GroupRecord.Fence(target: $0.identity, confirmed: confirmation) }
        if dead.count == processes.count { return done(.fenced(dead, problem: nil)) }
        guard world.now < deadline else { return done(.fenced(dead, problem: "killed, but not gone")) }
        later(millisecond) { self.waitUntilDead(processes, until: deadline, done) }
    }

    private func lockMedia() {
        guard !holdsMedia else { return handle(.stepFailed("the medium is not released yet")) }
        later(world.random.between(50, 3000) * microsecond) { [self] in
            guard world.medium.holder == nil, !world.medium.fails, !node.mediumFails || !world.isLasting else {
                return handle(.stepFailed("the medium is locked by \(world.medium.holder?.name ?? "nobody, it fails")"))
            }
            world.medium.holder = self
            holdsMedia = true
            handle(.mediaLocked([:]))
        }
    }

    private func recover(askingFirst: Bool) {
        step(world.random.between(1, 20) * millisecond) { [self] done in
            guard let region = node.region else {
                return done(
                    machine.record?.isNew == true ? .recovered(end: .zero) : .logCorrupt("the pool has no log"))
            }
            let found = region.scan()
            guard !region.isCorrupt(end: found.end) else {
                return done(.logCorrupt("the log is corrupt at LSN \(found.end), below its acknowledged LSN"))
            }
            guard !askingFirst else { return done(.tailInDoubt("the log ends at LSN \(found.end)")) }
            world.note("\(name) replays \(found.records.count) records up to LSN \(found.end)")
            writeToMedium(found.records) {
                done($0 ? .recovered(end: found.end) : .stepFailed("the medium failed"))
            }
        }
    }

    /// Writes the newest of every block, in any order, and flushes; `done` hears whether all of it is durable. To write
    /// older values first would let a cut replay take the medium back behind what the partner's log can repair (S9).
    func writeToMedium(_ records: some BidirectionalCollection<Record>, _ done: @escaping (Bool) -> Void) {
        var writes: [(block: Int, stamp: UInt64)] = []
        for record in records.reversed() where !writes.contains(where: { $0.block == record.block }) {
            writes.append((record.block, record.stamp))
        }
        let powerCuts = world.medium.powerCuts
        var delay: UInt64 = 0
        var isWritten = true
        for write in writes {
            delay += world.random.between(10, 2 * world.mediumMicros) * microsecond
            callMedium(delay) { [self] in
                guard !world.medium.fails, !node.mediumFails else {
                    isWritten = false
                    return
                }
                world.oracle.mediumWrite(write.block, write.stamp, by: self)
                world.medium.write(write.block, write.stamp)
            }
        }
        callMedium(delay + world.random.between(10, 4 * world.mediumMicros) * microsecond) { [self] in
            let isDurable = isWritten && !node.mediumFails && world.medium.flush(since: powerCuts)
            perform { done(isDurable) }
        }
    }

    /// One that hangs goes on in the end, if the process is not gone by then.
    private func callMedium(_ delay: UInt64, _ body: @escaping () -> Void) {
        givenOut(delay) { [self] in
            guard node.isMediumHung else { return body() }
            node.whenMediumGoesOn.append { [self] in callMedium(0, body) }
        }
    }

    private func setLogAside() {
        world.oracle.expect(world.oracle.isForced(self), "\(name) sets its log aside, and nobody forced it")
        step(world.random.between(1, 20) * millisecond) { [self] done in
            let end = node.region?.scan().end ?? .zero
            // A log that was opened by a claim that failed is empty: what it took the place of is worth more.
            if node.region?.records.isEmpty == false { node.archive = node.region }
            writeToMedium([]) { done($0 ? .recovered(end: end) : .stepFailed("the medium failed")) }
        }
    }

    private func openLog(_ incarnation: Incarnation, _ logUUID: UUID128, _ start: LSN, _ generation: UInt64) {
        step(world.random.between(1, 10) * millisecond) { [self] done in
            node.note(generation: generation, epoch: Epoch(incarnation.rawValue))
            node.region = RegionModel(role: .owner, logUUID: logUUID, incarnation: incarnation, start: start)
            node.holdsOlderCopy = false
            mirrorTarget = nil
            owner = OwnerModel(self, incarnation: incarnation, start: start)
            done(.logOpened)
        }
    }

    /// After this nothing of this process writes to the medium.
    private func releaseMedia() {
        let release = { [self] in
            owner?.revoke()
            owner = nil
            holdsMedia = false
            step(world.random.between(0, 2) * millisecond) { [self] done in
                if world.medium.holder === self { world.medium.holder = nil }
                done(.mediaReleased)
            }
        }
        let afterSteps = { [self] in
            if let owner { owner.whenQuiet(release) } else { release() }
        }
        if stepsUnderWay == 0 { afterSteps() } else { onStepsDone = afterSteps }
    }

    // MARK: Time

    private func tick() {
        if let owner { handle(.medium(owner.mediumTrouble())) }
        handle(.tick)
        if hasMemoryFailed { handle(.logFailed("memory has failed")) }
        if let mirrorRail { mirrorRail.say(.heartbeat(machine.heartbeat), from: self) }
        owner?.schedulePump()
        probeMedium()
        announceIfDue()
        watchPeer()
        world.oracle.ticked(self)
        later(World.heartbeatInterval) { self.tick() }
    }

    /// Whether this node could take the group over, where that is looked at.
    private func probeMedium() {
        guard world.probesMedia, !machine.isOwner else { return }
        let problem = node.mediumFails || world.medium.fails ? "the medium is not there" : nil
        if problem != machine.heartbeat.problem { handle(.takeoverProblem(problem)) }
    }

    /// Announce, *then* read the record (S17).
    private func announceIfDue() {
        guard !isAnnouncing, clock >= nextAnnouncement else { return }
        isAnnouncing = true
        nextAnnouncement = clock + World.lease / 3
        presenceCounter += 1
        let problems = machine.problemToAnnounce.map { [World.group.rawValue: $0] }
        let presence = Presence(process: identity, counter: presenceCounter, pool: node.pool, problems: problems)
        call(
            { [self] in
                let startedAt = clock
                return { [self] in
                    world.coordinator.presences[node.index] = presence
                    world.oracle.announced(self)
                    return (startedAt, world.coordinator.record)
                }
            },
            { [self] (answer: (Nanos, GroupRecord?)?) in
                isAnnouncing = false
                if let (startedAt, record) = answer { handle(.renewed(startedAt: startedAt, record: record)) }
            })
    }

    private func watchPeer() {
        guard !isWatching, !machine.isOwner else { return }
        isWatching = true
        let watched = machine.record?.ownerProcess.flatMap { $0.node == node.name ? nil : $0 }
        call(
            { [self] in
                let askedAt = clock
                return { [self] in
                    let isGone = world.seesDeath && watched.flatMap { world.process($0) }?.isDead == true
                    return (world.coordinator.presences[1 - node.index], isGone, askedAt)
                }
            },
            { [self] (answer: (Presence?, Bool, Nanos)?) in
                isWatching = false
                guard let (presence, isGone, askedAt) = answer else { return }
                handle(.peerPresence(presence, deadProcess: isGone ? watched : nil, askedAt: askedAt))
            })
    }

    // MARK: The coordinator

    private func readRecord() {
        call(
            { [self] in { [self] in world.coordinator.record } },
            { [self] (answer: GroupRecord??) in
                if let record = answer {
                    handle(.recordRead(record))
                } else {
                    handle(.coordinatorFailed("no answer"))
                }
            })
    }

    private func swapRecord(_ expected: UInt64, _ record: GroupRecord) {
        coordinatorCalls.append { [self] in
            world.coordinateSwap(self, to: record) { [self] in
                world.swapRecord(expecting: expected, to: record, by: self)
            } _: { [self] answer in
                isCalling = false
                callNext()
                handle(answer.map { .swapped($0) } ?? .coordinatorFailed("no answer"))
            }
        }
        callNext()
    }

    /// One thread: calls happen in the order in which they were made. `begin` runs when a call's turn comes and gives
    /// what happens at the coordinator.
    private func call<Answer>(_ begin: @escaping () -> () -> Answer, _ answer: @escaping (Answer?) -> Void) {
        coordinatorCalls.append { [self] in
            world.coordinate(self, begin()) { [self] (result: Answer?) in
                isCalling = false
                callNext()
                answer(result)
            }
        }
        callNext()
    }

    private func callNext() {
        guard !isCalling, !coordinatorCalls.isEmpty else { return }
        isCalling = true
        coordinatorCalls.removeFirst()()
    }
}
