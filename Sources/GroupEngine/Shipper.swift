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
    }

    private let owned: OwnedLog
    private let log: WriteLog
    var mirror: Attached?
    private var knowledge: MirrorKnowledge
    /// Tells the answers of one attachment from those of the next.
    private(set) var attachments: UInt64 = 0

    init(_ owned: OwnedLog, start: LSN) {
        self.owned = owned
        log = owned.log
        knowledge = MirrorKnowledge(start: start)
    }

    /// Everything below is durable at the mirror that counts; `nil` while nothing is known of it.
    var durable: LSN? { knowledge.durable(mirror?.session) }

    /// The mirror says that it holds everything below `durable`.
    func attach(_ queuePair: any QueuePair, key: RegionKey, durable: LSN, isKept: Bool, catchUp: CatchUp?) {
        attachments += 1
        let session = knowledge.session(durable: durable, head: owned.destage.head)
        mirror = Attached(queuePair: queuePair, key: key, isKept: isKept, session: session, catchUp: catchUp)
    }

    func detach() {
        if let session = mirror?.session { knowledge.ended(session) }
        mirror = nil
    }

    func revoke() { mirror = nil }

    /// The record does not count the mirror.
    func notCounted() { knowledge.notCounted() }

    /// Everything up to request `id` is persisted at the mirror. Answers whether a number moved.
    func completed(through id: WorkRequestID) -> Bool { mirror?.session.completed(through: id) == true }

    /// Posts what may be posted now: the head, then the log.
    func ship() {
        guard var attached = mirror else { return }
        defer {
            if mirror != nil { mirror = attached }
            reclaim()
        }
        do throws(RemoteMemoryError) {
            let head = owned.destage.head
            if attached.session.needsTrim(to: head) {
                let id = try attached.queuePair.postAtomicWrite(head.rawValue, key: attached.key, offset: log.ringBytes)
                attached.session.didPostTrim(to: head, id: id)
            }
            let shippable = attached.catchUp?.checked ?? log.published
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

    /// Space below every durable head that counts may be used again (S6).
    func reclaim() {
        let mirrorCounts = mirror != nil || owned.authority.rule().needsMirror
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
            reads.append(try mirror.queuePair.postRead(key: mirror.key, offset: offset, length: Int(length)))
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
                last = try mirror.queuePair.postWrite(bytes, key: mirror.key, offset: lsn.rawValue % log.ringBytes)
            }
            lsn = end
        }
        return last
    }
}
