// Reads see the log before the medium does: which bytes of a volume are in the log, acknowledged and not yet destaged
// (S23). DestageMachine says when they may be forgotten: once no read can miss them in both places (S6).

internal import LogModel

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

/// The range of one acknowledged record.
struct OverlaidRange {
    var volume: VolumeID
    var range: ByteRange
    var source: LogSource
}

struct Overlay {
    private var maps: [VolumeID: ByteRangeMap<LogSource>] = [:]
    /// Nothing of an older record is left.
    private var forgottenBelow = LSN.zero
    /// Records that passed their checks when a read first touched them, by MiB of the log, so that they are forgotten with it.
    private var checked: [UInt64: Set<LSN>] = [:]

    mutating func insert(_ entry: OverlaidRange) {
        maps[entry.volume, default: ByteRangeMap()].insert(entry.range, entry.source)
    }

    func covers(_ volume: VolumeID, _ range: ByteRange) -> Bool { maps[volume]?.covers(range) ?? false }

    func forEach(_ volume: VolumeID, _ range: ByteRange, _ body: (ByteRange, LogSource) -> Void) {
        maps[volume]?.forEach(in: range, body)
    }

    private struct Stopped: Error {}

    /// In order of offset, until `body` says false; whether it never did.
    func walk(_ volume: VolumeID, _ range: ByteRange, while body: (ByteRange, LogSource) -> Bool) -> Bool {
        do {
            try maps[volume]?.forEach(in: range) { part, source in
                guard body(part, source) else { throw Stopped() }
            }
            return true
        } catch {
            return false
        }
    }

    /// The records with bytes of `range` that no read has checked yet.
    func unchecked(_ volume: VolumeID, _ range: ByteRange) -> [LSN] {
        var records: [LSN] = []
        forEach(volume, range) { _, source in
            guard source.payload != nil, checked[source.record.rawValue >> 20]?.contains(source.record) != true,
                records.last != source.record
            else { return }
            records.append(source.record)
        }
        return records
    }

    mutating func didCheck(_ record: LSN) { checked[record.rawValue >> 20, default: []].insert(record) }

    /// Forgets the writes that end at or below `end`, a boundary of writes (S7).
    mutating func forget(below end: LSN) {
        guard end > forgottenBelow else { return }
        forgottenBelow = end
        for volume in Array(maps.keys) { maps[volume]?.remove(below: end) }
        if !checked.isEmpty { checked = checked.filter { $0.key >= end.rawValue >> 20 } }
    }
}
