// What a replay refuses to write to: known by device and inode, however it is spelled (O19).

import Foundation
import LogModel
import Testing

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
        let pools = (try contents(of: rig.fixture.poolPath), try contents(of: rig.betaPath))
        for (target, words) in [
            (rig.fixture.poolPath, "a file that this run reads"), (link, "the same file as"),
            (rig.betaPath, "begins as a pool does"),
        ] {
            let run = try replay(rig, target, rig.fixture.mediumPath("vol1"))
            #expect(run.code == 6 && run.errors.contains(words) && run.errors.contains(target), "\(run)")
        }
        // Named to be marked, it is not what is written to either.
        let marked = try replay(
            rig, rig.betaPath, rig.fixture.mediumPath("vol1"), "--mark-replayed", "--other-pool", rig.betaPath)
        #expect(marked.code == 6, "\(marked)")
        #expect(
            try contents(of: rig.fixture.poolPath) == pools.0 && contents(of: rig.betaPath) == pools.1)
        try rig.fixture.mediaAreUntouched()
    }

    @Test("O8, O19: one file for two volumes is refused, by whatever names")
    func twice() throws {
        let rig = try ReplayRig()
        let medium = rig.fixture.mediumPath()
        let (hard, soft) = (rig.fixture.folder.file("hard"), rig.fixture.folder.file("soft"))
        try FileManager.default.linkItem(atPath: medium, toPath: hard)
        try FileManager.default.createSymbolicLink(atPath: soft, withDestinationPath: medium)
        for other in [medium, hard, soft, rig.fixture.folder.path + "/./vol0.img"] {
            let run = try replay(rig, medium, other)
            #expect(run.code == 2 && run.errors.contains("volume vol0") && run.errors.contains(medium), "\(run)")
        }
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
        #expect(try contents(of: media[0]) == rig.fixture.model[volume0])
    }

    @Test("O19: a medium that a client made look like a pool can be replayed to by force only")
    func looksLikeAPool() throws {
        let rig = try ReplayRig()
        for beginning in ["TWINLOG\0", "TWINARCH"] {
            try overwrite(rig.fixture.mediumPath(), at: 0, with: Array(beginning.utf8))
            let refused = try rig.replay()
            #expect(refused.code == 6 && refused.errors.contains("--force-target"), "\(refused)")
        }
        #expect(try rig.replay("--force-target").code == 0)
    }
}
