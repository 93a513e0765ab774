// Rails over TCP.

internal import LogModel
internal import NIOCore
internal import RemoteMemory
internal import RemoteMemoryTCP
internal import StorageNode

final class TCPTransport: Transport {
    private let eventLoop: any EventLoop
    private let registry = TCPRegionRegistry()
    private var begun: (identity: RailIdentity, listener: TCPMirrorListener)?

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    var regions: any RegionRegistry { registry }

    func begin(as identity: RailIdentity, accepted: @escaping (any QueuePair, RailPeer) -> Void) {
        let listener = TCPMirrorListener(identity: identity, registry: registry, eventLoop: eventLoop) {
            accepted($0, $1)
        }
        begun = (identity, listener)
    }

    func listen(at place: String) -> EventLoopFuture<Void> {
        guard let begun else { preconditionFailure("the transport has not begun") }
        return begun.listener.listen(on: address(place)).map { _ in }
    }

    func close() { begun?.listener.close() }

    private func address(_ place: String) -> TCPAddress {
        guard let address = TCPAddress(place) else { preconditionFailure("\(place) was checked") }
        return address
    }

    func dial(
        _ place: String, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        guard let begun else { preconditionFailure("the transport has not begun") }
        TCPMirrorDialer.dial(
            address(place), as: begun.identity, expecting: peer, registry: registry, timeout: timeout, on: eventLoop
        ) { result in
            done(result.map { ($0.0, $0.1) })
        }
    }
}
