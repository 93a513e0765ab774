// One group on one node: its machine, and the hands that carry out what the machine says. Lives on the node's event loop;
// whatever blocks runs on threads and comes back as an event.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import Foundation
internal import LogModel
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import Recovery
internal import RemoteMemory
internal import RemoteMemoryTCP
internal import StorageMedium
internal import WriteLog

final class Group {
    /// How long a killed process may take to be gone before the fence is tried again.
    static let fenceTimeoutMillis = 2000

    unowned let node: ServerNode
    let configuration: ClusterConfiguration.Group
    let region: Region
    let threads: GroupThreads
    private(set) var machine: GroupMachine
    private(set) var owner: OwnerLog?

    /// As owner: the rail to the mirror.
    var rail: TCPQueuePair?
    var railDelegate: OwnerRail?
    var nextRail = 0
    /// Why the last rail that was dialled did not come about, as it was reported, and when.
    var railProblem: (text: String, reportedAt: NIODeadline)?
    /// As mirror: the rail that the owner made, and the region that it writes.
    var mirrorRail: AcceptedRail?
    /// The rail whose request to attach is not decided yet. One that is refused changes nothing for the one that counts.
    var candidateRail: AcceptedRail?
    var mirrorTarget: (target: MirrorTarget, key: RegionKey, incarnation: Incarnation)?

    /// A thread makes the region ready for an owner; until it is done, nobody else may touch the region.
    var isPreparingRegion = false
    var onRegionPrepared: (() -> Void)?

    private var heldMedia = HeldMedia()
    private var mediaByVolume: [VolumeID: any Medium] = [:]
    let standbyProbe: StandbyProbe
    /// Volumes whose media here hold other bytes than the owner writes, as far as it has told.
    var refutedMedia: Set<VolumeID> = []
    /// Volumes that the owner asks for, until it is answered.
    var volumesAsked: Set<VolumeID> = []
    /// Steps on threads that may touch the medium.
    private var stepsUnderWay = 0
    private var onStepsDone: (() -> Void)?

    private var reportedFault: MemoryFault?
    var reportedConflict: LSN?
    private var events: [Event] = []
    private var isHandling = false
    private var lastCommand = CommandID(rawValue: 0)
    private var commands: [CommandID: (_ refusal: String?) -> Void] = [:]
    private var onStopped: (() -> Void)?
    private var isConfirmingPredecessors = false
    private var isNotingEpoch = false
    /// Where the head was when a drain was last seen to get on, and when.
    private var drainProgress: (head: LSN, at: Nanos)?
    /// A drain that gets no further for so long is answered with what `status` says is the reason.
    static let drainPatience: Nanos = 5_000_000_000

    init(
        node: ServerNode, configuration: ClusterConfiguration.Group, region: Region, threads: GroupThreads,
        machine: GroupMachine
    ) {
        self.node = node
        self.threads = threads
        self.configuration = configuration
        self.region = region
        self.machine = machine
        standbyProbe = StandbyProbe(thread: threads.probe, eventLoop: node.eventLoop)
    }

    var peer: NodeID { configuration.peer(of: node.id) }
    var eventLoop: any EventLoop { node.eventLoop }
    var holdsMedia: Bool { !heldMedia.media.isEmpty }

    // MARK: Events in, directives out

    /// Hands `event` to the machine and carries out what it says. Events that come up meanwhile follow in order.
    func handle(_ event: Event) {
        events.append(event)
        guard !isHandling else { return }
        isHandling = true
        while !events.isEmpty {
            var directives: [Directive] = []
            machine.handle(events.removeFirst(), now: BootClock.now, into: &directives)
            for directive in directives { perform(directive) }
        }
        isHandling = false
    }

    func command(_ command: Command, done: @escaping (String?) -> Void) {
        lastCommand.rawValue += 1
        commands[lastCommand] = done
        handle(.command(command, lastCommand))
    }

