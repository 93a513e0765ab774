// compare and heal as their users meet them: what is printed, how they end, and what changes in which file.

import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing
import WriteLog

struct HealToolTests {
    private func groups(_ run: ToolRun) throws -> [[String: Any]] {
        try #require(try run.json()["groups"] as? [[String: Any]])
    }

    private func closed(_ pair: Pair) -> (owner: String, mirror: String) {
        pair.owner.close()
        pair.mirror.close()
        return (pair.owner.path, pair.mirror.path)
    }

    // MARK: compare

    @Test func compareTellsWhoHoldsWhat() throws {
        let pair = try Pair.filled()
        let (bad, acknowledged, end) = (pair.single[3], pair.acknowledged.rawValue, pair.log.published.rawValue)
        try pair.mirror.flip(at: bad.start + 64)
        let paths = closed(pair)
        let before = (try data(of: paths.owner), try data(of: paths.mirror))
        let run = try recover("compare", paths.owner, paths.mirror, "--json")
        #expect(run.code == 3)
        let log = try #require(try groups(run).first)
        #expect(log["name"] as? String == "g0" && log["relation"] as? String == "sameIncarnation")
        #expect(log["newer"] is NSNull && log["verdict"] as? String == "corrupt")
        #expect(log["acknowledgedLSN"] as? UInt64 == acknowledged)
        let ranges = try #require(log["ranges"] as? [[String: Any]])
        #expect(ranges.map { $0["validIn"] as? String } == ["both", "onlyFirst", "both", "both"])
        #expect(
            ranges[1]["fromLSN"] as? UInt64 == bad.start.rawValue && ranges[1]["toLSN"] as? UInt64 == bad.end.rawValue)
        #expect(ranges[3]["acknowledged"] as? Bool == false && ranges[3]["toLSN"] as? UInt64 == end)
        let copy = try #require(log["second"] as? [String: Any])
        #expect(copy["verdict"] as? String == "corrupt" && copy["firstBadLSN"] as? UInt64 == bad.start.rawValue)
        let text = try recover("compare", paths.mirror, paths.owner)
        #expect(text.code == 3 && text.output.contains("LSN \(bad.start) to \(bad.end): only the second is valid"))
        #expect(try data(of: paths.owner) == before.0 && data(of: paths.mirror) == before.1)
    }

    @Test func compareSaysWhichIsNewer() throws {
        let pair = try Pair.filled()
        try pair.mirror.region.format(role: .owner, logUUID: logUUID, incarnation: Incarnation(7), start: .zero)
        let paths = closed(pair)
        let run = try recover("compare", paths.owner, paths.mirror, "--group", "g0", "--json")
        let log = try #require(try groups(run).first)
        #expect(
            run.code == 0 && log["relation"] as? String == "otherIncarnation" && log["newer"] as? String == "second")
        #expect(try recover("compare", paths.owner, paths.mirror).output.contains("the second is newer"))
    }

    @Test func soundCopiesAreExitZeroAndDifferentTailsOne() throws {
        let pair = try Pair.filled()
        let sound = closed(pair)
        #expect(try recover("compare", sound.owner, sound.mirror).code == 0)
        let torn = try Pair.filled()
        try torn.write([1, 2, 3])
        let paths = closed(torn)
        let run = try recover("compare", paths.owner, paths.mirror)
        #expect(run.code == 1 && run.output.contains("never acknowledged"))
    }

    // MARK: heal

    @Test func healBringsBackWhatIsDamagedAndScanIsCleanAfterwards() throws {  // S5
        let pair = try Pair.filled()
        let sound = try data(of: pair.mirror.path)
        try pair.mirror.flip(at: pair.single[2].start)
        try pair.mirror.flip(at: pair.single[6].start + 64)
        let paths = closed(pair)
        // A copy of the superblock, of the directory and of the identity too: their twins are whole.
        for offset in [100, 8192 + 70, Int(pair.mirror.region.offset) + 20] {
            try overwrite(paths.mirror, at: UInt64(offset), with: [sound[offset] ^ 4])
        }
        let (source, damaged) = (try data(of: paths.owner), try data(of: paths.mirror))
        #expect(try recover("scan", paths.mirror).code == 3)
        let dry = try recover("heal", paths.mirror, "--from", paths.owner, "--dry-run", "--json")
        #expect(dry.code == 0)
        #expect(try data(of: paths.mirror) == damaged)
        let run = try recover("heal", paths.mirror, "--from", paths.owner, "--json")
        let log = try #require(try groups(run).first)
        #expect(run.code == 0 && log["healedRecords"] as? Int == 2 && log["verdict"] as? String == "clean")
        #expect((log["healed"] as? [Any])?.count == 2 && (log["lost"] as? [Any])?.isEmpty == true)
        #expect(try data(of: paths.mirror) == sound)
        #expect(try data(of: paths.owner) == source)
        #expect(try recover("scan", paths.mirror).code == 0)
        let again = try recover("heal", paths.mirror, "--from", paths.owner)
        #expect(again.code == 0 && again.output.contains("healed 0 records"))
        #expect(try data(of: paths.mirror) == sound)
    }

    @Test func whatNeitherHoldsIsExitThree() throws {  // S5
        let pair = try Pair.filled()
        for copy in [pair.owner, pair.mirror] { try copy.flip(at: pair.single[3].start + 64) }
        let paths = closed(pair)
        let before = try data(of: paths.mirror)
        let run = try recover("heal", paths.mirror, "--from", paths.owner)
        #expect(run.code == 3 && run.output.contains("LOST: LSN \(pair.single[3].start)"))
        #expect(try data(of: paths.mirror) == before)
        #expect(try recover("compare", paths.mirror, paths.owner).output.contains("NEITHER is valid"))
    }

    @Test func aTornTailThatStaysIsExitOne() throws {
        let pair = try Pair.filled()
        let tail = try pair.write([9, 9])
        try pair.ship()
        for copy in [pair.owner, pair.mirror] { try copy.flip(at: tail.start + 64) }
        try pair.mirror.flip(at: pair.single[1].start)
        let paths = closed(pair)
        #expect(try recover("heal", paths.mirror, "--from", paths.owner).code == 1)
        #expect(try recover("scan", paths.mirror).code == 1)
    }

    // MARK: Refusals

    @Test func aHeldPoolIsExitFiveAndUntouched() throws {
        let pair = try Pair.filled()
        try pair.mirror.flip(at: pair.single[1].start)
        let before = (try data(of: pair.owner.path), try data(of: pair.mirror.path))
        pair.mirror.close()
        // First the source is held, then the damaged one.
        for command in ["compare", "heal"] {
            let more = command == "heal" ? ["--from", pair.owner.path] : [pair.owner.path, "--json"]
            let run = try recover(command, pair.mirror.path, more[0], more[1])
            #expect(run.code == 5 && run.errors.contains("in use: process \(getpid())"), "\(command): \(run.errors)")
        }
        pair.owner.close()
        try pair.mirror.reopen()
        #expect(try recover("heal", pair.mirror.path, "--from", pair.owner.path).code == 5)
        pair.mirror.close()
        // A reader does not stand in a reader's way; a heal needs the pool for itself.
        try pair.mirror.reopen(readOnly: true)
        #expect(try recover("compare", pair.mirror.path, pair.owner.path).code == 3)
        #expect(try recover("heal", pair.mirror.path, "--from", pair.owner.path).code == 5)
        #expect(try data(of: pair.owner.path) == before.0 && data(of: pair.mirror.path) == before.1)
    }

    @Test func anotherEpochIsRefusedWithExitSixAndUntouched() throws {
        let pair = try Pair.filled()
        try pair.mirror.region.format(role: .mirror, logUUID: logUUID, incarnation: Incarnation(6), start: .zero)
        let paths = closed(pair)
        // Opening for writing would heal this copy: a refusal does not even do that.
        let sound = try data(of: paths.mirror)
        try overwrite(paths.mirror, at: 100, with: [sound[100] ^ 4])
        let before = try data(of: paths.mirror)
        let run = try recover("heal", paths.mirror, "--from", paths.owner)
        #expect(run.code == 6 && run.errors.contains("different epochs (6 and 5)"))
        #expect(try data(of: paths.mirror) == before)
    }

    @Test func wrongUsageIsExitTwoAndNoPoolFour() throws {
        let pair = try Pair.filled()
        let paths = closed(pair)
        #expect(try recover("compare", paths.owner).code == 2)
        #expect(try recover("compare", paths.owner, paths.owner).code == 2)
        #expect(try recover("heal", paths.owner).code == 2)
        #expect(try recover("heal", paths.owner, "--from", paths.owner).code == 2)
        #expect(try recover("compare", paths.owner, paths.mirror, "--group", "g9").code == 2)
        #expect(try recover("heal", paths.owner, "--from", paths.mirror, "--group", "g9").code == 2)
        let missing = pair.folder.file("missing")
        #expect(try recover("compare", missing, paths.owner).code == 4)
        #expect(try recover("heal", paths.owner, "--from", missing).code == 4)
        #expect(try recover("heal", missing, "--from", paths.owner).code == 4)
    }

    // MARK: Older copies

    /// A pair with twenty acknowledged writes, and a copy of the mirror's pool from when there were ten.
    private func withOlderCopy() throws -> (Pair, older: String) {
        let pair = try Pair()
        let older = pair.folder.file("older")
        for number in 0..<20 as Range<UInt8> {
            if number == 10 { try data(of: pair.mirror.path).write(to: URL(fileURLWithPath: older)) }
            try pair.write([UInt8](repeating: number, count: 500))
            try pair.acknowledge()
        }
        return (pair, older)
    }

    @Test("S20, O15, A6: from an older copy of the log comes what it holds, and nothing of what is newer is touched")
    func healFromAnOlderCopy() throws {
        let (pair, older) = try withOlderCopy()
        let (early, late) = (pair.single[3], pair.single[15])
        let sound = pair.owner.bytes(from: pair.writes[0].start, count: late.start - pair.writes[0].start)
        for bad in [early, late] { try pair.owner.flip(at: bad.start + 64) }
        let broken = pair.owner.bytes(from: late.start, count: pair.log.published - late.start)
        let paths = closed(pair)
        let run = try recover("heal", paths.owner, "--from", older)
        #expect(run.code == 3 && run.output.contains("LOST: LSN \(late.start) to \(late.end)"), "\(run)")
        #expect(run.output.contains("healed LSN \(early.start) to \(early.end)"))
        try pair.owner.reopen(readOnly: true)
        #expect(pair.owner.bytes(from: pair.writes[0].start, count: UInt64(sound.count)) == sound)
        #expect(pair.owner.bytes(from: late.start, count: UInt64(broken.count)) == broken)
        pair.owner.close()
        // The newest copy has the rest.
        #expect(try recover("heal", paths.owner, "--from", paths.mirror).code == 0)
    }

    @Test("S20, O15: two states of one pool are told as such, and which of them is newer")
    func twoStatesOfOnePool() throws {
        let (pair, older) = try withOlderCopy()
        try pair.mirror.region.note(RegionStanding(generation: 3, counted: 3, epoch: Epoch(5)))
        let paths = closed(pair)
        let run = try recover("compare", older, paths.mirror)
        #expect(run.code == 3 && run.errors.contains("two states of one pool of node beta"), "\(run)")
        #expect(run.errors.contains("of start 0 and of start 3"))
        #expect(try !recover("compare", paths.owner, paths.mirror).errors.contains("two states"))
    }
}
