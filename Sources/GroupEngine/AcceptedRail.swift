// The mirror's end of a rail: nobody's until its first message says which group it is for. What happens on the one that counts
// is the mirror's. One that stands by brings signs of its owner's life, and no more; another is neither heard nor missed.

internal import ClusterConfiguration
package import ClusterProtocol
package import LogModel
package import RemoteMemory

/// Where the rails are kept that peers made.
package protocol RailKeeper: Host {
    func mirrorSide(of group: GroupID) -> (any MirrorSide)?
    /// The rail is closed.
    func forget(_ rail: AcceptedRail)
}

/// The mirror's part of a group, as a rail sees it that its owner may have made.
package protocol MirrorSide: AnyObject {
    var id: GroupID { get }
    var peer: NodeID { get }
    /// Whether it is the rail on which an owner was accepted.
    func counts(_ rail: AcceptedRail) -> Bool
    func attachRequested(_ request: AttachRequest, on rail: AcceptedRail)
    func refuse(_ rail: AcceptedRail?, _ refusal: AttachRefusal, _ reason: String)
    /// The rail of an owner that does not count, and stands by.
    func heartbeatArrived(_ heartbeat: RailHeartbeat, beside rail: AcceptedRail)
    /// The rail ended and did not count.
    func candidateEnded(_ rail: AcceptedRail)
    /// The rail that counted has ended.
    func railEnded()
    func railSaid(_ event: RailEvent)
    func expectRepair(of range: Range<LSN>)
    func answerQuestion(
        _ id: UInt64, of volume: VolumeID, offset: UInt64, lengthBytes: UInt32, on asking: AcceptedRail)
    func mediumJudged(_ volume: VolumeID, isProved: Bool)
}

package final class AcceptedRail: QueuePairDelegate {
    let queuePair: any QueuePair
    let peer: RailPeer
    private unowned let host: any RailKeeper
    /// Whose rail it is, or would be.
    private weak var side: (any MirrorSide)?
    /// The peer, whose configuration is another, has sent it on this rail.
    private var hasToldConfiguration = false
    /// One that is not the group's rail by then, and has not brought a heartbeat, is closed: a dialer gives an attempt up after one
    /// heartbeat timeout.
    private var isIdleFrom: Nanos

    package init(queuePair: any QueuePair, peer: RailPeer, host: any RailKeeper) {
        isIdleFrom = host.now + 3 * host.heartbeatTimeout
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
        guard host.now > isIdleFrom, counted == nil else { return }
        let side = side
        close()
        side?.candidateEnded(self)
    }

    /// The group that it is the rail of.
    private var counted: (any MirrorSide)? { side.flatMap { $0.counts(self) ? $0 : nil } }

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
        case .heartbeat(let heartbeat): counted?.railSaid(.said(heartbeat))
        // It only makes the mirror look, so any of the owner's rails may say it.
        case .recordChanged: side?.railSaid(.recordChanged)
        case .repair(let range): counted?.expectRepair(of: range)
        case .configuration(let entries):
            guard !peer.hasSameConfiguration else { return end() }
            hasToldConfiguration = true
            host.configurationDiffers(from: peer.node, entries)
        case .mediumQuestion(let id, let volume, let offset, let length):
            counted?.answerQuestion(id, of: volume, offset: offset, lengthBytes: length, on: self)
        case .mediumProof(let volume, let isProved): counted?.mediumJudged(volume, isProved: isProved)
        case .railHeartbeat(let heartbeat): answer(heartbeat)
        case .attached, .refused, .mediumAnswer, .railAnswer: end()
        }
    }

    private func attach(_ request: AttachRequest) {
        guard request.from == peer.node, let side = host.mirrorSide(of: request.group), side.peer == peer.node,
            self.side == nil || self.side === side
        else { return end() }
        self.side = side
        guard peer.hasSameConfiguration || isAgreed(on: request.group) else {
            return side.refuse(self, .differentConfiguration, host.difference(from: peer.node))
        }
        guard request.head.isPlaceOfRecord else {
            return side.refuse(
                self, .notReady, "no log begins at LSN \(request.head), which is said to be its head")
        }
        side.attachRequested(request, on: self)
    }

    private func isAgreed(on group: GroupID) -> Bool {
        hasToldConfiguration && host.agreement(on: group, with: peer.node) != .none
    }

    private func answer(_ heartbeat: RailHeartbeat) {
        guard let side = host.mirrorSide(of: heartbeat.group), side.peer == peer.node,
            self.side == nil || self.side === side
        else { return end() }
        // Until the peer has told how its configuration differs, and that is little enough, it is told nothing (S27).
        guard peer.hasSameConfiguration || isAgreed(on: heartbeat.group) else { return }
        self.side = side
        isIdleFrom = host.now + 3 * host.heartbeatTimeout
        send(.railAnswer(sent: heartbeat.sent))
        if !side.counts(self) { side.heartbeatArrived(heartbeat, beside: self) }
    }

    private func send(_ message: PeerMessage) {
        do throws(RemoteMemoryError) {
            try queuePair.send(message.encoded)
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
        counted?.railSaid(.heard)
    }

    package func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {
        host.forget(self)
        ended(error)
    }

    private func ended(_ error: RemoteMemoryError) {
        guard let side else { return }
        guard side.counts(self) else { return side.candidateEnded(self) }
        host.debug("rail of \(side.id) from \(peer.node) ended: \(error)")
        side.railEnded()
    }

    package func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {}
    package func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
}
