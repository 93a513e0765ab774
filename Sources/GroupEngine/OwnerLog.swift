// The data path of a group that this node owns: append, ship, acknowledge, overlay, destage, trim. It does what the
// group's machine allows and asks it before every acknowledgement, read and trim. Lives in the engine's one place.
//
// The order of a write: issued (reserved and stored in the log) → shipped → acknowledged, when the log and, if the rule
// says so, the mirror hold it (S1) → overlaid, so that reads see it (S23) → destaged → trimmed.

internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import NIOCore
internal import PersistentMemory
internal import RemoteMemory
internal import StorageMedium
internal import WriteLog

final class OwnerLog {
    /// What the owner's log needs to know from its group, at the moment of use.
    struct Authority {
        /// Whether the lease allows acknowledging, reading and trimming now (S8, S17).
        var isValid: () -> Bool
        var rule: () -> (allowed: Bool, needsMirror: Bool)
        var progress: (_ local: LSN, _ mirror: LSN, _ pending: WorkRequestID?) -> Void
        var report: (Report) -> Void
        /// What the mirror lacks cannot be shipped to it.
        var cannotShip: (_ reason: String) -> Void = { _ in }
    }

    struct Issued {
        var entries: [OverlaidRange]
        var end: LSN
        /// Set on the last write of a request.
        var completion: (() -> Void)?
    }

    struct Attached {
        let queuePair: any QueuePair
        let key: RegionKey
        /// The mirror's region held records of this incarnation when it attached, and still does.
        let isKept: Bool
        var session: MirrorSession
        var catchUp: CatchUp?
    }

    let log: WriteLog
    let media: [VolumeID: any Medium]
    /// Those of `media` that batches are in.
    let mediumCalls: MediumCalls
    let runtime: any Runtime
    let authority: Authority

    var acknowledgement: Acknowledgement
    /// The end of the last write that is acknowledged whole: a boundary, where `acknowledged` may stand inside of a record. It is
    /// what the log is told: a copy that has lost the rest of a write that nobody was promised is torn, and not corrupt (S5).
    private(set) var acknowledgedWriteEnd: LSN
    var overlay = Overlay()
    /// What is destaged next, where the head is, what may be trimmed.
    var destage: DestageMachine {
        didSet {
            guard let onQuiet, !destage.isBusy else { return }
            self.onQuiet = nil
            onQuiet()
        }
    }
    var issued = CircularBuffer<Issued>()
    let requests = RequestQueue()
    var mirror: Attached?
    private var knowledge: MirrorKnowledge
    /// Tells the answers of one attachment from those of the next.
    var attachments: UInt64 = 0
    var stoppedCatchUp: StoppedCatchUp?

    /// Requests are carried out; otherwise they wait.
    var isServing = false
    var isRevoked = false
    private var onQuiet: (() -> Void)?
    var isPersisting = false
    var healer = Healer()
    var scrub = Scrub()
    var destageProblem: String?
    var mediumWatch = MediumWatch()
    /// What the mirror is asked for to prove that it reaches these media.
    var mediumProof = MediumProof()
    /// Nothing stored from now on may be called durable (see ``persistIfNeeded()``).
    var persistFailure: String?
    private var drains: [(id: UInt64, stops: Bool, done: (_ refusal: String?) -> Void)] = []
    /// A second: an append takes milliseconds at most, and a thread that merely waits for a processor gets one sooner.
    var stallWatch = StallWatch(limit: .seconds(1))
    private var isPumpScheduled = false
    private var lastData = LSN.zero
    private var lastWatermark = LSN.zero

    init(
        log: WriteLog, start: LSN, media: [VolumeID: any Medium], mediumCalls: MediumCalls = MediumCalls(),
        runtime: any Runtime, authority: Authority
    ) {
        self.log = log
        self.media = media
        self.mediumCalls = mediumCalls
        self.runtime = runtime
        self.authority = authority
        acknowledgement = Acknowledgement(start)
        acknowledgedWriteEnd = start
        destage = DestageMachine(start: start)
        knowledge = MirrorKnowledge(start: start)
    }

    var acknowledged: LSN { acknowledgement.acknowledged }

    // MARK: What the group says

    func serve() {
        isServing = true
        destage.serve()
        drains.removeAll(where: \.stops)
        schedulePump()
    }

    func suspend() { isServing = false }

    /// Ownership is gone: nothing is answered any more.
    func revoke() {
        isServing = false
        isRevoked = true
        mirror = nil
        issued.removeAll()
        requests.revoke()
        refuseDrains("the ownership ended before everything was on the medium")
        drains.removeAll()
    }

    /// An operator waits for a drain.
    var isDrainAsked: Bool { drains.contains { !$0.stops } }

