// replay --config: what the coordinator knows decides whether a pool may be replayed.

import Coordination
import Foundation
import LogModel
import PersistentMemory
import RecordSupport
import StorageMedium
import TestSupport
import Testing

struct InSyncTests {
    private static let configuration = """
        cluster: demo
        coordinator: {type: file, path: coordinator}
        nodes:
          alpha: {mirror: ["127.0.0.1:7101"], nbd: "unix:alpha.nbd", admin: alpha.sock, pool: {path: pool, size: 32MiB}}
          beta: {mirror: ["127.0.0.1:7102"], nbd: "unix:beta.nbd", admin: beta.sock, pool: {path: beta.pool, size: 32MiB}}
        groups:
          g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 4MiB}}}
        """

    private static let sound = GroupRecord(
        version: 1, group: GroupID("g0"), logUUID: logUUID, owner: NodeID("beta"), epoch: Epoch(6), phase: .published,
        holders: [NodeID("alpha"), NodeID("beta")], ownerProcess: nil,
        pools: ["alpha": poolUUID, "beta": UUID128(high: 9, low: 9)], generation: 0)

    /// Replays alpha's pool with the coordinator in the state of `record`; refused or done, the media tell.
    private func replay(
        _ record: GroupRecord?, configuration: String = Self.configuration, withFolder: Bool = true,
        mediumIdentity: UUID128? = nil
    ) throws -> ToolRun {
        let fixture = try Fixture()
        if let mediumIdentity { try fixture.medium().adopt(mediumIdentity) }
        try fixture.fillRandomly(seed: 10, count: 20)
        fixture.pool.close()
        let pool = try data(of: fixture.poolPath)
        try configuration.write(toFile: fixture.folder.file("cluster.yaml"), atomically: true, encoding: .utf8)
        if withFolder {
            let coordinator = try FileCoordinator(directory: fixture.folder.file("coordinator"))
            if let record { #expect(try coordinator.swap(expecting: 0, to: record) == .won) }
        }
        let run = try recover(
            "replay", fixture.poolPath, "--group", "g0", "--config", fixture.folder.file("cluster.yaml"), "--json")
        if run.code == 0 { try fixture.mediaAreAsModelled() } else { try fixture.mediaAreUntouched() }
        #expect(try data(of: fixture.poolPath) == pool)
        #expect(withFolder || !FileManager.default.fileExists(atPath: fixture.folder.file("coordinator")))
        return run
    }

    private func changed(_ change: (inout GroupRecord) -> Void) -> GroupRecord {
        var record = Self.sound
        change(&record)
        return record
    }

    @Test func aPoolInSyncIsReplayedToTheConfiguredMedia() throws {
        let run = try replay(Self.sound)
        #expect(run.code == 0 && run.errors.isEmpty)
        #expect(try run.json()["inSync"] as? Bool == true)
    }

    @Test("O19, S18: a medium that is not the volume's, by the record, is refused by what it is")
    func otherMedium() throws {
        let (mine, its) = (UUID128.random(), UUID128.random())
        let record = changed { $0.media = ["vol0": mine, "vol1": its] }
        #expect(try replay(record, mediumIdentity: mine).code == 0)
        let exchanged = try replay(record, mediumIdentity: its)
        #expect(
            exchanged.code == 6 && exchanged.errors.contains("is vol1's medium (id \(its)), not vol0's"), "\(exchanged)"
        )
        let copy = try replay(record)
        #expect(copy.code == 6 && copy.errors.contains("has no identity, vol0's medium has \(mine)"), "\(copy)")
    }

    @Test func aPoolOutOfSyncIsRefused() throws {  // S13
        let run = try replay(changed { $0.setHolders([NodeID("beta")]) })
        #expect(run.code == 6 && run.errors.contains("out of sync") && run.errors.contains("replay the pool of beta"))
    }

