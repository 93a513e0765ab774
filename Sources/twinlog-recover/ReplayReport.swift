// What a replay or a salvage tells.

import Coordination
import HostProcess
import LogModel
import PersistentMemory
import Recovery
import WriteLog

struct ReplayReport {
    private var contents: Contents
    private let outcome: SalvageOutcome
    /// Warnings that the operator has seen.
    private var told = 0

    private struct Contents: Encodable {
        struct Volume: Encodable {
            var name: String
            var path: String
            var sizeBytes: UInt64
        }
        struct Coordinator: Encodable {
            var version: UInt64
            var epoch: UInt64
        }
        var path: String
        var group: String
        var dryRun: Bool
        /// Null if no coordinator was asked, or if the log may be older than the medium.
        var inSync: Nullable<Bool>
        var markedReplayed = false
        /// The record that says so; null if no coordinator was told.
        var coordinator = Nullable<Coordinator>(nil)
        /// Pools that were marked beside this one.
        var otherPools: [String] = []
        var writes: UInt64
        var payloadBytes: UInt64
        var headLSN: UInt64
        var endLSN: UInt64
        var acknowledgedLSN: UInt64
        var verdict: String
        var volumes: [Volume]
        /// Null unless it was a salvage.
        var leftOut: Nullable<LeftOutReport>
        var warnings: [String]
    }

    init(
        _ file: LogFile, _ group: String, _ outcome: SalvageOutcome, _ volumes: [VolumeArgument], _ standing: InSync?,
        dryRun: Bool, isSalvage: Bool
    ) {
        self.outcome = outcome
        let names = Dictionary(volumes.map { ($0.id, $0.name) }) { first, _ in first }
        let replayed = outcome.replayed
        let inSync = standing.map { _ in true }
        contents = Contents(
            path: file.path, group: group, dryRun: dryRun,
            inSync: Nullable(standing?.mayBeOlder == nil ? inSync : nil), writes: replayed.writes,
            payloadBytes: replayed.payloadBytes, headLSN: replayed.headLSN.rawValue, endLSN: replayed.endLSN.rawValue,
            acknowledgedLSN: replayed.acknowledgedLSN.rawValue, verdict: replayed.verdict.rawValue,
            volumes: volumes.map { Contents.Volume(name: $0.name, path: $0.path, sizeBytes: $0.sizeBytes) },
            leftOut: Nullable(isSalvage ? LeftOutReport(outcome.leftOut, names) : nil),
            warnings: standing?.warnings ?? [InSync.unknown])
        let setAside = file.archive == nil ? nil : "this log was set aside: what is on the medium may be newer (S9)"
        if let older = standing?.mayBeOlder ?? setAside {
            contents.warnings.append("warning: \(older); what is written now takes its place")
        }
        if standing?.isTold == true {
            contents.warnings.append(
                "an earlier run has written this log and told the coordinator: only the marks are made now")
        }
    }

    mutating func note(_ mark: ReplayMark, _ record: GroupRecord?) {
        contents.markedReplayed = true
        contents.otherPools = mark.others.map(\.pool.path)
        contents.coordinator = Nullable(
            record.map { Contents.Coordinator(version: $0.version, epoch: $0.epoch.rawValue) })
        contents.warnings += mark.warnings
    }

    var exit: ToolExit {
        if !outcome.leftOut.isEmpty { return .corrupt }
        return outcome.replayed.verdict == .torn ? .torn : .clean
    }

    // MARK: Text

    /// What will be written, and what a salvage costs, in numbers.
    var loss: [String] {
        let targets = contents.volumes.map { "\($0.name)=\($0.path)" }.joined(separator: ", ")
        return ["\(summary); written to \(targets)"] + (contents.leftOut.value?.summary ?? [])
    }

    /// Each warning once.
    mutating func warn() {
        for warning in contents.warnings[told...] { printError(warning) }
        told = contents.warnings.count
    }

    private var summary: String {
        "\(contents.group): \(contents.writes) writes, \(contents.payloadBytes) bytes of payload, LSN \(contents.headLSN) to "
            + "\(contents.endLSN), acknowledged at least \(contents.acknowledgedLSN)"
    }

