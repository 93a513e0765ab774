// One rail of an owner to its mirror, while it is up.

internal import ClusterProtocol
internal import RemoteMemory

/// Who has the rails of an owner.
protocol OwnerRailKeeper: AnyObject {
    func heard(on rail: OwnerRail)
    func received(_ message: [UInt8], on rail: OwnerRail)
    func completed(through id: WorkRequestID, on rail: OwnerRail)
    func read(_ id: WorkRequestID, _ bytes: [UInt8], on rail: OwnerRail)
    func ended(_ rail: OwnerRail, _ error: RemoteMemoryError)
}

final class OwnerRail: QueuePairDelegate {
    private unowned let keeper: any OwnerRailKeeper
    let index: Int
    let queuePair: any QueuePair
    let peer: RailPeer

    init(_ index: Int, _ queuePair: any QueuePair, _ peer: RailPeer, of keeper: any OwnerRailKeeper) {
        self.keeper = keeper
        self.index = index
        self.queuePair = queuePair
        self.peer = peer
        queuePair.delegate = self
    }

    func close() {
        queuePair.delegate = nil
        queuePair.close()
    }

    func send(_ message: PeerMessage) {
        do throws(RemoteMemoryError) {
            try queuePair.send(message.encoded)
        } catch {
            // The queue pair has failed; its delegate hears of it in this turn of the loop.
        }
    }

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {
        keeper.completed(through: id, on: self)
    }

    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {
        keeper.read(id, bytes, on: self)
    }

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) { keeper.received(message, on: self) }

    func queuePairHeard(_ queuePair: any QueuePair) { keeper.heard(on: self) }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) { keeper.ended(self, error) }
}
