// Reads a log that nobody writes past its damage: every whole write that validates at its own LSN, in order, and in between
// what does not. For a log that no other copy can heal; a replay ends at the first damage.
//
// Invariants:
//  - a write is given only if all of its records are valid (S7);
//  - what lies below the reach of the newest record was on the medium before that record was written (S6): it is passed over;
//  - each payload is checked twice at most, whatever stands in the ring (S21).

import CLogCore
public import LogModel
public import PersistentMemory

/// A record that is not applied, though its header is sound.
public struct LostRecord: Hashable, Sendable {
    public enum Reason: String, Hashable, Sendable {
        case damagedPayload
        /// Another record of its write is damaged or missing.
        case incompleteWrite
    }
    public var lsn: LSN
    public var end: LSN
    public var kind: LogRecord.Kind
    public var volume: VolumeID
    /// Of the volume; empty for a watermark.
    public var range: ByteRange
    public var reason: Reason

    public init(lsn: LSN, end: LSN, kind: LogRecord.Kind, volume: VolumeID, range: ByteRange, reason: Reason) {
        self.lsn = lsn
        self.end = end
        self.kind = kind
        self.volume = volume
        self.range = range
        self.reason = reason
    }
}

/// A one-pass cursor. The region must not be written meanwhile.
public struct SalvageScan: Sequence, IteratorProtocol {
    public enum Piece {
        case write(ScannedWrite)
        case lost(LostRecord)
        /// No header that can be believed: nobody can tell what stood here.
        case unreadable(Range<LSN>)
    }

    public let region: Region
    /// Where it begins: the head, or above it if newer records say that the newest head is lost.
    public let fromLSN: LSN
    private let ring: tl_ring
    private let end: LSN
    /// Up to here something must be there.
    private let acknowledged: LSN
    private var position: LSN
    /// Records of a write that is not whole go on to here.
    private var incompleteTo: LSN

    /// `nil` if the region was never formatted, or holds nothing by its role. `acknowledged`: the highest that a scan of the log
    /// found.
    public init?(region: Region, acknowledged: LSN) {
        guard let copy = LogCopy(region: region), let ring = region.ring else { return nil }
        self.region = region
        self.ring = ring
        self.acknowledged = acknowledged
        let last = copy.lastEnd(from: region.head) ?? region.head
        fromLSN = last > region.head + ring.size ? LSN(last.rawValue - ring.size) : region.head
        end = fromLSN + ring.size
        position = fromLSN
        incompleteTo = fromLSN
    }

    public mutating func next() -> Piece? {
        while position < end {
            if position < incompleteTo {
                if let lost = takeLost(.incompleteWrite) { return .lost(lost) }
            } else if let piece = judge() {
                return piece
            }
        }
        return nil
    }

    /// What begins at the position; `nil` if it is to be looked at again.
    private mutating func judge() -> Piece? {
        var record = tl_record()
        switch tl_record_read([ring], position.rawValue, end.rawValue, &record) {
        case TL_VALID where record.number == 0:
            let (to, isWhole) = follow(record)
            guard isWhole else {
                incompleteTo = to
                return nil
            }
            defer { position = to }
            return .write(ScannedWrite(start: position, end: to, region: region, ring: ring))
        case TL_VALID: return takeLost(.incompleteWrite).map(Piece.lost)
        case TL_BAD_PAYLOAD: return takeLost(.damagedPayload).map(Piece.lost)
        default: return takeUnreadable()
        }
    }

    /// How far the write that begins with `first` is valid, and whether that is all of it.
    private func follow(_ first: tl_record) -> (to: LSN, isWhole: Bool) {
        var lsn = first.lsn + tl_record_bytes(UInt64(first.payload_bytes))
        for number in 1..<first.count {
            var record = tl_record()
            guard lsn < end.rawValue, tl_record_read([ring], lsn, end.rawValue, &record) == TL_VALID,
                record.number == number, record.count == first.count
            else { return (LSN(lsn), false) }
            lsn += tl_record_bytes(UInt64(record.payload_bytes))
        }
        return (LSN(lsn), true)
    }

    /// Steps over the record at the position, whose header is sound; `nil` for a pad, which carries nothing.
    private mutating func takeLost(_ reason: LostRecord.Reason) -> LostRecord? {
        var header = tl_record()
        guard tl_record_read_header([ring], position.rawValue, end.rawValue, &header) == TL_VALID else {
            position = position + LSN.alignment
            return nil
        }
        let lsn = position
        position = lsn + tl_record_bytes(UInt64(header.payload_bytes))
        guard let record = LogRecord(header, in: ring) else { return nil }
        return LostRecord(
            lsn: lsn, end: position, kind: record.kind, volume: record.volume, range: record.range, reason: reason)
    }

    private mutating func takeUnreadable() -> Piece? {
        let from = position
        position = LSN(tl_scan_find_record([ring], (from + LSN.alignment).rawValue, end.rawValue))
        guard position == end else { return .unreadable(from..<position) }
        // Nothing follows: what was promised is missing, the rest is free space.
        return acknowledged > from ? .unreadable(from..<Swift.min(acknowledged, end)) : nil
    }
}
