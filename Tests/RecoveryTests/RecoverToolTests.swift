// twinlog-recover as its users meet it: what it prints, how it ends, and that looking changes nothing.

import Foundation
import LogModel
import PersistentMemory
import StorageMedium
import TestSupport
import Testing
import WriteLog

struct RecoverToolTests {
    /// Runs the tool on a pool that nobody has open, and checks that not a byte of it changed.
    private func look(_ path: String, _ command: String, _ more: String...) throws -> ToolRun {
        let before = try data(of: path)
        let run =
            switch more.count {
            case 0: try recover(command, path)
            case 1: try recover(command, path, more[0])
            default: try recover(command, path, more[0], more[1])
            }
        #expect(try data(of: path) == before, "\(command) changed the pool")
        return run
    }

    private func group(_ run: ToolRun) throws -> [String: Any] {
        try #require((try run.json()["groups"] as? [[String: Any]])?.first)
    }

    // MARK: A sound pool

    @Test func scanTellsWhatTheLogHolds() throws {
        let fixture = try Fixture(start: LSN(64 * 1000))
        let first = try fixture.write([1, 2, 3, 4], at: 100)
        try fixture.append(.discard(length: 100), at: 0)
        let last = try fixture.write([UInt8](repeating: 7, count: 5000), at: 0, acknowledged: first.end)
        fixture.pool.close()
        let run = try look(fixture.poolPath, "scan", "--json")
        let log = try group(run)
        #expect(run.code == 0)
        #expect(log["name"] as? String == "g0" && log["role"] as? String == "owner" && log["epoch"] as? Int == 5)
        #expect(log["records"] as? Int == 3 && log["writes"] as? Int == 3 && log["verdict"] as? String == "clean")
        #expect(log["headLSN"] as? UInt64 == 64000 && log["endLSN"] as? UInt64 == last.end.rawValue)
        #expect(log["acknowledgedLSN"] as? UInt64 == first.end.rawValue)
        #expect(log["firstBadLSN"] is NSNull)
        // An LSN's place in the file is where it says.
        let ring = try #require(log["ringOffset"] as? UInt64)
        let ringBytes = try #require(log["ringBytes"] as? UInt64)
        let place = Int(ring + first.start.rawValue % ringBytes) + 64
        #expect(Array(try data(of: fixture.poolPath)[place..<place + 4]) == [1, 2, 3, 4])
    }

    @Test func inspectTellsWhosePoolItIs() throws {
        let fixture = try Fixture()
        fixture.pool.close()
        let run = try look(fixture.poolPath, "inspect", "--json")
        let pool = try run.json()
        #expect(run.code == 0)
        #expect(pool["cluster"] as? String == "demo" && pool["node"] as? String == "alpha")
        #expect(pool["uuid"] as? String == poolUUID.description && pool["persistence"] as? String == "volatile")
        let log = try group(run)
        #expect(log["logUUID"] as? String == logUUID.description && log["replayed"] as? Bool == false)
        #expect(try look(fixture.poolPath, "inspect").output.contains("node alpha"))
    }

    @Test func dumpPrintsTheRecords() throws {
        let fixture = try Fixture()
        try fixture.write([0xAB, 0xCD], at: 100)
        let second = try fixture.append(.writeZeroes(length: 4096, keepSpace: true), at: 8192)
        try fixture.write([9], at: 0)
        fixture.pool.close()
        let all = try #require(try group(look(fixture.poolPath, "dump", "--json"))["records"] as? [[String: Any]])
        #expect(all.map { $0["kind"] as? String } == ["data", "write-zeroes-keep", "data"])
        #expect(all[1]["lsn"] as? UInt64 == second.start.rawValue && all[1]["offset"] as? UInt64 == 8192)
        #expect(all[0]["payloadHex"] == nil)
        let run = try recover("dump", fixture.poolPath, "--json", "--payload", "--from", "1", "--limit", "2")
        let some = try #require(try group(run)["records"] as? [[String: Any]])
        #expect(some.map { $0["payloadHex"] as? String } == ["", "09"])
        #expect(try look(fixture.poolPath, "dump", "--payload").output.contains("abcd"))
    }

