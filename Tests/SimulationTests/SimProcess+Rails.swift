// A process' rails: the one that the owner dials to the mirror, and the one that the mirror accepted from the owner;
// and the mirror's region. The counterpart of StorageNode's Rails and MirrorTarget.

import ClusterProtocol
import Coordination
import LogModel
import SimulationSupport

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
    private var underWay: [UnderWay] = []
    private var nextPersist: UInt64 = 0
    private var onIdle: (() -> Void)?

    /// What was stored and is not known to be durable yet.
    private struct UnderWay {
        var records: [Record] = []
        var range: Range<LSN>?
        var head: LSN?
        var done: () -> Void
    }

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
        // The request names a place in the ring only; the mirror knows which LSN is due there.
        guard !isRevoked, range.lowerBound.rawValue % ring == stored.rawValue % ring else { return false }
        let length = range.upperBound - range.lowerBound
        guard stored + length <= head + ring, !wouldReplaceGood(range, records) else { return false }
        process.world.oracle.expect(
            stored == range.lowerBound, "the mirror takes a WRITE at \(range) for LSN \(stored)")
        stored = stored + length
        persist(UnderWay(records: records, range: range, done: done))
        return true
    }

    /// A mirror of this version lets no other bytes take the place of a record that is good (S5); one of an earlier version stores what
    /// it is sent.
    private func wouldReplaceGood(_ range: Range<LSN>, _ records: [Record]) -> Bool {
        guard process.world.mirrorsRefuseOtherBytes, let conflict = process.node.region?.conflict(with: records, range)
        else { return false }
        process.world.note("\(process.name) holds a good record at LSN \(conflict), and is sent other bytes for it")
        return true
    }

    func atomicWrite(_ newHead: LSN, _ done: @escaping () -> Void) -> Bool {
        guard !isRevoked, newHead >= head else { return false }
        head = newHead
        stored = max(stored, newHead)
        persist(UnderWay(head: newHead, done: done))
        return true
    }

    /// Answers `nil` if the request is an access error.
    func read(_ range: Range<LSN>) -> [Record]? {
        guard !isRevoked, let region = process.node.region else { return nil }
        return region.records(in: range)
    }

    /// Completes only when the bytes are durable (S11).
    private func persist(_ entry: UnderWay) {
        // What it stores is not in the memory that failed, and is never completed (S11, S26).
        guard !process.hasMemoryFailed else { return }
        let reached = stored
        var entry = entry
        entry.done = { [self, done = entry.done] in
            durable = max(durable, reached)
            done()
        }
        underWay.append(entry)
        guard process.world.persistsLater else { return persistNext() }
        nextPersist = max(nextPersist, process.world.now + process.world.random.between(0, 5) * millisecond)
        process.later(nextPersist - process.world.now) { self.persistNext() }
    }

    private func store(_ entry: UnderWay) {
        if let head = entry.head { process.node.region?.setHead(head, acknowledged: head) }
        guard let range = entry.range else { return }
        process.world.oracle.stores(entry.records, range, at: process)
        process.node.region?.store(entry.records, range)
    }

    private func persistNext() {
        guard !process.node.isMemoryHung else {
            return process.node.whenMemoryGoesOn.append { [self] in process.perform { self.persistNext() } }
        }
        guard !underWay.isEmpty else { return }
        let next = underWay.removeFirst()
        store(next)
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

    /// Of what was not persisted yet, each record of each WRITE may have reached memory or not.
    func processDied() {
        for entry in underWay {
            guard entry.range != nil else {
                if process.world.random.chance(50) { store(entry) }
                continue
            }
            var torn = entry
            torn.records.removeAll { _ in process.world.random.chance(50) }
            if !torn.records.isEmpty { store(torn) }
        }
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
        guard owner.map({ clock >= $0.dialsAgain }) != false else { return handle(.railDown) }
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
        rail?.say(
            .attach(
                AttachRequest(
                    group: World.group, from: node.name, epoch: epoch, logUUID: region.logUUID,
                    incarnation: region.incarnation, head: region.head, acknowledged: owner.acknowledged,
                    ringBytes: RegionModel.ringBytes, start: region.start, end: owner.localDurable, pool: node.pool,
                    generation: node.standing.generation, counts: counts)), from: self)
    }

    private func ownerReceived(_ message: Message, on rail: Rail) {
        switch message {
        case .said(let bytes): read(bytes) { ownerHeard($0, on: rail) }
        case .completed(let id): owner?.mirrorCompleted(through: id)
        case .readAnswer(let records, let id): owner?.healed(by: id, with: records)
        default: break
        }
    }

    private func ownerHeard(_ message: PeerMessage, on rail: Rail) {
        switch message {
        case .attached(World.group, _, let key, let durable, let contents):
            guard let owner, durable.isPlaceOfRecord, durable <= owner.tail else { return closeRail() }
            owner.attach(rail, key: key, durable: durable, isKept: contents.isKept)
            handle(.attached(durable: durable, contents))
        case .refused(World.group, _, let refusal, let reason): handle(.attachRefused(refusal, reason))
        case .heartbeat(let heartbeat): handle(.peerSaid(heartbeat))
        case .recordChanged: handle(.recordChanged)
        default: world.oracle.expect(false, "\(name) is told \(message) as owner")
        }
    }

    /// What cannot be read costs the rail in production; here it is a broken promise already, see ``Rail/say(_:from:)``.
    private func read(_ bytes: [UInt8], _ use: (PeerMessage) -> Void) {
        do {
            use(try PeerMessage(bytes))
        } catch {
            world.oracle.expect(false, "\(name) cannot read what it is told: \(error)")
        }
    }

    // MARK: As mirror

    private func mirrorReceived(_ message: Message, on rail: Rail) {
        if rail === mirrorRail { handle(.heard) }
        switch message {
        case .said(let bytes): read(bytes) { mirrorHeard($0, on: rail) }
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
        case .read(let key, let range, let id):
            guard let target = mirrorTarget, target.key == key, let records = target.read(range) else {
                return refuseVerb(rail, key)
            }
            rail.send(.readAnswer(records, id: id), from: self)
        default: break
        }
    }

    private func mirrorHeard(_ message: PeerMessage, on rail: Rail) {
        switch message {
        case .attach(let request):
            guard request.head.isPlaceOfRecord else {
                return world.oracle.expect(false, "\(request.from) asks for a log at LSN \(request.head)")
            }
            candidateRail = rail
            handle(.attachRequested(request))
        case .heartbeat(let heartbeat): if rail === mirrorRail { handle(.peerSaid(heartbeat)) }
        case .recordChanged: if rail === mirrorRail { handle(.recordChanged) }
        default: world.oracle.expect(false, "\(name) is told \(message) as mirror")
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
        refuseVerb(rail, key)
    }

    private func refuseVerb(_ rail: Rail, _ key: UInt64) {
        world.note("\(name) refuses a request under key \(key)")
        rail.send(.accessError, from: self)
        guard rail === mirrorRail else { return }
        mirrorRail = nil
        handle(.railDown)
    }

    func refuseAttach(_ refusal: AttachRefusal, _ reason: String) {
        refuse(candidateRail, refusal, reason)
        candidateRail = nil
    }

    private func refuse(_ rail: Rail?, _ refusal: AttachRefusal, _ reason: String) {
        world.note("\(name) refuses to mirror: \(reason)")
        rail?.say(
            .refused(group: World.group, epoch: machine.record?.epoch ?? .none, refusal, reason), from: self)
    }

    /// Seals what an earlier owner may still write, prepares the region, and opens it under a fresh key (S12).
    func acceptAttach(_ request: AttachRequest, generation: UInt64) {
        guard let rail = candidateRail else { return }
        guard !isPreparingRegion else { return refuseAttach(.notReady, "the region is still being prepared") }
        guard !hasMemoryFailed else { return refuseAttach(.notReady, "memory has failed") }
        candidateRail = nil
        if let mirrorRail, mirrorRail !== rail { mirrorRail.close(by: self) }
        mirrorRail = rail
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
                let durable = isKept && request.counts ? max(known ?? region.head, region.head) : region.head
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
        let end = node.region?.scan().end ?? durable
        rail.say(
            .attached(
                group: World.group, epoch: request.epoch, key: world.nextKey, durable: durable,
                contents: MirrorContents(
                    pool: node.pool, generation: node.standing.generation, isKept: isKept,
                    acknowledged: node.region?.acknowledged ?? .zero, end: end)), from: self)
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
