// One copy of a log that nobody writes, read at any position: for tools that hold an owner's log against its mirror's.
//
// Invariant: trusts nothing in the ring (S21). Every look is bounded by the ring's size, and nothing here stores.

import CLogCore
import Glibc
public import LogModel
public import PersistentMemory

/// Unchanging, as long as nobody writes the region. Safe from any number of threads.
public struct LogCopy {
    /// What stands at a position.
    public enum Finding: Hashable, Sendable {
        /// A record of this incarnation: header, payload, position all agree (S2, S3).
        case record(end: LSN)
        /// The header is good, so the end is known; the payload fails.
        case badPayload(end: LSN)
        /// No header that can be believed.
        case nothing
    }

    public let region: Region
    public let identity: RegionIdentity
    private let ring: tl_ring

    /// `nil` if the region was never formatted, or holds nothing by its role.
    public init?(region: Region) {
        guard let identity = region.identity, identity.role != .empty, let ring = region.ring else { return nil }
        self.region = region
        self.identity = identity
        self.ring = ring
    }

    /// The record at `lsn`, if it ends at or below `end`. Preconditions: `lsn` is a multiple of 64 below `end`, and `end`
    /// at most a ring's size further.
    public func find(at lsn: LSN, below end: LSN) -> Finding {
        precondition(lsn < end && lsn.rawValue % LSN.alignment == 0 && end - lsn <= ring.size)
        var record = tl_record()
        switch tl_record_read([ring], lsn.rawValue, end.rawValue, &record) {
        case TL_VALID: return .record(end: lsn + tl_record_bytes(UInt64(record.payload_bytes)))
        case TL_BAD_PAYLOAD: return .badPayload(end: lsn + tl_record_bytes(UInt64(record.payload_bytes)))
        default: return .nothing
        }
    }

    /// Where the record at `lsn` ends by its header, if that can be believed. Reads no payload.
    public func headerEnd(at lsn: LSN, below end: LSN) -> LSN? {
        precondition(lsn < end && lsn.rawValue % LSN.alignment == 0 && end - lsn <= ring.size)
        var record = tl_record()
        guard tl_record_read_header([ring], lsn.rawValue, end.rawValue, &record) == TL_VALID else { return nil }
        return lsn + tl_record_bytes(UInt64(record.payload_bytes))
    }

    /// The first position in `[from, end)` with a believable header, or `end`. Reads no payload.
    public func nextHeader(from: LSN, below end: LSN) -> LSN {
        LSN(tl_scan_find_record([ring], from.rawValue, end.rawValue))
    }

    /// Whether a believable header, at whatever place, is of a record that ends beyond `end`. One pass over the headers.
    public func holdsRecord(beyond end: LSN) -> Bool {
        var record = tl_record()
        for place in stride(from: 0, to: ring.size, by: Int(LSN.alignment))
        where tl_record_header_at_place([ring], place, &record)
            && LSN(record.lsn) + tl_record_bytes(UInt64(record.payload_bytes)) > end
        {
            return true
        }
        return false
    }

    /// Where the furthest record at or above `from` ends, by a believable header at whatever place; `nil` if there is none. One pass over
    /// the headers.
    public func lastEnd(from: LSN) -> LSN? {
        var record = tl_record()
        var last: LSN?
        for place in stride(from: 0, to: ring.size, by: Int(LSN.alignment))
        where tl_record_header_at_place([ring], place, &record) && LSN(record.lsn) >= from {
            last = max(last ?? .zero, LSN(record.lsn) + tl_record_bytes(UInt64(record.payload_bytes)))
        }
        return last
    }

    /// Whether both copies hold the same header and payload at `lsn`, where each has a valid record (padding carries
    /// nothing). Precondition: both rings have the same size.
    public func holdsSameRecord(as other: LogCopy, at lsn: LSN) -> Bool {
        precondition(ring.size == other.ring.size)
        var record = tl_record()
        let end = lsn.rawValue + ring.size
        guard tl_record_read_header([ring], lsn.rawValue, end, &record) == TL_VALID else { return false }
        let place = Int(lsn.rawValue % ring.size), count = Int(TL_HEADER_BYTES) + Int(record.payload_bytes)
        return memcmp(ring.bytes + place, other.ring.bytes + place, count) == 0
    }

    /// The bytes of the record at `lsn`, padding included. Precondition: ``find(at:below:)`` found it to end at `end`.
    public func bytes(from lsn: LSN, to end: LSN) -> UnsafeRawBufferPointer {
        let place = lsn.rawValue % ring.size
        precondition(end - lsn <= ring.size - place, "a record does not cross the ring's end")
        return UnsafeRawBufferPointer(start: ring.bytes + Int(place), count: Int(end - lsn))
    }
}
