// Reads see the log before the medium does: which bytes of a volume are in the log, acknowledged and not yet destaged
// (S23). DestageMachine says when they may be forgotten: once no read can miss them in both places (S6).

internal import LogModel
internal import NIOCore

/// Where overlaid bytes are: in the ring, or nowhere because they are zeros.
struct LogSource: ByteSource {
    /// The record that they came with.
    var record: LSN
    /// The place of the first byte in the log; `nil` reads as zeros.
    var payload: LSN?

    func advanced(by bytes: UInt64) -> LogSource {
        LogSource(record: record, payload: payload.map { $0 + bytes })
    }
}

/// One acknowledged write's range, to be forgotten once it is destaged.
struct OverlaidRange {
    var volume: VolumeID
    var range: ByteRange
    /// The end of the write that it belongs to: a boundary at which the head may stand (S7).
    var writeEnd: LSN
}

struct Overlay {
    private var maps: [VolumeID: ByteRangeMap<LogSource>] = [:]
    /// In LSN order; one entry a record.
    private var ranges = CircularBuffer<OverlaidRange>()

    mutating func insert(_ entry: OverlaidRange, _ source: LogSource) {
        maps[entry.volume, default: ByteRangeMap()].insert(entry.range, source)
        ranges.append(entry)
    }

    func covers(_ volume: VolumeID, _ range: ByteRange) -> Bool { maps[volume]?.covers(range) ?? false }

    func forEach(_ volume: VolumeID, _ range: ByteRange, _ body: (ByteRange, LogSource) -> Void) {
        maps[volume]?.forEach(in: range, body)
    }

    /// Forgets the writes that end at or below `end`.
    mutating func forget(below end: LSN) {
        while let first = ranges.first, first.writeEnd <= end {
            ranges.removeFirst()
            maps[first.volume]?.remove(in: first.range) { $0.record < end }
        }
    }
}
