// What a replay refuses to write to: known by device and inode, however it is spelled (O19).

import Coordination
import Foundation
import LogModel
import PersistentMemory
import StorageMedium
import TestSupport
import Testing
import WriteLog

struct TargetTests {
    /// Alpha's log to what vol0 and vol1 are said to be.
    private func replay(_ rig: ReplayRig, _ vol0: String, _ vol1: String, _ more: String...) throws -> ToolRun {
        try recover(
            arguments: [
                "replay", rig.fixture.poolPath, "--group", "g0", "--volume", "vol0=\(vol0)", "--volume", "vol1=\(vol1)",
            ] + more)
    }

    @Test("O19: a pool is no target: the one that is read, another one, and under another name")
    func pools() throws {
        let rig = try ReplayRig()
        let link = rig.fixture.folder.file("link")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: rig.fixture.poolPath)
        let pools = (try data(of: rig.fixture.poolPath), try data(of: rig.betaPath))
        for (target, words) in [
            (rig.fixture.poolPath, "is a pool, not a medium"), (link, "is a pool, not a medium"),
            (rig.betaPath, "is a pool, not a medium"),
        ] {
            let run = try replay(rig, target, rig.fixture.mediumPath("vol1"))
            #expect(run.code == 6 && run.errors.contains(words) && run.errors.contains(target), "\(run)")
        }
        // Named to be marked, it is not what is written to either.
        let marked = try replay(
            rig, rig.betaPath, rig.fixture.mediumPath("vol1"), "--mark-replayed", "--other-pool", rig.betaPath)
        #expect(marked.code == 6, "\(marked)")
        #expect(
            try data(of: rig.fixture.poolPath) == pools.0 && data(of: rig.betaPath) == pools.1)
        try rig.fixture.mediaAreUntouched()
    }

    @Test("O19: the configured medium of another volume is refused by both names, unless the operator insists")
    func exchanged() throws {
        let rig = try ReplayRig()
        let media = [rig.fixture.mediumPath("vol1"), rig.fixture.mediumPath("vol0")]
        let run = try replay(rig, media[0], media[1], "--config", rig.configurationPath)
        #expect(run.code == 6 && run.errors.contains("the configured medium of volume vol1"), "\(run)")
        #expect(run.errors.contains("--volume vol0="))
        try rig.fixture.mediaAreUntouched()
        #expect(try replay(rig, media[0], media[1], "--config", rig.configurationPath, "--force-target").code == 0)
        #expect(try data(of: media[0]) == rig.fixture.model[volume0])
    }

    @Test("O19, S18: a medium that carries another volume's identity is overwritten by force only")
    func otherIdentity() throws {
        let rig = try ReplayRig()
        let identities = [UUID128.random(), UUID128.random()]
        for (name, identity) in zip(["vol0", "vol1"], identities) { try rig.fixture.medium(name).adopt(identity) }
        try rig.swap { $0.media = ["vol0": identities[1], "vol1": identities[0]] }
        let refused = try rig.replay()
        #expect(refused.code == 6 && refused.errors.contains("is vol1's medium"), "\(refused)")
        try rig.fixture.mediaAreUntouched()
        #expect(try rig.replay("--force-target").code == 0)
        try rig.fixture.mediaAreAsModelled()
    }

    @Test("O19, A10: an archive is no target")
    func archive() throws {
        let rig = try ReplayRig()
        let path = rig.fixture.folder.file("archive")
        let pool = try Pool.open(path: rig.fixture.poolPath, expecting: nil, persistence: .volatile)
        let region = try #require(pool.region(of: Fixture.group))
        try region.archive(to: path, of: pool.identity, upTo: rig.fixture.log.published, archivedAt: 0)
        pool.close()
        let before = try data(of: path)
        let run = try replay(rig, path, rig.fixture.mediumPath("vol1"))
        #expect(run.code == 6 && run.errors.contains("is the archive of a log, not a medium"), "\(run)")
        #expect(try data(of: path) == before)
    }
}
