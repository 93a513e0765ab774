// A group's rail as owner: dialled to the mirror, and what the mirror says on it.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import PersistentMemory
internal import RemoteMemory
internal import WriteLog

extension Group: RailOwner {
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
        let delegate = OwnerRail(owner: self, peer: peer)
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

    func railReceived(_ bytes: [UInt8]) {
        do throws(PeerMessageError) {
            try received(PeerMessage(bytes))
        } catch .unknownType(let type) {
            host.debug("\(peer) sent a message of type \(type), which this version does not know")
        } catch {
            host.debug("the rail of \(configuration.id) to \(peer) is closed: \(error)")
            rail?.close()
        }
    }

    private func received(_ message: PeerMessage) {
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
            if let obstacle = configurationObstacle {
                handle(.attachRefused(.differentConfiguration, obstacle))
            } else {
                handle(.up)
            }
        case .mediumAnswer(let id, let checksum, _): owner?.destager.mediumProof.answered(id, checksum)
        case .attach, .attached, .refused, .repair, .mediumQuestion, .mediumProof: rail?.close()
        }
    }

    // MARK: What happens on the rail

    func railCompleted(through id: WorkRequestID) { owner?.mirrorCompleted(through: id) }

    func railRead(_ id: WorkRequestID, _ bytes: [UInt8]) { owner?.mirrorRead(id, bytes) }

    func railHeard() { handle(.heard) }

    func railFailed(_ error: RemoteMemoryError) {
        rail = nil
        owner?.detachMirror()
        host.debug("rail of \(configuration.id) to \(peer) ended: \(error)")
        // An access error says that the key is revoked: the record has moved on (S12).
        if error.code == .access { handle(.recordChanged) }
        handle(.down)
    }
}
