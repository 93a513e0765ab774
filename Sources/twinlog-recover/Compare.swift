// compare: the owner's and the mirror's log of each group, held against each other. Reads only.

import ArgumentParser
import HostProcess
import LogModel
import PersistentMemory
import Recovery
import WriteLog

struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Hold the owner's and the mirror's log of a group against each other.",
        discussion: """
            Says which LSN ranges both hold validly, which only one of them does, and which is newer. Exit codes: 0 both hold \
            the same, 1 they differ only in what was never acknowledged, 3 one of them lacks what was acknowledged.
            """)
    @Argument(help: "The first pool's file.") var first: String
    @Argument(help: "The second pool's file.") var second: String
    @Flag(help: "Print JSON.") var json = false
    @OptionGroup var selection: GroupOption

    func run() throws {
        try checkDistinct(first, second)
        let (one, other) = (try LogFile.open(first), try LogFile.open(second))
        var report = Report(first: Report.Side(one), second: Report.Side(other), groups: [])
        var verdicts: [LogScan.Verdict] = []
        let groups = try commonGroups(one, other, group: selection.group)
        warnOfOnePool(one, other, groups)
        for group in groups {
            let comparison = compare(
                try one.region(of: group.rawValue), try other.region(of: group.rawValue))
            report.groups.append(ComparedLogs(group, comparison))
            verdicts.append(comparison.verdict)
        }
        report.noteLonely(one, other)
        if json { try printJSON(report) } else { try StandardOutput.line(report.text) }
        throw ExitCode(LogScan.Verdict.worst(verdicts).exit.rawValue)
    }

    private func compare(_ one: Region, _ other: Region) -> LogComparison {
        var bar = ProgressBar("comparing \(one.group)")
        defer { bar.clear() }
        return LogComparison.run(one, other) { bar.show($0, of: $1) }
    }

    struct Report: Encodable {
        struct Side: Encodable {
            var path: String
            var cluster: String
            var node: String
            /// Groups of which the other pool has no log.
            var onlyHere: [String] = []

            init(_ file: LogFile) {
                path = file.path
                cluster = file.identity.cluster
                node = file.identity.node.rawValue
            }
        }
        var first: Side
        var second: Side
        var groups: [ComparedLogs]

        mutating func noteLonely(_ one: LogFile, _ other: LogFile) {
            first.onlyHere = one.regions.filter { other.region(of: $0.group) == nil }.map(\.group.rawValue)
            second.onlyHere = other.regions.filter { one.region(of: $0.group) == nil }.map(\.group.rawValue)
        }

        var text: String {
            var lines = [("first", first), ("second", second)].map {
                "\($0): \($1.path), node \($1.node), cluster \($1.cluster)"
            }
            lines += groups.isEmpty ? ["the pools have no group in common"] : groups.map(\.text)
            for side in [first, second] where !side.onlyHere.isEmpty {
                lines.append("only in \(side.path): \(side.onlyHere.joined(separator: ", "))")
            }
            return lines.joined(separator: "\n")
        }
    }
}

extension ComparedLogs {
    var text: String {
        (["\(name):", "  first: \(first.text)", "  second: \(second.text)"] + judgement.map { "  \($0)" })
            .joined(separator: "\n")
    }

    private var judgement: [String] {
        switch relation {
        case "sameIncarnation": sameIncarnation
        case "otherIncarnation":
            [
                "the \(newer.value ?? "?") is newer: the log was opened anew since the other was cut off, so their records are "
                    + "not the same; use the newer, the other may lack acknowledged writes"
            ]
        case "otherLogs": ["different logs (their UUIDs differ): not an owner's and its mirror"]
        case "otherSizes": ["the rings differ in size: not an owner's log and its mirror"]
        default: ["one of them was never used, or was emptied: nothing to compare"]
        }
    }

    private var sameIncarnation: [String] {
        var lines = ["compared from LSN \(fromLSN), acknowledged at least \(acknowledgedLSN)"]
        lines += ranges.map { range in
            let what =
                switch range.validIn {
                case "both": "both agree"
                case "onlyFirst": "only the first is valid"
                case "onlySecond": "only the second is valid"
                case "neither": "NEITHER is valid"
                default: "BOTH are valid and CONTRADICT each other"
                }
            return "LSN \(range.fromLSN) to \(range.toLSN): \(what)\(range.acknowledged ? "" : " (never acknowledged)")"
        }
        if rangesLeftOut > 0 { lines.append("and \(rangesLeftOut) more records in other ranges") }
        let judgement =
            switch LogScan.Verdict(rawValue: verdict) {
            case .clean: "both hold the same"
            case .torn: "they hold the same below the acknowledged LSN; the tails were never acknowledged"
            default: "DAMAGED below the acknowledged LSN: `twinlog-recover heal` brings back what the other copy holds"
            }
        return lines + [judgement]
    }
}
