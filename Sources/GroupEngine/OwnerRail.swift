// The owner's end of a rail. What happens on the one that counts is the owner's; another is neither heard nor missed.

internal import RemoteMemory

/// The owner's part of a group, as its rail sees it.
protocol RailOwner: AnyObject {
    /// The one that counts.
    var rail: (any QueuePair)? { get }
    func railHeard()
    func railReceived(_ message: [UInt8])
    func railCompleted(through id: WorkRequestID)
    func railRead(_ id: WorkRequestID, _ bytes: [UInt8])
    func railFailed(_ error: RemoteMemoryError)
}

final class OwnerRail: QueuePairDelegate {
    private unowned let owner: any RailOwner
    let peer: RailPeer

    init(owner: any RailOwner, peer: RailPeer) {
        self.owner = owner
        self.peer = peer
    }

    private func counts(_ queuePair: any QueuePair) -> Bool { owner.rail === queuePair }

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {
        if counts(queuePair) { owner.railCompleted(through: id) }
    }

    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {
        if counts(queuePair) { owner.railRead(id, bytes) }
    }

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
        if counts(queuePair) { owner.railReceived(message) }
    }

    func queuePairHeard(_ queuePair: any QueuePair) {
        if counts(queuePair) { owner.railHeard() }
    }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {
        if counts(queuePair) { owner.railFailed(error) }
    }
}
