// Knows what was promised, and looks at everything that a promise can be broken with. It trusts no machine: it compares
// acknowledgements, reads and writes to the medium with the coordinator's record and with what the stores really hold.

import ClusterProtocol
import Coordination
import LogModel
import SimulationSupport

final class Oracle {
    private unowned let world: World
    /// The first rule that was broken.
    private(set) var violation: String?
    /// By block: what a read must at least give: the last acknowledged stamp, or a later one that a read has seen (S23).
    private(set) var floor: [UInt64]
    /// By block: what a read through a later incarnation decided: nothing above from an earlier one may appear (S4, S24).
    private var decided: [(stamp: UInt64, incarnation: Incarnation)]
    private var issuedUnder: [UInt64: (block: Int, incarnation: Incarnation)] = [:]
    private var lastAcknowledging = Incarnation.none
    /// When each process last gave a sign of life at the coordinator, and since when it has not missed any.
    private var lastAnnounced: [ProcessIdentity: UInt64] = [:]
    private var announcesSince: [ProcessIdentity: UInt64] = [:]
    /// Owners and claimers that were claimed over since the last publication.
    private var claimedOver: [ProcessIdentity] = []
    private var commandedToTakeOver: Set<ProcessIdentity> = []
    private var commandedByForce: Set<ProcessIdentity> = []

    init(_ world: World) {
        self.world = world
        floor = Array(repeating: 0, count: World.blocks)
        decided = Array(repeating: (0, .none), count: World.blocks)
    }

    func expect(_ condition: Bool, _ message: @autoclosure () -> String) {
        guard !condition, violation == nil else { return }
        violation = message()
        world.note("VIOLATION: \(message())")
    }

    // MARK: The data path

    func issued(_ record: Record, _ incarnation: Incarnation) {
        issuedUnder[record.stamp] = (record.block, incarnation)
        world.note(
            "  issue block \(record.block) stamp \(record.stamp) LSN \(record.lsn)..\(record.end) in \(incarnation)")
    }

    func acknowledged(_ record: Record, _ incarnation: Incarnation, by process: SimProcess) {
        world.note("  \(process.name) acknowledges block \(record.block) stamp \(record.stamp)")
        expectOwner(process, "acknowledges stamp \(record.stamp)")
        expect(
            incarnation >= lastAcknowledging,
            "S15: \(process.name) acknowledges in \(incarnation) after \(lastAcknowledging) did")
        lastAcknowledging = incarnation
        floor[record.block] = max(floor[record.block], record.stamp)
        world.coverage.acknowledgedWrites += 1
    }

    func readAnswered(_ block: Int, _ stamp: UInt64, floor: UInt64, _ incarnation: Incarnation, by process: SimProcess)
    {
        expectOwner(process, "answers a read")
        expect(
            stamp >= floor, "\(process.name) reads stamp \(stamp) of block \(block), but \(floor) was promised before")
        expectPossible(block, stamp, "\(process.name) reads")
        self.floor[block] = max(self.floor[block], stamp)
        if incarnation >= decided[block].incarnation { decided[block] = (stamp, incarnation) }
        world.coverage.reads += 1
    }

    /// The stamp was issued for this block, and nobody has read the block without it under a later incarnation.
    private func expectPossible(_ block: Int, _ stamp: UInt64, _ what: String) {
        guard stamp != 0 else { return }
        guard let origin = issuedUnder[stamp], origin.block == block else {
            return expect(false, "\(what) stamp \(stamp) of block \(block), which nobody wrote there")
        }
        expect(
            stamp <= decided[block].stamp || origin.incarnation >= decided[block].incarnation,
            "S4: \(what) stamp \(stamp) of block \(block), which \(decided[block].incarnation) had read as \(decided[block].stamp)"
        )
    }

    func mediumWrite(_ block: Int, _ stamp: UInt64, by process: SimProcess) {
        expect(
            world.medium.holder === process,
            "S18: \(process.name) writes to the medium, which \(world.medium.holder?.name ?? "nobody") holds")
        let others = world.coordinator.record.map { $0.phase == .published && $0.ownerProcess != process.identity }
        expect(others != true, "S15: \(process.name) writes to the medium while another owner is published")
        expectPossible(block, stamp, "\(process.name) writes to the medium")
    }

