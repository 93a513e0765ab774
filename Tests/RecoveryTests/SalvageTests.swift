// What is sound around damage reaches the medium, whole writes in order, and what does not is listed exactly (A10).

import Coordination
import Foundation
import LogModel
import PersistentMemory
import Recovery
import StorageMedium
import TestSupport
import Testing
import WriteLog

struct SalvageTests {
    /// Writes the sound parts of the fixture's log to its media.
    private func salvage(_ fixture: Fixture, dryRun: Bool = false) throws -> SalvageOutcome {
        var media: [VolumeID: any Medium] = [:]
        for (volume, name) in [(volume0, "vol0"), (volume1, "vol1")] where fixture.model[volume] != nil {
            media[volume] = try fixture.medium(name)
        }
        return try #require(try Salvage.run(fixture.region, onto: media, dryRun: dryRun))
    }

    private func place(_ offset: UInt64, _ length: UInt64) -> LeftOut.Place {
        LeftOut.Place(volume: volume0, range: ByteRange(offset: offset, length: length))
    }

    @Test("A10: of a sound log a salvage leaves nothing out")
    func sound() throws {
        let fixture = try Fixture(volumes: ["vol0", "vol1"])
        try fixture.fillRandomly(seed: 31, count: 80)
        #expect(try salvage(fixture, dryRun: true).leftOut.isEmpty)
        try fixture.mediaAreUntouched()
        let outcome = try salvage(fixture)
        #expect(outcome.leftOut.isEmpty && outcome.replayed.writes == 80)
        #expect(outcome.replayed.endLSN == fixture.log.published)
        try fixture.mediaAreAsModelled()
    }

