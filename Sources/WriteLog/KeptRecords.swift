// The records that a mirror log held when its owner attached anew, held against what the owner sends for their places.
//
// An LSN is written once in an incarnation (S3): a record that passes its checks is the only one that ever stood at its place. Other
// bytes for that place have rotted at the owner, and would take the last good copy with them (S5). A place whose record
// fails its checks is free. A WRITE may end anywhere in a record, so what is asked here is asked of parts.

import CLogCore
import Glibc
public import LogModel
public import PersistentMemory

/// Only the user of the region's target stores to the region meanwhile, and in order.
public struct KeptRecords: Sendable {
    /// A lost header hides one record, and the next header stands at most so far behind it. Damage without a header for twice
    /// as long is taken for the end of the log.
    private static let searchBytes = 2 * PartComparison.maximumRecordBytes

    /// No record that was kept starts at or above it.
    public let end: LSN
    private let region: Region
    /// Sendable: an unchanging description of memory that the region keeps mapped.
    nonisolated(unsafe) private let ring: tl_ring
    /// No record reaches beyond it.
    private let limit: LSN
    /// Where the record starts that the next WRITE begins in, as far as that is known.
    private var position: LSN

    /// What the region holds at and above `start`, where the owner begins to ship. Reads about one line of memory a record. `nil`
    /// if the region was never formatted. Precondition: `start` is at or above the head.
    public init?(region: Region, from start: LSN) {
        self.init(region, from: start, to: nil)
    }

    /// What the region holds in `range`.
    public init?(region: Region, in range: Range<LSN>) {
        self.init(region, from: range.lowerBound, to: range.upperBound)
    }

    private init?(_ region: Region, from start: LSN, to end: LSN?) {
        guard let ring = region.ring else { return nil }
        let head = region.head, limit = head + ring.size
        precondition(start >= head && start.rawValue % LSN.alignment == 0)
        self.region = region
        self.ring = ring
        self.limit = limit
        position = Self.startOfRecord(with: start, in: ring, head: head, limit: limit)
        self.end = end.map { min($0, limit) } ?? Self.endOfRecords(from: position, in: ring, limit: limit)
    }

    // MARK: What comes

    /// The record that is good here and that `bytes`, stored at `lsn`, would replace with another; `nil` if they may be stored. To be
    /// asked in order of `lsn`, with no gap but those that ``skip(to:)`` tells.
    public func conflict(with bytes: UnsafeRawBufferPointer, at lsn: LSN) -> LSN? {
        let upper = min(lsn + UInt64(bytes.count), end)
        var start = position
        while start < upper {
            guard let record = header(at: start) else {
                start = nextHeader(behind: start, below: upper)
                continue
            }
            // What fills the last line is nobody's.
            let from = max(start, lsn)
            let to = min(start + UInt64(TL_HEADER_BYTES) + UInt64(record.payload_bytes), upper)
            if from < to, differs(bytes, at: lsn, from, to), isValid(at: start) { return start }
            start = start + tl_record_bytes(UInt64(record.payload_bytes))
        }
        return nil
    }

    /// Everything below `stored` is what the owner sent.
    public mutating func didStore(upTo stored: LSN) {
        while position < stored {
            guard let record = header(at: position) else {
                position = nextHeader(behind: position, below: stored)
                continue
            }
            let next = position + tl_record_bytes(UInt64(record.payload_bytes))
            guard next <= stored else { return }
            position = next
        }
    }

    /// Nothing below `head`, where a record starts, is sent any more.
    public mutating func skip(to head: LSN) { position = max(position, head) }

    private func differs(_ bytes: UnsafeRawBufferPointer, at lsn: LSN, _ from: LSN, _ to: LSN) -> Bool {
        let mine = ring.bytes + Int(from.rawValue % ring.size)
        return memcmp(mine, bytes.baseAddress! + Int(from - lsn), Int(to - from)) != 0
    }

    // MARK: Records

    private func header(at lsn: LSN) -> tl_record? { Self.header(at: lsn, in: ring, limit: limit) }

    private func isValid(at lsn: LSN) -> Bool {
        var record = tl_record()
        return tl_record_read([ring], lsn.rawValue, limit.rawValue, &record) == TL_VALID
    }

    /// The first header behind `lsn`, or `end` if there is none below it.
    private func nextHeader(behind lsn: LSN, below end: LSN) -> LSN {
        var next = lsn + LSN.alignment
        while next < end, header(at: next) == nil { next = next + LSN.alignment }
        return min(next, end)
    }

    private static func header(at lsn: LSN, in ring: tl_ring, limit: LSN) -> tl_record? {
        var record = tl_record()
        guard lsn < limit, tl_record_read_header([ring], lsn.rawValue, limit.rawValue, &record) == TL_VALID else {
            return nil
        }
        return record
    }

    /// Of the record that `lsn` lies in; `lsn` itself if one begins there, or nobody can tell.
    private static func startOfRecord(with lsn: LSN, in ring: tl_ring, head: LSN, limit: LSN) -> LSN {
        var start = lsn
        while true {
            if let record = header(at: start, in: ring, limit: limit) {
                return start + tl_record_bytes(UInt64(record.payload_bytes)) > lsn ? start : lsn
            }
            guard start > head, lsn - start < PartComparison.maximumRecordBytes else { return lsn }
            start = LSN(start.rawValue - LSN.alignment)
        }
    }

    private static func endOfRecords(from start: LSN, in ring: tl_ring, limit: LSN) -> LSN {
        var end = start, lsn = start
        while lsn < limit, lsn - end < searchBytes {
            if let record = header(at: lsn, in: ring, limit: limit) {
                lsn = lsn + tl_record_bytes(UInt64(record.payload_bytes))
                end = lsn
            } else {
                lsn = lsn + LSN.alignment
            }
        }
        return end
    }
}
