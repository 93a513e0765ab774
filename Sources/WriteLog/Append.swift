// What is appended, and what comes of it.

import CLogCore
public import LogModel

extension WriteLog {
    public enum Payload {
        case data(UnsafeRawBufferPointer)
        case discard(length: UInt64)
        case writeZeroes(length: UInt64, keepSpace: Bool)

        var kind: tl_kind {
            switch self {
            case .data: TL_KIND_DATA
            case .discard: TL_KIND_DISCARD
            case .writeZeroes: TL_KIND_WRITE_ZEROES
            }
        }

        /// Bytes of the volume.
        public var length: UInt64 {
            switch self {
            case .data(let bytes): UInt64(bytes.count)
            case .discard(let length), .writeZeroes(let length, _): length
            }
        }
    }

    public enum AppendOutcome {
        case appended(Appended)
        /// No room until ``setReclaimLimit(_:)``, or a slower writer's publication, makes some (S6).
        case full
        /// Never fits: split it into independent writes of at most ``maximumWriteBytes`` (S7).
        case tooLarge
        /// The region's memory has failed, here or below (S26): nothing that is appended counts any more. See
        /// ``Region/memoryFault``.
        case failed
    }

    /// A write's place in the log.
    public struct Appended: Hashable, Sendable {
        public var start: LSN
        public var end: LSN
        var kind: UInt32
        var offset: UInt64
        var length: UInt64
        var ringBytes: UInt64

        /// Its records, pads left out.
        public var records: AppendedRecords { AppendedRecords(self) }
    }

    public struct AppendedRecord: Hashable, Sendable {
        public var lsn: LSN
        /// Position of the payload's first byte.
        public var payloadLSN: LSN
        public var volumeOffset: UInt64
        /// Bytes of the volume; of payload too, for data.
        public var length: UInt64
    }

    public struct AppendedRecords: Sequence, IteratorProtocol {
        private var layout: tl_layout
        private let offset: UInt64

        init(_ write: Appended) {
            layout = tl_layout_begin(tl_kind(write.kind), write.length, write.start.rawValue, write.ringBytes)
            offset = write.offset
        }

        public mutating func next() -> AppendedRecord? {
            var piece = tl_piece()
            while tl_layout_next(&layout, &piece) {
                guard piece.kind != TL_KIND_PAD else { continue }
                return AppendedRecord(
                    lsn: LSN(piece.lsn), payloadLSN: LSN(piece.lsn) + UInt64(TL_HEADER_BYTES),
                    volumeOffset: offset + piece.at, length: piece.range)
            }
            return nil
        }
    }
}