    @Test("A10: a damaged payload costs its own write only; its place is uncertain unless it is written again later")
    func damagedPayload() throws {
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        let bad = try fixture.appendOnly([2, 2, 2, 2], at: 100)
        let covered = try fixture.appendOnly([3, 3], at: 200)
        try fixture.write([4], at: 101)
        try fixture.write([5, 5, 5], at: 199, acknowledged: covered.end)
        try fixture.flip(at: bad.start + 64)
        try fixture.flip(at: covered.start + 64)
        let outcome = try salvage(fixture)
        try fixture.mediaAreAsModelled()
        #expect(
            outcome.leftOut.records == [
                LostRecord(
                    lsn: bad.start, end: bad.end, kind: .data, volume: volume0,
                    range: ByteRange(offset: 100, length: 4), reason: .damagedPayload),
                LostRecord(
                    lsn: covered.start, end: covered.end, kind: .data, volume: volume0,
                    range: ByteRange(offset: 200, length: 2), reason: .damagedPayload),
            ])
        #expect(outcome.leftOut.uncertain == [place(100, 1), place(102, 2)])
        #expect(outcome.leftOut.unreadable.isEmpty && outcome.replayed.verdict == .corrupt)
    }

    @Test("A10: a lost header leaves a hole that is told by its LSNs, and what follows is found again")
    func lostHeader() throws {
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        let bad = try fixture.appendOnly([UInt8](repeating: 2, count: 5000), at: 10)
        try fixture.write([3], at: 20, acknowledged: bad.end)
        try fixture.flip(at: bad.start + 8)
        let outcome = try salvage(fixture)
        try fixture.mediaAreAsModelled()
        #expect(outcome.leftOut.unreadable == [bad.start..<bad.end])
        #expect(outcome.leftOut.records.isEmpty && outcome.leftOut.uncertain.isEmpty)
    }

    @Test("S7, A10: of a write of several records that is damaged in one, none is written", arguments: 0..<3)
    func partOfAWrite(damaged: Int) throws {
        let fixture = try Fixture(ringBytes: 16 << 20)
        let bytes = [UInt8](repeating: 2, count: 3 << 20)
        let bad = try fixture.appendOnly(bytes, at: 0)
        let records = Array(bad.records)
        #expect(records.count == 3)
        let after = try fixture.write([3], at: 1 << 20)
        try fixture.write([4], at: 0, acknowledged: after.end)
        try fixture.flip(at: records[damaged].lsn + 64)
        let outcome = try salvage(fixture)
        try fixture.mediaAreAsModelled()
        #expect(outcome.leftOut.records.map(\.lsn) == records.map(\.lsn))
        #expect(
            outcome.leftOut.records.map(\.reason)
                == records.indices.map { $0 == damaged ? .damagedPayload : .incompleteWrite })
        #expect(outcome.replayed.writes == 2)
    }

    @Test("S5, A10: what was acknowledged beyond the last sound write is missing, and told")
    func missingEnd() throws {
        let fixture = try Fixture()
        let first = try fixture.write([1], at: 0)
        let lost = try fixture.appendOnly([UInt8](repeating: 2, count: 300), at: 10)
        try fixture.region.setHead(.zero, acknowledged: lost.end)
        for lsn in stride(from: lost.start.rawValue, to: lost.end.rawValue, by: 64) {
            try fixture.zeroLine(at: LSN(lsn))
        }
        let outcome = try salvage(fixture)
        try fixture.mediaAreAsModelled()
        #expect(outcome.leftOut.unreadable == [first.end..<lost.end] && outcome.replayed.verdict == .corrupt)
    }

    @Test("S6, S9, A10: where the newest head is lost, what the newest records took the place of is not written again")
    func lostHead() throws {
        let fixture = try Fixture(ringBytes: 64 << 10)
        let block = [UInt8](repeating: 1, count: 4000)
        // On the medium, and with a newer value there.
        let old = try fixture.appendOnly(block, at: 0)
        for _ in 0..<10 { try fixture.appendOnly(block, at: 8192) }
        let trimmed = fixture.log.published
        try fixture.log.setHead(trimmed, acknowledged: trimmed)
        fixture.log.setReclaimLimit(trimmed)
        for index in 0..<6 as Range<UInt64> { try fixture.write(block, at: 16384 + index * 4096) }
        // Both slots: the head is the incarnation's start again.
        for offset in [512, 4608] as [UInt64] {
            try overwrite(fixture.poolPath, at: fixture.region.offset + offset, with: [UInt8](repeating: 0, count: 64))
        }
        fixture.pool.close()
        let pool = try Pool.open(path: fixture.poolPath, expecting: nil, persistence: .volatile, readOnly: true)
        let region = try #require(pool.region(of: Fixture.group))
        #expect(region.head == .zero && fixture.log.published.rawValue > fixture.region.ringBytes)
        let medium = try fixture.medium()
        let outcome = try #require(try Salvage.run(region, onto: [volume0: medium]))
        #expect(outcome.replayed.headLSN.rawValue == fixture.log.published.rawValue - region.ringBytes)
        #expect(outcome.replayed.headLSN > old.start)
        let bytes = try data(of: fixture.mediumPath())
        let isOldKept = bytes[0..<4000].allSatisfy { $0 == 0xEE }
        #expect(isOldKept)
        let expected = try #require(fixture.model[volume0])
        let isNewThere = bytes[16384...] == expected[16384...]
        #expect(isNewThere)
    }

    @Test("A10: whatever is damaged, the medium gets every other write, and the list has the rest", arguments: 1...20)
    func random(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let fixture = try Fixture(start: LSN(64 * UInt64.random(in: 0..<20_000, using: &random)))
        var bad: [WriteLog.Appended] = []
        for _ in 0..<60 {
            let bytes = random.bytes(Int.random(in: 1...5000, using: &random))
            let offset = UInt64.random(in: 0..<40_000, using: &random)
            let isBad = Int.random(in: 0..<5, using: &random) == 0
            let place = isBad ? try fixture.appendOnly(bytes, at: offset) : try fixture.write(bytes, at: offset)
            if isBad { bad.append(place) }
        }
        let last = try fixture.write([1], at: 0)
        try fixture.write([2], at: 0, acknowledged: last.end)
        for write in bad {
            let hitsHeader = Bool.random(using: &random)
            for record in write.records {
                try fixture.flip(at: record.lsn + (hitsHeader ? UInt64.random(in: 0..<64, using: &random) : 64))
            }
        }
        let outcome = try salvage(fixture)
        try fixture.mediaAreAsModelled()
        let told =
            (outcome.leftOut.unreadable + outcome.leftOut.records.map { $0.lsn..<$0.end })
            .sorted { $0.lowerBound < $1.lowerBound }
        // Holes that touch are one.
        #expect(joined(told) == joined(bad.map { $0.start..<$0.end }))
    }

    private func joined(_ ranges: [Range<LSN>]) -> [Range<LSN>] {
        ranges.reduce(into: []) { joined, range in
            if let last = joined.last, last.upperBound == range.lowerBound {
                joined[joined.count - 1] = last.lowerBound..<range.upperBound
            } else {
                joined.append(range)
            }
        }
    }
}

