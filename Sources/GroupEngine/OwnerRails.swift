// An owner's rails to its mirror: one for each place where the mirror listens. Carries out what RailSet decides. The session is on one of
// them; whatever else is said, only its heartbeats cross the others.

internal import ClusterProtocol
internal import LogModel
internal import RemoteMemory

/// The owner's part of a group, as its rails see it.
protocol RailOwner: AnyObject {
    /// What its heartbeats say; `nil` while it has no log.
    func railHeartbeat(at sent: Nanos) -> RailHeartbeat?
    func sessionBegan(on rail: OwnerRail)
    /// Of the old rail nothing counts any more.
    func sessionMoved(from old: Int, to new: Int, because reason: String)
    func sessionLost(_ error: RemoteMemoryError?)
    func notDialed(_ rail: Int, _ error: RemoteMemoryError)
    /// Anything arrived, on whichever rail.
    func railHeard()
    /// The session has requests that the mirror has not completed.
    var sessionWaits: Bool { get }
    func railReceived(_ message: PeerMessage)
    func railCompleted(through id: WorkRequestID)
    func railRead(_ id: WorkRequestID, _ bytes: [UInt8])
}

final class OwnerRails: OwnerRailKeeper {
    private unowned let owner: any RailOwner
    private unowned let host: any Host
    private let runtime: any Runtime
    private let mirror: NodeID
    private(set) var choice: RailSet
    private var open: [Int: OwnerRail] = [:]
    private var isGlancing = false

    init(of owner: any RailOwner, to mirror: NodeID, host: any Host, runtime: any Runtime, interval: Nanos) {
        self.owner = owner
        self.host = host
        self.runtime = runtime
        self.mirror = mirror
        choice = RailSet(
            count: host.rails(of: mirror).count, heartbeatInterval: interval, heartbeatTimeout: host.heartbeatTimeout,
            now: runtime.now)
    }

    /// The rail that the session is on.
    var session: OwnerRail? { choice.session.flatMap { open[$0] } }

    /// Bytes of the session's requests that are on the way on a rail.
    func bytesInFlight(on rail: Int) -> Int {
        open[rail].map { RemoteMemoryLimits.windowBytes - $0.queuePair.creditBytes } ?? 0
    }

    func peer(on rail: Int) -> RailPeer? { open[rail]?.peer }

    // MARK: What the group says

    /// A rail for a session. `sessionBegan` or `sessionLost` follows.
    func wantSession() {
        perform(choice.endSession(runtime.now))
        perform(choice.want(runtime.now))
    }

    func endSession() { perform(choice.endSession(runtime.now)) }

    func end() { perform(choice.end(runtime.now)) }

    func tick() { perform(choice.tick(runtime.now)) }

    /// The session waits for the mirror: until it does not, its rail is looked at more often than ticks come.
    func sessionWaits() {
        guard !isGlancing, choice.hasAlternative else { return }
        isGlancing = true
        runtime.execute(after: RailSet.glanceInterval) { [weak self] in
            // What has arrived and is not read yet counts, too.
            self?.runtime.executeNextTurn { [weak self] in self?.glance() }
        }
    }

    private func glance() {
        isGlancing = false
        guard owner.sessionWaits, let session else { return }
        perform(choice.glance(runtime.now, bytesInFlight: bytesInFlight(on: session.index)))
        if owner.sessionWaits { sessionWaits() }
    }

    // MARK: What becomes of the rails

    private func dial(_ index: Int) {
        let attempt = choice.rails[index].dials
        host.dial(mirror, rail: index) { [weak self] result in
            guard let self, choice.rails[index].dials == attempt else {
                // Given up meanwhile, and perhaps dialled anew.
                if case .success(let (queuePair, _)) = result { queuePair.close() }
                return
            }
            switch result {
            case .failure(let error): notDialed(index, error)
            case .success(let (queuePair, peer)): connected(index, queuePair, peer)
            }
        }
    }

    private func notDialed(_ index: Int, _ error: RemoteMemoryError) {
        owner.notDialed(index, error)
        perform(choice.failed(index, error.message, runtime.now))
    }

    private func connected(_ index: Int, _ queuePair: any QueuePair, _ peer: RailPeer) {
        guard peer.hasSameConfiguration || choice.isWanted else {
            queuePair.close()
            return notDialed(index, RemoteMemoryError(.disconnected, host.difference(from: mirror)))
        }
        open[index]?.close()
        open[index] = OwnerRail(index, queuePair, peer, of: self)
        perform(choice.connected(index, runtime.now))
    }

    /// What stands by says as well as any that the mirror lives.
    func heard(on rail: OwnerRail) { owner.railHeard() }

    func completed(through id: WorkRequestID, on rail: OwnerRail) {
        guard session === rail else { return }
        choice.progressed(runtime.now)
        owner.railCompleted(through: id)
    }

    func read(_ id: WorkRequestID, _ bytes: [UInt8], on rail: OwnerRail) {
        if session === rail { owner.railRead(id, bytes) }
    }

    func received(_ bytes: [UInt8], on rail: OwnerRail) {
        do throws(PeerMessageError) {
            let message = try PeerMessage(bytes)
            if case .railAnswer(let sent) = message {
                choice.answered(rail.index, sent: sent, runtime.now)
            } else if session === rail {
                owner.railReceived(message)
            } else {
                end(rail, "\(mirror) answered on a rail that stands by what was not asked there")
            }
        } catch .unknownType(let type) {
            host.debug("\(mirror) sent a message of type \(type), which this version does not know")
        } catch {
            end(rail, error.description)
        }
    }

    /// Closes a rail for what the peer did on it.
    func end(_ rail: OwnerRail, _ reason: String) {
        rail.close()
        ended(rail, RemoteMemoryError(.protocolViolation, reason))
    }

    func ended(_ rail: OwnerRail, _ error: RemoteMemoryError) {
        guard open[rail.index] === rail else { return }
        host.debug("the rail to \(mirror) at \(place(rail.index)) ended: \(error)")
        let wasSession = session === rail
        open[rail.index] = nil
        if wasSession, error.code == .access || error.code == .remoteOperation {
            // The mirror refused what was asked of it, which another rail does not change.
            perform(choice.endSession(runtime.now))
            owner.sessionLost(error)
        } else {
            perform(choice.failed(rail.index, error.message, runtime.now))
        }
    }

    func place(_ rail: Int) -> String { host.rails(of: mirror)[rail] }

    private func perform(_ steps: [RailSet.Step]) {
        for step in steps { perform(step) }
    }

    private func perform(_ step: RailSet.Step) {
        switch step {
        case .dial(let rail): dial(rail)
        case .sendHeartbeat(let rail, let sent):
            if let heartbeat = owner.railHeartbeat(at: sent) { open[rail]?.send(.railHeartbeat(heartbeat)) }
        case .close(let rail): close(rail)
        case .begin(let rail):
            if let rail = open[rail] { owner.sessionBegan(on: rail) }
        case .move(let old, let new):
            close(old)
            owner.sessionMoved(from: old, to: new, because: choice.rails[old].lastError ?? "")
        case .lost: owner.sessionLost(nil)
        }
    }

    private func close(_ rail: Int) { open.removeValue(forKey: rail)?.close() }
}
