// The mirror of an owned log: the rail to it, what it holds, and what is on the way (S11). Ships the log as it is published, tells
// the mirror where the head is, and asks it for what it holds.

internal import ClusterProtocol
internal import LogModel
internal import RemoteMemory
internal import WriteLog

final class Shipper {
    struct Attached {
        let queuePair: any QueuePair
        let key: RegionKey
        /// The mirror's region held records of this incarnation when it attached, and still does.
        let isKept: Bool
        var session: MirrorSession
        var catchUp: CatchUp?

        /// A queue pair calls nobody from inside of a post, so nothing else looks at the session meanwhile.
        mutating func post(_ log: WriteLog, head: LSN) throws(RemoteMemoryError) {
            try session.post(
                log, upTo: catchUp?.checked ?? log.published, head: head, to: queuePair, key: key)
        }
    }

    private let owned: OwnedLog
    private let log: WriteLog
    var mirror: Attached?
    private var knowledge: MirrorKnowledge
    /// What is posted for the scrub and for healings, and not completed.
    private var others: [WorkRequestID] = []
    /// Tells the answers of one attachment from those of the next.
    private(set) var attachments: UInt64 = 0

    init(_ owned: OwnedLog, start: LSN, shipBytes: UInt64) {
        self.owned = owned
        log = owned.log
        knowledge = MirrorKnowledge(start: start, shipBytes: shipBytes)
    }

    /// Everything below is durable at the mirror that counts; `nil` while nothing is known of it.
    var durable: LSN? { knowledge.durable(mirror?.session) }

    /// The oldest request that the mirror has not completed, whatever it is for: where a mirror takes few at once, a READ of the scrub
    /// that it never completes keeps the log from it.
    var pending: WorkRequestID? {
        guard let other = others.first else { return mirror?.session.pending }
        return min(other, mirror?.session.pending ?? other)
    }

    /// The mirror says that it holds everything below `durable`.
    func attach(_ queuePair: any QueuePair, key: RegionKey, durable: LSN, isKept: Bool, catchUp: CatchUp?) {
        attachments += 1
        let session = knowledge.session(durable: durable, head: owned.destage.head)
        mirror = Attached(queuePair: queuePair, key: key, isKept: isKept, session: session, catchUp: catchUp)
    }

    func detach() {
        if let session = mirror?.session { knowledge.ended(session) }
        revoke()
    }

    func revoke() {
        mirror = nil
        others = []
        owned.stages.mirrorLeft()
    }

    /// The record does not count the mirror.
    func notCounted() { knowledge.notCounted() }

    /// Everything up to request `id` is persisted at the mirror. Answers whether a number moved, or the mirror may take more.
    func completed(through id: WorkRequestID) -> Bool {
        let before = others.count
        others.removeAll { $0 <= id }
        guard mirror?.session.completed(through: id) == true else { return others.count < before }
        owned.stages.didComplete(through: id, at: owned.runtime.now)
        return true
    }

    /// Posts what may be posted now: the head, then the log.
    func ship() {
        guard let shipped = mirror?.session.shipped else { return }
        do throws(RemoteMemoryError) {
            try mirror?.post(log, head: owned.destage.head)
        } catch {
            // No credit: the next completion pumps again. Anything else: the queue pair tells its delegate.
        }
        if let session = mirror?.session, session.shipped > shipped, let newest = session.newest {
            owned.stages.didPost(
                through: newest, isAll: session.shipped == log.published, at: owned.runtime.now)
        }
        reclaim()
    }

    /// What a turn appended that began `now`, and what is not shipped of it yet.
    func didAppend(at now: Nanos) {
        guard let mirror, mirror.session.shipped < log.published else { return }
        owned.stages.didAppend(at: now)
    }

    /// Posts a large part of a turn's writes before the rest of them is appended, so that the mirror works meanwhile.
    func shipEarly(appendedAt now: Nanos) {
        guard mirror?.session.hasMuch(published: log.published) == true else { return }
        didAppend(at: now)
        ship()
    }

    /// Space below every durable head that counts may be used again (S6).
    func reclaim() {
        let mirrorCounts = mirror != nil || owned.authority.rule.needsMirror
        log.setReclaimLimit(
            owned.destage.reclaimLimit(mirrorHead: knowledge.head(mirror?.session), mirrorCounts: mirrorCounts))
    }

    // MARK: What the mirror holds

    /// Asks for `range` of the mirror log. A READ is executed in order with what was posted before it.
    func postReads(of range: Range<LSN>, from mirror: Attached) throws(RemoteMemoryError) -> [WorkRequestID] {
        var reads: [WorkRequestID] = []
        var lsn = range.lowerBound
        while lsn < range.upperBound {
            let offset = lsn.rawValue % log.ringBytes
            let most = UInt64(RemoteMemoryLimits.maximumTransferBytes)
            let length = min(range.upperBound - lsn, log.ringBytes - offset, most)
            let read = try mirror.queuePair.postRead(key: mirror.key, offset: offset, length: Int(length))
            reads.append(read)
            others.append(read)
            lsn = lsn + length
        }
        return reads
    }

    /// Stores `range` of the log here over what the mirror holds of it; answers the last WRITE. The mirror takes a WRITE below what it
    /// has only in a range that was announced.
    func postRepair(of range: Range<LSN>, to mirror: Attached) throws(RemoteMemoryError) -> WorkRequestID? {
        try mirror.queuePair.send(PeerMessage.repair(range).encoded)
        var last: WorkRequestID?
        var lsn = range.lowerBound
        while lsn < range.upperBound {
            let end = lsn + min(range.upperBound - lsn, UInt64(RemoteMemoryLimits.maximumTransferBytes))
            // A record never crosses the ring's end, so a part of one is contiguous.
            try log.withBytes(from: lsn, to: end) { (bytes) throws(RemoteMemoryError) in
                let write = try mirror.queuePair.postWrite(
                    bytes, key: mirror.key, offset: lsn.rawValue % log.ringBytes)
                others.append(write)
                last = write
            }
            lsn = end
        }
        return last
    }
}
