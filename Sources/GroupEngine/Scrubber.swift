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

final class Scrubber {
    /// One part a tick: with a tick of 100 ms, 2.5 MiB a second. A part ends with a record, so it may be longer.
    private static let partBytes: UInt64 = 256 << 10
    /// A part that does not find the end of a damaged record is cut here, with room for one whole record before the cut.
    private static let maximumPartBytes = Healer.maximumBytes
    /// Between the end of one pass and the beginning of the next.
    private static let pause: Nanos = 2_000_000_000

    private struct Part {
        let range: Range<LSN>
        let endsInRecord: Bool
        /// Not answered yet, in order.
        var reads: [WorkRequestID] = []
        var bytes: [UInt8] = []
    }

    private let owned: OwnedLog
    private let shipper: Shipper
    private let healer: Healer
    private var log: WriteLog { owned.log }
    /// Everything below was compared in this pass.
    var position = LSN.zero
    private var nextPass: Nanos = 0
    private var asked: Part?
    /// Records on their way to the mirror, by the WRITE that ends each.
    private var repairs: [(id: WorkRequestID, range: Range<LSN>)] = []
    /// What could not be decided, so that it is reported once.
    private var reported: Set<LSN> = []

    init(_ owned: OwnedLog, _ shipper: Shipper, _ healer: Healer) {
        self.owned = owned
        self.shipper = shipper
        self.healer = healer
    }

    /// The rail has ended.
    func detached() {
        asked = nil
        repairs = []
    }

    /// Asks for the next part, if it is time and nothing else is to be done on the rail.
    func tick() {
        guard asked == nil, repairs.isEmpty, healer.current == nil, owned.authority.isValid(owned.runtime.now),
            let mirror = shipper.mirror, owned.authority.rule.needsMirror, mirror.session.shipped == log.published,
            mirror.queuePair.creditBytes >= RemoteMemoryLimits.windowBytes / 2, owned.runtime.now >= nextPass
        else { return }
        let from = max(position, owned.destage.head)
        guard owned.acknowledgedWriteEnd <= mirror.session.durable else { return }
        let limit = min(owned.acknowledgedWriteEnd, owned.endOfLap(from: from))
        guard let part = nextPart(from: from, limit: limit) else {
            position = .zero
            nextPass = owned.runtime.now + Self.pause
            return
        }
        do throws(RemoteMemoryError) {
            asked = Part(
                range: part.range, endsInRecord: part.endsInRecord,
                reads: try shipper.postReads(of: part.range, from: mirror))
        } catch {
            // No credit, or the rail ends: the part is asked for again.
        }
    }

    /// Whole records from `from` on, by this side's headers; `nil` if there is nothing below `limit`.
    private func nextPart(from: LSN, limit: LSN) -> (range: Range<LSN>, endsInRecord: Bool)? {
        guard from < limit else { return nil }
        var records = log.records(from: from, to: limit)
        while records.position < limit, records.position - from < Self.partBytes { _ = records.next() }
        let end = records.position
        guard end - from > Self.maximumPartBytes else { return (from..<end, false) }
        return (from..<from + Self.maximumPartBytes, true)
    }

    /// A READ came back. Answers whether it was the scrub's.
    func scrubbed(by read: WorkRequestID, with bytes: [UInt8]) -> Bool {
        guard asked?.reads.first == read else { return false }
        asked?.reads.removeFirst()
        asked?.bytes += bytes
        guard let part = asked, part.reads.isEmpty else { return true }
        asked = nil
        // Destaged meanwhile: its space may hold other records by now.
        guard owned.destage.head <= part.range.lowerBound else { return true }
        part.bytes.withUnsafeBytes { compare(part, $0) }
        return true
    }

    private func compare(_ part: Part, _ theirs: UnsafeRawBufferPointer) {
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
        position = max(position, comparison.position)
    }

    private func healHere(_ range: Range<LSN>, _ good: UnsafeRawBufferPointer) {
        healer.store(good, at: range.lowerBound)
        healer.drain { [self] failure in
            if let failure {
                owned.report(.healFailed, "LSN \(range) of the log here could not be made durable anew: \(failure)")
            } else {
                owned.report(.scrubHealed, "LSN \(range) of the log here was damaged; healed from the mirror")
            }
        }
    }

    private func healThere(_ range: Range<LSN>) {
        guard let mirror = shipper.mirror, UInt64(mirror.queuePair.creditBytes) >= range.upperBound - range.lowerBound
        else { return }
        do throws(RemoteMemoryError) {
            guard let last = try shipper.postRepair(of: range, to: mirror) else { return }
            repairs.append((last, range))
        } catch {
            // The rail ends, or the window of requests is full: the next pass finds it again.
            return
        }
    }

    /// Requests up to `id` are durable at the mirror.
    func completed(through id: WorkRequestID) {
        while let first = repairs.first, first.id <= id {
            repairs.removeFirst()
            owned.report(.scrubHealed, "LSN \(first.range) of the mirror log was damaged; healed from the log here")
        }
    }

    private func reportUndecidable(_ range: Range<LSN>) {
        let head = owned.destage.head
        reported = reported.filter { $0 >= head }
        guard reported.insert(range.lowerBound).inserted else { return }
        owned.report(.scrubDamaged, "LSN \(range) is damaged in both copies of the log; it cannot be healed")
    }
}
