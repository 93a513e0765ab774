// compare and heal: what one copy has lost comes back from the other, nothing is guessed, nothing else is touched (S5).

import CLogCore
import Foundation
import LogModel
import PersistentMemory
import Recovery
import TestSupport
import Testing
import WriteLog

struct HealTests {
    // MARK: Comparing

    @Test func twoSoundCopiesAgree() throws {
        let pair = try Pair.filled()
        let found = pair.compare()
        #expect(found.relation == .sameIncarnation && found.verdict == .clean)
        #expect(found.acknowledgedLSN == pair.acknowledged && found.fromLSN == pair.writes[0].start)
        // One range below the acknowledged LSN, and the watermark behind it.
        #expect(found.ranges.map(\.state) == [.both, .both] && found.ranges.map(\.isAcknowledged) == [true, false])
        #expect(found.ranges[0].to == pair.acknowledged && found.ranges[1].to == pair.log.published)
        #expect(found.first.endLSN == pair.log.published && found.second.endLSN == pair.log.published)
    }

    @Test func eachRangeIsToldByWhoHoldsIt() throws {
        let pair = try Pair.filled()
        let (one, two, three) = (pair.single[1], pair.single[4], pair.single[7])
        try pair.owner.flip(at: one.start + 64)
        try pair.mirror.flip(at: two.start)
        for copy in [pair.owner, pair.mirror] { try copy.flip(at: three.start + 70) }
        let states: [LogComparison.State: [Range<LSN>]] = [
            .onlySecond: [one.start..<one.end], .onlyFirst: [two.start..<two.end], .neither: [three.start..<three.end],
        ]
        let found = pair.compare()
        for (state, ranges) in states {
            #expect(found.ranges.filter { $0.state == state }.map { $0.from..<$0.to } == ranges, "\(state)")
        }
        #expect(found.verdict == .corrupt)
    }

    @Test func whatWasNeverAcknowledgedMayDiffer() throws {
        let pair = try Pair.filled()
        let tail = try pair.write([1, 2, 3])
        let found = pair.compare()
        #expect(found.verdict == .torn)
        #expect(found.ranges.last?.state == .onlyFirst && found.ranges.last?.isAcknowledged == false)
        #expect(found.ranges.last?.from == tail.start)
        #expect(try pair.healMirror().healedRecords == 0)
        #expect(LogComparison.run(pair.mirror.region, pair.owner.region).ranges.last?.state == .onlySecond)
    }

