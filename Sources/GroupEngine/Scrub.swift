// The scrub: what rests in the log and in the mirror log is compared in the background, long before a takeover or a destage
// has to rely on it, and what differs is healed from whichever copy passes its checks (S5, S26).
//
// Only what is acknowledged, durable at the mirror and not trimmed is looked at; a part at a time, a few MiB a second, and
// only while the rail has nothing else to do. A READ is executed in order with what was posted before it, so its answer is the
// mirror's part as it stood then; on this side a part counts only while its space has not been given back.

internal import ClusterProtocol
internal import LogModel
internal import PersistentMemory
internal import RemoteMemory
internal import WriteLog

/// Where the scrub stands.
struct Scrub {
    /// One part a tick: with a tick of 100 ms, 2.5 MiB a second. A part ends with a record, so it may be longer.
    static let partBytes: UInt64 = 256 << 10
    /// A part that does not find the end of a damaged record is cut here, with room for one whole record before the cut.
    static let maximumPartBytes: UInt64 = 2 * PartComparison.maximumRecordBytes
    /// Between the end of one pass and the beginning of the next.
    static let pause: Nanos = 2_000_000_000

    struct Part {
        let range: Range<LSN>
        let endsInRecord: Bool
        /// Not answered yet, in order.
        var reads: [WorkRequestID] = []
        var bytes: [UInt8] = []
    }

    /// Everything below was compared in this pass.
    var position = LSN.zero
    var nextPass: Nanos = 0
    var asked: Part?
    /// Records on their way to the mirror, by the WRITE that ends each.
    var repairs: [(id: WorkRequestID, range: Range<LSN>)] = []
    /// What could not be decided, so that it is reported once.
    var reported: Set<LSN> = []
}

extension OwnerLog {
    /// Asks for the next part, if it is time and nothing else is to be done on the rail.
    func scrubIfIdle() {
        guard scrub.asked == nil, scrub.repairs.isEmpty, healer.current == nil, authority.isValid(), let mirror,
            authority.rule().needsMirror, mirror.session.shipped == log.published,
            mirror.queuePair.creditBytes >= RemoteMemoryLimits.windowBytes / 2, runtime.now >= scrub.nextPass
        else { return }
        let from = max(scrub.position, destage.head)
        guard acknowledgedWriteEnd <= mirror.session.durable else { return }
        guard let part = nextPart(from: from, limit: acknowledgedWriteEnd) else {
            scrub.position = .zero
            scrub.nextPass = runtime.now + Scrub.pause
            return
        }
        do throws(RemoteMemoryError) {
            scrub.asked = Scrub.Part(
                range: part.range, endsInRecord: part.endsInRecord, reads: try postReads(of: part.range, from: mirror))
        } catch {
            // No credit, or the rail ends: the part is asked for again.
        }
    }

    /// The READs of a part of the mirror log.
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

    /// Whole records from `from` on, by this side's headers; `nil` if there is nothing below `limit`.
    private func nextPart(from: LSN, limit: LSN) -> (range: Range<LSN>, endsInRecord: Bool)? {
        guard from < limit else { return nil }
        var records = log.records(from: from, to: limit)
        while records.position < limit, records.position - from < Scrub.partBytes { _ = records.next() }
        let end = records.position
        guard end - from > Scrub.maximumPartBytes else { return (from..<end, false) }
        return (from..<from + Scrub.maximumPartBytes, true)
    }

    /// A READ came back. Answers whether it was the scrub's.
    func scrubbed(by read: WorkRequestID, with bytes: [UInt8]) -> Bool {
        guard scrub.asked?.reads.first == read else { return false }
        scrub.asked?.reads.removeFirst()
        scrub.asked?.bytes += bytes
        guard let part = scrub.asked, part.reads.isEmpty else { return true }
        scrub.asked = nil
        // Destaged meanwhile: its space may hold other records by now.
        guard destage.head <= part.range.lowerBound else { return true }
        part.bytes.withUnsafeBytes { compare(part, $0) }
        return true
    }

