// Rails over TCP, with TLS where the configuration asks for it, or where they leave this machine.

internal import ClusterConfiguration
internal import LogModel
internal import LoopChange
internal import LoopPolling
internal import NIOCore
internal import RemoteMemory
internal import RemoteMemoryTCP
internal import StorageNode
internal import TransportSecurity

/// What protects the rails of a node.
struct TCPRailSecurity: Sendable {
    let certified: CertifiedRails?
    /// Without certificates, rails that leave this machine are encrypted with a key of the cluster's secret.
    let encryptsNetwork: Bool

    /// Both ends of a rail have its address from the configuration, so they agree.
    func of(_ address: TCPAddress, _ identity: RailIdentity) throws(TLSError) -> (any RailSecurity)? {
        if let certified { return certified }
        return address.isLoopback || !encryptsNetwork ? nil : try SharedKeyRails(secret: identity.secret)
    }
}

extension TCPAddress {
    fileprivate init(checked place: String) {
        guard let address = TCPAddress(place) else { preconditionFailure("\(place) was checked") }
        self = address
    }
}

extension DetachedConnection: DetachedRail {}

final class TCPTransport: Transport {
    private let eventLoop: any EventLoop
    private let registry: TCPRegionRegistry
    private let security: TCPRailSecurity
    private let greetingLimit: TimeAmount
    private let poller: LoopPoller?
    private var begun: (identity: RailIdentity, listener: TCPMirrorListener)?

    /// `greetingLimit`: how long whoever connects may take to prove itself.
    init(
        eventLoop: any EventLoop, registry: TCPRegionRegistry, security: TCPRailSecurity, greetingLimit: TimeAmount,
        poller: LoopPoller?
    ) {
        self.eventLoop = eventLoop
        self.registry = registry
        self.security = security
        self.greetingLimit = greetingLimit
        self.poller = poller
    }

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
        let address = TCPAddress(checked: place)
        do throws(TLSError) {
            return begun.listener.listen(on: address, over: try security.of(address, begun.identity)).map { _ in }
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
    }

    func close() { begun?.listener.close() }

    func detach(
        _ queuePair: any QueuePair, _ done: @escaping (Result<any DetachedRail, RemoteMemoryError>) -> Void
    ) {
        guard let queuePair = queuePair as? TCPQueuePair else { preconditionFailure("it was accepted here") }
        queuePair.detach().assumeIsolated().whenComplete { result in
            done(
                result.map { $0 }.mapError { error in
                    error as? RemoteMemoryError ?? RemoteMemoryError(.disconnected, "it cannot be moved: \(error)")
                })
        }
    }
}

final class TCPGroupRails: GroupRails {
    private let eventLoop: any EventLoop
    private let security: TCPRailSecurity
    private let poller: LoopPoller?
    private let registry: TCPRegionRegistry
    private var identity: RailIdentity?

    init(eventLoop: any EventLoop, registry: TCPRegionRegistry, security: TCPRailSecurity, poller: LoopPoller?) {
        self.eventLoop = eventLoop
        self.registry = registry
        self.security = security
        self.poller = poller
    }

    var regions: any RegionRegistry { registry }

    func begin(as identity: RailIdentity) { self.identity = identity }

    func dial(
        _ place: String, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        guard let identity else { preconditionFailure("the rails have not begun") }
        let address = TCPAddress(checked: place)
        let protection: (any RailSecurity)?
        do throws(TLSError) {
            protection = try security.of(address, identity)
        } catch {
            return done(.failure(RemoteMemoryError(.protocolViolation, error.description)))
        }
        TCPMirrorDialer.dial(
            address, as: identity, expecting: peer, over: protection, registry: registry, poller: poller,
            timeout: timeout, on: eventLoop
        ) { result in
            done(result.map { ($0.0, $0.1) })
        }
    }

    func isRefused(at place: String, timeout: TimeAmount, _ done: @escaping (Bool) -> Void) {
        TCPMirrorDialer.isRefused(at: TCPAddress(checked: place), timeout: timeout, on: eventLoop, done)
    }

    func attach(_ rail: any DetachedRail, _ made: @escaping (any QueuePair) -> Void) {
        guard let connection = rail as? DetachedConnection else { preconditionFailure("it is of the same node") }
        TCPQueuePair.attach(connection, to: eventLoop, registry: registry, poller: poller) { made($0) }
    }
}
