// Reads a log that nobody writes, whole writes in order, and judges how it ends: see tl_scan.h.

import CLogCore
public import LogModel
public import PersistentMemory

/// A one-pass cursor over any region. The region must not be written meanwhile. Bounded memory, whatever the log's size.
public struct LogScan: Sequence, IteratorProtocol {
    public enum Verdict: String, Hashable, Sendable {
        /// After the last write, no trace of another.
        case clean
        /// Traces of writes that nobody was promised; they may be discarded.
        case torn
        /// A promised record is missing or damaged. Never discard it silently (S5).
        case corrupt
    }

    public let region: Region
    public let identity: RegionIdentity
    /// Where un-destaged records begin.
    public let headLSN: LSN
    private var scan: tl_scan
    /// `nil` until ``next()`` has returned `nil`.
    public private(set) var verdict: Verdict?
    /// The memory that ended the scan; it makes the verdict corrupt, whatever stood there (S26).
    public private(set) var memoryFault: MemoryFault?

    /// `nil` if the region was never formatted, or holds nothing by its role.
    public init?(region: Region) {
        guard let identity = region.identity, identity.role != .empty, var ring = region.ring else { return nil }
        self.region = region
        self.identity = identity
        headLSN = region.head
        scan = tl_scan_begin(&ring, headLSN.rawValue, region.acknowledged.rawValue)
    }

    /// What follows `from`, where everything below it is known to be whole. Precondition: a multiple of 64.
    package init?(region: Region, from: LSN) {
        guard let identity = region.identity, identity.role != .empty, var ring = region.ring else { return nil }
        precondition(from.rawValue % LSN.alignment == 0)
        self.region = region
        self.identity = identity
        headLSN = from
        scan = tl_scan_begin(&ring, from.rawValue, from.rawValue)
    }

    /// The end of the last whole, valid write so far.
    public var endLSN: LSN { LSN(scan.position) }
    /// The highest acknowledged LSN found so far; complete once there is a verdict.
    public var acknowledgedLSN: LSN { LSN(scan.acknowledged) }
    /// The record that ended the scan; `nil` if it ended clean, or has not ended.
    public var firstBadLSN: LSN? { verdict == nil || verdict == .clean ? nil : LSN(scan.first_bad) }
    /// Records delivered so far, pads included, and the writes that they make up.
    public var recordCount: UInt64 { scan.records }
    public var writeCount: UInt64 { scan.writes }

    /// The next write, verified whole.
    public mutating func next() -> ScannedWrite? {
        guard verdict == nil else { return nil }
        var write = tl_scanned_write()
        if tl_scan_next(&scan, &write) {
            return ScannedWrite(start: LSN(write.start), end: LSN(write.end), region: region, ring: scan.ring)
        }
        memoryFault = faultAtTheEnd()
        switch scan.verdict {
        case _ where memoryFault != nil: verdict = .corrupt
        case TL_VERDICT_CLEAN: verdict = .clean
        case TL_VERDICT_TORN: verdict = .torn
        default: verdict = .corrupt
        }
        return nil
    }

    /// Failed memory reads as zeros. Where the record that ended the scan has some, nobody can tell it from no record at all;
    /// and what was acknowledged of a torn tail may have stood in the head slot that is gone.
    private func faultAtTheEnd() -> MemoryFault? {
        let end = scan.head + scan.ring.size
        guard scan.first_bad < end else { return nil }
        var record = tl_record()
        let header = tl_record_read_header([scan.ring], scan.first_bad, end, &record)
        let bytes = header == TL_VALID ? tl_record_bytes(UInt64(record.payload_bytes)) : UInt64(TL_HEADER_BYTES)
        return region.memoryFault(from: LSN(scan.first_bad), count: bytes)
            ?? (scan.verdict == TL_VERDICT_TORN ? region.memoryFaultOfHeader : nil)
    }

    /// Reads to the end and returns the verdict.
    public mutating func finish() -> Verdict {
        while next() != nil {}
        return verdict!
    }
}

/// One write: all of its records are valid (S7).
public struct ScannedWrite {
    public let start: LSN
    public let end: LSN
    let region: Region
    let ring: tl_ring

    /// In order, pads left out. Payloads are valid as long as the scan's region is referenced.
    public var records: ScannedRecords { ScannedRecords(ring: ring, position: start, end: end, region: region) }
}

public struct ScannedRecords: Sequence, IteratorProtocol {
    var ring: tl_ring
    var position: LSN
    let end: LSN
    let region: Region

    public mutating func next() -> LogRecord? {
        while position < end {
            var record = tl_record()
            // Verified by the scan; a second look at the payload would double the work.
            guard tl_record_read_header(&ring, position.rawValue, end.rawValue, &record) == TL_VALID else { return nil }
            position = position + tl_record_bytes(UInt64(record.payload_bytes))
            if let record = LogRecord(record, in: ring) { return record }
        }
        return nil
    }
}
