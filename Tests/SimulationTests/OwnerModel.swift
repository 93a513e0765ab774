// The data path of a process that owns the group: append, ship, acknowledge, overlay, destage, trim. The production's
// MirrorSession, Acknowledgement and DestageMachine decide; this is the counterpart of the hands that StorageNode's
// OwnerLog, Overlay and Destage lend them, with a record for every write and a stamp for its bytes.

import ClusterProtocol
import LogModel

final class OwnerModel {
    struct Attached {
        let rail: Rail
        let key: UInt64
        var session: MirrorSession
    }

    /// A write that waits for its turn and for space in the log.
    struct WaitingWrite {
        let session: ClientSession
        let block: Int
        let bytes: UInt64
        let completion: (_ stamp: UInt64) -> Void
    }

    static let creditBytes: UInt64 = 4 << 20
    static let batchBytes: UInt64 = 4 << 20

    unowned let process: SimProcess
    let incarnation: Incarnation
    private(set) var tail: LSN
    private var localDurable: LSN
    private var reclaimLimit: LSN
    private var acknowledgement: Acknowledgement
    private var issued: [(record: Record, completion: (UInt64) -> Void)] = []
    private var waiting: [WaitingWrite] = []
    private var held: [(session: ClientSession, start: () -> Void)] = []
    private var opening: [(at: LSN, ready: (Bool) -> Void)] = []
    private var sessions: [ClientSession] = []

    private var overlay: [Record] = []
    private var destage: DestageMachine {
        didSet {
            guard let onQuiet, !destage.isBusy else { return }
            self.onQuiet = nil
            onQuiet()
        }
    }

    private var mediumWatch: MediumWatch
    private var batches: UInt64 = 0
    private var isAtMedium = false

    private var mirror: Attached?
    /// What the last session knew of its mirror's copy; as in `OwnerLog`, nothing is known of any other.
    private var detached: (durable: LSN, head: LSN)?
    private let start: LSN
    private(set) var isServing = false
    private(set) var isRevoked = false
    private var isPersisting = false
    private var onQuiet: (() -> Void)?
    private var drains: [UInt64: () -> Void] = [:]
    private var isPumpScheduled = false

    init(_ process: SimProcess, incarnation: Incarnation, start: LSN) {
        self.process = process
        self.incarnation = incarnation
        tail = start
        localDurable = start
        reclaimLimit = start
        acknowledgement = Acknowledgement(start)
        acknowledgedWriteEnd = start
        destage = DestageMachine(start: start, batchBytes: Self.batchBytes)
        self.start = start
        mediumWatch = MediumWatch(callLimit: process.world.mediumCallLimit)
    }

    private var world: World { process.world }
    var acknowledged: LSN { acknowledgement.acknowledged }
    private var acknowledgedWriteEnd: LSN
    var head: LSN { destage.head }
    private var isValid: Bool { process.machine.ownershipValid(process.clock) }
    private var mirrorDurable: LSN? { mirror?.session.durable ?? detached?.durable }

    // MARK: What the group says

    func serve() {
        isServing = true
        destage.serve()
        schedulePump()
    }

    func suspend() { isServing = false }

    func revoke() {
        isServing = false
        isRevoked = true
        mirror = nil
        issued = []
        waiting = []
        held = []
        let unopened = opening
        opening = []
        for entry in unopened { entry.ready(false) }
        let gone = sessions
        sessions = []
        for session in gone { session.revoked() }
    }

    func drain(thenStop stop: Bool, _ done: @escaping () -> Void) {
        if stop { isServing = false }
        drains[destage.drain(to: tail, endsWithService: stop)] = done
        schedulePump()
    }

    func whenQuiet(_ body: @escaping () -> Void) {
        guard destage.isBusy else { return body() }
        onQuiet = body
    }

    func attach(_ rail: Rail, key: UInt64, durable: LSN) {
        let session = MirrorSession(durable: durable, mirrorHead: start, head: head)
        mirror = Attached(rail: rail, key: key, session: session)
        schedulePump()
    }

    func detachMirror() {
        if let session = mirror?.session { detached = (session.durable, session.mirrorHead) }
        mirror = nil
    }

    func mirrorCompleted(through id: UInt64) {
        guard mirror?.session.completed(through: id) == true else { return }
        pump()
    }

