// A group's rails: the one that the owner dials to the mirror, and the one that the mirror accepted from the owner.

internal import ClusterConfiguration
package import ClusterProtocol
internal import Coordination
internal import LogModel
internal import PersistentMemory
package import RemoteMemory
internal import WriteLog

/// The owner's end of a rail.
final class OwnerRail: QueuePairDelegate {
    private unowned let group: Group
    let peer: RailPeer

    init(group: Group, peer: RailPeer) {
        self.group = group
        self.peer = peer
    }

    private func isCurrent(_ queuePair: any QueuePair) -> Bool { group.rail === queuePair }

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {
        if isCurrent(queuePair) { group.owner?.mirrorCompleted(through: id) }
    }

    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {
        if isCurrent(queuePair) { group.owner?.mirrorRead(id, bytes) }
    }

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
        if isCurrent(queuePair) { group.ownerReceived(message) }
    }

    func queuePairHeard(_ queuePair: any QueuePair) {
        if isCurrent(queuePair) { group.handle(.heard) }
    }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {
        guard isCurrent(queuePair) else { return }
        group.rail = nil
        group.owner?.detachMirror()
        group.host.debug("rail of \(group.configuration.id) to \(group.peer) ended: \(error)")
        // An access error says that the key is revoked: the record has moved on (S12).
        if error.code == .access { group.handle(.recordChanged) }
        group.handle(.down)
    }
}

/// The mirror's end of a rail: nobody's until its first message says which group it is for.
package final class AcceptedRail: QueuePairDelegate {
    let queuePair: any QueuePair
    let peer: RailPeer
    private unowned let host: any Host
    private weak var group: Group?
    /// One that is not a group's rail by then is closed: a dialer gives an attempt up after one heartbeat timeout.
    private let mustCountBy: Nanos

    package init(queuePair: any QueuePair, peer: RailPeer, host: any Host) {
        mustCountBy = host.now + 3 * host.heartbeatTimeout
        self.queuePair = queuePair
        self.peer = peer
        self.host = host
    }

    package func close() {
        queuePair.delegate = nil
        queuePair.close()
        host.forget(self)
    }

    package func closeIfIdle() {
        guard host.now > mustCountBy, group?.mirrorRail !== self else { return }
        let group = group
        close()
        group?.candidateEnded(self)
    }

    package func queuePair(_ queuePair: any QueuePair, received bytes: [UInt8]) {
        do throws(PeerMessageError) {
            try received(PeerMessage(bytes))
        } catch .unknownType(let type) {
            host.debug("\(peer.node) sent a message of type \(type), which this version does not know")
        } catch {
            host.debug("the rail from \(peer.node) is closed: \(error)")
            end()
        }
    }

    private func received(_ message: PeerMessage) {
        switch message {
        case .attach(let request): attach(request)
        case .heartbeat(let heartbeat): if let group, group.mirrorRail === self { group.handle(.said(heartbeat)) }
        case .recordChanged: if let group, group.mirrorRail === self { group.handle(.recordChanged) }
        case .repair(let range):
            if let group, group.mirrorRail === self { group.mirrorTarget?.target.expectRepair(of: range) }
        case .configuration(let entries):
            guard !peer.hasSameConfiguration else { return end() }
            host.configurationDiffers(from: peer.node, entries)
        case .mediumQuestion(let id, let volume, let offset, let length):
            if let group, group.mirrorRail === self {
                group.answerQuestion(id, of: volume, offset: offset, lengthBytes: length, on: self)
            }
        case .mediumProof(let volume, let isProved):
            if let group, group.mirrorRail === self { group.mediumJudged(volume, isProved: isProved) }
        case .attached, .refused, .mediumAnswer: end()
        }
    }

    private func attach(_ request: AttachRequest) {
        guard request.from == peer.node, let group = host.group(request.group), group.peer == peer.node,
            self.group == nil || self.group === group
        else { return end() }
        self.group = group
        guard peer.hasSameConfiguration else {
            return group.refuse(self, .differentConfiguration, host.difference(from: peer.node))
        }
        guard request.head.isPlaceOfRecord else {
            return group.refuse(
                self, .notReady, "no log begins at LSN \(request.head), which is said to be its head")
        }
        group.candidateRail = self
        group.handle(.attachRequested(request))
    }

    /// For a peer whose digest differs, and for no other.
    package func sendConfiguration(_ entries: ConfigurationEntries) {
        do throws(RemoteMemoryError) {
            try queuePair.send(PeerMessage.configuration(entries).encoded)
        } catch {
            // The queue pair has failed; its delegate hears of it in this turn of the loop.
        }
    }

    /// Closes the rail for what the peer did on it.
    private func end() {
        let error = RemoteMemoryError(.protocolViolation, "the peer broke the protocol")
        close()
        ended(error)
    }

    package func queuePairHeard(_ queuePair: any QueuePair) {
        if let group, group.mirrorRail === self { group.handle(.heard) }
    }

    package func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {
        host.forget(self)
        ended(error)
    }

    private func ended(_ error: RemoteMemoryError) {
        guard let group else { return }
        guard group.mirrorRail === self else { return group.candidateEnded(self) }
        group.mirrorRail = nil
        host.debug("rail of \(group.configuration.id) from \(peer.node) ended: \(error)")
        group.handle(.down)
    }

    package func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {}
    package func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
}

