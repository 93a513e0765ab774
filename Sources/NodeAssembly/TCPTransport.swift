// Rails over TCP, with TLS where the configuration asks for it, or where they leave this machine.

internal import ClusterConfiguration
internal import LogModel
internal import LoopPolling
internal import NIOCore
internal import RemoteMemory
internal import RemoteMemoryTCP
internal import StorageNode
internal import TransportSecurity

final class TCPTransport: Transport {
    private let eventLoop: any EventLoop
    private let registry = TCPRegionRegistry()
    private let certified: CertifiedRails?
    private let encryptsNetwork: Bool
    private let greetingLimit: TimeAmount
    private let poller: LoopPoller?
    private var begun: (identity: RailIdentity, listener: TCPMirrorListener)?

    /// `encryptsNetwork`: without certificates, rails that leave this machine are encrypted with a key of the cluster's secret.
    /// `greetingLimit`: how long whoever connects may take to prove itself.
    init(
        eventLoop: any EventLoop, certified: CertifiedRails?, encryptsNetwork: Bool, greetingLimit: TimeAmount,
        poller: LoopPoller?
    ) {
        self.poller = poller
        self.eventLoop = eventLoop
        self.certified = certified
        self.encryptsNetwork = encryptsNetwork
        self.greetingLimit = greetingLimit
    }

    var regions: any RegionRegistry { registry }

    func begin(as identity: RailIdentity, accepted: @escaping (any QueuePair, RailPeer) -> Void) {
        let listener = TCPMirrorListener(
            identity: identity, registry: registry, eventLoop: eventLoop, greetingLimit: greetingLimit,
            poller: poller
        ) {
            accepted($0, $1)
        }
        begun = (identity, listener)
    }

    func listen(at place: String) -> EventLoopFuture<Void> {
        guard let begun else { preconditionFailure("the transport has not begun") }
        let address = address(place)
        do throws(TLSError) {
            return begun.listener.listen(on: address, over: try security(of: address, begun.identity)).map { _ in }
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
    }

    func close() { begun?.listener.close() }

    /// Both ends of a rail have its address from the configuration, so they agree.
    private func security(of address: TCPAddress, _ identity: RailIdentity) throws(TLSError) -> (any RailSecurity)? {
        if let certified { return certified }
        return address.isLoopback || !encryptsNetwork ? nil : try SharedKeyRails(secret: identity.secret)
    }

    private func address(_ place: String) -> TCPAddress {
        guard let address = TCPAddress(place) else { preconditionFailure("\(place) was checked") }
        return address
    }

    func dial(
        _ place: String, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        guard let begun else { preconditionFailure("the transport has not begun") }
        let address = address(place)
        let security: (any RailSecurity)?
        do throws(TLSError) {
            security = try self.security(of: address, begun.identity)
        } catch {
            return done(.failure(RemoteMemoryError(.protocolViolation, error.description)))
        }
        TCPMirrorDialer.dial(
            address, as: begun.identity, expecting: peer, over: security, registry: registry, poller: poller,
            timeout: timeout, on: eventLoop
        ) { result in
            done(result.map { ($0.0, $0.1) })
        }
    }

    func isRefused(at place: String, timeout: TimeAmount, _ done: @escaping (Bool) -> Void) {
        TCPMirrorDialer.isRefused(at: address(place), timeout: timeout, on: eventLoop, done)
    }
}