    /// Of what was appended and is not durable, each record may have reached persistent memory or not.
    func processDied() {
        guard let region = process.node.region, region.incarnation == incarnation else { return }
        for entry in issued where entry.record.end > localDurable && world.random.chance(50) {
            process.node.region?.store([entry.record], entry.record.lsn..<entry.record.end)
        }
    }

    // MARK: The pump

    func schedulePump() {
        guard !isPumpScheduled, !isRevoked else { return }
        isPumpScheduled = true
        process.later(0) { [self] in
            isPumpScheduled = false
            pump()
        }
    }

    private func pump() {
        guard !isRevoked else { return }
        issueWaiting()
        persistIfNeeded()
        ship()
        process.handle(.progress(local: localDurable, mirror: mirrorDurable ?? .zero, pending: mirror?.session.pending))
        guard !isRevoked else { return }
        acknowledge()
        startHeld()
        kickDestage()
        for id in destage.finishedDrains() { drains.removeValue(forKey: id)?() }
    }

    private func ship() {
        guard var attached = mirror else { return }
        if attached.session.needsTrim(to: head) {
            let id = attached.rail.nextPost()
            attached.rail.send(.atomicWrite(key: attached.key, head, id: id), from: process)
            attached.session.didPostTrim(to: head, id: id)
        }
        while let range = attached.session.next(published: tail, creditBytes: Self.creditBytes) {
            let id = attached.rail.nextPost()
            let records = issuedRecords(in: range)
            attached.rail.send(.write(key: attached.key, range, records, id: id), from: process)
            attached.session.didPost(range, id: id)
        }
        mirror = attached
        reclaim()
    }

    /// The bytes of a part of the ring: what is durable there, and what is only stored yet.
    private func issuedRecords(in range: Range<LSN>) -> [Record] {
        let durable = process.node.region!.records.filter { $0.lsn < range.upperBound && $0.end > range.lowerBound }
        let stored = issued.map(\.record).filter {
            $0.lsn < range.upperBound && $0.end > range.lowerBound && $0.end > localDurable
        }
        return durable + stored
    }

    private func persistIfNeeded() {
        guard !isPersisting, localDurable < tail, !process.hasMemoryFailed else { return }
        guard world.persistsLater else { return persist(to: tail) }
        isPersisting = true
        let reached = tail
        process.later(world.random.between(0, 4) * millisecond) { self.persistLater(to: reached) }
    }

    private func persistLater(to reached: LSN) {
        guard !process.node.isMemoryHung else {
            return process.node.whenMemoryGoesOn.append { [self] in process.perform { self.persistLater(to: reached) } }
        }
        isPersisting = false
        guard process.owner === self, !process.hasMemoryFailed else { return }
        persist(to: reached)
        pump()
    }

    private func persist(to reached: LSN) {
        for entry in issued where entry.record.end > localDurable && entry.record.end <= reached {
            process.node.region?.store([entry.record], entry.record.lsn..<entry.record.end)
        }
        localDurable = reached
    }

    private func acknowledge() {
        let rule = process.machine.acknowledgementRule
        if !rule.needsMirror { detached = nil }
        let moved = acknowledgement.update(
            local: localDurable, mirror: rule.needsMirror ? mirrorDurable ?? .zero : nil,
            allowed: rule.allowed && isValid)
        guard moved else { return }
        while let first = issued.first, first.record.end <= acknowledged {
            issued.removeFirst()
            acknowledgedWriteEnd = first.record.end
            overlay.append(first.record)
            destage.acknowledged(writeTo: first.record.end)
            world.oracle.acknowledged(first.record, incarnation, by: process)
            first.completion(first.record.stamp)
        }
        world.oracle.checkCopies("an acknowledgement up to \(acknowledged)")
        let ready = opening.filter { $0.at <= acknowledged }
        opening.removeAll { $0.at <= acknowledged }
        for entry in ready { entry.ready(true) }
    }

    private func reclaim() {
        let mirrorCounts = mirror != nil || process.machine.acknowledgementRule.needsMirror
        let mirrorHead = mirror?.session.mirrorHead ?? detached?.head ?? start
        reclaimLimit = max(reclaimLimit, destage.reclaimLimit(mirrorHead: mirrorHead, mirrorCounts: mirrorCounts))
    }

    // MARK: Clients

    func enter(_ session: ClientSession) { sessions.append(session) }

