// Reading a live log: raw ranges for shipping and for the overlay, verified records for the destager.

import CLogCore
public import LogModel
import PersistentMemory

extension WriteLog {
    /// Calls `body` with the contiguous pieces (one, or two at the ring's end) of `[from, to)`, in order. The caller
    /// guarantees that the range is not reclaimed meanwhile. Precondition: reclaim limit <= from <= to <= published.
    public func withBytes<E: Error>(
        from: LSN, to: LSN, _ body: (UnsafeRawBufferPointer) throws(E) -> Void
    ) throws(E) {
        precondition(reclaimLimit <= from && from <= to && to <= published)
        try region.withRingBytes(from: from, count: to - from, body)
    }

    /// Whether the memory of `[from, to)` can be read; if not, a fault of the region says so from now on (S26). The same
    /// guarantee and precondition as ``withBytes(from:to:_:)``.
    public func isReadable(from: LSN, to: LSN) -> Bool {
        withBytes(from: from, to: to) { tl_fault_touch($0.baseAddress, $0.count) }
        return region.memoryFault == nil
    }

    /// The records of `[from, to)`, each verified (S26), pads left out. The same guarantee and precondition as
    /// ``withBytes(from:to:_:)``; both ends are write boundaries.
    public func records(from: LSN, to: LSN) -> PublishedRecords {
        precondition(reclaimLimit <= from && from <= to && to <= published)
        return PublishedRecords(ring: ring, position: from, end: to)
    }

    /// Of the published record that `lsn` lies in, or `lsn` if one begins there; `nil` if the headers do not tell. The same guarantee as
    /// ``withBytes(from:to:_:)`` from the reclaim limit on.
    public func startOfRecord(with lsn: LSN) -> LSN? {
        let lowest = reclaimLimit, published = published
        precondition(lowest <= lsn && lsn < published)
        var record = tl_record()
        var start = lsn
        while tl_record_read_header([ring], start.rawValue, published.rawValue, &record) != TL_VALID {
            guard start > lowest, lsn - start < PartComparison.maximumRecordBytes else { return nil }
            start = LSN(start.rawValue - LSN.alignment)
        }
        let end = start + tl_record_bytes(UInt64(record.payload_bytes))
        return end > lsn ? start : end == lsn ? lsn : nil
    }

    /// The record that was published at `lsn`, or what to fetch from the other copy if it fails its checks (S26). The caller
    /// guarantees that it is not reclaimed meanwhile. Looks no further than for two records of the greatest size, which a
    /// damaged header may hide.
    public func check(at lsn: LSN) -> RecordCheck {
        let published = published
        precondition(reclaimLimit <= lsn && lsn < published)
        var record = tl_record()
        if tl_record_read([ring], lsn.rawValue, published.rawValue, &record) == TL_VALID {
            return .sound(end: lsn + tl_record_bytes(UInt64(record.payload_bytes)))
        }
        let end = min(published, lsn + 2 * PartComparison.maximumRecordBytes)
        var records = PublishedRecords(ring: ring, position: lsn, end: end)
        guard case .damaged(_, let next) = records.next() else { return .damaged(to: end) }
        return .damaged(to: next)
    }
}

public enum RecordCheck: Hashable, Sendable {
    case sound(end: LSN)
    case damaged(to: LSN)
}

/// A cursor over published records.
public struct PublishedRecords: Sequence, IteratorProtocol {
    public enum Entry {
        case record(LogRecord)
        /// What stood at `from` fails its checks: fetch `[from, to)` from the other copy. Ends where the next good
        /// record starts.
        case damaged(from: LSN, to: LSN)
    }

    var ring: tl_ring
    /// Where the next entry starts.
    public private(set) var position: LSN
    public let end: LSN

    init(ring: tl_ring, position: LSN, end: LSN) {
        self.ring = ring
        self.position = position
        self.end = end
    }

    public mutating func next() -> Entry? {
        while position < end {
            let start = position
            var record = tl_record()
            switch tl_record_read(&ring, start.rawValue, end.rawValue, &record) {
            case TL_VALID:
                position = start + tl_record_bytes(UInt64(record.payload_bytes))
                if let record = LogRecord(record, in: ring) { return .record(record) }
            case TL_BAD_PAYLOAD:
                position = start + tl_record_bytes(UInt64(record.payload_bytes))
                return .damaged(from: start, to: position)
            default:
                position = LSN(tl_scan_find_record(&ring, start.rawValue + UInt64(TL_UNIT_BYTES), end.rawValue))
                return .damaged(from: start, to: position)
            }
        }
        return nil
    }
}
