// Reads see the log before the medium does: which bytes of a volume are in the log, acknowledged and not yet destaged
// (S23). Also keeps what is being read from being trimmed (S6): a range is forgotten only when no read that began before
// its destage is still on its way, so no read can miss it in both places.

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
    private var undestaged = CircularBuffer<OverlaidRange>()
    private var readsInFlight: [UInt64] = []
    private var nextRead: UInt64 = 1
    /// Destaged, but perhaps still needed by reads that began before read number `before`.
    private var leaving = CircularBuffer<(ranges: [OverlaidRange], head: LSN, before: UInt64)>()
    /// Nothing below is referred to by the overlay or by a read.
    private(set) var unreferencedBelow: LSN

    init(start: LSN) { unreferencedBelow = start }

    mutating func insert(_ entry: OverlaidRange, _ source: LogSource) {
        maps[entry.volume, default: ByteRangeMap()].insert(entry.range, source)
        undestaged.append(entry)
    }

    func covers(_ volume: VolumeID, _ range: ByteRange) -> Bool { maps[volume]?.covers(range) ?? false }

    func forEach(_ volume: VolumeID, _ range: ByteRange, _ body: (ByteRange, LogSource) -> Void) {
        maps[volume]?.forEach(in: range, body)
    }

    /// Acknowledged writes that are not on the medium yet.
    var undestagedWrites: Int {
        var count = 0
        var last = LSN.zero
        for entry in undestaged where entry.writeEnd != last {
            count += 1
            last = entry.writeEnd
        }
        return count
    }

    // MARK: Reads

    mutating func beginRead() -> UInt64 {
        defer { nextRead += 1 }
        readsInFlight.append(nextRead)
        return nextRead
    }

    mutating func endRead(_ id: UInt64) {
        readsInFlight.removeAll { $0 == id }
        forgetWhatNobodyReads()
    }

    // MARK: Destage

    /// The write ends up to about `limitBytes` past `from` and not past `acknowledged`: the last of them, or `nil`.
    func batchEnd(from: LSN, acknowledged: LSN, limitBytes: UInt64) -> LSN? {
        var end: LSN?
        for entry in undestaged {
            guard entry.writeEnd <= acknowledged else { break }
            if let end, end != entry.writeEnd, entry.writeEnd.rawValue > from.rawValue + limitBytes { return end }
            end = entry.writeEnd
        }
        return end
    }

    /// Everything below `head` is on the medium.
    mutating func destaged(to head: LSN) {
        var ranges: [OverlaidRange] = []
        while let first = undestaged.first, first.writeEnd <= head {
            ranges.append(first)
            undestaged.removeFirst()
        }
        leaving.append((ranges, head, nextRead))
        forgetWhatNobodyReads()
    }

    private mutating func forgetWhatNobodyReads() {
        let oldest = readsInFlight.first ?? .max
        while let first = leaving.first, oldest >= first.before {
            leaving.removeFirst()
            for entry in first.ranges {
                maps[entry.volume]?.remove(in: entry.range) { $0.record < first.head }
            }
            unreferencedBelow = first.head
        }
    }
}
