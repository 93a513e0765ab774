// Records on their way to the medium: coalesced so that the newest wins (S9), then written in order of offset, neighbours
// in one call, and flushed. Destage and replay both end here, so both give the same medium.

public import LogModel
public import StorageMedium
public import WriteLog

/// What a batch wrote to one volume's medium.
public struct WrittenTrace: Sendable {
    /// In order of offset.
    public var ranges: [ByteRange] = []
    /// The beginning of the last run of data, to know the medium by.
    public var sample: (offset: UInt64, bytes: [UInt8])?
    public static let sampleBytes = 4096
    public init() {}
}

public struct MediumBatch {
    /// Where a run of bytes comes from: a payload in the log's memory, or zeros.
    private struct Source: ByteSource {
        var record: LSN
        var payload: UnsafeRawPointer?
        var keepSpace = false
        func advanced(by bytes: UInt64) -> Source {
            Source(record: record, payload: payload.map { $0 + Int(bytes) }, keepSpace: keepSpace)
        }
    }

    /// Neighbours that one call of the medium takes: payloads, or zeros that are all to keep the space or all to release it.
    private struct Run {
        var range: ByteRange
        /// None for zeros.
        var payloads: [UnsafeRawBufferPointer] = []
        let keepSpace: Bool

        init(_ segment: ByteRangeMap<Source>.Segment) {
            range = ByteRange(offset: segment.range.offset, length: 0)
            keepSpace = segment.value.keepSpace
            append(segment)
        }

        func goesOn(with segment: ByteRangeMap<Source>.Segment) -> Bool {
            segment.range.offset == range.end && (segment.value.payload == nil) == payloads.isEmpty
                && segment.value.keepSpace == keepSpace
        }

        mutating func append(_ segment: ByteRangeMap<Source>.Segment) {
            range.length += segment.range.length
            guard let payload = segment.value.payload else { return }
            payloads.append(UnsafeRawBufferPointer(start: payload, count: Int(segment.range.length)))
        }

        func write(to medium: any Medium) throws(MediumError) {
            if payloads.isEmpty {
                try medium.zero(range, releasingSpace: !keepSpace)
            } else {
                try medium.write(payloads, at: range.offset)
            }
        }
    }

    /// After so many the medium begins to write them back, beside those that follow. So none of its calls has a whole batch to wait for.
    private static let writebackRuns = 256

    private let media: [VolumeID: any Medium]
    private var maps: [VolumeID: ByteRangeMap<Source>] = [:]

    public init(media: [VolumeID: any Medium]) { self.media = media }

    /// Where a record goes; `nil` for a watermark. Throws `unknownVolume` or `outOfRange`.
    func medium(for record: LogRecord) throws(ReplayError) -> (any Medium)? {
        guard record.kind != .watermark else { return nil }
        guard let medium = media[record.volume] else {
            throw ReplayError(
                .unknownVolume, "the record at LSN \(record.lsn) is of volume \(record.volume), which is not configured"
            )
        }
        guard record.range.end <= medium.sizeBytes else {
            throw ReplayError(
                .outOfRange,
                "the record at LSN \(record.lsn) is of bytes \(record.range), the medium has \(medium.sizeBytes)")
        }
        return medium
    }

    /// Takes a record; its payload must stay where it is until ``write()`` has returned. Records come in order of LSN.
    /// Throws `unknownVolume` or `outOfRange`.
    public mutating func add(_ record: LogRecord) throws(ReplayError) {
        guard try medium(for: record) != nil else { return }
        let source =
            switch record.kind {
            case .data: Source(record: record.lsn, payload: record.payload.baseAddress)
            case .writeZeroes(let keepSpace): Source(record: record.lsn, keepSpace: keepSpace)
            default: Source(record: record.lsn)
            }
        maps[record.volume, default: ByteRangeMap()].insert(record.range, source)
    }

    /// Writes everything that was taken, volume by volume in the order of their ids. Not durable until ``flush()``.
    public mutating func write() throws(MediumError) {
        for (volume, map) in maps.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            guard let medium = media[volume] else { continue }
            let runs = Self.runs(of: map)
            for (index, run) in runs.enumerated() {
                try run.write(to: medium)
                guard (index + 1) % Self.writebackRuns == 0 else { continue }
                let first = runs[index + 1 - Self.writebackRuns].range.offset
                medium.startWriteback(ByteRange(offset: first, length: run.range.end - first))
            }
            note(runs, of: volume)
        }
        touched.formUnion(maps.keys)
        maps = [:]
    }

    private static func runs(of map: ByteRangeMap<Source>) -> [Run] {
        var runs: [Run] = []
        for segment in map.sorted() {
            if runs.last?.goesOn(with: segment) == true {
                runs[runs.count - 1].append(segment)
            } else {
                runs.append(Run(segment))
            }
        }
        return runs
    }

    private mutating func note(_ runs: [Run], of volume: VolumeID) {
        var trace = traces[volume] ?? WrittenTrace()
        trace.ranges += runs.map(\.range)
        if let last = runs.last(where: { !$0.payloads.isEmpty }) {
            trace.sample = (last.range.offset, Array(last.payloads[0].prefix(WrittenTrace.sampleBytes)))
        }
        traces[volume] = trace
    }

    /// What was written, by volume.
    public private(set) var traces: [VolumeID: WrittenTrace] = [:]
    private var touched: Set<VolumeID> = []

    /// Makes everything that was written durable.
    public mutating func flush() throws(MediumError) {
        for volume in touched.sorted(by: { $0.rawValue < $1.rawValue }) { try media[volume]?.flush() }
        touched = []
    }
}

/// Why a log was not replayed.
public struct ReplayError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// Records that were promised are damaged or missing (S5).
        case corrupt
        case unknownVolume, outOfRange
        /// The medium failed; replay can be tried again (S10).
        case medium
        /// Another node has taken the medium (S18).
        case mediumTaken
    }
    public var code: Code
    public var message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
