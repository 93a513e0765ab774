// What outlives a process: the regions in persistent memory, the medium, and the coordinator.

import ClusterProtocol
import Coordination
import LogModel
import SimulationSupport
import TestSupport

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
    /// Where a line of it has rotted.
    var rottenAt: LSN?

    var end: LSN { lsn + bytes }
    var isWhole: Bool { storedTo >= end }
    /// It passes its checks.
    var isSound: Bool { isWhole && rottenAt == nil }

    /// The same write at the same place, whatever became of its bytes since.
    func isCopy(of other: Record) -> Bool {
        lsn == other.lsn && bytes == other.bytes && block == other.block && stamp == other.stamp
            && acknowledged == other.acknowledged
    }
}

/// A group's region in one node's pool. Records stay in the ring until others take their place.
struct RegionModel {
    enum Role { case owner, mirror }
    static let ringBytes: UInt64 = 12 << 20

    var role: Role
    var logUUID: UUID128
    var incarnation: Incarnation
    let start: LSN
    var head: LSN
    var acknowledged: LSN
    /// In order of LSN.
    var records: [Record] = []

    init(role: Role, logUUID: UUID128, incarnation: Incarnation, start: LSN) {
        self.role = role
        self.logUUID = logUUID
        self.incarnation = incarnation
        self.start = start
        head = start
        acknowledged = start
    }

    /// The first record at or above `lsn`.
    private func index(from lsn: LSN) -> Int {
        var low = 0, high = records.count
        while low < high {
            let middle = (low + high) / 2
            if records[middle].lsn < lsn { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func record(at lsn: LSN) -> Record? {
        let place = index(from: lsn)
        return place < records.count && records[place].lsn == lsn ? records[place] : nil
    }

    /// Those of which a part lies in `range`.
    func records(in range: Range<LSN>) -> [Record] {
        var first = index(from: range.lowerBound)
        if first > 0, records[first - 1].end > range.lowerBound { first -= 1 }
        return Array(records[first...].prefix { $0.lsn < range.upperBound })
    }

    /// What recovery finds: sound records without a hole, from the head on. `asStored`: what was stored here, rotten or not.
    func scan(asStored: Bool = false) -> (records: ArraySlice<Record>, end: LSN) {
        let first = index(from: head)
        var next = head
        var last = first
        while last < records.count, records[last].lsn == next, records[last].isWhole,
            asStored || records[last].isSound
        {
            next = records[last].end
            last += 1
        }
        return (records[first..<last], next)
    }

    /// An acknowledged LSN above what the scan finds is corruption (S5).
    func isCorrupt(end: LSN) -> Bool {
        acknowledged > end || records.contains { $0.isSound && $0.lsn >= head && $0.acknowledged > end }
    }

    var hasRot: Bool { records.contains { $0.lsn >= head && $0.rottenAt != nil } }

    /// Of the records that could rot without a trace of it being lost: below what a sound record says of acknowledgements (S5).
    var judgeable: LSN {
        max(acknowledged, records.last { $0.isSound }?.acknowledged ?? .zero)
    }

    /// A line of the record at `lsn` rots.
    mutating func rot(_ lsn: LSN, at place: LSN) {
        let index = index(from: lsn)
        guard index < records.count, records[index].lsn == lsn else { return }
        records[index].rottenAt = place
    }

    /// The sound record here that a part of the log would take the place of with other bytes.
    func conflict(with shipped: [Record], _ range: Range<LSN>) -> LSN? {
        shipped.first { record in
            guard let place = record.rottenAt, range.contains(place) else { return false }
            return self.record(at: record.lsn)?.isSound == true
        }?.lsn
    }

    /// Takes over what is sound in another copy of this log and damaged here.
    mutating func heal(from other: [Record]) {
        for record in other where record.isSound {
            let index = index(from: record.lsn)
            guard index < records.count, records[index].isCopy(of: record), records[index].rottenAt != nil else {
                continue
            }
            records[index].rottenAt = nil
        }
    }

    /// A part of the log reaches persistent memory. What was a lap earlier in its place is gone.
    mutating func store(_ shipped: [Record], _ range: Range<LSN>) {
        for record in shipped {
            let from = max(record.lsn, range.lowerBound)
            let to = min(record.end, range.upperBound)
            guard from < to else { continue }
            if let index = records.lastIndex(where: { $0.lsn == record.lsn }) {
                if from <= records[index].storedTo { records[index].storedTo = max(records[index].storedTo, to) }
                // The bytes of this part are those that were sent.
                if let place = records[index].rottenAt, from <= place, place < to { records[index].rottenAt = nil }
                if let place = record.rottenAt, from <= place, place < to { records[index].rottenAt = place }
            } else {
                var stored = record
                stored.storedTo = from == record.lsn ? to : record.lsn
                stored.rottenAt = record.rottenAt.flatMap { from <= $0 && $0 < to ? $0 : nil }
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