    func leave(_ session: ClientSession) {
        sessions.removeAll { $0 === session }
        waiting.removeAll { $0.session === session }
        held.removeAll { $0.session === session }
    }

    /// Calls `ready` once everything that was issued before is acknowledged (S24).
    func open(_ ready: @escaping (Bool) -> Void) {
        guard tail > acknowledged else { return ready(true) }
        opening.append((tail, ready))
    }

    func write(_ write: WaitingWrite) {
        waiting.append(write)
        schedulePump()
    }

    private func issueWaiting() {
        reclaim()
        while isServing, isValid, let first = waiting.first {
            let isFull = tail + first.bytes > reclaimLimit + RegionModel.ringBytes
            if isFull {
                world.coverage.backPressure += 1
                return
            }
            waiting.removeFirst()
            let record = Record(
                lsn: tail, bytes: first.bytes, block: first.block, stamp: world.nextStamp(),
                acknowledged: acknowledgedWriteEnd, storedTo: tail)
            tail = record.end
            issued.append((record, first.completion))
            world.oracle.issued(record, incarnation)
        }
    }

    private func startHeld() {
        guard !held.isEmpty, isServing, isValid else { return }
        let ready = held
        held = []
        for entry in ready { entry.start() }
    }

    /// A read's answer is a stamp; the oracle knows at which floor it began.
    func read(_ block: Int, _ session: ClientSession, _ answer: @escaping (UInt64) -> Void) {
        guard isServing, isValid else {
            return held.append((session, { [weak self] in self?.read(block, session, answer) }))
        }
        let floor = world.oracle.floor[block]
        if let latest = overlay.last(where: { $0.block == block }) {
            world.oracle.readAnswered(block, latest.stamp, floor: floor, incarnation, by: process)
            return answer(latest.stamp)
        }
        let id = destage.beginRead()
        process.later(world.random.between(10, 2 * world.mediumMicros) * microsecond) { [self] in
            let stamp = world.medium.cached[block]
            process.later(world.random.between(0, 2 * world.mediumMicros) * microsecond) { [self] in
                readDone(block, stamp, floor, session, answer)
                destage.endRead(id)
                forgetWhatNobodyReads()
                schedulePump()
            }
        }
    }

    private func readDone(
        _ block: Int, _ stamp: UInt64, _ floor: UInt64, _ session: ClientSession, _ answer: @escaping (UInt64) -> Void
    ) {
        guard !session.isClosed, !isRevoked else { return }
        guard isServing, isValid else {
            return held.append((session, { [weak self] in self?.read(block, session, answer) }))
        }
        let found = overlay.last { $0.block == block }?.stamp ?? stamp
        world.oracle.readAnswered(block, found, floor: floor, incarnation, by: process)
        answer(found)
    }

    // MARK: Destage

    private func kickDestage() {
        let range = destage.nextBatch(
            acknowledged: acknowledged, allWritesAcknowledged: issued.isEmpty, isValid: !isRevoked && isValid,
            now: process.clock)
        guard let range else { return }
        let batch = overlay.filter { $0.lsn >= range.lowerBound && $0.end <= range.upperBound }
        batches += 1
        isAtMedium = true
        process.writeToMedium(batch) { [self] isDurable in
            isAtMedium = false
            if isDurable { batchWritten() } else { destageFailed() }
        }
    }

    func mediumTrouble() -> MediumTrouble? {
        mediumWatch.observe(call: isAtMedium ? batches : nil, now: process.clock)
        return mediumWatch.trouble(
            callText: isAtMedium ? "a batch" : nil, isLogFull: isServing && !waiting.isEmpty, now: process.clock)
    }

    private func batchWritten() {
        mediumWatch.cleared()
        guard let head = destage.written(isValid: !isRevoked && isValid) else { return }
        let known = acknowledgedWriteEnd
        process.later(world.random.between(10, 500) * microsecond) { [self] in
            process.node.region?.setHead(head, acknowledged: known)
            destage.headMoved()
            guard !isRevoked else { return }
            forgetWhatNobodyReads()
            pump()
        }
    }

    private func destageFailed() {
        world.coverage.destageFailures += 1
        mediumWatch.failed("a batch failed", now: process.clock)
        destage.giveUp(until: process.clock + second / 5)
    }

    private func forgetWhatNobodyReads() { overlay.removeAll { $0.end <= destage.unreferencedBelow } }
}
