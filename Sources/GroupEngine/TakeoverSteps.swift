// The steps of a takeover, in S16's order, and of leaving: what blocks of them runs elsewhere, and each ends in an event.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import PersistentMemory
internal import Recovery
internal import RemoteMemory
internal import StorageMedium
internal import WriteLog

extension Group {
    /// Runs `body` on a thread and hands what came of it to `done` on the loop. While it runs the medium is not released.
    private func onThread<Value: Sendable>(
        _ body: @escaping @Sendable () throws -> Value, _ done: @escaping (Result<Value, any Error>) -> Void
    ) {
        stepsUnderWay += 1
        runtime.run(.steps, body) { result in
            self.stepsUnderWay -= 1
            done(result)
            guard self.stepsUnderWay == 0, let onStepsDone = self.onStepsDone else { return }
            self.onStepsDone = nil
            onStepsDone()
        }
    }

    /// A step whose result is an answer.
    private func step(_ body: @escaping @Sendable () -> StepAnswer) {
        onThread(body) { result in
            switch result {
            case .success(let answer): self.handle(answer)
            case .failure(let error): self.handle(.failed("\(error)"))
            }
        }
    }

    /// The machine has given up what the steps under way are for: what they bring is let go of.
    private var isReleasing: Bool { onStepsDone != nil }

    // MARK: Taking over, in S16's order

    /// Each for itself: what is confirmed stays so, whatever becomes of the others.
    func fence(_ processes: [ProcessIdentity]) {
        let fence = host.fence
        let me = host.id
        let predecessors = processes.filter(isPredecessor)
        onThread {
            var attempts = FenceAttempts()
            for process in processes {
                attempts.confirmDead(process, by: me, with: fence, isPredecessor: predecessors.contains(process))
            }
            return attempts
        } _: { (result: Result<FenceAttempts, any Error>) in
            switch result {
            case .success(let attempts):
                self.tell(attempts)
                self.handle(.fenced(attempts.dead, problem: attempts.problem))
            case .failure(let error): self.handle(.failed("\(error)"))
            }
        }
    }

    /// What failed as it did the last time is no news.
    private func tell(_ attempts: FenceAttempts) {
        for failure in attempts.failures where !toldFenceFailures.contains(failure) {
            host.report(Report(.fenceFailed, failure), group: id)
        }
        toldFenceFailures = attempts.failures
        for fence in attempts.dead {
            host.report(Report(.fenced, fence.sentence), group: id)
        }
    }

    private func isPredecessor(_ process: ProcessIdentity) -> Bool {
        !host.isPoolNew && machine.isPredecessor(process)
    }

    /// A partner that waits for the end of this node's earlier process cannot see it either.
    func confirmPredecessors() {
        guard !isConfirmingPredecessors, let record = machine.record, record.phase == .claimed,
            record.owner != host.id
        else { return }
        let mine = record.mustFence.filter { $0.node == host.id }
        guard !mine.isEmpty, !mine.contains(host.process), mine.allSatisfy(isPredecessor) else { return }
        isConfirmingPredecessors = true
        let (fence, me) = (host.fence, host.id)
        runtime.run(.probe) {
            try mine.map { process in try fence.confirmEnded(predecessor: process, of: me) }
        } _: { [self] result in
            switch result {
            case .success(let confirmations):
                guard let first = confirmations.first, let first, confirmations.allSatisfy({ $0 != nil }) else {
                    return isConfirmingPredecessors = false
                }
                // What is refused is said anew with the next tick.
                command(.predecessorsEnded(at: first.at)) { [self] _ in isConfirmingPredecessors = false }
            case .failure(let error):
                isConfirmingPredecessors = false
                host.warn("whether earlier processes of this node have ended cannot be found out: \(error)")
            }
        }
    }

    // MARK: What the pool knows of the coordinator (S20)

    /// If that fails, the next start is the same one for the coordinator, which has counted it already.
    func confirmStart() {
        let region = region
        runtime.run(.memory) {
            var standing = region.standing
            standing.counted = standing.generation
            try region.note(standing)
        } _: { [self] result in
            guard case .failure(let error) = result else { return }
            host.warn("the start of \(id) could not be confirmed in the pool: \(error)")
        }
    }

    func noteEpoch(_ epoch: Epoch) {
        guard !isNotingEpoch else { return }
        isNotingEpoch = true
        let region = region
        runtime.run(.memory) {
            let known = region.standing
            try region.note(
                RegionStanding(generation: known.generation, counted: known.counted, epoch: epoch))
        } _: { [self] result in
            isNotingEpoch = false
            switch result {
            case .success: handle(.region(.epochNoted(epoch)))
            // Asked again with the next tick.
            case .failure(let error): host.warn("epoch \(epoch) could not be noted in the pool: \(error)")
            }
        }
    }

    func lockMedia(_ identities: [String: UUID128]) {
        guard !holdsMedia, !isReleasing else { return handle(.failed("the medium is not released yet")) }
        let expected = expectedMedia(identities)
        let media = host.media
        onThread {
            try media.take(expected)
        } _: { result in
            switch result {
            case .success(let held):
                // What was locked while a release waits for this step is released with the rest (S16).
                self.hold(held)
                if !self.isReleasing { self.handle(.mediaLocked(held.identities)) }
            case .failure(let error):
                guard !self.isReleasing else { return }
                let isTaken = (error as? MediumError)?.code == .fenced
                self.handle(isTaken ? .mediumTaken("\(error)") : .failed("\(error)"))
            }
        }
    }