    private func compare(_ part: Scrub.Part, _ theirs: UnsafeRawBufferPointer) {
        let from = part.range.lowerBound
        guard
            var comparison = PartComparison(
                log.region, from: from, other: theirs, endsInRecord: part.endsInRecord)
        else { return }
        while let difference = comparison.next() {
            let range = difference.range
            switch difference.kind {
            case .damagedHere:
                let start = Int(range.lowerBound - from)
                let good = UnsafeRawBufferPointer(
                    rebasing: theirs[start..<start + Int(range.upperBound - range.lowerBound)])
                healHere(range, good)
            case .damagedThere: healThere(range)
            case .undecidable: reportUndecidable(range)
            }
        }
        scrub.position = max(scrub.position, comparison.position)
    }

    private func healHere(_ range: Range<LSN>, _ good: UnsafeRawBufferPointer) {
        log.region.store(good, at: range.lowerBound)
        drainHealed { [self] failure in
            if let failure {
                authority.report(
                    Report("heal-failed", "LSN \(range) of the log here could not be made durable anew: \(failure)"))
            } else {
                authority.report(
                    Report("scrub-healed", "LSN \(range) of the log here was damaged; healed from the mirror"))
            }
        }
    }

    /// Makes stored bytes durable: at once where a drain does it, on a thread where it takes an `msync`.
    func drainHealed(_ done: @escaping (String?) -> Void) {
        let region = log.region
        guard region.persistence == .msync else {
            do throws(PoolError) {
                try region.drain()
                return done(region.memoryFault?.description)
            } catch {
                return done(error.description)
            }
        }
        runtime.run(.memory) {
            try region.drain()
        } _: { result in
            guard case .failure(let error) = result else { return done(region.memoryFault?.description) }
            self.persistFailure = self.persistFailure ?? "the log could not be made durable: \(error)"
            done("\(error)")
        }
    }

    /// The mirror takes a WRITE below what it has only in a range that was announced.
    private func healThere(_ range: Range<LSN>) {
        guard let mirror, UInt64(mirror.queuePair.creditBytes) >= range.upperBound - range.lowerBound else { return }
        var last: WorkRequestID?
        do throws(RemoteMemoryError) {
            try mirror.queuePair.send(PeerMessage.repair(range).encoded)
            var lsn = range.lowerBound
            while lsn < range.upperBound {
                let length = min(range.upperBound - lsn, UInt64(RemoteMemoryLimits.maximumTransferBytes))
                last = try postWrite(lsn..<lsn + length, to: mirror)
                lsn = lsn + length
            }
        } catch {
            // The rail ends, or the window of requests is full: the next pass finds it again.
            return
        }
        if let last { scrub.repairs.append((last, range)) }
    }

    /// A record never crosses the ring's end, so a part of one is contiguous.
    private func postWrite(_ range: Range<LSN>, to mirror: Attached) throws(RemoteMemoryError) -> WorkRequestID {
        var result: Result<WorkRequestID, RemoteMemoryError> = .failure(RemoteMemoryError(.noCredit, "nothing posted"))
        let offset = range.lowerBound.rawValue % log.ringBytes
        log.withBytes(from: range.lowerBound, to: range.upperBound) { bytes in
            result = Result { () throws(RemoteMemoryError) in
                try mirror.queuePair.postWrite(bytes, key: mirror.key, offset: offset)
            }
        }
        return try result.get()
    }

    /// Requests up to `id` are durable at the mirror.
    func scrubCompleted(through id: WorkRequestID) {
        while let first = scrub.repairs.first, first.id <= id {
            scrub.repairs.removeFirst()
            authority.report(
                Report("scrub-healed", "LSN \(first.range) of the mirror log was damaged; healed from the log here"))
        }
    }

    private func reportUndecidable(_ range: Range<LSN>) {
        let head = destage.head
        scrub.reported = scrub.reported.filter { $0 >= head }
        guard scrub.reported.insert(range.lowerBound).inserted else { return }
        authority.report(
            Report("scrub-damaged", "LSN \(range) is damaged in both copies of the log; it cannot be healed"))
    }
}
