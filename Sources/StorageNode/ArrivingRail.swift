// A rail that a peer has made, until its first message says which group it is for: then it goes to the event loop of that group.

internal import ClusterProtocol
internal import GroupEngine
internal import LogModel
internal import Logging
internal import RemoteMemory

/// Bound to the node's event loop, on which rails arrive.
final class ArrivingRail: QueuePairDelegate {
    /// A peer whose configuration differs tells it before its first request.
    private static let mostMessages = 4

    private let queuePair: any QueuePair
    private let peer: RailPeer
    private let isIdleFrom: Nanos
    private let commons: NodeCommons
    /// Called once: with the group that it is for, or without.
    private let ended: (ArrivingRail, (GroupID, messages: [[UInt8]])?) -> Void
    private var messages: [[UInt8]] = []

    init(
        _ queuePair: any QueuePair, _ peer: RailPeer, until isIdleFrom: Nanos, _ commons: NodeCommons,
        ended: @escaping (ArrivingRail, (GroupID, messages: [[UInt8]])?) -> Void
    ) {
        self.queuePair = queuePair
        self.peer = peer
        self.isIdleFrom = isIdleFrom
        self.commons = commons
        self.ended = ended
    }

    func closeIfIdle(_ now: Nanos) {
        if now > isIdleFrom { close() }
    }

    func close() {
        queuePair.delegate = nil
        queuePair.close()
        ended(self, nil)
    }

    /// For a peer whose digest differs, and for no other.
    func sendConfiguration() {
        do throws(RemoteMemoryError) {
            try queuePair.send(PeerMessage.configuration(commons.partners.entries).encoded)
        } catch {
            // The queue pair has failed; its delegate hears of it in this turn of the loop.
        }
    }

    func queuePair(_ queuePair: any QueuePair, received bytes: [UInt8]) {
        messages.append(bytes)
        do throws(PeerMessageError) {
            switch try PeerMessage(bytes) {
            case .attach(let request): ended(self, (request.group, messages))
            case .railHeartbeat(let heartbeat): ended(self, (heartbeat.group, messages))
            case .configuration(let entries) where !peer.hasSameConfiguration && messages.count < Self.mostMessages:
                commons.configurationDiffers(from: peer.node, entries)
            default: close()
            }
        } catch .unknownType(let type) {
            commons.logger.debug("\(peer.node) sent a message of type \(type), which this version does not know")
            messages.removeLast()
        } catch {
            commons.logger.debug("the rail from \(peer.node) is closed: \(error)")
            close()
        }
    }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) { ended(self, nil) }

    func queuePairHeard(_ queuePair: any QueuePair) {}
    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {}
    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
}
