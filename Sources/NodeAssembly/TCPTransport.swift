// Rails over TCP.

internal import LogModel
internal import NIOCore
internal import RemoteMemory
internal import RemoteMemoryTCP
internal import StorageNode

final class TCPTransport: Transport {
    private let eventLoop: any EventLoop
    private let registry = TCPRegionRegistry()
    private var listener: TCPMirrorListener?

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    var regions: any RegionRegistry { registry }

    func listen(
        at place: String, as identity: RailIdentity, accepted: @escaping (any QueuePair, RailPeer) -> Void
    ) -> EventLoopFuture<Void> {
        guard let address = RailAddress(place) else { preconditionFailure("\(place) was checked") }
        let listener =
            listener
            ?? TCPMirrorListener(identity: identity, registry: registry, eventLoop: eventLoop) { accepted($0, $1) }
        self.listener = listener
        return listener.listen(on: address).map { _ in }
    }

    func dial(
        _ place: String, as identity: RailIdentity, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        guard let address = RailAddress(place) else { preconditionFailure("\(place) was checked") }
        TCPMirrorDialer.dial(
            address, as: identity, expecting: peer, registry: registry, timeout: timeout, on: eventLoop
        ) { result in
            done(result.map { ($0.0, $0.1) })
        }
    }
}