    @Test func aLogThatWasNeverUsedIsToldSo() throws {
        let folder = try Folder()
        let pool = try Pool.create(
            path: folder.file("pool"), sizeBytes: 1 << 20,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .volatile)
        _ = try pool.allocateRegion(group: GroupID("g1"), ringBytes: 64 << 10)
        pool.close()
        let run = try look(folder.file("pool"), "scan", "--json")
        #expect(run.code == 0)
        #expect(try group(run)["role"] as? String == "empty")
        #expect(try recover("replay", folder.file("pool"), "--group", "g1", "--volume", "v=/nowhere").code == 6)
    }

    // MARK: Torn and corrupt

    @Test func aTornTailIsExitOneAndCorruptionThree() throws {  // S5
        for isAcknowledged in [false, true] {
            let fixture = try Fixture()
            let first = try fixture.write([1], at: 0)
            let bad = try fixture.write([2], at: 0)
            try fixture.write([3], at: 0, acknowledged: isAcknowledged ? bad.end : first.end)
            try fixture.flip(at: bad.start + 64)
            fixture.pool.close()
            for command in ["scan", "dump"] {
                let run = try look(fixture.poolPath, command, "--json")
                let log = try group(run)
                #expect(run.code == (isAcknowledged ? 3 : 1))
                #expect(log["verdict"] as? String == (isAcknowledged ? "corrupt" : "torn"))
                #expect(log["firstBadLSN"] as? UInt64 == bad.start.rawValue)
            }
            #expect(try look(fixture.poolPath, "scan").code == (isAcknowledged ? 3 : 1))
        }
    }

    @Test func aLogWithoutAnIdentityIsNotOneThatWasNeverUsed() throws {  // S5, S20
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        let header = fixture.region.ringOffset - 8192
        fixture.pool.close()
        try overwrite(fixture.poolPath, at: header, with: [UInt8](repeating: 0, count: 8192))
        let scan = try look(fixture.poolPath, "scan", "--json")
        #expect(scan.code == 3)
        #expect(try group(scan)["verdict"] as? String == "corrupt")
        let replay = try recover(
            "replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())")
        #expect(replay.code == 3 && replay.errors.contains("identity"), "\(replay)")
        try fixture.mediaAreUntouched()
    }

    @Test func aLogWhoseFirstFormatWasCutWasNeverUsed() throws {  // S4
        let folder = try Folder()
        let path = folder.file("pool")
        let pool = try Pool.create(
            path: path, sizeBytes: 256 << 10,
            identity: PoolIdentity(uuid: .random(), cluster: "demo", node: NodeID("alpha")), persistence: .volatile)
        let header = try pool.allocateRegion(group: Fixture.group, ringBytes: 64 << 10).ringOffset - 8192
        pool.close()
        // One slot, as a crash may leave it.
        try overwrite(path, at: header + 16, with: [1, 2, 3])
        let cut = try recover("scan", path)
        #expect(cut.code == 0 && cut.output.contains("never used"), "\(cut)")
        // Something else, which no crash explains.
        try overwrite(path, at: header + 512, with: [1])
        #expect(try recover("scan", path).code == 3)
    }

    // MARK: What is not a pool

    @Test func whatIsNotAPoolIsExitFourWithFileAndReason() throws {  // S21
        let folder = try Folder()
        var random = SplitMix64(seed: 3)
        try Data(random.bytes(1 << 20)).write(to: URL(fileURLWithPath: folder.file("garbage")))
        try Data(count: 1 << 20).write(to: URL(fileURLWithPath: folder.file("zeros")))
        try Data().write(to: URL(fileURLWithPath: folder.file("empty")))
        try #require(mkfifo(folder.file("pipe"), 0o600) == 0)
        let fixture = try Fixture()
        fixture.pool.close()
        let pool = try data(of: fixture.poolPath)
        try pool.dropLast(4096).write(to: URL(fileURLWithPath: folder.file("truncated")))
        try pool.prefix(5000).write(to: URL(fileURLWithPath: folder.file("stump")))
        try (pool + [0]).write(to: URL(fileURLWithPath: folder.file("longer")))
        var newer = pool
        for copy in [0, 4096] { newer[copy + 8] = 99 }
        try newer.write(to: URL(fileURLWithPath: folder.file("newer")))
        for name in ["garbage", "zeros", "empty", "truncated", "stump", "longer", "newer", "pipe", "missing", "."] {
            for command in ["inspect", "scan", "dump"] {
                let run = try recover(command, folder.file(name))
                #expect(run.code == 4, "\(command) \(name): \(run.errors)")
                #expect(run.errors.contains(folder.file(name)) && run.output.isEmpty)
            }
        }
        #expect(try recover("scan", folder.file("newer")).errors.contains("99"))
        #expect(try recover("scan", folder.file("truncated")).errors.contains("truncated"))
    }