    private func perform(_ directive: Directive) {
        switch directive {
        case .readRecord: node.readRecord(of: self)
        case .swap(let expected, let record): node.swapRecord(of: self, expected, record)
        case .dial: dial()
        case .closeRail: closeRail()
        case .sendAttach(let epoch, let counts): sendAttach(epoch, counts: counts)
        case .acceptAttach(let request, let generation): acceptAttach(request, generation: generation)
        case .refuseAttach(let request, let refusal, let reason): refuseAttach(request, refusal, reason)
        case .sendHeartbeat: send(heartbeat, on: rail)
        case .confirmStart: confirmStart()
        case .noteEpoch(let epoch): noteEpoch(epoch)
        case .tellRecordChanged: send(.recordChanged, on: rail ?? mirrorRail?.queuePair)
        case .fence(let processes): fence(processes)
        case .lockMedia(let expected): lockMedia(expected)
        case .sealRegion: sealRegion { self.handle(.sealed) }
        case .recover(let askingFirst): recover(askingFirst: askingFirst)
        case .setLogAside: setLogAside()
        case .openLog(let incarnation, let logUUID, let start, let generation):
            openLog(incarnation, logUUID, start, generation)
        case .serve: owner?.serve()
        case .suspend: owner?.suspend()
        case .stopServing: owner?.revoke()
        case .acknowledge: owner?.schedulePump()
        case .drain: owner?.drain(thenStop: true) { [weak self] _ in self?.handle(.drained) }
        case .releaseMedia: releaseMedia()
        case .evacuate: node.evacuate(for: self) { self.handle(.evacuated) }
        case .stopped:
            onStopped?()
            onStopped = nil
        case .report(let report): node.report(report, group: configuration.id)
        case .commandDone(_, let id, let refusal): commands.removeValue(forKey: id)?(refusal)
        }
    }

    /// Runs `body` on a thread and hands what came of it to `done` on the loop. While it runs the medium is not released.
    private func onThread<Value: Sendable>(
        _ body: @escaping @Sendable () throws -> Value, _ done: @escaping (Result<Value, any Error>) -> Void
    ) {
        stepsUnderWay += 1
        threads.steps.runIfActive(eventLoop: eventLoop) { try body() }.assumeIsolated().whenComplete { result in
            self.stepsUnderWay -= 1
            done(result)
            guard self.stepsUnderWay == 0, let onStepsDone = self.onStepsDone else { return }
            self.onStepsDone = nil
            onStepsDone()
        }
    }

    /// A step whose result is an event.
    private func step(_ body: @escaping @Sendable () -> Event) {
        onThread(body) { result in
            switch result {
            case .success(let event): self.handle(event)
            case .failure(let error): self.handle(.stepFailed("\(error)"))
            }
        }
    }

    /// The machine has given up what the steps under way are for: what they bring is let go of.
    private var isReleasing: Bool { onStepsDone != nil }

    // MARK: Taking over, in S16's order

    /// Each for itself: what is confirmed stays so, whatever becomes of the others.
    private func fence(_ processes: [ProcessIdentity]) {
        let kill = node.seams.kill
        let me = node.id.rawValue
        let predecessors = processes.filter(isPredecessor)
        step {
            var dead: [GroupRecord.Fence] = []
            var problem: String?
            for process in processes {
                do throws(FenceError) {
                    let isLocked = predecessors.contains(process) ? try Self.isEndedByOurLock(process) : false
                    if !isLocked { try kill(process, Self.fenceTimeoutMillis) }
                    let confirmation = GroupRecord.Fence.Confirmation(
                        method: isLocked ? "pool" : "process", by: me, at: Date.now.formatted(.iso8601))
                    dead.append(GroupRecord.Fence(target: process, confirmed: confirmation))
                } catch {
                    problem = problem ?? "the fence is not confirmed: \(error)"
                }
            }
            return .fenced(dead, problem: problem)
        }
    }

    /// Whether the process had the pool that is open here, as far as the record knows.
    private func isPredecessor(_ process: ProcessIdentity) -> Bool {
        node.isPredecessor(process) && machine.record?.members[node.id]?.pool == node.pool.identity.uuid
    }

