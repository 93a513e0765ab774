// A record as its readers see it: what to do to which range of which volume, and where its payload is.

import CLogCore
public import LogModel

public struct LogRecord {
    public enum Kind: Hashable, Sendable {
        case data
        case discard
        case writeZeroes(keepSpace: Bool)
        /// Nothing to do: carries an acknowledged LSN.
        case watermark
    }

    public var lsn: LSN
    public var kind: Kind
    public var volume: VolumeID
    /// Of the volume. Empty for a watermark.
    public var range: ByteRange
    /// What the writer knew to be acknowledged (S5).
    public var acknowledged: LSN
    /// The record's place in its write, from 0, and how many records the write has, pads included.
    public var number: Int
    public var recordsInWrite: Int
    /// In the ring: valid until the record's space is reclaimed. Empty for everything but data.
    public var payload: UnsafeRawBufferPointer

    /// Position of the payload's first byte.
    public var payloadLSN: LSN { lsn + UInt64(TL_HEADER_BYTES) }
    /// Where the next record starts.
    public var end: LSN { lsn + tl_record_bytes(UInt64(payload.count)) }
    /// Whether the write ends with this record (S7).
    public var endsWrite: Bool { number + 1 == recordsInWrite }

    /// Whether the write begins at `start`: with this record, or with a pad before it.
    package func beginsWrite(at start: LSN) -> Bool {
        number <= 1 && start <= lsn && lsn - start == UInt64(number) * UInt64(TL_HEADER_BYTES)
    }

    /// `nil` for a pad. `record` has been checked against `ring`.
    init?(_ record: tl_record, in ring: tl_ring) {
        switch tl_kind(UInt32(record.kind)) {
        case TL_KIND_DATA: kind = .data
        case TL_KIND_DISCARD: kind = .discard
        case TL_KIND_WRITE_ZEROES:
            kind = .writeZeroes(keepSpace: Int(record.flags) & TL_FLAG_KEEP_SPACE != 0)
        case TL_KIND_WATERMARK: kind = .watermark
        default: return nil
        }
        lsn = LSN(record.lsn)
        volume = VolumeID(rawValue: record.volume)
        range = ByteRange(offset: record.offset, length: UInt64(record.range_bytes))
        acknowledged = LSN(record.acknowledged)
        number = Int(record.number)
        recordsInWrite = Int(record.count)
        let start = Int(record.lsn % ring.size) + Int(TL_HEADER_BYTES)
        payload = UnsafeRawBufferPointer(
            start: record.payload_bytes == 0 ? nil : ring.bytes + start, count: Int(record.payload_bytes))
    }
}
