// From a damaged log that no other copy can heal to the medium: what is sound around the damage, in order and whole writes only
// (S7), with a list of everything that is not. An operator decides for it, knowing the list; a replay refuses such a log (S5).
//
// Invariants:
//  - a write is applied if all of its records validate at their own LSNs, and else not at all;
//  - what was left out is told: its LSNs, its volume and bytes where a header still tells them, and where the medium may
//    now hold something older than what was acknowledged.

public import LogModel
public import PersistentMemory
public import StorageMedium
public import WriteLog

/// What a salvage did not bring to the medium.
public struct LeftOut: Hashable, Sendable {
    public struct Place: Hashable, Sendable {
        public var volume: VolumeID
        public var range: ByteRange
        public init(volume: VolumeID, range: ByteRange) {
            self.volume = volume
            self.range = range
        }
    }

    /// Entries of a list beyond it are only counted: it bounds what a hostile pool can make of memory.
    public static let maximumEntries = 1 << 18

    /// In order of LSN. Watermarks, which carry nothing, are not among them.
    public private(set) var records: [LostRecord] = []
    /// Where no header can be believed, so any bytes of any volume may have been written.
    public private(set) var unreadable: [Range<LSN>] = []
    /// A lost record wrote here, and no whole write after it covers the place.
    public internal(set) var uncertain: [Place] = []
    /// Of all lists together.
    public private(set) var entriesNotListed: UInt64 = 0

    public init() {}

    public var isEmpty: Bool { records.isEmpty && unreadable.isEmpty && entriesNotListed == 0 }

    mutating func note(_ record: LostRecord) {
        guard records.count < Self.maximumEntries else { return entriesNotListed += 1 }
        records.append(record)
    }

    mutating func note(_ range: Range<LSN>) {
        guard unreadable.count < Self.maximumEntries else { return entriesNotListed += 1 }
        unreadable.append(range)
    }

    mutating func note(_ place: Place) {
        guard uncertain.count < Self.maximumEntries else { return entriesNotListed += 1 }
        uncertain.append(place)
    }
}

public struct SalvageOutcome: Hashable, Sendable {
    /// What was written, or would be; `endLSN` is the end of the last whole write, `verdict` that of the log.
    public var replayed: ReplayOutcome
    public var leftOut: LeftOut

    public init(replayed: ReplayOutcome, leftOut: LeftOut = LeftOut()) {
        self.replayed = replayed
        self.leftOut = leftOut
    }
}

public enum Salvage {
    /// Writes what is sound in `region`'s log to `media` and flushes them; only looks with `dryRun`. `nil` if the region holds
    /// no log. A sound record that no medium is for throws before anything is written. Blocks.
    public static func run(
        _ region: Region, onto media: [VolumeID: any Medium], dryRun: Bool = false,
        progress: (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }
    ) throws(ReplayError) -> SalvageOutcome? {
        let faultBefore = region.memoryFault
        guard let outcome = try judge(region, MediumBatch(media: media)) else { return nil }
        guard !dryRun, let scan = SalvageScan(region: region, acknowledged: outcome.replayed.acknowledgedLSN) else {
            return outcome
        }
        var batch = MediumBatch(media: media)
        var found = Found(from: scan.fromLSN)
        for piece in scan {
            found.note(piece)
            guard case .write(let write) = piece else { continue }
            for record in write.records { try batch.add(record) }
            progress(write.end - scan.fromLSN, region.ringBytes)
        }
        guard found.outcome(outcome.replayed.verdict, outcome.replayed.acknowledgedLSN) == outcome,
            region.memoryFault == faultBefore
        else {
            throw ReplayError(
                .corrupt, "the log of \(region.group) changed under the salvage; nothing was written, run it again")
        }
        try Replay.onMedium { () throws(MediumError) in
            try batch.write()
            try batch.flush()
        }
        guard region.memoryFault == faultBefore else {
            throw ReplayError(
                .corrupt,
                "memory failed while the log of \(region.group) was written: zeros may be on the medium in the place of what was "
                    + "there; run the salvage again")
        }
        return outcome
    }

    /// Reads all of the log without writing.
    private static func judge(_ region: Region, _ batch: MediumBatch) throws(ReplayError) -> SalvageOutcome? {
        guard var judged = LogScan(region: region) else { return nil }
        let verdict = judged.finish()
        guard let scan = SalvageScan(region: region, acknowledged: judged.acknowledgedLSN) else { return nil }
        var found = Found(from: scan.fromLSN)
        for piece in scan {
            found.note(piece)
            guard case .write(let write) = piece else { continue }
            for record in write.records { _ = try batch.medium(for: record) }
        }
        return found.outcome(verdict, judged.acknowledgedLSN)
    }

    /// What a pass over the log has met so far.
    private struct Found {
        /// Who wrote to a place last.
        private struct Writer: ByteSource {
            var record: LSN
            var isLost: Bool
            func advanced(by bytes: UInt64) -> Writer { self }
        }

        private let from: LSN
        private var end: LSN
        private var writes: UInt64 = 0
        private var records: UInt64 = 0
        private var payloadBytes: UInt64 = 0
        private var leftOut = LeftOut()
        private var writers: [VolumeID: ByteRangeMap<Writer>] = [:]

        init(from: LSN) {
            self.from = from
            end = from
        }

        mutating func note(_ piece: SalvageScan.Piece) {
            switch piece {
            case .write(let write):
                writes += 1
                end = write.end
                for record in write.records {
                    records += 1
                    payloadBytes += UInt64(record.payload.count)
                    writers[record.volume]?.insert(record.range, Writer(record: record.lsn, isLost: false))
                }
            case .lost(let record) where record.kind == .watermark: break
            case .lost(let record):
                leftOut.note(record)
                writers[record.volume, default: ByteRangeMap()]
                    .insert(record.range, Writer(record: record.lsn, isLost: true))
            case .unreadable(let range): leftOut.note(range)
            }
        }

        func outcome(_ verdict: LogScan.Verdict, _ acknowledged: LSN) -> SalvageOutcome {
            var leftOut = leftOut
            for (volume, map) in writers.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
                for range in Self.joined(map.sorted().filter(\.value.isLost).map(\.range)) {
                    leftOut.note(LeftOut.Place(volume: volume, range: range))
                }
            }
            let replayed = ReplayOutcome(
                headLSN: from, endLSN: end, acknowledgedLSN: acknowledged, writes: writes, records: records,
                payloadBytes: payloadBytes, verdict: verdict)
            return SalvageOutcome(replayed: replayed, leftOut: leftOut)
        }

        private static func joined(_ ranges: [ByteRange]) -> [ByteRange] {
            ranges.reduce(into: []) { joined, range in
                if let last = joined.last, last.end == range.offset {
                    joined[joined.count - 1].length += range.length
                } else {
                    joined.append(range)
                }
            }
        }
    }
}