    @Test func anAcknowledgedTailThatOnlyOneHoldsIsDamage() throws {
        let pair = try Pair.filled()
        let tail = try pair.write([1, 2, 3])
        try pair.log.setHead(pair.writes[0].start, acknowledged: tail.end)
        #expect(pair.compare().verdict == .corrupt)
        let outcome = try pair.healMirror()
        #expect(outcome.healed.last?.upperBound == tail.end)
        #expect(
            try #require(LogCopy(region: pair.mirror.region)).find(at: tail.start, below: tail.end)
                == .record(end: tail.end))
    }

    @Test func copiesThatCannotBeComparedAreToldApart() throws {
        let pair = try Pair.filled()
        let before = try data(of: pair.mirror.path)
        func refused(_ relation: LogComparison.Relation) throws {
            #expect(pair.compare().relation == relation)
            let changed = try data(of: pair.mirror.path)
            #expect(throws: HealError.self) { try pair.healMirror() }
            do throws(HealError) { try pair.healMirror() } catch { #expect(error.code == .notTwoCopies) }
            #expect(try data(of: pair.mirror.path) == changed)
        }
        try pair.mirror.region.format(role: .mirror, logUUID: logUUID, incarnation: Incarnation(6), start: .zero)
        try refused(.otherIncarnation(newer: .second))
        try pair.mirror.region.format(role: .mirror, logUUID: logUUID, incarnation: Incarnation(4), start: .zero)
        try refused(.otherIncarnation(newer: .first))
        try pair.mirror.region.format(role: .mirror, logUUID: poolUUID, incarnation: Incarnation(5), start: .zero)
        try refused(.otherLogs)
        try pair.mirror.region.format(role: .empty, logUUID: logUUID, incarnation: Incarnation(5), start: .zero)
        try refused(.unused)
        #expect(try data(of: pair.mirror.path) != before)
        let other = try Copy(pair.folder.file("big"), node: "beta", role: .mirror, ringBytes: 128 << 10, start: .zero)
        #expect(LogComparison.run(pair.owner.region, other.region).relation == .otherSizes)
    }

    // MARK: Healing

    @Test(arguments: 0..<12)
    func anyDamagedWriteComesBack(index: Int) throws {  // S5
        for place in ["header", "position", "payload", "all"] {
            let pair = try Pair.filled(seed: UInt64(index))
            let write = pair.writes[index]
            let source = try data(of: pair.owner.path), sound = try data(of: pair.mirror.path)
            switch place {
            case "header": try pair.mirror.flip(at: write.start + 1)
            case "position": try pair.mirror.flip(at: write.start + 9)
            case "payload": try pair.mirror.flip(at: write.start + 64)
            default: try pair.mirror.zero(write.start..<write.end)
            }
            #expect(pair.compare().verdict == .corrupt)
            let dry = try pair.healMirror(dryRun: true)
            #expect(dry.verdict == .clean && dry.healed.first?.lowerBound == write.start)
            #expect(try data(of: pair.mirror.path) != sound)
            let outcome = try pair.healMirror()
            #expect(outcome.healed.count == 1 && outcome.verdict == .clean && outcome.lost.isEmpty)
            #expect(outcome.healedRecords == dry.healedRecords && outcome.healedRecords >= 1)
            // Byte for byte what it was, and the source untouched.
            #expect(try data(of: pair.mirror.path) == sound)
            #expect(try data(of: pair.owner.path) == source)
            #expect(try pair.healMirror().healedRecords == 0)
            #expect(try data(of: pair.mirror.path) == sound)
        }
    }

    @Test func aWholeCopyComesBackAroundTheRingsEnd() throws {
        let pair = try Pair.filled(count: 20)
        let sound = try data(of: pair.mirror.path)
        try pair.mirror.zero(LSN(0)..<LSN(Pair.ringBytes))
        let outcome = try pair.healMirror()
        #expect(outcome.healed == [pair.writes[0].start..<pair.acknowledged] && outcome.verdict == .clean)
        #expect(pair.holdSame(pair.writes[0].start..<pair.acknowledged))
        #expect(try data(of: pair.mirror.path) != sound)  // the watermark was never promised
    }

    @Test func whatNeitherHoldsIsReportedAndLeftAsItIs() throws {  // S5: no guess
        let pair = try Pair.filled()
        let (lost, good, theirs) = (pair.single[3], pair.single[6], pair.single[9])
        // The same record, at different bytes: a merge would be a guess.
        try pair.mirror.flip(at: lost.start + 64)
        try pair.owner.flip(at: lost.start)
        try pair.mirror.flip(at: good.start + 64)
        try pair.owner.flip(at: theirs.start + 64)
        let (before, source) = (
            pair.mirror.bytes(from: lost.start, count: lost.end - lost.start), try data(of: pair.owner.path)
        )
        for round in 0..<2 {
            let outcome = try pair.healMirror()
            #expect(outcome.lost == [lost.start..<lost.end] && outcome.verdict == .corrupt)
            #expect(outcome.healed == (round == 0 ? [good.start..<good.end] : []))
            #expect(outcome.damagedInSource == [theirs.start..<theirs.end])
        }
        #expect(pair.mirror.bytes(from: lost.start, count: lost.end - lost.start) == before)
        #expect(try data(of: pair.owner.path) == source)
    }

    @Test func lostAtTheEndIsLostToo() throws {
        let pair = try Pair.filled()
        let last = try #require(pair.writes.last)
        try pair.log.setHead(pair.writes[0].start, acknowledged: pair.acknowledged)
        for copy in [pair.owner, pair.mirror] { try copy.zero(last.start..<pair.log.published) }
        let outcome = try pair.healMirror()
        #expect(outcome.lost == [last.start..<pair.acknowledged] && outcome.verdict == .corrupt)
    }

    @Test func contradictingRecordsAreRefusedBeforeTheFirstStore() throws {
        let pair = try Pair.filled()
        try pair.mirror.flip(at: pair.writes[2].start + 64)
        // A valid record with other contents at the same place, as only two owners of one epoch could have written.
        var ring = try #require(pair.mirror.region.ring)
        let place = pair.writes[8].start
        var record = tl_record()
        try #require(tl_record_read_header(&ring, place.rawValue, place.rawValue + ring.size, &record) == TL_VALID)
        record.offset += 512
        var line = [UInt8](repeating: 0, count: 64)
        tl_record_encode(&record, ring.seed, &line)
        try pair.mirror.tamper(line, at: place)
        #expect(pair.compare().ranges.contains { $0.state == .different && $0.from == place })
        let before = try data(of: pair.mirror.path)
        do throws(HealError) {
            try pair.healMirror()
            Issue.record("a contradiction was healed")
        } catch { #expect(error.code == .contradiction && error.message.contains("\(place)")) }
        #expect(try data(of: pair.mirror.path) == before)
    }

    // MARK: A lost head

    /// Around the ring and more, so that the space below the head is used again.
    private func lapped() throws -> Pair {
        let pair = try Pair()
        var random = SplitMix64(seed: 4)
        try pair.write(random.bytes(3000))
        try pair.acknowledge()
        let first = pair.acknowledged
        try pair.trim(to: first)
        while pair.log.published.rawValue < pair.acknowledged.rawValue + Pair.ringBytes - 8000 {
            try pair.write(random.bytes(3000))
        }
        pair.acknowledged = try #require(pair.writes.last).end
        try pair.ship()
        try pair.trim(to: pair.writes[pair.writes.count - 3].start)
        // Only what stands where earlier records stood tells that they were acknowledged: no writer knew it.
        pair.acknowledged = first
        for _ in 0..<6 { try pair.write(random.bytes(3000)) }
        try pair.ship()
        return pair
    }

    /// Spoils the slot that holds it.
    private func loseNewestHead(of copy: Copy) throws {
        let head = copy.region.head
        try copy.reopen()
        let newest = try #require(
            [0, 1].first { turn in
                let slot = Int(copy.region.offset) + [512, 4608][turn]
                return try data(of: copy.path)[slot + 16..<slot + 24].elementsEqual(
                    withUnsafeBytes(of: head.rawValue.littleEndian, Array.init))
            })
        try copy.flipHeadSlot(newest)
        try copy.reopen()
        #expect(copy.region.head < head)
    }

    @Test func newestHeadsLostByBothCopiesLeaveEverythingAsItIs() throws {  // S5: no guess
        let pair = try lapped()
        for copy in [pair.owner, pair.mirror] { try loseNewestHead(of: copy) }
        let before = try data(of: pair.owner.path)
        do throws(HealError) {
            _ = try Heal.run(pair.owner.region, from: pair.mirror.region)
            Issue.record("healed from a head that is not the newest")
        } catch { #expect(error.code == .contradiction && error.message.contains("newest heads")) }
        #expect(try data(of: pair.owner.path) == before)
    }

    @Test func aStaleCopyIsHealedInOneGoAndNotMadeWorse() throws {  // S8, S10
        let pair = try Pair.stale()
        #expect(LogComparison.run(pair.mirror.region, pair.owner.region).first.verdict == .clean)
        let dry = try pair.healMirror(dryRun: true)
        let real = try pair.healMirror()
        #expect(real == dry && real.verdict == .clean && real.restoredHead == pair.owner.region.head)
        try pair.mirror.reopen()
        #expect(pair.mirror.region.head == pair.owner.region.head)
        // The watermark behind it was not acknowledged itself.
        let sound = try #require(LogScan(region: pair.owner.region)).map(\.start).filter { $0 < pair.acknowledged }
        #expect(try #require(LogScan(region: pair.mirror.region)).map(\.start) == sound)
    }

    @Test func aDryRunJudgesTheTailAsTheHealDoes() throws {
        for damage in [nil, 4, 70] as [UInt64?] {
            let pair = try Pair.filled()
            let tail = try pair.write([UInt8](repeating: 1, count: 300))
            try pair.ship()
            if let damage { try pair.mirror.flip(at: tail.start + damage) }
            try pair.mirror.flip(at: pair.single[3].start + 64)
            let dry = try pair.healMirror(dryRun: true)
            #expect(dry.verdict == (damage == nil ? .clean : .torn))
            #expect(try pair.healMirror() == dry)
        }
    }

    @Test func aLostNewestHeadIsCorruptionNotATornTail() throws {  // S5
        let pair = try lapped()
        let sound = try #require(LogScan(region: pair.mirror.region)).map(\.start)
        let head = pair.mirror.region.head
        try loseNewestHead(of: pair.mirror)
        var scan = try #require(LogScan(region: pair.mirror.region))
        #expect(scan.finish() == .corrupt && scan.endLSN < head)
        #expect(LogComparison.run(pair.mirror.region, pair.owner.region).hasLostHead(.first))
        let outcome = try pair.healMirror()
        #expect(outcome.restoredHead == head && outcome.verdict == .clean)
        try pair.mirror.reopen()
        #expect(pair.mirror.region.head == head)
        #expect(try #require(LogScan(region: pair.mirror.region)).map(\.start) == sound)
    }
}