    /// No owner answers once another is published, or once it gave the group away (S15, S17).
    private func expectOwner(_ process: SimProcess, _ what: String) {
        guard let record = world.coordinator.record else {
            return expect(false, "\(process.name) \(what) without a record")
        }
        let isOther =
            record.ownerProcess != process.identity && (record.phase == .published || record.ownerProcess == nil)
        let announced = lastAnnounced[process.identity] ?? 0
        expect(
            world.now <= announced + World.lease,
            "S17: \(process.name) \(what), but its lease began at \(announced / millisecond) ms")
        expect(
            !isOther,
            "S15: \(process.name) \(what) while the record says \(record.owner) \(record.phase) epoch \(record.epoch)")
    }

    // MARK: The copies

    /// Every node that may take over holds everything that is promised: in its log, or on the medium (S1, S13, S14).
    func checkCopies(_ occasion: @autoclosure () -> String) {
        // What was forced is given up, and what was complete before is not any more.
        guard world.coordinator.record?.setsAsideLog != true else { return }
        for holder in world.coordinator.holders() {
            guard let node = world.nodes.first(where: { $0.name == holder }),
                world.coordinator.record?.members[holder]?.pool == node.pool,
                !node.holdsOlderCopy
            else { continue }
            expectHolds(node, "after \(occasion())")
        }
    }

    /// In its log, or on the medium. Rot is nobody's breach of a promise: what a node was given counts, and that some sound copy is left.
    private func expectHolds(_ node: SimNode, _ when: String) {
        let found = node.region?.scan(asStored: true)
        for block in 0..<World.blocks where world.medium.durable[block] < floor[block] {
            let held = found?.records.last { $0.block == block }
            expect(
                held?.stamp ?? 0 >= floor[block],
                "\(when): \(node.name) counts as in sync, but has stamp \(held?.stamp ?? 0) of block \(block) up to LSN \(found?.end ?? .zero), "
                    + "the medium \(world.medium.durable[block]); \(floor[block]) is promised")
            if let held, !held.isSound { expectSoundCopy(of: held, beside: node, when) }
        }
    }

    private func expectSoundCopy(of record: Record, beside node: SimNode, _ when: String) {
        let other = world.nodes[1 - node.index]
        expect(
            world.hitsBothCopies
                || other.region?.record(at: record.lsn).map { $0.isSound && $0.isCopy(of: record) } == true,
            "S5, \(when): the record at LSN \(record.lsn) has rotted at \(node.name), and \(other.name)'s good copy of it is gone"
        )
    }

    /// A mirror stores a part of the log: what was good there stays so (S5).
    func stores(_ records: [Record], _ range: Range<LSN>, at process: SimProcess) {
        guard let conflict = process.node.region?.conflict(with: records, range) else { return }
        expect(
            false,
            "S5: rotten bytes take the place of the good record at LSN \(conflict) of \(process.name)'s mirror log")
    }

    /// Up to where a mirror log was compared with its owner's.
    private var comparedTo: (owner: ProcessIdentity, end: LSN)?

    /// The mirror log is the owner's, byte for byte, wherever both must hold it (S1). Goes on from the last comparison with the same owner.
    func checkImage(of process: SimProcess, upTo end: LSN, whole: Bool = false) {
        let node = world.nodes[1 - process.node.index]
        guard let record = world.coordinator.record, record.ownerProcess == process.identity,
            record.phase == .published,
            record.members[node.name]?.pool == node.pool, !node.holdsOlderCopy, let mine = process.node.region
        else { return }
        let known = !whole && comparedTo?.owner == process.identity ? comparedTo?.end ?? .zero : .zero
        comparedTo = (process.identity, end)
        guard let theirs = node.region, theirs.logUUID == mine.logUUID, theirs.incarnation == mine.incarnation else {
            return expect(false, "S1: \(node.name) counts as a mirror of \(process.name), and its log is another one")
        }
        let from = max(known, mine.head, theirs.head)
        guard from < end else { return }
        for record in mine.records(in: from..<end) where record.lsn >= from && record.end <= end {
            let copy = theirs.record(at: record.lsn)
            expect(
                copy?.isWhole == true && copy?.isCopy(of: record) == true,
                "S1: the record at LSN \(record.lsn) of \(process.name)'s log is not the mirror's: \(copy.map { "\($0)" } ?? "nothing is there")"
            )
        }
    }

    /// Where records cannot be had any more, that is said: a read is refused, a catch-up stops, a takeover does not go on.
    private(set) var damageSaid = 0

    func said(damageAt process: SimProcess) {
        world.note("\(process.name) says that its log is damaged")
        damageSaid += 1
    }

    // MARK: The coordinator

