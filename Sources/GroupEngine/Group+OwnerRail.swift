// A group's session as owner: on one of the rails to the mirror, and what the mirror says there.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import PersistentMemory
internal import RemoteMemory
internal import WriteLog

extension Group: RailOwner {
    /// The rail that the session is on.
    var rail: (any QueuePair)? { rails.session?.queuePair }

    func dial() {
        guard owner?.catchUp.mayDialMirror != false else { return handle(.down) }
        rails.wantSession()
    }

    func closeRail() {
        owner?.detachMirror()
        rails.endSession()
    }

    /// Those that stand by, too.
    package func closeRails() {
        owner?.detachMirror()
        rails.end()
    }

    /// What a stranger who listens in the peer's place can make this node report is bounded.
    private static let railReportInterval: Nanos = 10_000_000_000

    /// A peer that is not there is its silence, which the machine sees. One that refuses, or is none, is an event.
    func notDialed(_ rail: Int, _ error: RemoteMemoryError) {
        host.debug("rail of \(configuration.id): \(error)")
        guard error.code == .protocolViolation else { return }
        if let railProblem {
            let isOld = runtime.now > railProblem.reportedAt + Self.railReportInterval
            guard isOld, error.message != railProblem.text else { return }
        }
        railProblem = (error.message, runtime.now)
        report(Report(.railRefused, "no rail to \(peer): \(error)"))
    }

    func railHeartbeat(at sent: Nanos) -> RailHeartbeat? {
        guard let identity = region.identity else { return nil }
        return RailHeartbeat(
            group: configuration.id, incarnation: identity.incarnation,
            isSuspended: machine.heartbeat(sent).isSuspended, sent: sent)
    }

    func sessionBegan(on rail: OwnerRail) {
        railProblem = nil
        // Where the digests differ, the mirror says first what it has.
        guard rail.peer.hasSameConfiguration else { return }
        host.configurationAgrees(with: peer)
        // The queue pair gets its place in the pipeline when this returns.
        runtime.execute {
            if self.rails.session === rail { self.handle(.up) }
        }
    }

    func sessionMoved(from old: Int, to new: Int, because reason: String) {
        owner?.detachMirror()
        report(
            Report(
                .railMoved,
                "the session with \(peer) moves from \(rails.place(old)) to \(rails.place(new)): \(reason)"))
        handle(.moved)
    }

    func sessionLost(_ error: RemoteMemoryError?) {
        owner?.detachMirror()
        // An access error says that the key is revoked: the record has moved on (S12).
        if error?.code == .access { handle(.recordChanged) }
        handle(.down)
    }

    func sendAttach(_ epoch: Epoch, counts: Bool) {
        guard let owner, let identity = region.identity else { return }
        attachAttempts += 1
        send(
            .attach(
                AttachRequest(
                    group: configuration.id, from: host.id, epoch: epoch, logUUID: identity.logUUID,
                    incarnation: identity.incarnation, head: owner.owned.destage.head,
                    acknowledged: owner.owned.acknowledged,
                    ringBytes: region.ringBytes, start: identity.startLSN, end: owner.log.durable,
                    pool: host.poolUUID, generation: region.standing.generation, counts: counts,
                    attempt: attachAttempts)), on: rail)
    }

    func railReceived(_ message: PeerMessage) {
        switch message {
        case .attached(configuration.id, _, let key, let durable, let contents):
            guard let rail, let owner else { return endRail("it answers for a log that is closed") }
            guard durable.isPlaceOfRecord, durable <= owner.log.published else {
                return endRail("it says that it holds what was never logged")
            }
            owner.attach(rail, key: RegionKey(rawValue: key), durable: durable, isKept: contents.isKept)
            handle(.attached(durable: durable, contents))
        case .refused(configuration.id, _, let refusal, let reason): handle(.attachRefused(refusal, reason))
        case .heartbeat(let heartbeat): handle(.said(heartbeat))
        case .recordChanged: handle(.recordChanged)
        case .configuration(let entries):
            guard rails.session?.peer.hasSameConfiguration == false else {
                return endRail("it sends a configuration that is the same")
            }
            send(.configuration(host.configurationEntries), on: rail)
            host.configurationDiffers(from: peer, entries)
            if let obstacle = configurationObstacle {
                handle(.attachRefused(.differentConfiguration, obstacle))
            } else {
                handle(.up)
            }
        case .mediumAnswer(let id, let checksum, _): owner?.destager.mediumProof.answered(id, checksum)
        case .attached, .refused: endRail("it answers for another group")
        case .attach, .repair, .mediumQuestion, .mediumProof, .railHeartbeat, .railAnswer:
            endRail("it sends what only an owner says")
        }
    }

    private func endRail(_ reason: String) {
        if let session = rails.session { rails.end(session, "\(peer) broke the protocol: \(reason)") }
    }

    // MARK: What happens on the rail

    func railCompleted(through id: WorkRequestID) { owner?.mirrorCompleted(through: id) }

    func railRead(_ id: WorkRequestID, _ bytes: [UInt8]) { owner?.mirrorRead(id, bytes) }

    func railHeard() { handle(.heard) }

    var sessionWaits: Bool { owner?.shipper.pending != nil }
}