    /// S18: an earlier process of this node that cannot be seen (a container that was started anew has another PID namespace) would hold the
    /// lock of the pool, which this process has. Were it another copy of the pool, it would still hold the medium's, which is taken next.
    private static func isEndedByOurLock(_ predecessor: ProcessIdentity) throws(FenceError) -> Bool {
        try ProcessFence.liveness(of: predecessor) == .elsewhere
    }

    /// A partner that waits for the end of this node's earlier process cannot see it either.
    private func confirmPredecessors() {
        guard !isConfirmingPredecessors, let record = machine.record, record.phase == .claimed,
            record.owner != node.id
        else { return }
        let mine = record.mustFence.filter { $0.node == node.id }
        guard !mine.isEmpty, !mine.contains(node.process), mine.allSatisfy(isPredecessor) else { return }
        isConfirmingPredecessors = true
        threads.probe.runIfActive(eventLoop: eventLoop) {
            try mine.allSatisfy(Self.isEndedByOurLock)
        }.assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(true):
                // What is refused is said anew with the next tick.
                command(.predecessorsEnded(at: Date.now.formatted(.iso8601))) { [self] _ in
                    isConfirmingPredecessors = false
                }
            case .success(false): isConfirmingPredecessors = false
            case .failure(let error):
                isConfirmingPredecessors = false
                node.logger.warning("whether earlier processes of this node have ended cannot be found out: \(error)")
            }
        }
    }

    // MARK: What the pool knows of the coordinator (S20)

    /// If that fails, the next start is the same one for the coordinator, which has counted it already.
    private func confirmStart() {
        let region = region
        threads.memory.runIfActive(eventLoop: eventLoop) {
            var standing = region.standing
            standing.counted = standing.generation
            try region.note(standing)
        }.assumeIsolated().whenFailure { [self] error in
            node.logger.warning("the start of \(configuration.id) could not be confirmed in the pool: \(error)")
        }
    }

    private func noteEpoch(_ epoch: Epoch) {
        guard !isNotingEpoch else { return }
        isNotingEpoch = true
        let region = region
        threads.memory.runIfActive(eventLoop: eventLoop) {
            let known = region.standing
            try region.note(
                RegionStanding(generation: known.generation, counted: known.counted, epoch: epoch))
        }.assumeIsolated().whenComplete { [self] result in
            isNotingEpoch = false
            switch result {
            case .success: handle(.epochNoted(epoch))
            // Asked again with the next tick.
            case .failure(let error): node.logger.warning("epoch \(epoch) could not be noted in the pool: \(error)")
            }
        }
    }

    private func lockMedia(_ identities: [String: UUID128]) {
        guard !holdsMedia, !isReleasing else { return handle(.stepFailed("the medium is not released yet")) }
        let expected = expectedMedia(identities)
        onThread {
            try HeldMedia.take(expected)
        } _: { result in
            guard !self.isReleasing else { return }
            switch result {
            case .success(let held):
                self.hold(held)
                self.handle(.mediaLocked(held.identities))
            case .failure(let error): self.handle(.stepFailed("\(error)"))
            }
        }
    }

    private func hold(_ held: HeldMedia) {
        heldMedia = held
        for (volume, medium) in zip(configuration.volumes, held.media) {
            mediaByVolume[volume.id] = node.seams.throughMedium(volume.id, medium)
        }
        standbyProbe.reset()
        tellTakeoverProblem()
    }

    private func recover(askingFirst: Bool) {
        let region = region
        let isNew = machine.record?.isNew == true
        let media = mediaByVolume
        // What the recovery tool wrote to the medium already may have been overwritten there since.
        let isReplayed = region.identity?.isReplayed == true
        if isReplayed {
            node.report(
                Report("already-replayed", "twinlog-recover wrote this log to the medium; it is not written again"),
                group: configuration.id)
        }
        let asks = askingFirst && !isReplayed
        step {
            do throws(ReplayError) {
                guard let outcome = try Replay.run(region, onto: media, dryRun: isReplayed || asks) else {
                    return isNew
                        ? .recovered(end: .zero)
                        : .logCorrupt("the pool here has lost its log of \(region.group): there is none")
                }
                guard !asks else {
                    let end = outcome.verdict == .torn ? "has a torn tail at" : "ends at"
                    return .tailInDoubt("the log \(end) LSN \(outcome.endLSN), where a crash left it")
                }
                return .recovered(end: outcome.endLSN)
            } catch {
                return switch error.code {
                case .medium: .stepFailed(error.message)
                case .corrupt: .logCorrupt(error.message)
                case .unknownVolume, .outOfRange: .recoveryRefused(error.message)
                }
            }
        }
    }

    /// What an earlier owner wrote and did not flush is read from now on, so it must not be lost any more (S23).
    private func setLogAside() {
        let region = region
        let media = mediaByVolume
        let pool = node.pool
        node.report(
            Report(
                "log-set-aside",
                "the log here is out of sync, and older than what may be on the medium: it is archived beside the pool, not replayed"
            ), group: configuration.id)
        step {
            do {
                for medium in media.values { try medium.flush() }
                return .recovered(end: try MirrorRegion.archive(region, pool: pool))
            } catch {
                return .stepFailed("\(error)")
            }
        }
    }

    private func openLog(_ incarnation: Incarnation, _ logUUID: UUID128, _ start: LSN, _ generation: UInt64) {
        let region = region
        onThread {
            // The claim that was won has counted it.
            try region.note(
                RegionStanding(generation: generation, counted: generation, epoch: Epoch(incarnation.rawValue)))
            try region.format(role: .owner, logUUID: logUUID, incarnation: incarnation, start: start)
            if let fault = region.memoryFault { throw NodeError(message: fault.description) }
            return try WriteLog(region: region)
        } _: { result in
            guard !self.isReleasing else { return }
            switch result {
            case .success(let log):
                self.mirrorTarget = nil
                self.owner = self.makeOwnerLog(log, start)
                self.handle(.logOpened)
            case .failure(let error): self.handle(.stepFailed("\(error)"))
            }
        }
    }

    private func makeOwnerLog(_ log: WriteLog, _ start: LSN) -> OwnerLog {
        let calls = MediumCalls()
        var watched: [VolumeID: any Medium] = [:]
        for volume in configuration.volumes {
            guard let medium = mediaByVolume[volume.id] else { continue }
            watched[volume.id] = WatchedMedium(medium, path: volume.mediumPath, calls: calls)
        }
        return OwnerLog(
            log: log, start: start, media: watched, mediumCalls: calls, eventLoop: eventLoop, threads: threads,
            authority: OwnerLog.Authority(
                isValid: { [unowned self] in machine.ownershipValid(BootClock.now) },
                rule: { [unowned self] in machine.acknowledgementRule },
                progress: { [unowned self] local, mirror, pending in
                    handle(.progress(local: local, mirror: mirror, pending: pending))
                },
                report: { [unowned self] in node.report($0, group: configuration.id) },
                cannotShip: { [unowned self] in handle(.attachRefused(.notReady, $0)) }))
    }

    /// After this nothing of this node writes to the medium.
    private func releaseMedia() {
        let release = { [self] in
            owner?.revoke()
            owner = nil
            let released = heldMedia
            heldMedia = HeldMedia()
            mediaByVolume = [:]
            step {
                do throws(MediumError) {
                    try released.release()
                    return .mediaReleased
                } catch {
                    return .stepFailed(error.message)
                }
            }
        }
        let afterSteps = { [self] in
            if let owner { owner.whenQuiet(release) } else { release() }
        }
        if stepsUnderWay == 0 { afterSteps() } else { onStepsDone = afterSteps }
    }

    // MARK: The mirror region

    /// Revokes the region's key and waits until no copy and no preparation is in progress (S12).
    func sealRegion(_ sealed: @escaping () -> Void) {
        mirrorRail?.close()
        mirrorRail = nil
        guard !isPreparingRegion else {
            onRegionPrepared = sealed
            return
        }
        guard let mirrorTarget else { return sealed() }
        node.registry.revoke(mirrorTarget.key, sealed: sealed)
    }

    // MARK: Ticks and service

    func tick() {
        if let owner { handle(.medium(owner.mediumTrouble(BootClock.now))) }
        handle(.tick)
        reportMemoryFault()
        probeMedia()
        confirmPredecessors()
        proveMedia()
        if let mirrorRail { send(heartbeat, on: mirrorRail.queuePair) }
        owner?.tick()
        judgeDrain(BootClock.now)
    }

    private func judgeDrain(_ now: Nanos) {
        guard let owner, owner.isDrainAsked else {
            drainProgress = nil
            return
        }
        let head = owner.destage.head
        guard let progress = drainProgress, progress.head == head else {
            drainProgress = (head, now)
            return
        }
        guard now >= progress.at + Self.drainPatience, let reason = drainObstacle(owner, now) else { return }
        drainProgress = nil
        let seconds = Self.drainPatience / 1_000_000_000
        owner.refuseDrains("nothing has reached the medium for \(seconds) s: \(reason); \(node.id) goes on trying")
    }

    /// What keeps the log from the medium; `nil` if a batch is on its way and takes its time.
    private func drainObstacle(_ owner: OwnerLog, _ now: Nanos) -> String? {
        let isUnacknowledged = owner.destage.head >= owner.acknowledgedWriteEnd
        let isHeldUp =
            isUnacknowledged || owner.mediumTrouble(now) != nil || owner.destageProblem != nil
            || !machine.ownershipValid(now)
        return isHeldUp ? node.reason(of: self, now) ?? owner.destageProblem : nil
    }

    /// What failed is attributed once, and again if more fails; the machine hears of it until this process ends.
    private func reportMemoryFault() {
        if let failure = owner?.persistFailure { handle(.logFailed("\(failure); restart \(node.id)")) }
        guard let fault = region.memoryFault else { return }
        if fault != reportedFault {
            reportedFault = fault
            node.report(Report("memory-failed", fault.description), group: configuration.id)
        }
        handle(.logFailed("\(fault); replace the memory, then restart \(node.id)"))
    }

    private var heartbeat: PeerMessage { .heartbeat(machine.heartbeat) }

    func send(_ message: PeerMessage, on queuePair: TCPQueuePair?) {
        do throws(RemoteMemoryError) {
            try queuePair?.send(message.encoded)
        } catch {
            // The queue pair has failed; its delegate hears of it in this turn of the loop.
        }
    }

    func find(_ volume: ClusterConfiguration.Volume) -> Result<VolumeInfo, VolumeRefusal> {
        if machine.isServing, owner?.isServing == true {
            return .success(VolumeInfo(name: volume.name, sizeBytes: volume.sizeBytes, isReadOnly: volume.isReadOnly))
        }
        if let record = machine.record, record.owner != node.id {
            return .failure(
                VolumeRefusal(
                    .ownedElsewhere, "volume '\(volume.name)' is owned by \(record.owner): connect to it there"))
        }
        let now = BootClock.now
        let reason = machine.reason(now).map { ": \($0)" } ?? ""
        return .failure(
            VolumeRefusal(
                .notReady, "volume '\(volume.name)' is not served now: \(machine.state(now).rawValue)\(reason)"))
    }

    func open(
        _ volume: ClusterConfiguration.Volume, ready: @escaping (Result<any VolumeSession, VolumeRefusal>) -> Void
    ) -> () -> Void {
        guard case .success = find(volume), let owner, let medium = mediaByVolume[volume.id] else {
            ready(.failure(VolumeRefusal(.notReady, "volume '\(volume.name)' is not served here now")))
            return {}
        }
        return owner.requests.open(volume.id, at: owner.log.tail, acknowledged: owner.acknowledged) { isOpen in
            guard isOpen else {
                return ready(.failure(VolumeRefusal(.notReady, "volume '\(volume.name)' has just lost its owner")))
            }
            ready(.success(GroupSession(log: owner, volume: volume.id, medium: medium)))
        }
    }

    /// Destages up to the present tail.
    func drain(_ done: @escaping (String?) -> Void) {
        guard let owner, machine.isServing else {
            return done(
                "\(node.id) does not own \(configuration.id); \(machine.record?.owner.rawValue ?? "nobody") does")
        }
        owner.drain(thenStop: false, done)
    }

    func stop(_ stopped: @escaping () -> Void) {
        onStopped = stopped
        command(.stop) { _ in }
    }
}