    func swapped(from old: GroupRecord?, to new: GroupRecord, by process: SimProcess) {
        expect(new.epoch >= old?.epoch ?? .none && new.version == (old?.version ?? 0) + 1, "S15: the epoch fell")
        // A start is counted, a death is recorded, or nothing is changed.
        if let old, old.owner == new.owner, old.epoch == new.epoch, old.phase == new.phase, old.holders == new.holders {
            return
        }
        if let old, new.owner != old.owner || new.phase == .claimed || !Set(old.inSync).isSubset(of: new.inSync) {
            expect(
                new.epoch > old.epoch || new.phase == .published && old.phase == .claimed, "S15: the epoch did not grow"
            )
        }
        if new.phase == .claimed {
            claimed(from: old, to: new, by: process)
        } else {
            published(from: old, to: new, by: process)
        }
        checkCopies("the swap to version \(new.version) by \(process.name)")
    }

    private func claimed(from old: GroupRecord?, to new: GroupRecord, by process: SimProcess) {
        guard let old else { return }
        if let other = old.ownerProcess, other != process.identity { claimedOver.append(other) }
        if new.owner == process.node.name {
            expect(!new.mustFence.contains(process.identity), "S16: \(process.name) is to fence itself")
            expectSuspect(old, process)
            if new.setsAsideLog {
                return expect(isForced(process), "S13: \(process.name) gives logs up, and nobody forced it")
            }
            if old.previousHolders.contains(process.node.name) { world.coverage.forcedTakenBack += 1 }
            expect(
                (old.isHolder(process.node.name) || old.previousHolders.contains(process.node.name))
                    && old.members[process.node.name]?.pool == process.machine.settings.pool,
                "S13: \(process.name) claims with a stale copy")
            if old.phase == .published, old.owner != new.owner { world.coverage.takeovers += 1 }
            if old.phase == .claimed { world.coverage.claimsAnew += 1 }
            world.faults.claimed(by: process)
        } else {
            world.coverage.givenAway += 1
            if new.mustFence.contains(process.identity) {
                world.coverage.givenAwayUnreleased += 1
                claimedOver.append(process.identity)
            } else {
                expect(
                    world.medium.holder !== process, "S16: \(process.name) gives the group away and holds the medium")
                claimedOver.removeAll { $0 == process.identity }
            }
        }
    }

    private func published(from old: GroupRecord?, to new: GroupRecord, by process: SimProcess) {
        expect(new.owner == process.node.name, "S15: \(process.name) publishes \(new.owner)")
        if old?.phase == .claimed {
            world.coverage.publications += 1
            // Itself it need not kill: it had released the medium before it locked it anew.
            let alive = claimedOver.filter { $0 != process.identity && world.process($0)?.isDead == false }
            expect(alive.isEmpty, "S16: \(process.name) publishes while \(alive) may still write to the medium")
            claimedOver = []
            if old?.setsAsideLog == true { giveUp() }
            for block in 0..<World.blocks {
                expect(
                    world.medium.durable[block] >= floor[block],
                    "S16: \(process.name) publishes, but block \(block) has stamp \(world.medium.durable[block]) on the medium; "
                        + "\(floor[block]) is promised")
            }
        } else if let old, new.inSync.count > old.inSync.count {
            world.coverage.catchUps += 1
            if process.isDead == false, let owner = process.owner {
                checkImage(of: process, upTo: owner.mirrorDurable ?? .zero, whole: true)
            }
            world.faults.joined(new.holders)
            // One that attached since it became an older copy was compared from its head on.
            for node in world.nodes where new.isHolder(node.name) && node.process?.mirrorTarget != nil {
                node.holdsOlderCopy = false
            }
        } else if let old, new.inSync.count < old.inSync.count {
            world.coverage.degrades += 1
        }
    }

    /// What is not on the medium when a forced takeover is published is lost, by an operator's decision.
    private func giveUp() {
        world.coverage.forcedPublications += 1
        for block in 0..<World.blocks { floor[block] = min(floor[block], world.medium.durable[block]) }
    }

    func announced(_ process: SimProcess) {
        let isLate = world.now > (lastAnnounced[process.identity] ?? 0) + World.lease / 2
        if isLate { announcesSince[process.identity] = world.now }
        lastAnnounced[process.identity] = world.now
    }

    /// An operator says so, which needs no suspicion.
    func willTakeOver(_ process: SimProcess, byForce: Bool) {
        commandedToTakeOver.insert(process.identity)
        if byForce { commandedByForce.insert(process.identity) }
    }

    /// What its claim sets aside, an operator gave up: this process', or one that the claim goes back to.
    func isForced(_ process: SimProcess) -> Bool {
        commandedByForce.contains { $0.node == process.identity.node }
    }