    /// Answers those that an operator waits for. What they asked for goes on.
    func refuseDrains(_ reason: String) {
        let asked = drains.filter { !$0.stops }
        drains.removeAll { !$0.stops }
        for drain in asked { drain.done(reason) }
    }

    /// Destages everything that is in the log now, and calls `done`. New requests wait.
    func drain(thenStop stop: Bool, _ done: @escaping (_ refusal: String?) -> Void) {
        if stop { isServing = false }
        drains.append((destage.drain(to: log.tail, endsWithService: stop), stop, done))
        schedulePump()
    }

    /// Calls `body` when nothing of this log is on its way to the medium.
    func whenQuiet(_ body: @escaping () -> Void) {
        guard destage.isBusy else { return body() }
        onQuiet = body
    }

    /// The mirror says that it holds everything below `durable`.
    func attach(_ queuePair: any QueuePair, key: RegionKey, durable: LSN, isKept: Bool) {
        let session = knowledge.session(durable: durable, head: destage.head)
        mirror = Attached(
            queuePair: queuePair, key: key, isKept: isKept, session: session, catchUp: beginCatchUp(from: durable))
        mediumProof.begin()
        schedulePump()
    }

    func detachMirror() {
        if let session = mirror?.session { knowledge.ended(session) }
        mirror = nil
        scrub.asked = nil
        scrub.repairs = []
        interruptHealing()
    }

    func mirrorCompleted(through id: WorkRequestID) {
        scrubCompleted(through: id)
        guard mirror?.session.completed(through: id) == true else { return }
        pump()
    }

    // MARK: The pump

    /// Runs the pump once at the end of this turn of the event loop, so that a burst of requests ships as one WRITE.
    func schedulePump() {
        guard !isPumpScheduled, !isRevoked else { return }
        isPumpScheduled = true
        runtime.execute {
            self.isPumpScheduled = false
            self.pump()
        }
    }

    /// Moves everything that can move. Called whenever a number changed.
    func pump() {
        guard !isRevoked else { return }
        issueWaiting()
        persistIfNeeded()
        continueCatchUp()
        ship()
        // Read once: what is acknowledged is what the machine was told, or a mirror could join without it (S14).
        let durable = log.durable
        authority.progress(durable, mirrorDurable ?? .zero, mirror?.session.pending)
        guard !isRevoked else { return }
        acknowledge(durable)
        requests.startHeld(of: self)
        kickDestage()
        finishDrains()
    }

    var mirrorDurable: LSN? { knowledge.durable(mirror?.session) }

    private func ship() {
        guard var attached = mirror else { return }
        defer {
            if mirror != nil { mirror = attached }
            reclaim()
        }
        do throws(RemoteMemoryError) {
            let head = destage.head
            if attached.session.needsTrim(to: head) {
                let id = try attached.queuePair.postAtomicWrite(head.rawValue, key: attached.key, offset: log.ringBytes)
                attached.session.didPostTrim(to: head, id: id)
            }
            while let range = attached.session.next(
                published: shippable, creditBytes: UInt64(attached.queuePair.creditBytes))
            {
                // Zeros in the place of what was acknowledged must never reach the mirror (S26).
                guard log.isReadable(from: range.lowerBound, to: range.upperBound) else { break }
                try post(range, to: &attached)
            }
        } catch {
            // No credit: the next completion pumps again. Anything else: the queue pair tells its delegate.
        }
    }

    /// Two WRITEs where the range spans the end of the ring. The second may meet the end of the window: the session knows of the first then.
    private func post(_ range: Range<LSN>, to attached: inout Attached) throws(RemoteMemoryError) {
        var from = range.lowerBound
        try log.withBytes(from: range.lowerBound, to: range.upperBound) { (bytes) throws(RemoteMemoryError) in
            let id = try attached.queuePair.postWrite(
                bytes, key: attached.key, offset: from.rawValue % log.ringBytes)
            let end = from + UInt64(bytes.count)
            attached.session.didPost(from..<end, id: id)
            from = end
        }
    }

    /// Group persist for memory that needs msync: one call covers everything published when it begins. One that failed is not
    /// tried again: the kernel may have marked the pages clean, and the next one would say that they are durable (S8).
    private func persistIfNeeded() {
        guard !isPersisting, persistFailure == nil, log.durable < log.published else { return }
        isPersisting = true
        let log = log
        runtime.run(.memory) {
            try log.persist()
        } _: { result in
            self.isPersisting = false
            if case .failure(let error) = result {
                self.persistFailure = "the log could not be made durable: \(error)"
                self.authority.report(Report("persist-failed", "the log could not be made durable: \(error)"))
                return
            }
            self.pump()
        }
    }