extension Group {
    // MARK: As owner

    /// Dials the peer's rails in turn.
    func dial() {
        guard owner?.catchUp.mayDialMirror != false else { return handle(.down) }
        nextRail += 1
        let attempt = nextRail
        host.dial(peer, attempt: attempt) { [weak self] result in
            guard let self else { return }
            switch result {
            case .failure(let error):
                notDialed(error)
                if attempt == nextRail, rail == nil { handle(.down) }
            case .success(let (queuePair, peer)):
                guard attempt == nextRail else { return queuePair.close() }
                railProblem = nil
                use(queuePair, peer)
            }
        }
    }

    /// What a stranger who listens in the peer's place can make this node report is bounded.
    private static let railReportInterval: Nanos = 10_000_000_000

    /// A peer that is not there is its silence, which the machine sees. One that refuses, or is none, is an event.
    private func notDialed(_ error: RemoteMemoryError) {
        host.debug("rail of \(configuration.id): \(error)")
        guard error.code == .protocolViolation else { return }
        if let railProblem {
            let isOld = runtime.now > railProblem.reportedAt + Self.railReportInterval
            guard isOld, error.message != railProblem.text else { return }
        }
        railProblem = (error.message, runtime.now)
        report(Report(.railRefused, "no rail to \(peer): \(error)"))
    }

    private func use(_ queuePair: any QueuePair, _ peer: RailPeer) {
        closeRail()
        let delegate = OwnerRail(group: self, peer: peer)
        rail = queuePair
        railDelegate = delegate
        queuePair.delegate = delegate
        // Where the digests differ, the mirror says first what it has.
        guard peer.hasSameConfiguration else { return }
        host.configurationAgrees(with: peer.node)
        // The queue pair gets its place in the pipeline when this returns.
        runtime.execute {
            if self.rail === queuePair { self.handle(.up) }
        }
    }

    package func closeRail() {
        owner?.detachMirror()
        guard let rail else { return }
        self.rail = nil
        rail.delegate = nil
        rail.close()
    }

    func sendAttach(_ epoch: Epoch, counts: Bool) {
        guard let owner, let identity = region.identity else { return }
        send(
            .attach(
                AttachRequest(
                    group: configuration.id, from: host.id, epoch: epoch, logUUID: identity.logUUID,
                    incarnation: identity.incarnation, head: owner.owned.destage.head,
                    acknowledged: owner.owned.acknowledged,
                    ringBytes: region.ringBytes, start: identity.startLSN, end: owner.log.durable,
                    pool: host.poolUUID, generation: region.standing.generation, counts: counts)), on: rail)
    }

    func ownerReceived(_ bytes: [UInt8]) {
        do throws(PeerMessageError) {
            try ownerReceived(PeerMessage(bytes))
        } catch .unknownType(let type) {
            host.debug("\(peer) sent a message of type \(type), which this version does not know")
        } catch {
            host.debug("the rail of \(configuration.id) to \(peer) is closed: \(error)")
            rail?.close()
        }
    }

    private func ownerReceived(_ message: PeerMessage) {
        switch message {
        case .attached(configuration.id, _, let key, let durable, let contents):
            guard let rail, let owner, durable.isPlaceOfRecord, durable <= owner.log.published else {
                rail?.close()
                return
            }
            owner.attach(rail, key: RegionKey(rawValue: key), durable: durable, isKept: contents.isKept)
            handle(.attached(durable: durable, contents))
        case .refused(configuration.id, _, let refusal, let reason): handle(.attachRefused(refusal, reason))
        case .heartbeat(let heartbeat): handle(.said(heartbeat))
        case .recordChanged: handle(.recordChanged)
        case .configuration(let entries):
            guard railDelegate?.peer.hasSameConfiguration == false else {
                rail?.close()
                return
            }
            send(.configuration(host.configurationEntries), on: rail)
            host.configurationDiffers(from: peer, entries)
            handle(.attachRefused(.differentConfiguration, host.difference(from: peer)))
        case .mediumAnswer(let id, let checksum, _): owner?.destager.mediumProof.answered(id, checksum)
        case .attach, .attached, .refused, .repair, .mediumQuestion, .mediumProof: rail?.close()
        }
    }