    /// One copy is enough only while the record counts no other (S13), whatever the link is like.
    func checkRule(of process: SimProcess) {
        let rule = process.machine.acknowledgementRule
        guard rule.allowed, !rule.needsMirror, process.owner?.isServing == true,
            process.machine.ownershipValid(process.clock), let record = world.coordinator.record,
            record.ownerProcess == process.identity
        else { return }
        expect(
            record.holders == [process.node.name],
            "S13: \(process.name) would acknowledge with one copy while \(record.holders) are in sync by the record")
    }

    /// An operator is never told that no takeover is possible without being told why.
    func checkReason(of process: SimProcess) {
        guard violation == nil, !process.machine.takeoverPossible(process.clock) else { return }
        expect(
            process.machine.reason(process.clock) != nil,
            "\(process.name), \(process.machine.state(process.clock)), knows no reason why no takeover is possible")
    }

    /// Nobody takes the group from an owner that has given its signs of life in time for a while (S16).
    private func expectSuspect(_ old: GroupRecord, _ process: SimProcess) {
        guard let owner = old.ownerProcess, owner.node != process.node.name, world.process(owner)?.isDead == false,
            let since = announcesSince[owner], let last = lastAnnounced[owner],
            !commandedToTakeOver.contains(process.identity)
        else { return }
        let isWell = since + 4 * World.lease < world.now && last + World.lease / 2 > world.now
        expect(
            !isWell,
            "S16: \(process.name) claims the group of an owner that has announced itself since \(since / millisecond) ms"
        )
    }

    // MARK: What happened

    func reported(_ report: Report, by process: SimProcess) {
        switch report.kind {
        case "lease-lost": world.coverage.leasesLost += 1
        case "mirror-amnesia", "amnesia": world.coverage.amnesias += 1
        case "mirror-lost" where report.message.contains("completed nothing"): world.coverage.mirrorsStuck += 1
        case "takeover-waits": world.coverage.takeoversWaiting += 1
        case "tail-in-doubt": world.coverage.tailsInDoubt += 1
        case "left-to-partner": world.coverage.tailsLeftToPartner += 1
        case "decided-alone": world.coverage.tailsDecidedAlone += 1
        case "medium-failed" where report.message.contains("moved because of its medium"):
            world.coverage.keptThoughMediumFails += 1
        case "medium-failed" where report.message.contains("gets the group"): world.coverage.leftForMedium += 1
        case "release-hangs": world.coverage.releasesHung += 1
        case "not-taken": world.coverage.giftsTakenBack += 1
        case "log-corrupt":
            expect(process.hasMemoryFailed || process.node.region?.hasRot == true, "\(process.name): \(report.message)")
            said(damageAt: process)
        case "handover-aborted": world.coverage.handoversAborted += 1
        case "claim-given-back": world.coverage.claimsGivenBack += 1
        case "blocked":
            let isExpected = report.message.contains("has lost its memory") && world.coverage.coordinatorsRolledBack > 0
            let isDamaged = report.message.contains("corrupt") && process.node.region?.hasRot == true
            expect(isExpected || isDamaged || process.hasMemoryFailed, "\(process.name) is blocked: \(report.message)")
            guard isDamaged else { break }
            said(damageAt: process)
            world.faults.blocked(byDamageAt: process.node)
        default: break
        }
    }

    func commandDone(_ command: Command, _ refusal: String?, by process: SimProcess) {
        if command == .handOver, refusal == nil { world.coverage.handovers += 1 }
        if case .takeOver = command, refusal?.contains("is not in sync") == true { world.coverage.staleRefusals += 1 }
    }

    func ticked(_ process: SimProcess) {
        // The owner is gone, and the only living copy is stale: it waits (S13).
        let state = process.machine.state(process.clock)
        if state == .unavailable { world.coverage.staleWaits += 1 }
        if state == .resyncing, !process.machine.acknowledgementRule.needsMirror { world.coverage.farBehind += 1 }
    }

    // MARK: The end

    /// The group is mirrored as the coordinator sees it too: either node could take over.
    func checkBothInSync() {
        for node in world.nodes {
            expect(
                world.coordinator.holders().contains(node.name)
                    && world.coordinator.record?.members[node.name]?.pool == node.pool,
                "the group says that it is mirrored, but \(node.name) could not take over")
        }
    }

    /// Everything is drained: the medium has for every block what was promised, or a later write that was not answered.
    func checkMedium() {
        for block in 0..<World.blocks {
            let stamp = world.medium.durable[block]
            expect(
                stamp >= floor[block], "the medium has stamp \(stamp) of block \(block); \(floor[block]) is promised")
            expectPossible(block, stamp, "the medium has")
        }
    }
}
