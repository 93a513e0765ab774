// What a scan must say of a damaged log, derived from a journal of what was written and not from the scan (S5).
//
// The model knows every record that was ever appended, byte for byte, and every head slot that was ever stored. A record is
// whole in an image if its header and payload stand there as they were written; what is acknowledged is what the whole
// headers and the newest whole head slot say. From that follows where the log ends, and why.

import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing
import WriteLog

/// One record as it was written.
struct JournalRecord {
    static let headerBytes: UInt64 = 64

    var lsn: UInt64
    /// Where its write begins.
    var writeStart: UInt64
    var acknowledged: UInt64
    /// Header and payload, without padding.
    var bytes: [UInt8]

    /// The place of the next record.
    var end: UInt64 { lsn + (UInt64(bytes.count) + 63) / 64 * 64 }

    /// By the format's table, from bytes that were just stored.
    init(at lsn: UInt64, writeStart: UInt64, _ stored: ArraySlice<UInt8>) {
        func number(_ offset: Int, _ count: Int) -> UInt64 {
            stored.dropFirst(offset).prefix(count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        self.lsn = lsn
        self.writeStart = writeStart
        acknowledged = number(16, 8)
        bytes = Array(stored.prefix(64 + Int(number(40, 4))))
    }
}

/// One head slot as it was stored.
struct JournalSlot: Hashable {
    static let offsets: [UInt64] = [512, 4608]
    var sequence: Int
    var head: UInt64
    var acknowledged: UInt64
}

struct DamageModel {
    struct Expectation: Equatable {
        var verdict: LogScan.Verdict
        var end: UInt64
        var firstBad: UInt64?
        /// The writes that are delivered.
        var writes: [Range<UInt64>]
    }

    let ringBytes: UInt64
    let start: UInt64
    /// In order of LSN, of all laps.
    private(set) var records: [JournalRecord] = []
    private(set) var slots: [[UInt8]: JournalSlot] = [:]
    /// What the group has promised, whatever a damaged image still knows of it.
    var acknowledged: UInt64

    init(ringBytes: UInt64, start: UInt64) {
        (self.ringBytes, self.start, acknowledged) = (ringBytes, start, start)
    }

    mutating func noteWrite(_ stored: [UInt8], at start: UInt64) {
        var at = 0
        while at < stored.count {
            let record = JournalRecord(at: start + UInt64(at), writeStart: start, stored[at...])
            records.append(record)
            at = Int(record.end - start)
        }
    }

    mutating func noteSlot(_ stored: [UInt8], head: LSN, acknowledged: LSN) {
        slots[stored] = JournalSlot(sequence: slots.count + 1, head: head.rawValue, acknowledged: acknowledged.rawValue)
    }

    /// What the newest whole one of the two slots says.
    func slot(_ stored: [[UInt8]]) -> JournalSlot {
        stored.compactMap { slots[$0] }.max { $0.sequence < $1.sequence }
            ?? JournalSlot(sequence: 0, head: start, acknowledged: 0)
    }

    /// Precondition: `image` is all of the ring.
    func expectation(_ image: UnsafeRawBufferPointer, slot: JournalSlot) -> Expectation {
        let acknowledged = acknowledged(image, slot: slot)
        var end = slot.head, writes: [Range<UInt64>] = []
        var last: JournalRecord?
        for record in records where record.lsn >= slot.head {
            guard record.end <= slot.head + ringBytes, isWhole(record, image) else {
                return stopped(at: record, image, end: end, writes: writes, acknowledged: acknowledged)
            }
            if let last, last.writeStart != record.writeStart {
                writes.append(end..<last.end)
                end = last.end
            }
            last = record
        }
        if let last {
            writes.append(end..<last.end)
            end = last.end
        }
        return Expectation(verdict: .clean, end: end, firstBad: nil, writes: writes)
    }

    private func stopped(
        at bad: JournalRecord, _ image: UnsafeRawBufferPointer, end: UInt64, writes: [Range<UInt64>],
        acknowledged: UInt64
    ) -> Expectation {
        var (end, writes) = (end, writes)
        // The write before the bad record's is whole.
        if bad.writeStart > end {
            writes.append(end..<bad.writeStart)
            end = bad.writeStart
        }
        let isFollowed = records.contains { $0.lsn > bad.lsn && holds($0.bytes.prefix(64), of: $0, image) }
        let isTraced =
            isFollowed || bad.lsn > bad.writeStart || hasPlaceAndEpoch(bad, image) || hasAllElse(bad, image)
        let verdict: LogScan.Verdict = acknowledged > bad.lsn ? .corrupt : isTraced ? .torn : .clean
        return Expectation(verdict: verdict, end: end, firstBad: verdict == .clean ? nil : bad.lsn, writes: writes)
    }

    /// The highest acknowledged LSN that can still be found: in the slot, in any header that is whole, and in that a record
    /// stands where an earlier one stood, which was given up only once it was on the medium (S6).
    private func acknowledged(_ image: UnsafeRawBufferPointer, slot: JournalSlot) -> UInt64 {
        var highest = slot.acknowledged
        for record in records where holds(record.bytes.prefix(64), of: record, image) {
            highest = max(highest, record.acknowledged)
            if record.end > slot.head + ringBytes { highest = max(highest, record.end - ringBytes) }
        }
        return highest
    }

    private func holds(_ bytes: ArraySlice<UInt8>, of record: JournalRecord, _ image: UnsafeRawBufferPointer) -> Bool {
        let place = Int(record.lsn % ringBytes)
        return bytes.withUnsafeBytes { memcmp($0.baseAddress!, image.baseAddress! + place, $0.count) == 0 }
    }

    private func isWhole(_ record: JournalRecord, _ image: UnsafeRawBufferPointer) -> Bool {
        holds(record.bytes[...], of: record, image)
    }

    /// LSN and incarnation still stand in the damaged header.
    private func hasPlaceAndEpoch(_ record: JournalRecord, _ image: UnsafeRawBufferPointer) -> Bool {
        stand([8..<16, 24..<32], record, image)
    }

    /// Or everything but these.
    private func hasAllElse(_ record: JournalRecord, _ image: UnsafeRawBufferPointer) -> Bool {
        stand([0..<8, 16..<24, 32..<64], record, image)
    }

    private func stand(_ fields: [Range<Int>], _ record: JournalRecord, _ image: UnsafeRawBufferPointer) -> Bool {
        let place = Int(record.lsn % ringBytes)
        return fields.allSatisfy { field in
            record.bytes[field].elementsEqual(image[place + field.lowerBound..<place + field.upperBound])
        }
    }
}

/// What the scan itself says.
func scanned(_ region: Region) throws -> DamageModel.Expectation {
    var scan = try #require(LogScan(region: region))
    var writes: [Range<UInt64>] = []
    while let write = scan.next() { writes.append(write.start.rawValue..<write.end.rawValue) }
    return DamageModel.Expectation(
        verdict: try #require(scan.verdict), end: scan.endLSN.rawValue, firstBad: scan.firstBadLSN?.rawValue,
        writes: writes)
}

/// A log of several laps with everything that a log can hold, its journal, and a mirror's copy.
final class DamagedLog {
    let folder: Folder
    let copy: Copy
    let mirror: Copy
    let log: WriteLog
    private(set) var model: DamageModel
    private var random: SplitMix64
    private let largestWrite: Int
    /// The whole file at earlier times.
    private(set) var snapshots: [Data] = []

    /// Three laps and a half; then a tail that is not acknowledged.
    init(ringBytes: UInt64, largestWrite: Int, seed: UInt64) throws {
        folder = try Folder()
        let start = LSN(ringBytes / 2 + 192)
        copy = try Copy(folder.file("owner"), node: "alpha", role: .owner, ringBytes: ringBytes, start: start)
        mirror = try Copy(folder.file("mirror"), node: "beta", role: .mirror, ringBytes: ringBytes, start: start)
        log = try WriteLog(region: copy.region)
        model = DamageModel(ringBytes: ringBytes, start: start.rawValue)
        random = SplitMix64(seed: seed)
        self.largestWrite = largestWrite
        try fill()
    }

    private func fill() throws {
        let ring = copy.region.ringBytes
        var nextSnapshot = log.published + ring / 3
        while log.published.rawValue < model.start + 3 * ring + ring / 2 {
            if log.published - log.head > ring / 2 { try trim() }
            try appendSomething()
            if Int.random(in: 0..<3, using: &random) == 0 { model.acknowledged = log.published.rawValue }
            guard log.published >= nextSnapshot else { continue }
            snapshots.append(try data(of: copy.path))
            nextSnapshot = log.published + ring / 3
        }
        model.acknowledged = log.published.rawValue
        try noting { #expect(log.appendWatermark(acknowledged: log.published)) }
        for _ in 0..<3 { try appendSomething() }
        let head = log.head
        try mirror.tamper(copy.bytes(from: head, count: log.published - head), at: head)
        try mirror.region.setHead(head, acknowledged: head)
    }

    /// Notes what `append` stored.
    private func noting(_ append: () throws -> Void) throws {
        let start = log.published
        try append()
        model.noteWrite(copy.bytes(from: start, count: log.published - start), at: start.rawValue)
    }

    private func appendSomething() throws {
        let acknowledged = LSN(model.acknowledged)
        let bytes = random.bytes(Int.random(in: 1...largestWrite, using: &random))
        let kind = Int.random(in: 0..<8, using: &random)
        let offset = UInt64.random(in: 0..<1 << 30, using: &random)
        try noting {
            let outcome = bytes.withUnsafeBytes { payload in
                let what: WriteLog.Payload =
                    switch kind {
                    case 0: .discard(length: 5 << 30)  // of three records
                    case 1: .writeZeroes(length: 4096, keepSpace: true)
                    default: .data(payload)
                    }
                return log.append(volume: volume0, offset: offset, what, acknowledged: acknowledged)
            }
            guard case .appended = outcome else { throw Fixture.NoRoom() }
        }
    }

    /// Gives back about half of the log, at the boundary of an acknowledged write.
    private func trim() throws {
        let wanted = log.head + (log.published - log.head) / 2
        let boundaries = model.records.map(\.writeStart).filter { $0 <= model.acknowledged && $0 > log.head.rawValue }
        guard let head = boundaries.first(where: { $0 >= wanted.rawValue }) ?? boundaries.last else {
            model.acknowledged = log.published.rawValue
            return
        }
        try log.setHead(LSN(head), acknowledged: LSN(model.acknowledged))
        log.setReclaimLimit(LSN(head))
        let file = try data(of: copy.path)
        for slot in slots(file) where model.slots[slot] == nil && slot.contains(where: { $0 != 0 }) {
            model.noteSlot(slot, head: LSN(head), acknowledged: copy.region.acknowledged)
        }
    }

    /// The two head slots of a pool's file.
    func slots(_ file: Data) -> [[UInt8]] {
        JournalSlot.offsets.map { [UInt8](file[Int(copy.region.offset + $0)..<Int(copy.region.offset + $0) + 64]) }
    }
}
