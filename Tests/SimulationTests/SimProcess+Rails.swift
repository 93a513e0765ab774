// A process' rails: the one that the owner dials to the mirror, and the one that the mirror accepted from the owner;
// and the mirror's region. The counterpart of StorageNode's Rails and MirrorTarget.

import ClusterProtocol
import Coordination
import LogModel

/// The region that an owner writes with one-sided verbs, open under one key (S12).
final class MirrorTargetModel {
    let process: SimProcess
    let key: UInt64
    let incarnation: Incarnation
    /// Everything below was stored by the owner, in order.
    private var stored: LSN
    /// Everything below is durable here.
    private(set) var durable: LSN
    private var head: LSN
    private var isRevoked = false
    private var underWay: [(persist: () -> Void, done: () -> Void)] = []
    private var nextPersist: UInt64 = 0
    private var onIdle: (() -> Void)?

    init(_ process: SimProcess, key: UInt64, incarnation: Incarnation, durable: LSN, head: LSN) {
        self.process = process
        self.key = key
        self.incarnation = incarnation
        stored = durable
        self.durable = durable
        self.head = head
    }

    /// Answers false if the request is an access error.
    func write(_ range: Range<LSN>, _ records: [Record], _ done: @escaping () -> Void) -> Bool {
        let ring = RegionModel.ringBytes
        guard !isRevoked else { return false }
        // The request names a place in the ring only; the mirror finds the LSN.
        let lsn = stored + (range.lowerBound.rawValue % ring + ring - stored.rawValue % ring) % ring
        let length = range.upperBound - range.lowerBound
        guard lsn + length <= head + ring else { return false }
        process.world.oracle.expect(lsn == range.lowerBound, "the mirror takes a WRITE at \(range) for LSN \(lsn)")
        stored = lsn + length
        persist(done) { [process] in process.node.region?.store(records, range) }
        return true
    }

    func atomicWrite(_ newHead: LSN, _ done: @escaping () -> Void) -> Bool {
        guard !isRevoked, newHead >= head else { return false }
        head = newHead
        stored = max(stored, newHead)
        persist(done) { [process] in process.node.region?.setHead(newHead, acknowledged: newHead) }
        return true
    }

    /// Completes only when the bytes are durable (S11).
    private func persist(_ done: @escaping () -> Void, _ persist: @escaping () -> Void) {
        // What it stores is not in the memory that failed, and is never completed (S11, S26).
        guard !process.hasMemoryFailed else { return }
        let reached = stored
        underWay.append(
            (
                persist,
                { [self] in
                    durable = max(durable, reached)
                    done()
                }
            ))
        guard process.world.persistsLater else { return persistNext() }
        nextPersist = max(nextPersist, process.world.now + process.world.random.between(0, 5) * millisecond)
        process.later(nextPersist - process.world.now) { self.persistNext() }
    }

    private func persistNext() {
        guard !process.node.isMemoryHung else {
            return process.node.whenMemoryGoesOn.append { [self] in process.perform { self.persistNext() } }
        }
        guard !underWay.isEmpty else { return }
        let next = underWay.removeFirst()
        next.persist()
        next.done()
        guard underWay.isEmpty, let onIdle else { return }
        self.onIdle = nil
        onIdle()
    }

    /// After `sealed` nothing is stored any more.
    func revoke(_ sealed: @escaping () -> Void) {
        isRevoked = true
        guard !underWay.isEmpty else { return sealed() }
        let earlier = onIdle
        onIdle = {
            earlier?()
            sealed()
        }
    }

    /// Of what was not persisted yet, each WRITE may have reached memory or not.
    func processDied() {
        for entry in underWay where process.world.random.chance(50) { entry.persist() }
        underWay = []
    }
}

extension SimProcess {
    func received(_ message: Message, on rail: Rail) {
        if rail === self.rail {
            handle(.heard)
            ownerReceived(message, on: rail)
        } else {
            mirrorReceived(message, on: rail)
        }
    }

    func railFailed(_ rail: Rail, access: Bool) {
        if rail === self.rail {
            self.rail = nil
            owner?.detachMirror()
            // The key is revoked: the record has moved on (S12).
            if access { handle(.recordChanged) }
            handle(.railDown)
        } else if rail === mirrorRail {
            mirrorRail = nil
            handle(.railDown)
        }
    }

    // MARK: As owner

    func dial() {
        dials += 1
        let attempt = dials
        var isAnswered = false
        let failed = { [self] in
            guard !isAnswered else { return }
            isAnswered = true
            if attempt == dials, rail == nil { handle(.railDown) }
        }
        later(World.heartbeatTimeout, failed)
        world.after(world.networkDelay()) { [self] in
            guard !world.isBlocked(from: node.index) else { return }
            guard let acceptor = peer.process, !acceptor.isDying else {
                return later(world.networkDelay(), failed)
            }
            acceptor.perform { [self] in
                world.after(world.networkDelay()) { [self] in
                    guard !world.isBlocked(from: acceptor.node.index) else { return }
                    perform { [self] in
                        guard !isAnswered else { return }
                        isAnswered = true
                        guard attempt == dials else { return }
                        closeRail()
                        rail = world.connect(self, acceptor)
                        handle(.railUp)
                    }
                }
            }
        }
    }

    func closeRail() {
        owner?.detachMirror()
        guard let rail else { return }
        self.rail = nil
        rail.close(by: self)
    }

