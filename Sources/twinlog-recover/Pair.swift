// What compare and heal share: two pools, the logs that both hold, and how a comparison is told.

import ArgumentParser
import LogModel
import PersistentMemory
import StorageMedium
import Recovery
import StorageMedium
import WriteLog

/// A pool cannot be held against itself: the lock of the one would stand in the way of the other.
func checkDistinct(_ one: String, _ other: String) throws(Failure) {
    guard let first = FileIdentity(path: one), first == FileIdentity(path: other) else { return }
    throw Failure(.usage, "\(one) and \(other) are the same file; name the pools of the group's two nodes")
}

/// The groups of which both files have a log, or the one that is asked for.
func commonGroups(_ one: LogFile, _ other: LogFile, group: String?) throws(Failure) -> [GroupID] {
    if let group {
        for file in [one, other] { _ = try file.region(of: group) }
        return [GroupID(group)]
    }
    return one.regions.map(\.group).filter { other.region(of: $0) != nil }
}

/// Two states of one pool are no owner's log and its mirror: the older one lacks what came since (S20).
func warnOfOnePool(_ one: LogFile, _ other: LogFile, _ groups: [GroupID]) {
    guard one.identity.uuid == other.identity.uuid else { return }
    for group in groups {
        let starts = [one, other].map { $0.region(of: group)?.standing.generation ?? 0 }
        let age =
            starts[0] == starts[1]
            ? "of the same start \(starts[0])"
            : "of start \(starts[0]) and of start \(starts[1]): the higher is the newer"
        printError(
            "warning: \(one.path) and \(other.path) are two states of one pool of node \(one.identity.node): group \(group) \(age)"
        )
    }
}

/// One group's two logs, as they are told.
struct ComparedLogs: Encodable {
    struct Copy: Encodable {
        var role: String
        var epoch: UInt64
        var logUUID: Nullable<String>
        var records: UInt64
        var headLSN: UInt64
        var endLSN: UInt64
        var acknowledgedLSN: UInt64
        var verdict: String
        var firstBadLSN: Nullable<UInt64>
        var lostHead: Bool
    }

    struct Range: Encodable {
        var fromLSN: UInt64
        var toLSN: UInt64
        /// both, onlyFirst, onlySecond, neither, different.
        var validIn: String
        var acknowledged: Bool
    }

    var name: String
    /// sameIncarnation, otherIncarnation, otherLogs, otherSizes, unused.
    var relation: String
    /// first or second, by incarnation; null if neither is.
    var newer: Nullable<String>
    var first: Copy
    var second: Copy
    var fromLSN: UInt64
    var acknowledgedLSN: UInt64
    var ranges: [Range]
    var rangesLeftOut: UInt64
    var verdict: String

    init(_ name: GroupID, _ comparison: LogComparison) {
        self.name = name.rawValue
        relation = comparison.relation.name
        if case .otherIncarnation(let side) = comparison.relation {
            newer = Nullable(side.rawValue)
        } else {
            newer = Nullable(nil)
        }
        first = Copy(comparison.first, lostHead: comparison.hasLostHead(.first))
        second = Copy(comparison.second, lostHead: comparison.hasLostHead(.second))
        fromLSN = comparison.fromLSN.rawValue
        acknowledgedLSN = comparison.acknowledgedLSN.rawValue
        ranges = comparison.ranges.map {
            Range(
                fromLSN: $0.from.rawValue, toLSN: $0.to.rawValue, validIn: $0.state.rawValue,
                acknowledged: $0.isAcknowledged)
        }
        rangesLeftOut = comparison.rangesLeftOut
        verdict = comparison.verdict.rawValue
    }
}

extension ComparedLogs.Copy {
    init(_ copy: LogComparison.Copy, lostHead: Bool) {
        role = (copy.identity?.role ?? .empty).name
        epoch = copy.identity?.incarnation.rawValue ?? 0
        logUUID = Nullable(copy.identity?.logUUID.description)
        records = copy.records
        headLSN = copy.headLSN.rawValue
        endLSN = copy.endLSN.rawValue
        acknowledgedLSN = copy.acknowledgedLSN.rawValue
        verdict = copy.verdict.rawValue
        firstBadLSN = Nullable(copy.firstBadLSN?.rawValue)
        self.lostHead = lostHead
    }

    var text: String {
        "\(role)'s log, epoch \(epoch), \(records) records, LSN \(headLSN) to \(endLSN), acknowledged at least "
            + "\(acknowledgedLSN), by itself \(verdict)" + (lostHead ? ", its head is lost" : "")
    }
}

extension LogComparison.Relation {
    var name: String {
        switch self {
        case .sameIncarnation: "sameIncarnation"
        case .otherIncarnation: "otherIncarnation"
        case .otherLogs: "otherLogs"
        case .otherSizes: "otherSizes"
        case .unused: "unused"
        }
    }
}

extension LogScan.Verdict {
    /// How the tool ends.
    var exit: ToolExit {
        switch self {
        case .clean: .clean
        case .torn: .torn
        case .corrupt: .corrupt
        }
    }

    static func worst(_ verdicts: some Sequence<LogScan.Verdict>) -> LogScan.Verdict {
        verdicts.max { $0.exit.rawValue < $1.exit.rawValue } ?? .clean
    }
}
