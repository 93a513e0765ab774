// scan: reads every record of a pool's logs, or of an archive, verifies it, and judges how each log ends (S5).

import ArgumentParser
import HostProcess
import LogModel
import PersistentMemory
import WriteLog

struct Scan: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read and verify every record, and judge how each log ends.")
    @OptionGroup var options: PoolOptions
    @OptionGroup var selection: GroupOption

    func run() throws {
        let file = try LogFile.open(options.pool)
        var report = Report(file)
        for region in try file.regions(of: selection.group) {
            var bar = ProgressBar("scanning \(region.group)")
            report.groups.append(ScannedLog(region) { bar.show($0, of: region.ringBytes) })
            bar.clear()
        }
        if options.json { try printJSON(report) } else { try StandardOutput.line(report.text) }
        throw report.groups.exit
    }

    struct Report: Encodable {
        var path: String
        var cluster: String
        var node: String
        var groups: [ScannedLog] = []
        /// Seconds since 1970, of an archive.
        var archivedAt: Nullable<UInt64>
        private let title: String

        private enum CodingKeys: CodingKey { case path, cluster, node, groups, archivedAt }

        init(_ file: LogFile) {
            path = file.path
            cluster = file.identity.cluster
            node = file.identity.node.rawValue
            archivedAt = Nullable(file.archive?.archivedAt)
            title = file.title
        }

        var text: String {
            ([title]
                + (groups.isEmpty ? ["  no logs"] : groups.map(\.text)))
                .joined(separator: "\n")
        }
    }
}

/// What one log holds.
struct ScannedLog: Encodable {
    var name: String
    var role: String
    var epoch: UInt64
    /// Pads are left out.
    var records: UInt64 = 0
    var dataRecords: UInt64 = 0
    var discardRecords: UInt64 = 0
    var writeZeroesRecords: UInt64 = 0
    var watermarkRecords: UInt64 = 0
    var writes: UInt64 = 0
    var payloadBytes: UInt64 = 0
    var headLSN: UInt64
    var endLSN: UInt64
    var acknowledgedLSN: UInt64
    var verdict = LogScan.Verdict.clean.rawValue
    var firstBadLSN = Nullable<UInt64>(nil)
    var replayed: Bool
    var ringOffset: UInt64
    var ringBytes: UInt64

    /// What ended the scan, if memory did; told in the text only, the verdict counts.
    private var memoryFault: String?

    private enum CodingKeys: CodingKey {
        case name, role, epoch, records, dataRecords, discardRecords, writeZeroesRecords, watermarkRecords, writes
        case payloadBytes, headLSN, endLSN, acknowledgedLSN, verdict, firstBadLSN, replayed, ringOffset, ringBytes
    }

    /// Reads all of the log; `progress` is told how many bytes are done.
    init(_ region: Region, progress: (UInt64) -> Void) {
        let identity = region.identity
        name = region.group.rawValue
        role = (identity?.role ?? .empty).name
        epoch = identity?.incarnation.rawValue ?? 0
        replayed = identity?.isReplayed ?? false
        headLSN = region.head.rawValue
        endLSN = headLSN
        acknowledgedLSN = region.acknowledged.rawValue
        ringOffset = region.ringOffset
        ringBytes = region.ringBytes
        // Never formatted, or formatted as empty: nothing to read.
        guard var scan = LogScan(region: region) else {
            if identity == nil, !region.isBlank { verdict = LogScan.Verdict.corrupt.rawValue }
            return
        }
        while let write = scan.next() {
            for record in write.records { count(record) }
            progress(write.end - scan.headLSN)
        }
        writes = scan.writeCount
        endLSN = scan.endLSN.rawValue
        acknowledgedLSN = scan.acknowledgedLSN.rawValue
        verdict = scan.finish().rawValue
        firstBadLSN = Nullable(scan.firstBadLSN?.rawValue)
        memoryFault = scan.memoryFault?.description
    }

    private mutating func count(_ record: LogRecord) {
        records += 1
        payloadBytes += UInt64(record.payload.count)
        switch record.kind {
        case .data: dataRecords += 1
        case .discard: discardRecords += 1
        case .writeZeroes: writeZeroesRecords += 1
        case .watermark: watermarkRecords += 1
        }
    }

    var text: String {
        guard role != RegionRole.empty.name else {
            return verdict == LogScan.Verdict.clean.rawValue
                ? "  \(name): never used"
                : "  \(name): CORRUPT: the log's identity is gone, though something was written here; if the group was mirrored, "
                    + "use the other node's pool"
        }
        let judgement =
            switch LogScan.Verdict(rawValue: verdict) {
            case .clean: "clean"
            case .torn:
                "torn at LSN \(place): nothing here says that what begins there was acknowledged; if the group was mirrored, "
                    + "compare it with the other node's pool before it is discarded"
            default:
                if let memoryFault {
                    "CORRUPT at LSN \(place): \(memoryFault); if the group was mirrored, use the other node's pool"
                } else {
                    "CORRUPT at LSN \(place), below the acknowledged LSN \(acknowledgedLSN): heal it from the pool of the "
                        + "group's other node (`twinlog-recover heal`), or use that one"
                }
            }
        return """
              \(name): \(role)'s log, epoch \(epoch)\(replayed ? ", replayed by this tool" : "")
                \(records) records (\(dataRecords) data, \(discardRecords) discard, \(writeZeroesRecords) write-zeroes, \
            \(watermarkRecords) watermark) in \(writes) writes, \(payloadBytes) bytes of payload
                LSN \(headLSN) to \(endLSN), acknowledged at least \(acknowledgedLSN)
                \(judgement)
            """
    }

    private var place: String {
        guard let bad = firstBadLSN.value else { return "\(endLSN)" }
        return "\(bad) (file offset \(ringOffset + bad % ringBytes))"
    }
}

extension [ScannedLog] {
    /// The worst verdict says how the tool ends.
    var exit: ExitCode {
        if contains(where: { $0.verdict == LogScan.Verdict.corrupt.rawValue }) {
            return ExitCode(ToolExit.corrupt.rawValue)
        }
        if contains(where: { $0.verdict == LogScan.Verdict.torn.rawValue }) { return ExitCode(ToolExit.torn.rawValue) }
        return ExitCode(ToolExit.clean.rawValue)
    }
}
