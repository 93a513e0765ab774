// heal: brings back what a pool's logs have lost and the other pool's hold. Writes the first pool only.
//
// In this order: look at both pools without writing and refuse what does not fit; open the damaged one for writing, which
// also heals its own torn superblock, directory and identity copies; heal log by log.

import ArgumentParser
import HostProcess
import LogModel
import PersistentMemory
import Recovery
import WriteLog

struct HealCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "heal", abstract: "Heal a pool's damaged records from the other copy.",
        discussion: """
            Only records below the highest acknowledged LSN that either copy knows, only if both logs are of the same UUID and \
            epoch, and never from a record that does not validate itself. What neither copy holds is reported and left as it is. \
            It can be cut and run again. Exit codes: 0 clean now, 1 a torn tail only, 3 damaged records remain, 6 refused.
            """)
    @OptionGroup var options: PoolOptions
    @Option(help: ArgumentHelp("The pool of the group's other node; never written.", valueName: "pool")) var from:
        String
    @OptionGroup var selection: GroupOption
    @Flag(help: "Say what would be healed, write nothing.") var dryRun = false
    @OptionGroup var consent: ConsentOption

    func run() throws {
        try checkDistinct(options.pool, from)
        let source = try LogFile.open(from)
        let pool = LogFile(try openPool(options.pool))
        let groups = try healable(pool, source)
        warnOfOnePool(pool, source, groups)
        var report = Report(path: pool.path, from: source.path, dryRun: dryRun, groups: [])
        // Every refusal comes before the pool is opened for writing.
        for group in groups { report.groups.append(try heal(group, pool, source, dryRun: true)) }
        if !dryRun {
            // What is written is what both pools call the group's log.
            try consent.confirm(.onTerminal, report.intents, isQuiet: true)
            pool.close()
            let writable = LogFile(try openPool(options.pool, writing: true))
            guard writable.identity == pool.identity else {
                throw Failure(.inUse, "\(options.pool): another pool took its place meanwhile; begin anew")
            }
            report.groups = []
            for group in groups { report.groups.append(try heal(group, writable, source, dryRun: false)) }
            writable.close()
        }
        if options.json { try printJSON(report) } else { try StandardOutput.line(report.text) }
        let verdicts = report.groups.compactMap { LogScan.Verdict(rawValue: $0.verdict) }
        throw ExitCode(LogScan.Verdict.worst(verdicts).exit.rawValue)
    }

    /// The logs that both pools have; without --group those that were never used are passed over.
    private func healable(_ pool: LogFile, _ source: LogFile) throws(Failure) -> [GroupID] {
        let groups = try commonGroups(pool, source, group: selection.group).filter { group in
            selection.group != nil
                || [pool, source].allSatisfy { ($0.region(of: group)?.identity?.role ?? .empty) != .empty }
        }
        guard groups.isEmpty else { return groups }
        throw Failure(.refused, "\(options.pool) and \(from) have no used log in common; nothing is written")
    }

    private func heal(_ group: GroupID, _ pool: LogFile, _ source: LogFile, dryRun: Bool) throws(Failure) -> HealedLog {
        let target = try pool.region(of: group.rawValue), other = try source.region(of: group.rawValue)
        var bar = ProgressBar("\(dryRun ? "comparing" : "healing") \(group)")
        defer { bar.clear() }
        do throws(HealError) {
            return HealedLog(group, try Heal.run(target, from: other, dryRun: dryRun) { bar.show($0, of: $1) })
        } catch {
            let code: ToolExit =
                switch error.code {
                case .notTwoCopies: .refused
                case .contradiction, .notHealed: .corrupt
                case .pool: .unreadable
                }
            throw Failure(code, "\(options.pool): \(error)")
        }
    }

    struct Report: Encodable {
        var path: String
        var from: String
        var dryRun: Bool
        var groups: [HealedLog]

        var text: String { groups.map { $0.text(dryRun: dryRun) }.joined(separator: "\n") }

        /// What will be done.
        var intents: [String] { groups.map { $0.text(dryRun: true) } + ["\(path) is written, from \(from)"] }
    }
}

/// What became of one log.
struct HealedLog: Encodable {
    struct Range: Encodable {
        var fromLSN: UInt64
        var toLSN: UInt64

        init(_ range: Swift.Range<LSN>) {
            fromLSN = range.lowerBound.rawValue
            toLSN = range.upperBound.rawValue
        }
    }

    var name: String
    var healedRecords: UInt64
    var healedBytes: UInt64
    var healed: [Range]
    var restoredHeadLSN: Nullable<UInt64>
    /// Valid in neither copy.
    var lost: [Range]
    var damagedInSource: [Range]
    var acknowledgedLSN: UInt64
    /// Of the healed log: clean, torn or corrupt.
    var verdict: String

    init(_ group: GroupID, _ outcome: HealOutcome) {
        name = group.rawValue
        healedRecords = outcome.healedRecords
        healedBytes = outcome.healedBytes
        healed = outcome.healed.map(Range.init)
        restoredHeadLSN = Nullable(outcome.restoredHead?.rawValue)
        lost = outcome.lost.map(Range.init)
        damagedInSource = outcome.damagedInSource.map(Range.init)
        acknowledgedLSN = outcome.acknowledgedLSN.rawValue
        verdict = outcome.verdict.rawValue
    }

    func text(dryRun: Bool) -> String {
        let would = dryRun ? "would heal" : "healed"
        var lines = [
            "\(name): \(would) \(healedRecords) records, \(healedBytes) bytes; acknowledged at least \(acknowledgedLSN)"
        ]
        lines += healed.map { "  \(would) LSN \($0.fromLSN) to \($0.toLSN)" }
        if let head = restoredHeadLSN.value {
            lines.append("  \(dryRun ? "would restore" : "restored") the head, LSN \(head)")
        }
        lines += lost.map {
            "  LOST: LSN \($0.fromLSN) to \($0.toLSN) is valid in neither copy; it was acknowledged, and is left as it is"
        }
        lines += damagedInSource.map {
            "  the other pool is damaged at LSN \($0.fromLSN) to \($0.toLSN), which is valid here: heal it from this one"
        }
        let judgement =
            switch LogScan.Verdict(rawValue: verdict) {
            case .clean: "  the log is \(dryRun ? "then " : "")clean"
            case .torn: "  the log's tail is torn: what is left there was never acknowledged"
            default: "  the log REMAINS CORRUPT"
            }
        return (lines + [judgement]).joined(separator: "\n")
    }
}