    private func acknowledge(_ durable: LSN) {
        let rule = authority.rule()
        if !rule.needsMirror { knowledge.notCounted() }
        // A persist that was on its way when another failed may have been told nothing of it (S8).
        let isSound = log.region.memoryFault == nil && persistFailure == nil
        let moved = acknowledgement.update(
            local: durable, mirror: rule.needsMirror ? mirrorDurable ?? .zero : nil,
            allowed: rule.allowed && authority.isValid() && isSound)
        guard moved else { return }
        while let first = issued.first, first.end <= acknowledged {
            issued.removeFirst()
            acknowledgedWriteEnd = first.end
            if !first.entries.isEmpty { destage.acknowledged(writeTo: first.end) }
            for entry in first.entries { overlay.insert(entry) }
            first.completion?()
        }
        requests.sessionsMayOpen(acknowledged)
    }

    func reclaim() {
        let mirrorCounts = mirror != nil || authority.rule().needsMirror
        log.setReclaimLimit(
            destage.reclaimLimit(mirrorHead: knowledge.head(mirror?.session), mirrorCounts: mirrorCounts))
    }

    func finishDrains() {
        for id in destage.finishedDrains() {
            guard let index = drains.firstIndex(where: { $0.id == id }) else { continue }
            drains.remove(at: index).done(nil)
        }
    }

    /// A read of the medium began before the log's bytes of it were forgotten, and ends now.
    func endRead(_ id: UInt64) {
        destage.endRead(id)
        forgetWhatNobodyReads()
    }

    func forgetWhatNobodyReads() {
        overlay.forget(below: destage.unreferencedBelow)
        reclaim()
        schedulePump()
    }

    // MARK: Issuing

    private func issueWaiting() {
        reclaim()
        var turnBytes = WaitingRequest.turnBytes
        while isServing, authority.isValid(), requests.issueNext(with: self, &turnBytes) {}
        if turnBytes == 0 { pumpNextTurn() }
    }

    /// Requests are left that this turn of the loop did not bear.
    private func pumpNextTurn() {
        guard !isPumpScheduled, !isRevoked else { return }
        isPumpScheduled = true
        runtime.executeNextTurn {
            self.isPumpScheduled = false
            self.pump()
        }
    }

    /// Appends as much of `request` as there is room for and this turn of the loop bears; answers whether all of it is issued.
    func issue(_ request: inout WaitingRequest, _ turnBytes: inout UInt64) -> Bool {
        while request.issuedBytes < request.lengthBytes {
            guard turnBytes > 0 else { return false }
            let length = min(request.lengthBytes - request.issuedBytes, request.maximumPieceBytes(of: log))
            let offset = request.offset + request.issuedBytes
            let outcome = request.withPayload(at: request.issuedBytes, length: length) { payload in
                log.append(volume: request.volume, offset: offset, payload, acknowledged: acknowledgedWriteEnd)
            }
            guard case .appended(let appended) = outcome else { return false }
            request.issuedBytes += length
            if request.isData { turnBytes -= min(turnBytes, length) }
            lastData = appended.end
            let isLast = request.issuedBytes == request.lengthBytes
            let entries = appended.records.map { record in
                OverlaidRange(
                    volume: request.volume, range: ByteRange(offset: record.volumeOffset, length: record.length),
                    source: LogSource(record: record.lsn, payload: request.isData ? record.payloadLSN : nil))
            }
            issued.append(
                Issued(entries: entries, end: appended.end, completion: isLast ? request.completion : nil))
        }
        return true
    }

    func tick() {
        writeWatermarkIfIdle()
        scrubIfIdle()
        reportStall()
        schedulePump()
    }

    /// A writer that stopped in the middle of an append holds up every acknowledgement above it.
    private func reportStall() {
        guard let stall = stallWatch.check(log, at: .nanoseconds(runtime.now)) else { return }
        authority.report(
            Report(
                "append-stalled",
                "the log is published only up to LSN \(stall.range.lowerBound), for \(stall.duration) now: a writer stopped "
                    + "between reserving and publishing in [\(stall.range.lowerBound), \(stall.range.upperBound)); "
                    + "nothing above can be acknowledged until it goes on or the node is restarted"))
    }

    /// An idle log gets one record that says how far it was acknowledged, so that a tail can be judged (S5).
    func writeWatermarkIfIdle() {
        guard isServing, authority.isValid(), log.tail == lastData, lastData > lastWatermark, acknowledged == log.tail,
            destage.head < log.tail, log.appendWatermark(acknowledged: acknowledged)
        else { return }
        lastWatermark = log.tail
        issued.append(Issued(entries: [], end: log.tail, completion: nil))
        schedulePump()
    }
}
