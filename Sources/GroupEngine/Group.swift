// One group on one node: its machine, and the hands that carry out what the machine says. Lives in the engine's one place; whatever
// blocks is run elsewhere and comes back as an event. TakeoverSteps.swift has the steps of a takeover.

package import ClusterConfiguration
package import ClusterProtocol
internal import Coordination
package import LogModel
package import PersistentMemory
internal import RemoteMemory
internal import StorageMedium
internal import WriteLog

package final class Group {
    unowned let host: any Host
    package let configuration: ClusterConfiguration.Group
    package let region: Region
    let runtime: any Runtime
    package private(set) var machine: GroupMachine
    var owner: OwnerDataPath?

    /// As owner: the rails to the mirror.
    private(set) lazy var rails = OwnerRails(
        of: self, to: peer, host: host, runtime: runtime, interval: machine.settings.heartbeatInterval)
    /// Why the last rail that was dialled did not come about, as it was reported, and when.
    var railProblem: (text: String, reportedAt: Nanos)?
    /// As mirror: the rail that the owner made, and the region that it writes.
    var mirrorRail: AcceptedRail?
    /// As owner: requests to attach that were made.
    var attachAttempts: UInt64 = 0
    /// As mirror: the newest request to attach that came.
    var newestAttach: (incarnation: Incarnation, attempt: UInt64)?
    /// As mirror: the owner's other rails, the oldest first.
    var standbyRails: [AcceptedRail] = []
    /// The rail whose request to attach is not decided yet. One that is refused changes nothing for the one that counts.
    var candidateRail: AcceptedRail?
    var mirrorTarget: (target: MirrorTarget, key: RegionKey, incarnation: Incarnation)?

    /// A thread makes the region ready for an owner; until it is done, nobody else may touch the region.
    var isPreparingRegion = false
    var onRegionPrepared: (() -> Void)?

    var heldMedia = HeldMedia()
    var mediaByVolume: [VolumeID: any Medium] = [:]
    let standbyProbe: StandbyProbe
    /// Volumes whose media here hold other bytes than the owner writes, as far as it has told.
    var refutedMedia: Set<VolumeID> = []
    /// Volumes that the owner asks for, until it is answered.
    var volumesAsked: Set<VolumeID> = []
    /// Steps on threads that may touch the medium.
    var stepsUnderWay = 0
    var onStepsDone: (() -> Void)?

    private var reportedFault: MemoryFault?
    var reportedConflict: LSN?
    private var events: [Event] = []
    /// What the machine knows of the log; `nil` if it may have forgotten it.
    private var toldProgress: OwnedLog.Progress?
    /// News of the log that the machine hears before anything else.
    private var untoldProgress: OwnedLog.Progress?
    private var isHandling = false
    private var lastCommand = CommandID(rawValue: 0)
    private var commands: [CommandID: (_ refusal: String?) -> Void] = [:]
    private var onStopped: (() -> Void)?
    var isConfirmingPredecessors = false
    /// What failed in the last try to fence.
    var toldFenceFailures: [String] = []
    var isNotingEpoch = false
    /// Where the head was when a drain was last seen to get on, and when.
    private var drainProgress: (head: LSN, at: Nanos)?
    /// A drain that gets no further for so long is answered with what `status` says is the reason.
    static let drainPatience: Nanos = 5_000_000_000

    package init(
        host: any Host, runtime: any Runtime, configuration: ClusterConfiguration.Group, region: Region,
        machine: GroupMachine
    ) {
        self.host = host
        self.runtime = runtime
        self.configuration = configuration
        self.region = region
        self.machine = machine
        standbyProbe = StandbyProbe(runtime: runtime)
    }

    package var id: GroupID { configuration.id }
    package var peer: NodeID { configuration.peer(of: host.id) }
    var holdsMedia: Bool { !heldMedia.media.isEmpty }

    // MARK: Events in, directives out

    /// Hands `event` to the machine and carries out what it says. Events that come up meanwhile follow in order.
    package func handle(_ event: Event) {
        events.append(event)
        guard !isHandling else { return }
        isHandling = true
        while !events.isEmpty {
            var directives: [Directive] = []
            let event = events.removeFirst()
            switch event {
            case .progress, .rail(_, .heard): break
            default:
                if let untoldProgress {
                    self.untoldProgress = nil
                    machine.handle(self.event(of: untoldProgress), now: runtime.now, into: &directives)
                }
                toldProgress = nil
            }
            machine.handle(event, now: runtime.now, into: &directives)
            owner?.owned.authority = machine.authority
            for directive in directives { perform(directive) }
        }
        isHandling = false
    }

    /// The pump says how far it is whenever it ran; the machine hears of it when that is news. News that can change nothing by itself waits for
    /// what comes next, a tick at the latest: it comes with every write.
    func tell(_ progress: OwnedLog.Progress) {
        if progress.pending != nil { rails.sessionWaits() }
        untoldProgress = nil
        guard progress != toldProgress else { return }
        guard toldProgress == nil || !machine.isSteady else {
            untoldProgress = progress
            return
        }
        toldProgress = progress
        handle(event(of: progress))
    }

    private func event(of progress: OwnedLog.Progress) -> Event {
        .progress(local: progress.local, of: peer, durable: progress.mirror, pending: progress.pending)
    }

    package func command(_ command: Command, done: @escaping (String?) -> Void) {
        lastCommand.rawValue += 1
        commands[lastCommand] = done
        handle(.command(command, lastCommand))
    }

    func handle(_ event: RailEvent) { handle(.rail(peer, event)) }

    func handle(_ answer: StepAnswer) { handle(.step(answer)) }

    private func perform(_ directive: Directive) {
        switch directive {
        case .coordinator(.read): readRecord()
        case .coordinator(.swap(let expected, let record)): swapRecord(expected, record)
        case .rail(_, let directive): perform(directive)
        case .step(let directive): perform(directive)
        case .serving(let directive): perform(directive)
        case .region(.confirmStart): confirmStart()
        case .region(.noteEpoch(let epoch)): noteEpoch(epoch)
        case .report(let report): self.report(report)
        case .commandDone(_, let id, let refusal): commands.removeValue(forKey: id)?(refusal)
        case .stopped:
            onStopped?()
            onStopped = nil
        }
    }

    private func perform(_ directive: RailDirective) {
        switch directive {
        case .dial: dial()
        case .close: closeRail()
        case .sendAttach(let epoch, let counts): sendAttach(epoch, counts: counts)
        case .acceptAttach(let request, let generation): acceptAttach(request, generation: generation)
        case .refuseAttach(let request, let refusal, let reason): refuseAttach(request, refusal, reason)
        case .sendHeartbeat(let heartbeat): send(.heartbeat(heartbeat), on: rail ?? mirrorRail?.queuePair)
        case .tellRecordChanged: send(.recordChanged, on: rail ?? mirrorRail?.queuePair)
        }
    }

    private func perform(_ directive: StepDirective) {
        switch directive {
        case .fence(let processes): fence(processes)
        case .lockMedia(let expected): lockMedia(expected)
        case .sealRegion: sealRegion { self.handle(.sealed) }
        case .recover(let askingFirst): recover(askingFirst: askingFirst)
        case .setLogAside: setLogAside()
        case .openLog(let incarnation, let logUUID, let start, let generation):
            openLog(incarnation, logUUID, start, generation)
        case .releaseMedia: releaseMedia()
        case .evacuate: host.evacuate(for: id) { self.handle(.evacuated) }
        }
    }

    private func perform(_ directive: ServingDirective) {
        switch directive {
        case .serve: owner?.serve()
        case .suspend: owner?.suspend()
        case .stop: owner?.revoke()
        case .acknowledge: owner?.owned.schedulePump()
        case .drain: owner?.drain(thenStop: true) { [weak self] _ in self?.handle(.drained) }
        }
    }

    func report(_ report: Report) { host.report(report, group: id) }

    // MARK: The coordinator

    private func readRecord() {
        host.readRecord(of: id) { result in
            switch result {
            case .success(let record): self.handle(.coordinator(.recordRead(record)))
            case .failure(let error): self.handle(.coordinator(.unavailable("\(error)")))
            }
        }
    }

    private func swapRecord(_ expected: UInt64, _ record: GroupRecord) {
        host.swapRecord(of: id, expecting: expected, to: record) { result in
            switch result {
            case .success(let outcome): self.handle(.coordinator(.swapped(outcome)))
            case .failure(let error): self.handle(.coordinator(.unavailable("\(error)")))
            }
        }
    }

    // MARK: Ticks and service

    package func tick() {
        if let owner { handle(.medium(.trouble(owner.mediumTrouble(runtime.now)))) }
        handle(.tick)
        reportMemoryFault()
        probeMedia()
        confirmPredecessors()
        proveMedia()
        if machine.isOwner { rails.tick() } else { rails.end() }
        if let mirrorRail { send(.heartbeat(machine.heartbeat(runtime.now)), on: mirrorRail.queuePair) }
        owner?.tick()
        judgeDrain(runtime.now)
    }

    private func judgeDrain(_ now: Nanos) {
        guard let owner, owner.isDrainAsked else {
            drainProgress = nil
            return
        }
        let head = owner.owned.destage.head
        guard let progress = drainProgress, progress.head == head else {
            drainProgress = (head, now)
            return
        }
        guard now >= progress.at + Self.drainPatience, let reason = drainObstacle(owner, now) else { return }
        drainProgress = nil
        let seconds = Self.drainPatience / 1_000_000_000
        owner.refuseDrains("nothing has reached the medium for \(seconds) s: \(reason); \(host.id) goes on trying")
    }

    /// What keeps the log from the medium; `nil` if a batch is on its way and takes its time.
    private func drainObstacle(_ owner: OwnerDataPath, _ now: Nanos) -> String? {
        let isUnacknowledged = owner.owned.destage.head >= owner.owned.acknowledgedWriteEnd
        let isHeldUp =
            isUnacknowledged || owner.mediumTrouble(now) != nil || owner.destager.problem != nil
            || !machine.authority.isValid(now)
        return isHeldUp ? reason ?? owner.destager.problem : nil
    }

    /// What failed is attributed once, and again if more fails; the machine hears of it until this process ends.
    private func reportMemoryFault() {
        if let failure = owner?.owned.persistFailure {
            handle(.region(.memoryFailed("\(failure); restart \(host.id)")))
        }
        guard let fault = region.memoryFault else { return }
        if fault != reportedFault {
            reportedFault = fault
            report(Report(.memoryFailed, fault.description))
        }
        handle(.region(.memoryFailed("\(fault); replace the memory, then restart \(host.id)")))
    }

    func send(_ message: PeerMessage, on queuePair: (any QueuePair)?) {
        do throws(RemoteMemoryError) {
            try queuePair?.send(message.encoded)
        } catch {
            // The queue pair has failed; its delegate hears of it in this turn of the loop.
        }
    }

    package func find(_ volume: ClusterConfiguration.Volume) -> Result<VolumeInfo, VolumeRefusal> {
        if machine.isServing, owner?.owned.isServing == true {
            let bytes = servedBytes(of: volume)
            guard bytes > 0 else { return .failure(notKnownToPeer(volume)) }
            return .success(VolumeInfo(name: volume.name, sizeBytes: bytes, isReadOnly: volume.isReadOnly))
        }
        if let record = machine.record, record.owner != host.id {
            return .failure(
                VolumeRefusal(
                    .ownedElsewhere, "volume '\(volume.name)' is owned by \(record.owner): connect to it there"))
        }
        let now = runtime.now
        let reason = machine.reason(now).map { ": \($0)" } ?? ""
        return .failure(
            VolumeRefusal(
                .notReady, "volume '\(volume.name)' is not served now: \(machine.state(now).rawValue)\(reason)"))
    }

    package func open(
        _ volume: ClusterConfiguration.Volume, ready: @escaping (Result<any VolumeSession, VolumeRefusal>) -> Void
    ) -> () -> Void {
        guard case .success(let found) = find(volume), let owner, let medium = mediaByVolume[volume.id] else {
            ready(.failure(VolumeRefusal(.notReady, "volume '\(volume.name)' is not served here now")))
            return {}
        }
        owner.offered[volume.id] = max(found.sizeBytes, owner.offered[volume.id] ?? 0)
        return owner.requests.open(volume.id, at: owner.log.tail, acknowledged: owner.owned.acknowledged) { isOpen in
            guard isOpen else {
                return ready(.failure(VolumeRefusal(.notReady, "volume '\(volume.name)' has just lost its owner")))
            }
            ready(.success(owner.session(volume.id, medium)))
        }
    }

    /// Destages up to the present tail.
    package func drain(_ done: @escaping (String?) -> Void) {
        guard let owner, machine.isServing else {
            return done(
                "\(host.id) does not own \(configuration.id); \(machine.record?.owner.rawValue ?? "nobody") does")
        }
        owner.drain(thenStop: false, done)
    }

    package func stop(_ stopped: @escaping () -> Void) {
        onStopped = stopped
        command(.stop) { _ in }
    }
}
