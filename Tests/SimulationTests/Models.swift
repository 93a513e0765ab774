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

/// A group's region in one node's pool. Records stay in the ring until others take their place.
struct RegionModel {
    enum Role { case owner, mirror }
    static let ringBytes: UInt64 = 12 << 20

    var role: Role
    var logUUID: UUID128
    var incarnation: Incarnation
    var head: LSN
    var acknowledged: LSN
    var records: [Record] = []

    init(role: Role, logUUID: UUID128, incarnation: Incarnation, start: LSN) {
        self.role = role
        self.logUUID = logUUID
        self.incarnation = incarnation
        head = start
        acknowledged = start
    }

    /// What recovery finds: whole records without a hole, from the head on.
    func scan() -> (records: ArraySlice<Record>, end: LSN) {
        let first = records.firstIndex { $0.lsn >= head } ?? records.count
        var next = head
        var last = first
        while last < records.count, records[last].lsn == next, records[last].isWhole {
            next = records[last].end
            last += 1
        }
        return (records[first..<last], next)
    }

    /// An acknowledged LSN above what the scan finds is corruption (S5).
    func isCorrupt(end: LSN) -> Bool {
        acknowledged > end || records.contains { $0.isWhole && $0.lsn >= head && $0.acknowledged > end }
    }

    /// A part of the log reaches persistent memory. What was a lap earlier in its place is gone.
    mutating func store(_ shipped: [Record], _ range: Range<LSN>) {
        for record in shipped {
            let from = max(record.lsn, range.lowerBound)
            let to = min(record.end, range.upperBound)
            guard from < to else { continue }
            if let index = records.lastIndex(where: { $0.lsn == record.lsn }) {
                if from <= records[index].storedTo { records[index].storedTo = max(records[index].storedTo, to) }
            } else {
                var stored = record
                stored.storedTo = from == record.lsn ? to : record.lsn
                let place = (records.lastIndex { $0.lsn < record.lsn } ?? -1) + 1
                records.insert(stored, at: place)
            }
        }
        guard range.upperBound.rawValue > Self.ringBytes else { return }
        let overwritten = LSN(range.upperBound.rawValue - Self.ringBytes)
        while let first = records.first, first.lsn < overwritten { records.removeFirst() }
    }

    mutating func setHead(_ newHead: LSN, acknowledged known: LSN) {
        head = max(head, newHead)
        acknowledged = max(acknowledged, known)
    }
}

/// The medium shared by both nodes: a stamp per block, a cache in front of it, and an exclusive lock.
struct MediumModel {
    private(set) var durable: [UInt64]
    private(set) var cached: [UInt64]
    var holder: SimProcess?
    var fails = false
    /// Counts losses of power: a flush that began before one fails.
    private(set) var powerCuts = 0

    init(blocks: Int) {
        durable = Array(repeating: 0, count: blocks)
        cached = durable
    }

    mutating func write(_ block: Int, _ stamp: UInt64) { cached[block] = stamp }

    /// Answers whether everything written since `powerCuts` was read is durable now.
    mutating func flush(since powerCuts: Int) -> Bool {
        guard !fails, powerCuts == self.powerCuts else { return false }
        durable = cached
        return true
    }

    /// Of what is not flushed, some is lost.
    mutating func losePower(_ random: inout SplitMix64) {
        powerCuts += 1
        for block in cached.indices where cached[block] != durable[block] {
            if random.chance(50) { durable[block] = cached[block] }
        }
        cached = durable
    }
}

/// Compare-and-swap of one record, and presences by node.
struct CoordinatorModel {
    var record: GroupRecord?
    var presences: [Presence?] = [nil, nil]
    var isDown = false
    var isSlow = false
    /// Of its calls, how many fail without an answer.
    var failPercent: UInt64 = 0

    func holders() -> [NodeID] {
        guard let record else { return [] }
        return record.holders
    }
}