    func sendAttach(_ epoch: Epoch, counts: Bool) {
        guard let owner, let region = node.region else { return }
        rail?.send(
            .attach(
                AttachRequest(
                    group: World.group, from: node.name, epoch: epoch, logUUID: region.logUUID,
                    incarnation: region.incarnation, head: region.head, acknowledged: owner.acknowledged,
                    ringBytes: RegionModel.ringBytes, pool: node.pool, generation: node.standing.generation,
                    counts: counts)), from: self)
    }

    private func ownerReceived(_ message: Message, on rail: Rail) {
        switch message {
        case .attached(let key, let durable, let contents):
            guard let owner, durable <= owner.tail else { return closeRail() }
            owner.attach(rail, key: key, durable: durable)
            handle(.attached(durable: durable, contents))
        case .refused(let refusal, let reason): handle(.attachRefused(refusal, reason))
        case .heartbeat(let heartbeat): handle(.peerSaid(heartbeat))
        case .recordChanged: handle(.recordChanged)
        case .completed(let id): owner?.mirrorCompleted(through: id)
        default: break
        }
    }

    // MARK: As mirror

    private func mirrorReceived(_ message: Message, on rail: Rail) {
        if rail === mirrorRail { handle(.heard) }
        switch message {
        case .attach(let request):
            if let mirrorRail, mirrorRail !== rail { mirrorRail.close(by: self) }
            mirrorRail = rail
            handle(.attachRequested(request))
        case .heartbeat(let heartbeat): if rail === mirrorRail { handle(.peerSaid(heartbeat)) }
        case .recordChanged: if rail === mirrorRail { handle(.recordChanged) }
        case .write(let key, let range, let records, let id):
            verb(rail, key) { target, done in
                target.write(range, records, done)
            } done: {
                id
            }
        case .atomicWrite(let key, let head, let id):
            verb(rail, key) { target, done in
                target.atomicWrite(head, done)
            } done: {
                id
            }
        default: break
        }
    }

    private func verb(
        _ rail: Rail, _ key: UInt64, _ body: (MirrorTargetModel, @escaping () -> Void) -> Bool,
        done id: @escaping () -> UInt64
    ) {
        if let target = mirrorTarget, target.key == key,
            body(target, { [self] in rail.send(.completed(id()), from: self) })
        {
            return
        }
        world.note("\(name) refuses a WRITE under key \(key)")
        rail.send(.accessError, from: self)
        guard rail === mirrorRail else { return }
        mirrorRail = nil
        handle(.railDown)
    }

    func refuseAttach(_ refusal: AttachRefusal, _ reason: String) {
        world.note("\(name) refuses to mirror: \(reason)")
        mirrorRail?.send(.refused(refusal, reason), from: self)
    }

    /// Seals what an earlier owner may still write, prepares the region, and opens it under a fresh key (S12).
    func acceptAttach(_ request: AttachRequest, generation: UInt64) {
        guard let rail = mirrorRail else { return }
        guard !isPreparingRegion else { return refuseAttach(.notReady, "the region is still being prepared") }
        guard !hasMemoryFailed else { return refuseAttach(.damaged, "memory has failed") }
        handle(.railUp)
        isPreparingRegion = true
        let earlier = mirrorTarget
        mirrorTarget = nil
        let prepare = { [self] in
            // What this process saw become durable is known to be there; after a restart only the head is.
            let known = earlier?.incarnation == request.incarnation ? earlier?.durable : nil
            let delay =
                world.random.chance(5)
                ? world.random.between(10, 800) * millisecond : world.random.between(50, 500) * microsecond
            later(delay) { [self] in
                node.note(generation: generation, epoch: request.epoch)
                let isKept = prepareRegion(for: request)
                isPreparingRegion = false
                if let sealed = onRegionPrepared {
                    onRegionPrepared = nil
                    return sealed()
                }
                guard mirrorRail === rail, let region = node.region else { return }
                let durable = max(isKept ? known ?? region.head : region.head, region.head)
                open(request, rail, durable: durable, head: region.head, isKept: isKept)
            }
        }
        if let earlier { earlier.revoke(prepare) } else { prepare() }
    }

    private func prepareRegion(for request: AttachRequest) -> Bool {
        if let region = node.region, region.role == .mirror, region.logUUID == request.logUUID,
            region.incarnation == request.incarnation
        {
            node.region?.setHead(request.head, acknowledged: request.head)
            return true
        }
        node.region = RegionModel(
            role: .mirror, logUUID: request.logUUID, incarnation: request.incarnation, start: request.head)
        node.holdsOlderCopy = false
        return false
    }

    private func open(_ request: AttachRequest, _ rail: Rail, durable: LSN, head: LSN, isKept: Bool) {
        world.nextKey += 1
        mirrorTarget = MirrorTargetModel(
            self, key: world.nextKey, incarnation: request.incarnation, durable: durable, head: head)
        world.note("\(name) mirrors epoch \(request.epoch) from LSN \(durable), head \(head), kept \(isKept)")
        rail.send(
            .attached(
                key: world.nextKey, durable: durable,
                MirrorContents(pool: node.pool, generation: node.standing.generation, isKept: isKept)), from: self)
    }

    /// Revokes the region's key and waits until no copy and no preparation is in progress (S12).
    func sealRegion(_ sealed: @escaping () -> Void) {
        mirrorRail?.close(by: self)
        mirrorRail = nil
        guard !isPreparingRegion else {
            onRegionPrepared = sealed
            return
        }
        guard let mirrorTarget else { return sealed() }
        mirrorTarget.revoke(sealed)
    }
}