    private func hold(_ held: HeldMedia) {
        heldMedia = held
        for problem in held.growthProblems { host.warn(problem) }
        for (volume, medium) in zip(configuration.volumes, held.media) {
            mediaByVolume[volume.id] = medium
        }
        standbyProbe.reset()
        tellTakeoverProblem()
    }

    func recover(askingFirst: Bool) {
        let region = region
        let isNew = machine.record?.isNew == true
        let media = mediaByVolume
        // What the recovery tool wrote to the medium already may have been overwritten there since.
        let isReplayed = region.identity?.isReplayed == true
        if isReplayed {
            report(
                Report(.alreadyReplayed, "twinlog-recover wrote this log to the medium; it is not written again"))
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
                case .medium: .failed(error.message)
                case .mediumTaken: .mediumTaken(error.message)
                case .corrupt: .logCorrupt(error.message)
                case .unknownVolume, .outOfRange: .refused(error.message)
                }
            }
        }
    }

    /// What an earlier owner wrote and did not flush is read from now on, so it must not be lost any more (S23).
    func setLogAside() {
        let region = region
        let media = heldMedia.media
        let archives = host.archives
        report(
            Report(
                .logSetAside,
                "the log here is out of sync, and older than what may be on the medium: it is archived beside the pool, not replayed"
            ))
        step {
            do {
                for medium in media { try medium.flush() }
                return .recovered(end: try MirrorRegion.archive(region, archives))
            } catch let error as MediumError where error.code == .fenced {
                return .mediumTaken(error.message)
            } catch {
                return .failed("\(error)")
            }
        }
    }

    func openLog(_ incarnation: Incarnation, _ logUUID: UUID128, _ start: LSN, _ generation: UInt64) {
        let region = region
        onThread {
            // The claim that was won has counted it.
            try region.note(
                RegionStanding(generation: generation, counted: generation, epoch: Epoch(incarnation.rawValue)))
            try region.format(role: .owner, logUUID: logUUID, incarnation: incarnation, start: start)
            if let fault = region.memoryFault { throw StepError(description: fault.description) }
            return try WriteLog(region: region)
        } _: { result in
            guard !self.isReleasing else { return }
            switch result {
            case .success(let log):
                self.mirrorTarget = nil
                self.owner = self.makeDataPath(log, start)
                self.handle(.logOpened)
            case .failure(let error): self.handle(.failed("\(error)"))
            }
        }
    }

    private func makeDataPath(_ log: WriteLog, _ start: LSN) -> OwnerDataPath {
        var media: [VolumeID: (medium: any Medium, path: String)] = [:]
        for volume in configuration.volumes {
            guard let medium = mediaByVolume[volume.id] else { continue }
            media[volume.id] = (medium, volume.mediumPath)
        }
        let owned = OwnedLog(
            log: log, start: start, media: media, runtime: runtime, authority: machine.authority,
            listener: OwnedLog.Listener(
                progress: { [unowned self] in tell($0) },
                report: { [unowned self] in report($0) },
                cannotShip: { [unowned self] in handle(.attachRefused(.notReady, $0)) },
                mediumTaken: { [unowned self] in handle(.medium(.taken($0))) }))
        return OwnerDataPath(owned, start: start, shipBytes: machine.settings.shipBytes)
    }

    /// After this nothing of this node writes to the medium.
    func releaseMedia() {
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
                    return .failed(error.message)
                }
            }
        }
        let afterSteps = { [self] in
            if let owner { owner.owned.whenQuiet(release) } else { release() }
        }
        if stepsUnderWay == 0 { afterSteps() } else { onStepsDone = afterSteps }
    }

    // MARK: The mirror region

    /// Revokes the region's key and waits until no copy and no preparation is in progress (S12).
    func sealRegion(_ sealed: @escaping () -> Void) {
        mirrorRail?.close()
        mirrorRail = nil
        for rail in standbyRails { rail.close() }
        standbyRails = []
        guard !isPreparingRegion else {
            onRegionPrepared = sealed
            return
        }
        guard let mirrorTarget else { return sealed() }
        host.regions.revoke(mirrorTarget.key, sealed: sealed)
    }
}

private struct StepError: Error, CustomStringConvertible {
    var description: String
}

/// What came of fencing several processes.
private struct FenceAttempts: Sendable {
    private(set) var dead: [GroupRecord.Fence] = []
    /// Why the takeover waits.
    private(set) var problem: String?
    /// Of every fence that was tried.
    private(set) var failures: [String] = []

    mutating func confirmDead(
        _ process: ProcessIdentity, by node: NodeID, with fence: any Fence, isPredecessor: Bool
    ) {
        do throws(FenceError) {
            var confirmation: GroupRecord.Fence.Confirmation?
            if isPredecessor { confirmation = try fence.confirmEnded(predecessor: process, of: node) }
            if confirmation == nil {
                confirmation = try fence.confirmDead(process, by: node) { failures.append($0.message) }
            }
            dead.append(GroupRecord.Fence(target: process, confirmed: confirmation))
        } catch {
            problem = problem ?? "the fence is not confirmed: \(error)"
        }
    }
}

extension GroupRecord.Fence {
    fileprivate var sentence: String {
        "process \(target.pid) of \(target.node) writes no more, confirmed by \(confirmed?.method ?? "nobody")"
    }
}