    @Test(arguments: [11, 12, 13] as [UInt64])
    func damagedPoolsNeverCrashTheTool(seed: UInt64) throws {  // S21
        let fixture = try Fixture(ringBytes: 64 << 10)
        for index in 0..<20 as Range<UInt64> { try fixture.write([UInt8](repeating: 1, count: 500), at: index * 500) }
        fixture.pool.close()
        let sound = try data(of: fixture.poolPath)
        let folder = try Folder()
        var random = SplitMix64(seed: seed)
        for round in 0..<12 {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...40, using: &random) {
                // Headers and the ring's beginning, where every byte means something.
                bytes[Int.random(in: 0..<40_000, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            let path = folder.file("pool\(round)")
            try bytes.write(to: URL(fileURLWithPath: path))
            for command in ["scan", "dump"] { #expect([0, 1, 3, 4].contains(try look(path, command, "--json").code)) }
        }
    }

    // MARK: Refusals

    @Test func aPoolThatAProcessHoldsIsExitFive() throws {
        let fixture = try Fixture()
        for command in ["inspect", "scan", "dump"] {
            let run = try recover(command, fixture.poolPath)
            #expect(run.code == 5 && run.errors.contains("in use: process \(getpid())"), "\(run.errors)")
        }
        let replay = try recover(
            "replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())")
        #expect(replay.code == 5)
        try fixture.mediaAreUntouched()
    }

    @Test func twoLooksAtOnceAreFine() throws {
        let fixture = try Fixture()
        fixture.pool.close()
        let reader = try Pool.open(path: fixture.poolPath, expecting: nil, persistence: .auto, readOnly: true)
        #expect(try recover("scan", fixture.poolPath).code == 0)
        reader.close()
    }

    @Test func wrongUsageIsExitTwo() throws {
        let fixture = try Fixture()
        fixture.pool.close()
        let path = fixture.poolPath
        let medium = "vol0=\(fixture.mediumPath())"
        #expect(try recover().code == 2)
        #expect(try recover("mend", path).code == 2)
        #expect(try recover("scan").code == 2)
        #expect(try recover("dump", path, "--limit", "many").code == 2)
        #expect(try recover("scan", path, "--group", "g9").code == 2)
        #expect(try recover("replay", path, "--group", "g0").code == 2)
        #expect(try recover("replay", path, "--group", "g9", "--volume", medium).code == 2)
        #expect(try recover("replay", path, "--group", "g0", "--volume", "vol0").code == 2)
        #expect(try recover("replay", path, "--group", "g0", "--volume", medium, "--volume", medium).code == 2)
        #expect(try recover("replay", path, "--group", "g0", "--config", "/nowhere.yaml").code == 2)
        try fixture.mediaAreUntouched()
        let version = try recover("--version")
        #expect(version.code == 0 && version.output == "\(TwinLogVersion.current)\n")
    }

    // MARK: Replay

    @Test func replayBringsTheLogToTheMediumAndLeavesThePoolAsItIs() throws {
        let fixture = try Fixture(volumes: ["vol0", "vol1"])
        try fixture.fillRandomly(seed: 8, count: 120)
        fixture.pool.close()
        let pool = try data(of: fixture.poolPath)
        func replay(_ more: String) throws -> ToolRun {
            try recover(
                "replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())", "--volume",
                "vol1=\(fixture.mediumPath("vol1"))", "--json", more)
        }
        let dry = try replay("--dry-run")
        #expect(dry.code == 0)
        #expect(try dry.json()["dryRun"] as? Bool == true)
        try fixture.mediaAreUntouched()
        let run = try replay("--group=g0")
        let told = try run.json()
        #expect(run.code == 0 && told["writes"] as? Int == 120 && told["verdict"] as? String == "clean")
        #expect(told["inSync"] is NSNull && run.errors.contains("without --config"))
        try fixture.mediaAreAsModelled()
        #expect(try replay("--group=g0").code == 0)
        try fixture.mediaAreAsModelled()
        #expect(try data(of: fixture.poolPath) == pool)
    }

    @Test func aMarkedReplayIsRefusedTheSecondTime() throws {
        let fixture = try Fixture()
        try fixture.fillRandomly(seed: 9, count: 50)
        fixture.pool.close()
        let pool = try data(of: fixture.poolPath)
        let arguments = ["replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())"]
        func replay(_ flags: String...) throws -> ToolRun {
            flags.count == 1
                ? try recover(
                    arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], flags[0])
                : try recover(
                    arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], flags[0],
                    flags[1])
        }
        // A dry run marks nothing.
        #expect(try replay("--mark-replayed", "--dry-run").code == 0)
        #expect(try data(of: fixture.poolPath) == pool)
        #expect(try replay("--mark-replayed").code == 0)
        try fixture.mediaAreAsModelled()
        // Only the identity slots differ: the log is all there.
        let marked = try data(of: fixture.poolPath)
        var expected = pool
        for identity in [fixture.region.offset, fixture.region.offset + 4096].map({ Int($0)..<Int($0) + 64 }) {
            expected.replaceSubrange(identity, with: marked[identity])
        }
        #expect(marked != pool && marked == expected)
        // What clients wrote since must not be undone.
        try overwrite(fixture.mediumPath(), at: 0, with: [UInt8](repeating: 0x55, count: 4096))
        let after = try data(of: fixture.mediumPath())
        for flags in ["--json", "--dry-run", "--mark-replayed"] {
            let again = try replay(flags)
            #expect(again.code == 6 && again.errors.contains("replayed before"))
        }
        #expect(try data(of: fixture.mediumPath()) == after)
        #expect(try recover("scan", fixture.poolPath).output.contains("replayed by this tool"))
    }

    @Test func aTornTailIsReplayedUpToItsTearWithExitOne() throws {  // S5
        let fixture = try Fixture()
        try fixture.write([1, 2, 3], at: 0)
        let torn = try fixture.appendOnly([4, 5, 6], at: 1)
        try fixture.flip(at: torn.start + 64)
        fixture.pool.close()
        #expect(
            try recover("replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())").code
                == 1)
        try fixture.mediaAreAsModelled()
    }