/// The same, as an operator meets it.
struct SalvageToolTests {
    /// Three writes, of which the second is damaged.
    private func damaged() throws -> (Fixture, WriteLog.Appended) {
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        let bad = try fixture.appendOnly([2, 2], at: 100)
        try fixture.write([3], at: 200, acknowledged: bad.end)
        try fixture.flip(at: bad.start + 64)
        return (fixture, bad)
    }

    private func arguments(_ fixture: Fixture, _ flags: String...) -> [String] {
        ["replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())"] + flags
    }

    @Test("A10: without an operator's word nothing is written, and what would be lost is said first")
    func asks() throws {
        let (fixture, _) = try damaged()
        fixture.pool.close()
        #expect(try recover(arguments: arguments(fixture)).code == 3)
        let refused = try recover(arguments: arguments(fixture, "--salvage"))
        #expect(refused.code == 6 && refused.errors.contains("--yes"), "\(refused)")
        #expect(refused.errors.contains("LEFT OUT: 1 records"))
        let dry = try recover(arguments: arguments(fixture, "--salvage", "--dry-run"))
        #expect(dry.code == 3 && dry.output.contains("LEFT OUT: 1 records"), "\(dry)")
        #expect(try recover(arguments: arguments(fixture, "--yes")).code == 3, "a replay leaves nothing out")
        try fixture.mediaAreUntouched()
    }

    @Test("A10: with it, what is sound is written, what is not is listed, and the exit code is 3")
    func writes() throws {
        let (fixture, bad) = try damaged()
        fixture.pool.close()
        let run = try recover(arguments: arguments(fixture, "--salvage", "--yes", "--json"))
        #expect(run.code == 3, "\(run)")
        try fixture.mediaAreAsModelled()
        let leftOut = try #require(try run.json()["leftOut"] as? [String: Any])
        let record = try #require((leftOut["records"] as? [[String: Any]])?.first)
        #expect(record["fromLSN"] as? UInt64 == bad.start.rawValue && record["toLSN"] as? UInt64 == bad.end.rawValue)
        #expect(record["volume"] as? String == "vol0" && record["offset"] as? Int == 100)
        #expect(record["length"] as? Int == 2 && record["reason"] as? String == "damagedPayload")
        #expect((leftOut["uncertain"] as? [[String: Any]])?.first?["offset"] as? Int == 100)
        let text = try recover(arguments: arguments(fixture, "--salvage", "--yes"))
        #expect(text.output.contains("LSN \(bad.start) to \(bad.end): volume vol0, 2 bytes at 100"), "\(text)")
        #expect(text.output.contains("UNCERTAIN: volume vol0, 2 bytes at 100"))
    }