    mutating func show(asJSON: Bool) throws {
        warn()
        if asJSON { return try printJSON(contents) }
        try StandardOutput.line("\(contents.dryRun ? "would write" : "wrote and flushed") \(summary)")
        if let leftOut = contents.leftOut.value {
            for line in leftOut.summary + leftOut.lines { try StandardOutput.line("  \(line)") }
        } else if outcome.replayed.verdict == .torn {
            try StandardOutput.line(
                "  the log's tail is torn: what begins at LSN \(contents.endLSN) is not known to be acknowledged and is left out"
            )
        }
        guard !contents.dryRun else { return }
        try StandardOutput.line("  \(consequence)")
    }

    private var consequence: String {
        guard contents.markedReplayed else {
            return
                "the pool is unchanged: a node that starts with it replays the same log again, so do not write to the medium before"
        }
        guard let record = contents.coordinator.value else { return "the pool is marked: a second replay is refused" }
        return
            "the coordinator knows it (epoch \(record.epoch)): no node replays a copy of this log; the pool is marked, a second replay is refused"
    }
}

/// What a salvage left out, as it is told.
struct LeftOutReport: Encodable {
    struct Record: Encodable {
        var fromLSN: UInt64
        var toLSN: UInt64
        var volume: String
        var offset: UInt64
        var length: UInt64
        /// damagedPayload, incompleteWrite.
        var reason: String
    }
    struct Range: Encodable {
        var fromLSN: UInt64
        var toLSN: UInt64
    }
    struct Place: Encodable {
        var volume: String
        var offset: UInt64
        var length: UInt64
    }
    /// Their headers are sound.
    var records: [Record]
    /// Nobody can tell what stood here.
    var unreadable: [Range]
    /// Places where the medium may be older than what was acknowledged; beside them, any place, if something is unreadable.
    var uncertain: [Place]
    var entriesNotListed: UInt64

    init(_ leftOut: LeftOut, _ names: [VolumeID: String]) {
        func name(_ volume: VolumeID) -> String { names[volume] ?? volume.description }
        records = leftOut.records.map {
            Record(
                fromLSN: $0.lsn.rawValue, toLSN: $0.end.rawValue, volume: name($0.volume), offset: $0.range.offset,
                length: $0.range.length, reason: $0.reason.rawValue)
        }
        unreadable = leftOut.unreadable.map {
            Range(fromLSN: $0.lowerBound.rawValue, toLSN: $0.upperBound.rawValue)
        }
        uncertain = leftOut.uncertain.map {
            Place(volume: name($0.volume), offset: $0.range.offset, length: $0.range.length)
        }
        entriesNotListed = leftOut.entriesNotListed
    }

    var summary: [String] {
        guard !records.isEmpty || !unreadable.isEmpty else { return ["nothing is left out"] }
        let (lost, bytes) = (records.count, unreadable.reduce(0) { $0 + $1.toLSN - $1.fromLSN })
        var lines = [
            "LEFT OUT: \(lost) records whose headers are sound, and \(bytes) bytes of the log in \(unreadable.count) places where nobody can tell what stood there"
        ]
        if let last = unreadable.last {
            lines.append(
                "below LSN \(last.toLSN) such a record may have written to any place of any volume: what is older there cannot be told"
            )
        }
        if entriesNotListed > 0 { lines.append("\(entriesNotListed) more of what was left out is not listed") }
        return lines
    }

    var lines: [String] {
        records.map {
            "LSN \($0.fromLSN) to \($0.toLSN): volume \($0.volume), \($0.length) bytes at \($0.offset): "
                + ($0.reason == LostRecord.Reason.damagedPayload.rawValue
                    ? "the payload is damaged" : "another record of its write is damaged or missing")
        }
            + unreadable.map { "LSN \($0.fromLSN) to \($0.toLSN): unreadable" }
            + uncertain.map {
                "UNCERTAIN: volume \($0.volume), \($0.length) bytes at \($0.offset): the medium may be older here"
            }
    }
}
