// Two copies of a part of one log, held against each other record by record: which copy is good where they differ (S5, S26).
// Bytes decide nothing by being equal or not; only a record that passes its checks is believed.

import CLogCore
import Glibc
public import LogModel
public import PersistentMemory

/// Compares `[from, to)` of a region's ring with bytes that another copy gave for it. Nothing in either is trusted: the work
/// is bounded by the range. The range must not be stored to meanwhile by anybody else.
public struct PartComparison: Sequence, IteratorProtocol {
    public struct Difference: Hashable, Sendable {
        public enum Kind: Hashable, Sendable {
            /// The other copy's record is good, this region's is not.
            case damagedHere
            /// This region's record is good, the other copy's is not.
            case damagedThere
            /// Neither is, or both are and differ: nobody can tell what stood here.
            case undecidable
        }
        public var kind: Kind
        public var range: Range<LSN>

        public init(kind: Kind, range: Range<LSN>) {
            self.kind = kind
            self.range = range
        }
    }

    private let here: tl_ring
    /// Of the other copy's bytes, those before the ring's end and those behind it.
    private let before: tl_ring
    private let behind: tl_ring
    private let wrapLSN: LSN
    private let end: LSN
    private let endsInRecord: Bool
    /// Payload bytes that may still be checked: an honest part takes about two for each of its bytes (S21).
    private var checkable: UInt64
    /// Where the next record to compare starts; when the sequence has ended, the end of what was compared.
    public private(set) var position: LSN

    /// `other` is the other copy's bytes of `[from, from + other.count)` and outlives this. `from` is the start of a record.
    /// With `endsInRecord` the range's end is no boundary, and the comparison stops before a record that may not be whole.
    /// `nil` if the region was never formatted. Precondition: a multiple of 64 bytes, at most the ring's size.
    public init?(_ region: Region, from: LSN, other: UnsafeRawBufferPointer, endsInRecord: Bool) {
        guard let ring = region.ring, let base = other.baseAddress else { return nil }
        precondition(UInt64(other.count) <= ring.size && UInt64(other.count) % LSN.alignment == 0)
        precondition(from.rawValue % LSN.alignment == 0)
        here = ring
        let place = from.rawValue % ring.size
        let first = base.assumingMemoryBound(to: UInt8.self)
        // Rings whose places that are in `other` are at its bytes; no other place of them is looked at.
        before = tl_ring(bytes: first - Int(place), size: ring.size, incarnation: ring.incarnation, seed: ring.seed)
        behind = tl_ring(
            bytes: first + Int(ring.size - place), size: ring.size, incarnation: ring.incarnation, seed: ring.seed)
        wrapLSN = from + (ring.size - place)
        end = from + UInt64(other.count)
        self.endsInRecord = endsInRecord
        checkable = 8 * UInt64(other.count)
        position = from
    }

    /// The most bytes of the ring that one record takes.
    public static var maximumRecordBytes: UInt64 { tl_record_bytes(UInt64(TL_RECORD_PAYLOAD_BYTES)) }

    public mutating func next() -> Difference? {
        while position < end {
            let start = position
            let mine = record(in: here, at: start), theirs = record(in: other(at: start), at: start)
            if theirs == nil, endsInRecord, end - start < Self.maximumRecordBytes { return nil }
            switch (mine, theirs) {
            case (let mine?, let theirs?):
                position = start + Swift.max(Self.bytes(mine), Self.bytes(theirs))
                guard isSame(start, mine, theirs) else { return difference(.undecidable, start) }
            case (let mine?, nil):
                position = start + Self.bytes(mine)
                return difference(.damagedThere, start)
            case (nil, let theirs?):
                position = start + Self.bytes(theirs)
                return difference(.damagedHere, start)
            case (nil, nil):
                repeat { position = position + UInt64(TL_UNIT_BYTES) } while position < end && isBad(at: position)
                return difference(.undecidable, start)
            }
        }
        return nil
    }

    private func difference(_ kind: Difference.Kind, _ start: LSN) -> Difference {
        Difference(kind: kind, range: start..<position)
    }

    private func other(at lsn: LSN) -> tl_ring { lsn < wrapLSN ? before : behind }

    private static func bytes(_ record: tl_record) -> UInt64 { tl_record_bytes(UInt64(record.payload_bytes)) }

    /// `nil` unless a record that passes all checks starts there. It never crosses the ring's end, nor passes the range's.
    private mutating func record(in ring: tl_ring, at lsn: LSN) -> tl_record? {
        var ring = ring
        var record = tl_record()
        guard tl_record_read_header(&ring, lsn.rawValue, end.rawValue, &record) == TL_VALID,
            UInt64(record.payload_bytes) <= checkable
        else { return nil }
        checkable -= UInt64(record.payload_bytes)
        return tl_record_read(&ring, lsn.rawValue, end.rawValue, &record) == TL_VALID ? record : nil
    }

    private mutating func isBad(at lsn: LSN) -> Bool {
        record(in: here, at: lsn) == nil && record(in: other(at: lsn), at: lsn) == nil
    }

    /// Two records that pass their checks; what fills the last line is nobody's.
    private func isSame(_ lsn: LSN, _ mine: tl_record, _ theirs: tl_record) -> Bool {
        guard mine.payload_bytes == theirs.payload_bytes else { return false }
        let place = Int(lsn.rawValue % here.size)
        let count = Int(TL_HEADER_BYTES) + Int(mine.payload_bytes)
        return memcmp(here.bytes + place, other(at: lsn).bytes + place, count) == 0
    }
}