    @Test(arguments: ["--json", "--mark-replayed"])
    func aCorruptLogIsNotReplayed(flag: String) throws {  // S5
        let fixture = try Fixture()
        let bad = try fixture.write([1, 2, 3], at: 0)
        try fixture.write([4, 5, 6], at: 1, acknowledged: bad.end)
        try fixture.flip(at: bad.start + 64)
        fixture.pool.close()
        let pool = try data(of: fixture.poolPath)
        let run = try recover(
            "replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())", flag)
        #expect(run.code == 3 && run.errors.contains("corrupt at LSN \(bad.start)"))
        try fixture.mediaAreUntouched()
        #expect(try data(of: fixture.poolPath) == pool)
    }

    @Test func aMediumThatANodeHoldsIsExitFive() throws {  // S18
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        fixture.pool.close()
        let holder = try fixture.medium()
        try holder.lock()
        for flag in ["--json", "--dry-run"] {
            let run = try recover(
                "replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())", flag)
            #expect(run.code == 5 && run.errors.contains(fixture.mediumPath()))
        }
        try fixture.mediaAreUntouched()
        try holder.unlock()
    }

    @Test func aMissingOrWrongMediumIsExitSixAndIsNotCreated() throws {
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        try fixture.write([1], at: 5000)
        fixture.pool.close()
        let missing = fixture.folder.file("missing.img")
        #expect(try recover("replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(missing)").code == 6)
        #expect(!FileManager.default.fileExists(atPath: missing))
        // Too small for the second record: the first is not written either.
        let small = fixture.folder.file("small.img")
        try Data(repeating: 0xEE, count: 4096).write(to: URL(fileURLWithPath: small))
        #expect(try recover("replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(small)").code == 6)
        #expect(try data(of: small) == Data(repeating: 0xEE, count: 4096))
        // The log's volume goes by another name.
        #expect(
            try recover("replay", fixture.poolPath, "--group", "g0", "--volume", "other=\(fixture.mediumPath())").code
                == 2)
        try fixture.mediaAreUntouched()
    }
}
