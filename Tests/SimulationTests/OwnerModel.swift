// The data path of a process that owns the group: append, ship, acknowledge, overlay, destage, trim. The production's
// MirrorSession, Acknowledgement and DestageMachine decide; this is the counterpart of the hands that StorageNode's
// OwnerLog, Overlay and Destage lend them, with a record for every write and a stamp for its bytes.

import ClusterProtocol
import LogModel
import SimulationSupport

final class OwnerModel {
    struct Attached {
        let rail: Rail
        let key: UInt64
        let isKept: Bool
        var session: MirrorSession
        var catchUp: CatchUp?
    }

    /// A write that waits for its turn and for space in the log.
    struct WaitingWrite {
        let session: ClientSession
        let block: Int
        let bytes: UInt64
        /// When the client asked.
        let begun: UInt64
        let completion: (_ stamp: UInt64) -> Void
    }

    static let creditBytes: UInt64 = 4 << 20
    static let batchBytes: UInt64 = 4 << 20

    unowned let process: SimProcess
    let incarnation: Incarnation
    private(set) var tail: LSN
    private(set) var localDurable: LSN
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

    var mirror: Attached?
    private var knowledge: MirrorKnowledge
    var attachments = 0
    /// A mirror whose catch-up would stop at the same place again is not dialed at once.
    var dialsAgain: Nanos = 0
    var healing: Healing?
    var waitingHealings: [(record: Record, done: Healing.Done)] = []
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
        knowledge = MirrorKnowledge(start: start)
        mediumWatch = MediumWatch(callLimit: process.world.mediumCallLimit)
    }

    var world: World { process.world }
    var acknowledged: LSN { acknowledgement.acknowledged }
    private var acknowledgedWriteEnd: LSN
    var head: LSN { destage.head }
    private var isValid: Bool { process.machine.ownershipValid(process.clock) }
    var mirrorDurable: LSN? { knowledge.durable(mirror?.session) }

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

    func attach(_ rail: Rail, key: UInt64, durable: LSN, isKept: Bool) {
        attachments += 1
        let session = knowledge.session(durable: durable, head: head)
        let part = process.node.region?.records(in: durable..<durable + LSN.alignment).first?.lsn
        let catchUp = CatchUp(durable: durable, startOfRecord: part, head: head, end: tail)
        mirror = Attached(rail: rail, key: key, isKept: isKept, session: session, catchUp: catchUp)
        schedulePump()
    }

    func detachMirror() {
        if let session = mirror?.session { knowledge.ended(session) }
        mirror = nil
        interruptHealing()
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
        continueCatchUp()
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
        while let range = attached.session.next(
            published: attached.catchUp?.checked ?? tail, creditBytes: Self.creditBytes)
        {
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
        let durable = process.node.region?.records(in: range) ?? []
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
        if !rule.needsMirror { knowledge.notCounted() }
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
        if rule.needsMirror { world.oracle.checkImage(of: process, upTo: acknowledged) }
        world.oracle.checkCopies("an acknowledgement up to \(acknowledged)")
        let ready = opening.filter { $0.at <= acknowledged }
        opening.removeAll { $0.at <= acknowledged }
        for entry in ready { entry.ready(true) }
    }

    private func reclaim() {
        let mirrorCounts = mirror != nil || process.machine.acknowledgementRule.needsMirror
        let mirrorHead = knowledge.head(mirror?.session)
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
            world.history.issued(first.block, record.stamp, begun: first.begun)
        }
    }

    private func startHeld() {
        guard !held.isEmpty, isServing, isValid else { return }
        let ready = held
        held = []
        for entry in ready { entry.start() }
    }

    /// A read's answer is a stamp, or `nil` if it cannot be read; the oracle knows at which floor it began.
    func read(_ block: Int, _ session: ClientSession, _ answer: @escaping (UInt64?) -> Void) {
        guard isServing, isValid else {
            return held.append((session, { [weak self] in self?.read(block, session, answer) }))
        }
        let floor = world.oracle.floor[block]
        guard !overlay.contains(where: { $0.block == block }) else {
            return readLog(block, floor, session, answer)
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
        _ block: Int, _ stamp: UInt64, _ floor: UInt64, _ session: ClientSession, _ answer: @escaping (UInt64?) -> Void
    ) {
        guard !session.isClosed, !isRevoked else { return }
        guard isServing, isValid else {
            return held.append((session, { [weak self] in self?.read(block, session, answer) }))
        }
        guard !overlay.contains(where: { $0.block == block }) else {
            return readLog(block, floor, session, answer)
        }
        world.oracle.readAnswered(block, stamp, floor: floor, incarnation, by: process)
        answer(stamp)
    }

    /// The log's bytes pass their checks before they are answered (S26).
    private func readLog(
        _ block: Int, _ floor: UInt64, _ session: ClientSession, _ answer: @escaping (UInt64?) -> Void
    ) {
        guard let latest = overlay.last(where: { $0.block == block }) else { return read(block, session, answer) }
        guard let damaged = firstDamage(in: latest.lsn..<latest.end) else {
            world.oracle.readAnswered(block, latest.stamp, floor: floor, incarnation, by: process)
            return answer(latest.stamp)
        }
        heal(damaged) { [self] outcome in
            guard !session.isClosed, !isRevoked else { return }
            switch outcome {
            case .healed: read(block, session, answer)
            case .interrupted, .lost:
                world.coverage.readsRefused += 1
                answer(nil)
            }
        }
    }

    // MARK: Destage

    private func kickDestage() {
        let range = destage.nextBatch(
            acknowledged: acknowledged, allWritesAcknowledged: issued.isEmpty, isValid: !isRevoked && isValid,
            now: process.clock)
        guard let range else { return }
        if let damaged = firstDamage(in: range) { return healBatch(damaged) }
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

    /// The batch is done anew with the healed record, which verifies it.
    private func healBatch(_ damaged: Record) {
        heal(damaged) { [self] outcome in
            mediumWatch.cleared()
            let pause = if case .healed = outcome { second / 10 } else { second / 5 }
            destage.giveUp(until: process.clock + pause)
            schedulePump()
        }
    }

    private func destageFailed() {
        world.coverage.destageFailures += 1
        mediumWatch.failed("a batch failed", now: process.clock)
        destage.giveUp(until: process.clock + second / 5)
    }

    private func forgetWhatNobodyReads() { overlay.removeAll { $0.end <= destage.unreferencedBelow } }
}
