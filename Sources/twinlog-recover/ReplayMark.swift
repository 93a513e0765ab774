// The log is on the medium, and nobody may replay it, or an older copy of it, again: the coordinator is told first, then
// every pool that was named. A run that is cut in between is finished by running it again.

import Coordination
import Foundation
import LogModel
import PersistentMemory
import Recovery

struct ReplayMark {
    var path: String
    var node: NodeID
    var region: Region
    var others: [OtherPool]
    var standing: InSync?

    /// Without a coordinator only the pools that were named are known.
    static let otherLogs =
        "warning: only this pool is marked: the log in the pool of the group's other node can still be replayed over what is written "
        + "to the medium from now on. Before its node starts, mark it too: name it with --other-pool, or give --config, by which the coordinator is told"

    /// What has to be said beside the result.
    var warnings: [String] { standing == nil && others.isEmpty ? [Self.otherLogs] : [] }

    /// Everything is on the medium, up to `end`. Answers the record that says so. Throws before anything is marked if a node has
    /// changed the record meanwhile, or if nobody knows.
    func make(end: LSN) throws(Failure) -> GroupRecord? {
        let record = try standing.map { standing throws(Failure) in try tell(standing, end) }
        do throws(PoolError) {
            for other in others { try other.mark() }
            try region.markReplayed()
        } catch {
            let told = record == nil ? "" : "the coordinator knows it, "
            throw Failure(
                .refused,
                "everything is on the medium, \(told)but a pool could not be marked: \(error); run the same command again"
            )
        }
        return record
    }

    private func tell(_ standing: InSync, _ end: LSN) throws(Failure) -> GroupRecord {
        guard !standing.isTold else { return standing.record }
        let replayed = GroupRecord.Replayed(node: node, end: end, at: Date.now.formatted(.iso8601))
        let again = "Do not write to the medium before that"
        let outcome: ReplayedLog.Outcome
        do throws(CoordinationError) {
            outcome = try ReplayedLog.tell(standing.coordinator, replacing: standing.record, by: replayed)
        } catch {
            throw Failure(
                .refused,
                "everything is on the medium, but the coordinator could not be told, so nothing is marked: \(error). Mend that and run the "
                    + "same command again. \(again): a node that starts replays its log over it")
        }
        switch outcome {
        case .told(let record): return record
        case .overtaken(let present):
            let now = present.map { "\($0.owner) \($0.phase.rawValue) epoch \($0.epoch)" } ?? "no record"
            throw Failure(
                .inUse,
                "everything is on the medium, but a node changed the group's record meanwhile (now: \(now)), so nothing is marked. Stop the "
                    + "nodes and run the same command again. \(again): the node replays its log over it")
        case .unknown(let reason):
            throw Failure(
                .refused,
                "everything is on the medium, but nobody knows whether the coordinator was told (\(reason)), so no pool is marked. Run the "
                    + "same command again: it finds out, and finishes. \(again), and start no node")
        }
    }
}
