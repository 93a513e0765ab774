// What outlives a process: the regions in persistent memory, the medium, and the coordinator.

import ClusterProtocol
import Coordination
import LogModel

/// One write of one block: a log record. The stamp is unique and grows with the order of issue.
struct Record: Equatable {
    var lsn: LSN
    var bytes: UInt64
    var block: Int
    var stamp: UInt64
    /// The acknowledged LSN that the writer knew (S5).
    var acknowledged: LSN
    /// Everything of the record below is in persistent memory.
    var storedTo: LSN

    var end: LSN { lsn + bytes }
    var isWhole: Bool { storedTo >= end }
}

/// A group's region in one node's pool.
struct RegionModel {
    enum Role { case owner, mirror }
    static let ringBytes: UInt64 = 12 << 20

    var role: Role
    var logUUID: UUID128
    var incarnation: Incarnation
    var head: LSN
    var records: [Record] = []

    /// What recovery finds: whole records without a hole, from the head on.
    func scan() -> [Record] {
        var found: [Record] = []
        var next = head
        for record in records where record.lsn >= head {
            guard record.lsn == next, record.isWhole else { break }
            found.append(record)
            next = record.end
        }
        return found
    }

    /// An acknowledged LSN above what the scan finds would be corruption (S5).
    func isCorrupt(end: LSN) -> Bool { records.contains { $0.isWhole && $0.lsn >= head && $0.acknowledged > end } }

    /// A WRITE from `range` of the owner's log reached persistent memory, up to `range.upperBound`.
    mutating func store(_ shipped: [Record], _ range: Range<LSN>) {
        for record in shipped {
            let from = max(record.lsn, range.lowerBound)
            let to = min(record.end, range.upperBound)
            guard from < to else { continue }
            if let index = records.firstIndex(where: { $0.lsn == record.lsn }) {
                if from <= records[index].storedTo { records[index].storedTo = max(records[index].storedTo, to) }
            } else {
                var stored = record
                stored.storedTo = from == record.lsn ? to : record.lsn
                let place = records.firstIndex { $0.lsn > record.lsn } ?? records.count
                records.insert(stored, at: place)
            }
        }
    }

    mutating func moveHead(to newHead: LSN) {
        head = max(head, newHead)
        let head = head
        records.removeAll { $0.end <= head }
    }
}

/// The medium shared by both nodes: a stamp per block, and an exclusive lock.
struct MediumModel {
    var stamps: [UInt64]
    var holder: SimProcess?
    var fails = false
}

/// Compare-and-swap of one record, and presences by node.
struct CoordinatorModel {
    var record: GroupRecord?
    var presences: [Presence?] = [nil, nil]
    var isDown = false
    var isSlow = false
    /// Of its calls, how many fail without an answer.
    var failPercent: UInt64 = 0
}