    @Test("A10: an archive is inspected, scanned, dumped and salvaged like a pool")
    func archive() throws {
        let (fixture, bad) = try damaged()
        let path = fixture.folder.file("pool.archive-g0-5")
        try fixture.region.archive(
            to: path, of: fixture.pool.identity, upTo: fixture.log.published, archivedAt: 1_700_000_000)
        fixture.pool.close()
        let before = try data(of: path)
        let inspect = try recover("inspect", path, "--json")
        #expect(try inspect.code == 0 && inspect.json()["archivedAt"] as? Int == 1_700_000_000, "\(inspect)")
        #expect(try recover("inspect", path).output.contains("archive of group g0's log of epoch 5"))
        for command in ["scan", "dump"] {
            let run = try recover(command, path)
            #expect(run.code == 3 && run.output.contains("CORRUPT at LSN \(bad.start)"), "\(run)")
        }
        let medium = ["--group", "g0", "--volume", "vol0=\(fixture.mediumPath())"]
        #expect(try recover(arguments: ["replay", path] + medium).code == 3)
        let marked = try recover(arguments: ["replay", path] + medium + ["--mark-replayed"])
        #expect(marked.code == 2 && marked.errors.contains("is an archive"), "\(marked)")
        try fixture.mediaAreUntouched()
        let run = try recover(arguments: ["replay", path] + medium + ["--salvage", "--yes"])
        #expect(run.code == 3 && run.errors.contains("what is on the medium may be newer"), "\(run)")
        try fixture.mediaAreAsModelled()
        #expect(try data(of: path) == before)
        // Compared with the pool that it came from, it is the same.
        #expect(try recover("compare", fixture.poolPath, path).output.contains("both agree"))
    }

    @Test(
        "S13, S20, A10: by the coordinator's word a salvage is refused like a replay, but for a log that was set aside")
    func againstTheCoordinator() throws {
        let rig = try ReplayRig()
        try rig.swap { $0.members[ReplayRig.alpha]?.generation = 7 }
        let stale = try rig.replay("--salvage", "--yes")
        #expect(stale.code == 6 && stale.errors.contains("S20"), "\(stale)")
        try rig.fixture.mediaAreUntouched()

        let path = rig.fixture.folder.file("archive")
        let pool = try Pool.open(path: rig.fixture.poolPath, expecting: nil, persistence: .volatile)
        let region = try #require(pool.region(of: Fixture.group))
        try region.archive(to: path, of: pool.identity, upTo: rig.fixture.log.published, archivedAt: 0)
        pool.close()
        let plain = try rig.replay(path: path)
        #expect(plain.code == 6 && plain.errors.contains("--salvage"), "\(plain)")
        let asked = try rig.replay("--salvage", path: path)
        #expect(asked.code == 6 && asked.errors.contains("takes its place"), "\(asked)")
        try rig.fixture.mediaAreUntouched()
        let run = try rig.replay("--salvage", "--yes", "--json", path: path)
        #expect(run.code == 0, "\(run)")
        #expect(try run.json()["inSync"] is NSNull)
        try rig.fixture.mediaAreAsModelled()
        // Of another log it is nothing for this group.
        try rig.swap { $0.logUUID = UUID128(high: 7, low: 7) }
        #expect(try rig.replay("--salvage", "--yes", path: path).code == 6)
    }

    @Test("A4, A10: after a salvage the logs can be made harmless, so that a node can start")
    func marked() throws {
        let rig = try ReplayRig()
        let pool = try Pool.open(path: rig.fixture.poolPath, expecting: nil, persistence: .volatile)
        let region = try #require(pool.region(of: Fixture.group))
        let scan = try #require(LogScan(region: region))
        let bad = try #require(scan.first { _ in true })
        var byte: [UInt8] = [0]
        byte.withUnsafeMutableBytes { region.readRing(from: bad.start + 64, into: $0) }
        byte[0] ^= 1
        byte.withUnsafeBytes { region.store($0, at: bad.start + 64) }
        try region.drain()
        try region.setHead(region.head, acknowledged: rig.fixture.log.published)
        pool.close()
        #expect(try rig.replay("--mark-replayed").code == 3)
        let run = try rig.replay("--salvage", "--yes", "--mark-replayed")
        #expect(run.code == 3, "\(run)")
        #expect(try rig.record().replayed?.end == rig.fixture.log.published)
        #expect(try rig.isMarked(rig.fixture.poolPath))
    }
}
