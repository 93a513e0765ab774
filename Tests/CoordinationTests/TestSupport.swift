// Folders, records, raw files, and waiting for a condition.

import Coordination
import Glibc
import LogModel
import RecordSupport
import Testing

let group = GroupID("g0")

/// A valid record; `by` tells the tests who wrote it.
func record(_ version: UInt64, by owner: String = "alpha", group: GroupID = group) -> GroupRecord {
    GroupRecord(
        version: version, group: group, logUUID: UUID128(high: 1, low: 2), owner: NodeID(owner), epoch: Epoch(version),
        phase: .published, holders: [NodeID(owner)], ownerProcess: nil,
        pools: [owner: UUID128(high: 3, low: version)])
}

/// The file that holds a version of a group's record.
func fileName(_ version: UInt64, of group: GroupID = group) -> String {
    let digits = String(version)
    return "\(group).\(String(repeating: "0", count: 20 - digits.count))\(digits)"
}

/// Adds one to the record `rounds` times, in competition with others. Every success is a version of its own.
func winVersions(_ rounds: Int, as node: String, in directory: String) throws -> [UInt64] {
    let coordinator = try FileCoordinator(directory: directory)
    var won: [UInt64] = []
    while won.count < rounds {
        let current = try coordinator.read(group)?.version ?? 0
        if case .won = try coordinator.swap(expecting: current, to: record(current + 1, by: node)) {
            won.append(current + 1)
        }
    }
    return won
}