    // MARK: As mirror

    func refuseAttach(_ request: AttachRequest, _ refusal: AttachRefusal, _ reason: String) {
        refuse(candidateRail, refusal, reason)
        candidateRail = nil
    }

    fileprivate func refuse(_ rail: AcceptedRail?, _ refusal: AttachRefusal, _ reason: String) {
        send(
            .refused(group: configuration.id, epoch: machine.record?.epoch ?? .none, refusal, reason),
            on: rail?.queuePair)
    }

    /// A rail ended before it counted: the machine has not heard of it.
    func candidateEnded(_ rail: AcceptedRail) {
        if candidateRail === rail { candidateRail = nil }
    }

    /// Seals what an earlier owner may still write, prepares the region, and opens it under a fresh key (S12).
    func acceptAttach(_ request: AttachRequest, generation: UInt64) {
        guard let rail = candidateRail else { return }
        guard request.ringBytes == region.ringBytes else {
            return refuseAttach(
                request, .notReady, "the log here has \(region.ringBytes) bytes, the owner's has \(request.ringBytes)")
        }
        guard !isPreparingRegion else {
            return refuseAttach(request, .notReady, "the mirror region is still being prepared for an earlier request")
        }
        if let fault = region.memoryFault { return refuseAttach(request, .notReady, fault.description) }
        candidateRail = nil
        if let current = mirrorRail, current !== rail { current.close() }
        mirrorRail = rail
        // Only now is what arrives there a sign of the owner's life.
        handle(.up)
        isPreparingRegion = true
        let earlier = mirrorTarget
        mirrorTarget = nil
        let prepare = { [self] in
            let region = region
            let archives = host.archives
            let known = earlier?.incarnation == request.incarnation ? earlier?.target.durable : nil
            runtime.run(.memory) {
                try MirrorRegion.prepare(
                    region, for: request, generation: generation, known: known, archives: archives)
            } _: { [self] result in
                isPreparingRegion = false
                if let sealed = onRegionPrepared {
                    onRegionPrepared = nil
                    return sealed()
                }
                guard mirrorRail === rail else { return }
                switch result {
                case .failure(let error):
                    refuse(rail, .notReady, "the mirror region cannot be prepared: \(error)")
                case .success(let prepared):
                    if let report = prepared.report { self.report(report) }
                    open(request, rail, prepared)
                }
            }
        }
        if let earlier { host.regions.revoke(earlier.key, sealed: prepare) } else { prepare() }
    }

    private func open(_ request: AttachRequest, _ rail: AcceptedRail, _ prepared: MirrorRegion.Prepared) {
        let target = MirrorTarget(
            region: region, durable: prepared.durable, head: prepared.head, kept: prepared.kept, runtime: runtime)
        target.onConflict = { [weak self] in self?.reportConflict(at: $0, with: request.from) }
        let key = host.regions.register(target, lengthBytes: MirrorTarget.lengthBytes(ring: region.ringBytes))
        mirrorTarget = (target, key, request.incarnation)
        send(
            .attached(
                group: configuration.id, epoch: request.epoch, key: key.rawValue, durable: prepared.durable,
                contents: MirrorContents(
                    pool: host.poolUUID, generation: region.standing.generation, isKept: prepared.kept != nil,
                    acknowledged: region.acknowledged, end: prepared.kept?.end ?? prepared.durable)),
            on: rail.queuePair)
        report(
            Report(
                .mirroring,
                "mirroring \(request.from)'s log of epoch \(request.epoch) from LSN \(prepared.durable)"))
    }

    /// Once a record: the owner asks again and again.
    private func reportConflict(at lsn: LSN, with owner: NodeID) {
        guard reportedConflict != lsn else { return }
        reportedConflict = lsn
        report(
            Report(
                .mirrorConflict,
                "\(owner) sent other bytes for LSN \(lsn), where the mirror log holds a good record: they are not stored"
            ))
    }
}
