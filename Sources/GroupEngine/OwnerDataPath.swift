// The data path of a group that this node owns: append, ship, acknowledge, overlay, destage, trim. It does what the
// group's machine allows and asks it before every acknowledgement, read and trim. Lives in the engine's one place.
//
// The order of a write: issued (reserved and stored in the log) → shipped → acknowledged, when the log and, if the rule
// says so, the mirror hold it (S1) → overlaid, so that reads see it (S23) → destaged → trimmed.
//
// The parts share ``OwnedLog``, and none of them knows this file: Shipper ← Healer ← CatchUpChecker, Scrubber, Destager.

internal import ClusterProtocol
internal import DequeModule
package import LogModel
internal import NIOCore
internal import PersistentMemory
package import RemoteMemory
package import StorageMedium
internal import WriteLog

package final class OwnerDataPath {
    private struct Issued {
        let end: LSN
        /// When its turn began to append.
        let at: Nanos
        /// `nil` for a watermark.
        let write: IssuedWrite?
        /// Set on the last write of a request.
        let answer: WriteAnswer?
    }

    private struct IssuedWrite {
        let volume: VolumeID
        let isData: Bool
        let place: WriteLog.Appended
    }

    private struct Drain {
        let id: UInt64
        let endsWithService: Bool
        let done: (_ refusal: String?) -> Void
    }

    let owned: OwnedLog
    let log: WriteLog
    let requests = RequestQueue()
    let shipper: Shipper
    let healer: Healer
    let scrubber: Scrubber
    let catchUp: CatchUpChecker
    let destager: Destager
    private var issued: Deque<Issued> = []
    private var isPersisting = false
    private var drains: [Drain] = []
    /// A second: an append takes milliseconds at most, and a thread that merely waits for a processor gets one sooner.
    var stallWatch = StallWatch(limit: .seconds(1))
    /// What clients were offered of volumes since the log was opened, in bytes.
    var offered: [VolumeID: UInt64] = [:]
    private var lastData = LSN.zero
    private var lastWatermark = LSN.zero

    /// `owned` begins at `start`, and one WRITE carries `shipBytes` of it at most.
    package init(_ owned: OwnedLog, start: LSN, shipBytes: UInt64 = MirrorSession.maximumShipBytes) {
        self.owned = owned
        log = owned.log
        shipper = Shipper(owned, start: start, shipBytes: shipBytes)
        healer = Healer(owned, shipper)
        scrubber = Scrubber(owned, shipper, healer)
        catchUp = CatchUpChecker(owned, shipper, healer)
        destager = Destager(owned, healer)
        owned.onPump = { [weak self] in self?.pump() }
    }

    /// One client's use of `volume`, which `medium` holds.
    package func session(_ volume: VolumeID, _ medium: any Medium) -> any VolumeSession {
        GroupSession(owned, requests, shipper, healer, volume: volume, medium: medium)
    }

    // MARK: What the group says

    package func serve() {
        owned.isServing = true
        owned.destage.serve()
        drains.removeAll(where: \.endsWithService)
        owned.schedulePump()
    }

    func suspend() { owned.isServing = false }

    /// Ownership is gone: nothing is answered any more.
    package func revoke() {
        owned.isServing = false
        owned.isRevoked = true
        shipper.revoke()
        issued.removeAll()
        requests.revoke()
        refuseDrains("the ownership ended before everything was on the medium")
        drains.removeAll()
    }

    /// An operator waits for a drain.
    var isDrainAsked: Bool { drains.contains { !$0.endsWithService } }

    /// Answers those that an operator waits for. What they asked for goes on.
    func refuseDrains(_ reason: String) {
        let asked = drains.filter { !$0.endsWithService }
        drains.removeAll { !$0.endsWithService }
        for drain in asked { drain.done(reason) }
    }

    /// Destages everything that is in the log now, and calls `done`. New requests wait.
    func drain(thenStop stop: Bool, _ done: @escaping (_ refusal: String?) -> Void) {
        if stop { owned.isServing = false }
        let id = owned.destage.drain(to: log.tail, endsWithService: stop)
        drains.append(Drain(id: id, endsWithService: stop, done: done))
        owned.schedulePump()
    }

    /// The mirror says that it holds everything below `durable`.
    package func attach(_ queuePair: any QueuePair, key: RegionKey, durable: LSN, isKept: Bool) {
        shipper.attach(queuePair, key: key, durable: durable, isKept: isKept, catchUp: catchUp.catchUp(from: durable))
        destager.mediumProof.begin()
        owned.schedulePump()
    }

    func detachMirror() {
        shipper.detach()
        scrubber.detached()
        healer.interrupt()
    }

    package func mirrorCompleted(through id: WorkRequestID) {
        scrubber.completed(through: id)
        guard shipper.completed(through: id) else { return }
        pump()
    }

    /// A READ of the mirror log came back.
    package func mirrorRead(_ id: WorkRequestID, _ bytes: [UInt8]) {
        if !scrubber.scrubbed(by: id, with: bytes) { healer.healed(by: id, with: bytes) }
    }

    /// What keeps batches from the medium, or writes from their acknowledgement, at `now`; `nil` if nothing does. Asked on every tick.
    func mediumTrouble(_ now: Nanos) -> MediumTrouble? {
        let isLogFull = owned.isServing && !requests.isEmpty
        return destager.mediumTrouble(isLogFull: isLogFull, now) ?? owned.memoryTrouble(isLogFull: isLogFull, now)
    }

    // MARK: The pump

    /// Moves everything that can move. Called whenever a number changed.
    func pump() {
        guard !owned.isRevoked else { return }
        issueWaiting()
        persistIfNeeded()
        catchUp.goOn()
        shipper.ship()
        // Read once: what is acknowledged is what the machine was told, or a mirror could join without it (S14).
        let durable = log.durable
        owned.listener.progress(
            OwnedLog.Progress(local: durable, mirror: shipper.durable ?? .zero, pending: shipper.pending))
        guard !owned.isRevoked else { return }
        acknowledge(durable)
        if owned.mayServe { requests.startHeld() }
        destager.kick(allWritesAcknowledged: issued.isEmpty)
        finishDrains()
    }

    /// Group persist for memory that needs msync: one call covers everything published when it begins. One that failed is not
    /// tried again: the kernel may have marked the pages clean, and the next one would say that they are durable (S8).
    private func persistIfNeeded() {
        guard !isPersisting, owned.persistFailure == nil, log.durable < log.published else { return }
        isPersisting = true
        let log = log
        owned.runOnMemory {
            try log.persist()
        } _: { result in
            self.isPersisting = false
            if case .failure(let error) = result {
                self.owned.persistFailure = "the log could not be made durable: \(error)"
                self.owned.report(.persistFailed, "the log could not be made durable: \(error)")
                return
            }
            self.pump()
        }
    }

    private func acknowledge(_ durable: LSN) {
        let now = owned.runtime.now
        var rule = owned.authority.rule
        if !rule.needsMirror { shipper.notCounted() }
        // A persist that was on its way when another failed may have been told nothing of it (S8).
        let isSound = log.region.memoryFault == nil && owned.persistFailure == nil
        rule.allowed = rule.allowed && owned.authority.isValid(now) && isSound
        let moved = owned.acknowledgement.update(local: durable, by: rule) { _ in shipper.durable }
        guard moved else { return }
        var isAnswered = false
        while let end = issued.first?.end, end <= owned.acknowledged {
            let first = issued.removeFirst()
            owned.acknowledgedWriteEnd = end
            if let write = first.write {
                owned.destage.acknowledged(writeTo: end)
                overlay(write)
                owned.stages.record(.complete, from: first.at, to: now)
            }
            if let answer = first.answer {
                answer.give()
                isAnswered = true
            }
        }
        if isAnswered { owned.stages.record(.reply, from: now, to: owned.runtime.now) }
        requests.sessionsMayOpen(owned.acknowledged)
    }

    private func overlay(_ write: IssuedWrite) {
        for record in write.place.records {
            owned.overlay.insert(
                OverlaidRange(
                    volume: write.volume, range: ByteRange(offset: record.volumeOffset, length: record.length),
                    source: LogSource(record: record.lsn, payload: write.isData ? record.payloadLSN : nil)))
        }
    }

    private func finishDrains() {
        for id in owned.destage.finishedDrains() {
            guard let index = drains.firstIndex(where: { $0.id == id }) else { continue }
            drains.remove(at: index).done(nil)
        }
    }

    // MARK: Issuing

    private func issueWaiting() {
        shipper.reclaim()
        guard !requests.isEmpty else { return }
        let now = owned.runtime.now, end = lastData
        var turnBytes = WaitingRequest.turnBytes
        while turnBytes > 0, owned.mayServe, requests.issueNext({ issue(&$0, at: now, &turnBytes) }) {
            shipper.shipEarly(appendedAt: now)
        }
        if lastData > end {
            shipper.didAppend(at: now)
            owned.stages.record(.append, from: now, to: owned.runtime.now)
        }
        if turnBytes == 0 { owned.pumpNextTurn() }
    }

    /// Appends as much of `request` as there is room for and this turn of the loop, which began `now`, bears; answers whether all of it is issued.
    private func issue(_ request: inout WaitingRequest, at now: Nanos, _ turnBytes: inout UInt64) -> Bool {
        while request.issuedBytes < request.lengthBytes {
            guard turnBytes > 0 else { return false }
            let length = min(request.lengthBytes - request.issuedBytes, request.maximumPieceBytes(of: log))
            let offset = request.offset + request.issuedBytes
            let outcome = request.withPayload(at: request.issuedBytes, length: length) { payload in
                log.append(volume: request.volume, offset: offset, payload, acknowledged: owned.acknowledgedWriteEnd)
            }
            guard case .appended(let appended) = outcome else { return false }
            request.issuedBytes += length
            if request.isData { turnBytes -= min(turnBytes, length) }
            lastData = appended.end
            let isLast = request.issuedBytes == request.lengthBytes
            let write = IssuedWrite(volume: request.volume, isData: request.isData, place: appended)
            issued.append(
                Issued(end: appended.end, at: now, write: write, answer: isLast ? request.answer : nil))
        }
        owned.stages.record(.receive, from: request.arrived, to: now)
        return true
    }

    func tick() {
        owned.stages.tick(owned.runtime.now)
        writeWatermarkIfIdle()
        scrubber.tick()
        reportStall()
        owned.schedulePump()
    }

    /// A writer that stopped in the middle of an append holds up every acknowledgement above it.
    private func reportStall() {
        guard let stall = stallWatch.check(log, at: .nanoseconds(owned.runtime.now)) else { return }
        owned.report(
            .appendStalled,
            "the log is published only up to LSN \(stall.range.lowerBound), for \(stall.duration) now: a writer stopped "
                + "between reserving and publishing in [\(stall.range.lowerBound), \(stall.range.upperBound)); "
                + "nothing above can be acknowledged until it goes on or the node is restarted")
    }

    /// An idle log gets one record that says how far it was acknowledged, so that a tail can be judged (S5).
    func writeWatermarkIfIdle() {
        guard owned.mayServe, log.tail == lastData, lastData > lastWatermark, owned.acknowledged == log.tail,
            owned.destage.head < log.tail, log.appendWatermark(acknowledged: owned.acknowledged)
        else { return }
        lastWatermark = log.tail
        issued.append(Issued(end: log.tail, at: owned.runtime.now, write: nil, answer: nil))
        owned.schedulePump()
    }
}
