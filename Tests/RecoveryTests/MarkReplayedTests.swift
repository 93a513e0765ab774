// replay --mark-replayed: once the medium is used, no copy of the log may reach it again, whichever node starts (A4).

import Coordination
import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing

struct MarkReplayedTests {
    @Test("A4: with --config the coordinator is told, and then no pool of the group is replayed again")
    func throughTheCoordinator() throws {
        let rig = try ReplayRig()
        let before = try rig.record()
        let run = try rig.replay("--mark-replayed", "--json")
        #expect(run.code == 0, "\(run)")
        try rig.fixture.mediaAreAsModelled()
        let record = try rig.record()
        #expect(record.version == before.version + 1 && record.epoch == before.epoch.next && record.phase == .claimed)
        #expect(record.holders.isEmpty && record.replayed?.node == ReplayRig.alpha)
        let told = try run.json()
        let coordinator = try #require(told["coordinator"] as? [String: Any])
        #expect(coordinator["epoch"] as? UInt64 == record.epoch.rawValue)
        #expect(told["markedReplayed"] as? Bool == true && told["endLSN"] as? UInt64 == record.replayed?.end.rawValue)
        #expect(try rig.isMarked(rig.fixture.poolPath))
        let used = try rig.useMedium()
        for path in [rig.fixture.poolPath, rig.betaPath] {
            let again = try rig.replay("--mark-replayed", path: path)
            #expect(again.code == 6 && again.errors.contains("replayed"), "\(again)")
        }
        #expect(try data(of: rig.fixture.mediumPath()) == used)
    }

    @Test("A4, S10: a run that was cut after the coordinator was told is finished, and writes nothing anew")
    func cutBeforeTheMark() throws {
        let rig = try ReplayRig()
        let unmarked = try data(of: rig.fixture.poolPath)
        #expect(try rig.replay("--mark-replayed").code == 0)
        let record = try rig.record()
        try unmarked.write(to: URL(fileURLWithPath: rig.fixture.poolPath))
        // The record calls it replayed: the medium may be used already.
        let used = try rig.useMedium()
        #expect(try rig.replay().code == 6)
        let again = try rig.replay("--mark-replayed", "--json")
        #expect(again.code == 0 && again.errors.contains("only the marks are made"), "\(again)")
        #expect(try again.json()["markedReplayed"] as? Bool == true)
        #expect(try rig.record() == record)
        #expect(try rig.isMarked(rig.fixture.poolPath))
        #expect(try data(of: rig.fixture.mediumPath()) == used)
    }

    @Test("A4, S10: a run that was cut before the coordinator was told begins anew with the same result")
    func cutBeforeTheSwap() throws {
        let rig = try ReplayRig()
        #expect(try rig.replay().code == 0)
        #expect(try rig.record().replayed == nil)
        #expect(try rig.replay("--mark-replayed").code == 0)
        try rig.fixture.mediaAreAsModelled()
        #expect(try rig.record().replayed != nil && rig.isMarked(rig.fixture.poolPath))
    }

    @Test("A4: what was told of another log of this pool is not finished with this one")
    func anotherEnd() throws {
        let rig = try ReplayRig()
        let unmarked = try data(of: rig.fixture.poolPath)
        #expect(try rig.replay("--mark-replayed").code == 0)
        try unmarked.write(to: URL(fileURLWithPath: rig.fixture.poolPath))
        try rig.swap { $0.claim?.replayed?.end = LSN(64) }
        let run = try rig.replay("--mark-replayed")
        #expect(run.code == 6 && run.errors.contains("up to LSN 64"), "\(run)")
        #expect(try !rig.isMarked(rig.fixture.poolPath))
    }

    @Test("A4: a dry run tells nobody")
    func dryRun() throws {
        let rig = try ReplayRig()
        let (record, pool) = (try rig.record(), try data(of: rig.fixture.poolPath))
        #expect(try rig.replay("--mark-replayed", "--dry-run").code == 0)
        #expect(try rig.record() == record)
        #expect(try data(of: rig.fixture.poolPath) == pool)
        try rig.fixture.mediaAreUntouched()
    }

    @Test("A4: without --config every pool that is named is marked, and none can be replayed")
    func bothPools() throws {
        let rig = try ReplayRig()
        let run = try rig.replayBlindly("--mark-replayed", "--other-pool", rig.betaPath, "--json")
        #expect(run.code == 0 && !run.errors.contains("only this pool is marked"), "\(run)")
        #expect(try run.json()["otherPools"] as? [String] == [rig.betaPath])
        try rig.fixture.mediaAreAsModelled()
        #expect(try rig.isMarked(rig.fixture.poolPath) && rig.isMarked(rig.betaPath))
        #expect(try rig.replayBlindly(path: rig.betaPath).code == 6)
    }

    @Test("A4: with one pool and no coordinator the tool says aloud what it cannot prevent")
    func onePool() throws {
        let rig = try ReplayRig()
        let run = try rig.replayBlindly("--mark-replayed", "--json")
        #expect(run.code == 0 && run.errors.contains("can still be replayed over what is written"), "\(run)")
        #expect(run.errors.contains("--other-pool") && run.errors.contains("--config"))
        let warnings = try #require(try run.json()["warnings"] as? [String])
        #expect(warnings.contains { $0.contains("only this pool is marked") })
        #expect(try rig.isMarked(rig.fixture.poolPath) && !rig.isMarked(rig.betaPath))
    }

    @Test("A4, S10: a cut between two marks is finished by the same command")
    func cutBetweenMarks() throws {
        let rig = try ReplayRig()
        let unmarked = try data(of: rig.fixture.poolPath)
        #expect(try rig.replayBlindly("--mark-replayed", "--other-pool", rig.betaPath).code == 0)
        // The other pools are marked first.
        try unmarked.write(to: URL(fileURLWithPath: rig.fixture.poolPath))
        #expect(try rig.replayBlindly("--mark-replayed", "--other-pool", rig.betaPath).code == 0)
        #expect(try rig.isMarked(rig.fixture.poolPath) && rig.isMarked(rig.betaPath))
        try rig.fixture.mediaAreAsModelled()
    }

    @Test("A4, S20: a newer log in the other pool is not made harmless by an older one")
    func otherIsNewer() throws {
        let rig = try ReplayRig(incarnationOfBeta: 6)
        let run = try rig.replayBlindly("--mark-replayed", "--other-pool", rig.betaPath)
        #expect(run.code == 6 && run.errors.contains("it is newer"), "\(run)")
        try rig.fixture.mediaAreUntouched()
        #expect(try !rig.isMarked(rig.fixture.poolPath) && !rig.isMarked(rig.betaPath))
    }

    @Test("A4: the other pool is one of the group's other node")
    func otherIsNoOther() throws {
        let rig = try ReplayRig()
        let copy = rig.fixture.folder.file("copy")
        try data(of: rig.fixture.poolPath).write(to: URL(fileURLWithPath: copy))
        let sameNode = try rig.replayBlindly("--mark-replayed", "--other-pool", copy)
        #expect(sameNode.code == 6 && sameNode.errors.contains("is of node alpha"), "\(sameNode)")
        #expect(try rig.replayBlindly("--mark-replayed", "--other-pool", rig.fixture.poolPath).code == 2)
        #expect(try rig.replayBlindly("--other-pool", rig.betaPath).code == 2)
        try rig.fixture.mediaAreUntouched()
    }
}