    @Test func whileClaimedTheSourcesCount() throws {  // S16
        let claimed = changed {
            $0.phase = .claimed
            $0.setHolders([NodeID("alpha"), NodeID("beta")])
        }
        #expect(try replay(claimed).code == 0)
        #expect(
            try replay(
                changed {
                    $0.phase = .claimed; $0.setHolders([NodeID("beta")])
                }
            ).code == 6)
    }

    @Test func aPoolThatTheCoordinatorDoesNotKnowIsRefused() throws {  // S20
        #expect(try replay(changed { $0.members[NodeID("alpha")]?.pool = .zero }).code == 6)
        #expect(try replay(changed { $0.members[NodeID("alpha")] = nil }).code == 6)
        #expect(try replay(changed { $0.logUUID = .zero }).code == 6)
    }

    @Test func aCoordinatorThatKnowsLessThanThePoolIsRefused() throws {  // S20
        let run = try replay(changed { $0.epoch = Epoch(4) })
        #expect(run.code == 6 && run.errors.contains("epoch 4"))
        #expect(try replay(nil).code == 6)
        let run2 = try replay(nil, withFolder: false)
        #expect(run2.code == 6 && run2.errors.contains("coordinator"))
    }

    @Test func aLivingWriterStopsTheReplay() throws {  // S16
        let me = try ProcessIdentity.current(node: NodeID("beta"))
        let run = try replay(changed { $0.ownerProcess = me })
        #expect(run.code == 5 && run.errors.contains("process \(me.pid)"))
        let fenced = changed {
            $0.phase = .claimed
            $0.setHolders([NodeID("alpha")])
            $0.fence(me)
        }
        #expect(try replay(fenced).code == 5)
    }

    @Test func aProcessOfTheSameNumberThatBeganAtAnotherTimeIsNotIt() throws {  // S18
        var other = try ProcessIdentity.current(node: NodeID("beta"))
        other.startTicks += 1
        #expect(try replay(changed { $0.ownerProcess = other }).code == 0)
    }

    @Test("S18, O7: a writer that cannot be seen from here is named in a warning")
    func unseenWriter() throws {
        let me = try ProcessIdentity.current(node: NodeID("beta"))
        var ofAnotherBoot = me
        ofAnotherBoot.bootID = "00000000-0000-0000-0000-000000000000"
        var inAnotherNamespace = me
        inAnotherNamespace.pidNamespace = "pid:[1]"
        for other in [ofAnotherBoot, inAnotherNamespace] {
            let run = try replay(changed { $0.ownerProcess = other })
            #expect(
                run.code == 0 && run.errors.contains("process \(me.pid) of node beta cannot be seen from here"),
                "\(run)")
        }
    }

    @Test func aPoolOfAnotherClusterIsExitFour() throws {
        let text = Self.configuration.replacing("cluster: demo", with: "cluster: other")
        let run = try replay(Self.sound, configuration: text)
        #expect(run.code == 4 && run.errors.contains("cluster demo"))
    }

    @Test func aBrokenConfigurationIsExitTwo() throws {
        #expect(try replay(Self.sound, configuration: "cluster: demo\nsurprise: 1\n").code == 2)
    }

    // MARK: Copies that are older than what the coordinator knows

    /// Alpha's pool and record, after `change`; refused with `words`, and nothing is written.
    private func refused(
        _ words: String, standing: RegionStanding? = nil, sourceLocation: SourceLocation = #_sourceLocation,
        _ change: (inout GroupRecord) -> Void
    ) throws {
        let rig = try ReplayRig()
        if let standing { try rig.note(standing) }
        try rig.swap(change)
        let pool = try data(of: rig.fixture.poolPath)
        for flag in ["--json", "--mark-replayed"] {
            let record = try rig.record()
            let run = try rig.replay(flag)
            #expect(run.code == 6 && run.errors.contains(words), "\(run)", sourceLocation: sourceLocation)
            #expect(try rig.record() == record, sourceLocation: sourceLocation)
        }
        try rig.fixture.mediaAreUntouched(sourceLocation: sourceLocation)
        #expect(try data(of: rig.fixture.poolPath) == pool, sourceLocation: sourceLocation)
    }

    @Test("S20, O15, A6: yesterday's copy of a pool is told by its start, and by the opening of its log")
    func anOlderCopyOfThePool() throws {
        try refused("a copy of generation 1") { $0.members[ReplayRig.alpha]?.generation = 2 }
        try refused("opened in epoch 5, the group's in epoch 6") { record in
            record.epoch = Epoch(6)
            record.members[ReplayRig.alpha]?.incarnation = Incarnation(6)
        }
    }

    @Test("S20, A5: yesterday's copy of the coordinator is told by the start, and by the epoch, that the pool has seen")
    func anOlderCopyOfTheCoordinator() throws {
        try refused(
            "knows only 1", standing: RegionStanding(generation: 3, counted: 3, epoch: Epoch(5))
        ) { _ in }
        try refused(
            "knows only epoch 5", standing: RegionStanding(generation: 1, counted: 1, epoch: Epoch(6))
        ) { _ in }
    }

    @Test("S20: a start that is not confirmed may be counted already, or not", arguments: [1, 2] as [UInt64])
    func anUnconfirmedStart(counted: UInt64) throws {
        let rig = try ReplayRig()
        try rig.note(RegionStanding(generation: 2, counted: 1, epoch: Epoch(5)))
        try rig.swap { $0.members[ReplayRig.alpha]?.generation = counted }
        #expect(try rig.replay().code == 0)
        try rig.fixture.mediaAreAsModelled()
    }

    @Test("S9: a log that a takeover by force gave up is not replayed")
    func forcedAside() throws {
        try refused("a takeover by force of epoch 6 gave this log up") { record in
            record.epoch = Epoch(6)
            record.phase = .claimed
            record.claim?.previousHolders = [ReplayRig.alpha]
            record.setHolders([ReplayRig.beta])
            record.claim?.setsAsideLog = true
        }
    }

    @Test("A4: of a log that another pool was replayed with, no copy is replayed")
    func replayedFromTheOtherPool() throws {
        try refused("the log of beta was replayed at then") { record in
            record.epoch = Epoch(6)
            record.phase = .claimed
            record.setHolders([])
            record.claim?.replayed = GroupRecord.Replayed(node: ReplayRig.beta, end: LSN(640), at: "then")
        }
    }
}
