// The mirror's side of a mirrored log: one region, which one rail at a time may write.
//
// Invariant: an earlier rail's key is revoked, and no copy under it is in progress, before the region is prepared for another (S12).

internal import ClusterProtocol
internal import GroupEngine
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import RemoteMemory
internal import RemoteMemoryTCP
internal import StorageNode

/// Bound to its event loop.
final class MirrorServer {
    /// The log that writes the region now, and what is known of it.
    private struct Current {
        let rail: MirrorRail
        let key: RegionKey
        let target: MirrorTarget
    }

    private let pool: Pool
    private let region: Region
    private let eventLoop: any EventLoop
    private let registry = TCPRegionRegistry()
    /// What makes the region durable, and reads it whole: one call at a time.
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private let runtime: LoopRuntime
    private var listener: TCPMirrorListener?
    private var rails: [ObjectIdentifier: MirrorRail] = [:]
    private var current: Current?
    /// Of the last log that wrote the region; a later one is the same, or refused.
    private var durable: LSN?
    private var isPreparing = false
    private var isClosed = false

    init(_ pool: Pool, _ region: Region, _ eventLoop: any EventLoop) {
        self.pool = pool
        self.region = region
        self.eventLoop = eventLoop
        thread.start()
        runtime = LoopRuntime(eventLoop: eventLoop, memory: thread)
    }

    /// Answers the port.
    func listen(_ partner: LogPartner) -> EventLoopFuture<Int> {
        let listener = TCPMirrorListener(
            identity: partner.identity(of: LogPartner.mirrorNode), registry: registry, eventLoop: eventLoop
        ) { [unowned self] queuePair, peer in
            accept(queuePair, peer)
        }
        self.listener = listener
        return listener.listen(on: partner.address).flatMapThrowing { address in
            guard let port = address.port else { throw ChannelError.unknownLocalAddress }
            return port
        }
    }

    private func accept(_ queuePair: TCPQueuePair, _ peer: RailPeer) {
        guard !isClosed, peer.node == LogPartner.logNode else { return queuePair.close() }
        let rail = MirrorRail(queuePair) { [unowned self] in
            attach($0, on: $1)
        } ended: { [unowned self] in
            forget($0)
        }
        queuePair.delegate = rail
        rails[ObjectIdentifier(rail)] = rail
    }

    private func forget(_ rail: MirrorRail) {
        rails[ObjectIdentifier(rail)] = nil
        guard current?.rail === rail else { return }
        seal {}
    }

    // MARK: A log attaches

    private func attach(_ request: AttachRequest, on rail: MirrorRail) {
        guard !isPreparing else {
            return rail.refuse(request, .notReady, "the mirror prepares itself for an earlier rail")
        }
        isPreparing = true
        let earlier = current?.rail
        if earlier !== rail { earlier?.close() }
        seal { self.prepare(request, rail) }
    }

    /// Ends what the present rail may write, and calls `sealed` when nothing of it is in progress.
    private func seal(_ sealed: @escaping () -> Void) {
        guard let sealing = current else { return sealed() }
        current = nil
        registry.revoke(sealing.key) {
            self.durable = sealing.target.durable
            sealed()
        }
    }

    private func prepare(_ request: AttachRequest, _ rail: MirrorRail) {
        let region = region, pool = pool, known = durable
        thread.runIfActive(eventLoop: eventLoop) {
            Result { () throws(MirrorCopy.Refusal) in
                try MirrorCopy.prepare(region, of: pool, for: request, known: known)
            }
        }.assumeIsolated().whenComplete { result in
            self.isPreparing = false
            guard self.rails[ObjectIdentifier(rail)] === rail else { return }
            switch result {
            case .success(.success(let copy)): self.open(copy, for: request, rail)
            case .success(.failure(let refusal)): rail.refuse(request, refusal.code, refusal.reason)
            case .failure(let error): rail.refuse(request, .notReady, "\(error)")
            }
        }
    }

    private func open(_ copy: MirrorCopy, for request: AttachRequest, _ rail: MirrorRail) {
        let target = MirrorTarget(
            region: region, durable: copy.durable, head: copy.head, kept: copy.kept, runtime: runtime)
        let key = registry.register(target, lengthBytes: MirrorTarget.lengthBytes(ring: region.ringBytes))
        current = Current(rail: rail, key: key, target: target)
        rail.send(
            .attached(
                group: request.group, epoch: request.epoch, key: key.rawValue, durable: copy.durable,
                contents: copy.contents))
    }

    // MARK: The end

    /// Calls `closed` when the pool is free.
    func close(_ closed: @escaping @Sendable () -> Void) {
        guard !isClosed else { return closed() }
        isClosed = true
        listener?.close()
        for rail in rails.values { rail.close() }
        rails = [:]
        seal { [self] in
            let pool = pool
            // This object lives until its threads have ended: they answer to it.
            let bound = NIOLoopBound(self, eventLoop: eventLoop)
            thread.shutdownGracefully { [eventLoop] _ in
                eventLoop.execute {
                    withExtendedLifetime(bound.value) { pool.close() }
                    closed()
                }
            }
        }
    }
}

/// One rail that a log has made. Bound to its event loop.
private final class MirrorRail: QueuePairDelegate {
    private let queuePair: TCPQueuePair
    private let attach: (AttachRequest, MirrorRail) -> Void
    private let ended: (MirrorRail) -> Void

    init(
        _ queuePair: TCPQueuePair, attach: @escaping (AttachRequest, MirrorRail) -> Void,
        ended: @escaping (MirrorRail) -> Void
    ) {
        self.queuePair = queuePair
        self.attach = attach
        self.ended = ended
    }

    func refuse(_ request: AttachRequest, _ refusal: AttachRefusal, _ reason: String) {
        send(.refused(group: request.group, epoch: request.epoch, refusal, reason))
    }

    func send(_ message: PeerMessage) {
        do throws(RemoteMemoryError) {
            try queuePair.send(message.encoded)
        } catch {
            end()
        }
    }

    func close() {
        queuePair.delegate = nil
        queuePair.close()
    }

    private func end() {
        close()
        ended(self)
    }

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
        do throws(PeerMessageError) {
            guard case .attach(let request) = try PeerMessage(message) else { return end() }
            attach(request, self)
        } catch .unknownType {
            // Of a later version.
        } catch {
            end()
        }
    }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) { ended(self) }

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {}
    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
    func queuePairHeard(_ queuePair: any QueuePair) {}
}
