// Records on their way to the medium: coalesced so that the newest wins (S9), then written in order of offset, neighbours
// in one call, and flushed. Destage and replay both end here, so both give the same medium.

public import LogModel
public import StorageMedium
public import WriteLog

public struct MediumBatch {
    /// Where a run of bytes comes from: a payload in the log's memory, or zeros.
    private struct Source: ByteSource {
        var payload: UnsafeRawPointer?
        var keepSpace = false
        func advanced(by bytes: UInt64) -> Source {
            Source(payload: payload.map { $0 + Int(bytes) }, keepSpace: keepSpace)
        }
    }

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
            case .data: Source(payload: record.payload.baseAddress)
            case .writeZeroes(let keepSpace): Source(payload: nil, keepSpace: keepSpace)
            default: Source(payload: nil)
            }
        maps[record.volume, default: ByteRangeMap()].insert(record.range, source)
    }

    /// Writes everything that was taken. Not durable until ``flush()``.
    public mutating func write() throws(MediumError) {
        for (volume, map) in maps {
            guard let medium = media[volume] else { continue }
            var run: [UnsafeRawBufferPointer] = []
            var runStart: UInt64 = 0
            var runEnd: UInt64 = 0
            for segment in map.sorted() {
                guard let payload = segment.value.payload else {
                    try medium.zero(segment.range, releasingSpace: !segment.value.keepSpace)
                    continue
                }
                if segment.range.offset != runEnd || run.isEmpty {
                    if !run.isEmpty { try medium.write(run, at: runStart) }
                    run = []
                    runStart = segment.range.offset
                }
                run.append(UnsafeRawBufferPointer(start: payload, count: Int(segment.range.length)))
                runEnd = segment.range.end
            }
            if !run.isEmpty { try medium.write(run, at: runStart) }
        }
        touched.formUnion(maps.keys)
        maps = [:]
    }

    private var touched: Set<VolumeID> = []

    /// Makes everything that was written durable.
    public mutating func flush() throws(MediumError) {
        for volume in touched { try media[volume]?.flush() }
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
    }
    public var code: Code
    public var message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
