// The rail of a mirrored log: what its two ends agree on, and the end that the log's own process dials. The verbs and messages are those
// of a cluster's nodes (docs/FORMATS.md, "The rails").

internal import ClusterConfiguration
internal import ClusterProtocol
internal import LogModel
internal import NIOCore
internal import PersistentMemory
internal import RemoteMemory
internal import RemoteMemoryTCP

/// Where a partner is, and what proves it.
struct LogPartner: Sendable {
    static let logNode = LogStore.identity.node, mirrorNode = NodeID("mirror")

    let address: TCPAddress
    private let secret: ClusterSecret

    /// Throws `invalidValue`. Rails are proved at both ends and not encrypted, so they stay on the loopback interface.
    init(address: String, secret: [UInt8]) throws(TwinLogError) {
        guard let place = TCPAddress(address), place.isLoopback else {
            throw TwinLogError(
                .invalidValue, "'\(address)' is no HOST:PORT of the loopback interface, where rails stay")
        }
        guard let secret = ClusterSecret(bytes: secret) else {
            throw TwinLogError(.invalidValue, "a secret has \(ClusterSecret.byteCount) bytes")
        }
        self.address = place
        self.secret = secret
    }

    func identity(of node: NodeID) -> RailIdentity {
        RailIdentity(
            cluster: LogStore.identity.cluster, node: node, secret: secret,
            configurationDigest: [UInt8](repeating: 0, count: RailIdentity.digestByteCount))
    }
}

extension AttachRequest {
    /// For the log that `region` holds up to `end`.
    init(_ region: Region, of pool: Pool, end: LSN) {
        guard let identity = region.identity else { preconditionFailure("the region was formatted") }
        self.init(
            group: LogStore.group, from: LogPartner.logNode, epoch: region.standing.epoch, logUUID: identity.logUUID,
            incarnation: identity.incarnation, head: region.head, acknowledged: region.acknowledged,
            ringBytes: region.ringBytes, start: identity.startLSN, end: end, pool: pool.identity.uuid, counts: true)
    }
}

/// The log's end of one rail, from the dial to its end. Bound to its event loop.
final class LogRail: QueuePairDelegate {
    /// The mirror's region is open to this rail.
    struct Attachment {
        var key: RegionKey
        /// The mirror holds everything below, durably.
        var durable: LSN
        var contents: MirrorContents
    }

    private enum Phase {
        case dialing, attaching
        case attached(RegionKey)
        case ended
    }

    /// Until an address answers, and until a peer has proved itself.
    private static let dialLimit = TimeAmount.seconds(5)

    private let eventLoop: any EventLoop
    private let request: AttachRequest
    private var attached: ((Attachment) -> Void)?
    private var ended: ((TwinLogError) -> Void)?
    private var phase = Phase.dialing
    private(set) var queuePair: TCPQueuePair?

    /// The mirror has not answered yet.
    var isAsking: Bool {
        switch phase {
        case .dialing, .attaching: true
        case .attached, .ended: false
        }
    }

    private var reads: [WorkRequestID: Answer<[UInt8]>] = [:]
    var completed: (WorkRequestID) -> Void = { _ in }

    /// `attached` is called at most once; `ended` once, unless ``close()`` is.
    init(
        _ request: AttachRequest, eventLoop: any EventLoop, attached: @escaping (Attachment) -> Void,
        ended: @escaping (TwinLogError) -> Void
    ) {
        self.request = request
        self.eventLoop = eventLoop
        self.attached = attached
        self.ended = ended
    }

    func dial(_ partner: LogPartner) {
        TCPMirrorDialer.dial(
            partner.address, as: partner.identity(of: LogPartner.logNode), expecting: LogPartner.mirrorNode,
            registry: TCPRegionRegistry(), timeout: Self.dialLimit, on: eventLoop
        ) { [weak self] result in
            switch result {
            case .failure(let error): self?.end(error.code, error.message)
            case .success(let (queuePair, _)):
                guard let self, case .dialing = phase else { return queuePair.close() }
                self.queuePair = queuePair
                queuePair.delegate = self
                phase = .attaching
                // The queue pair gets its place in the pipeline when this returns.
                eventLoop.assumeIsolated().execute { self.sendAttach() }
            }
        }
    }

    private func sendAttach() {
        do throws(RemoteMemoryError) {
            try queuePair?.send(PeerMessage.attach(request).encoded)
        } catch {
            end(error.code, error.message)
        }
    }

    /// Nobody hears of it any more.
    func close() {
        phase = .ended
        attached = nil
        ended = nil
        queuePair?.delegate = nil
        queuePair?.close()
        queuePair = nil
        failReads(TwinLogError(.partnerLost, "the rail to the partner is closed"))
    }

    private func end(_ code: RemoteMemoryError.Code, _ reason: String) {
        // The mirror's keys and places are its own: what it refuses at a place is another log, or another owner.
        end(TwinLogError(code == .access ? .partnerRefused : .partnerLost, "the log's partner: \(reason)"))
    }

    private func end(_ error: TwinLogError) {
        let ended = ended
        failReads(error)
        close()
        ended?(error)
    }

    private func failReads(_ error: TwinLogError) {
        let waiting = reads
        reads = [:]
        for answer in waiting.values { answer.give(.failure(error)) }
    }

    /// Asks for a part of the mirror's ring, at most ``RemoteMemoryLimits/maximumTransferBytes`` and not around its end.
    func read(at offset: UInt64, count: Int, _ answer: Answer<[UInt8]>) {
        guard case .attached(let key) = phase, let queuePair else {
            return answer.give(.failure(TwinLogError(.partnerLost, "the rail to the partner is closed")))
        }
        do throws(RemoteMemoryError) {
            reads[try queuePair.postRead(key: key, offset: offset, length: count)] = answer
        } catch {
            answer.give(.failure(TwinLogError(.partnerLost, error.message)))
        }
    }

    // MARK: QueuePairDelegate

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
        do throws(PeerMessageError) {
            switch try PeerMessage(message) {
            case .attached(request.group, request.epoch, let key, let durable, let contents):
                guard case .attaching = phase, durable.isPlaceOfRecord, durable >= request.head,
                    contents.end.isPlaceOfRecord
                else { return end(.protocolViolation, "it answers what cannot be") }
                let key = RegionKey(rawValue: key)
                phase = .attached(key)
                attached?(Attachment(key: key, durable: durable, contents: contents))
            case .refused(request.group, _, .notReady, let reason): end(TwinLogError(.partnerLost, reason))
            case .refused(request.group, _, _, let reason): end(TwinLogError(.partnerRefused, reason))
            default: end(.protocolViolation, "it says what a mirror never says")
            }
        } catch .unknownType {
            // Of a later version.
        } catch {
            end(.protocolViolation, error.description)
        }
    }

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) { completed(id) }

    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {
        reads.removeValue(forKey: id)?.give(.success(bytes))
    }

    func queuePairHeard(_ queuePair: any QueuePair) {}

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) { end(error.code, error.message) }
}
