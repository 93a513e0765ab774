// Knows what was promised of one group, and looks at everything that a promise can be broken with. It trusts no machine: it compares
// acknowledgements, reads, writes to the media and swaps with the coordinator's record and with the bytes that the stores hold.

import ClusterConfiguration
import ClusterProtocol
import Coordination
@testable import GroupEngine
import LogModel
import NIOCore
import PersistentMemory
import Recovery
import RemoteMemory
import SimulationSupport
import StorageMedium
import WriteLog

/// A volume's bytes in memory, for what a recovery would make of them.
private final class Image: Medium, @unchecked Sendable {
    // Sendable: used where it is made.
    var bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var sizeBytes: UInt64 { UInt64(bytes.count) }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        buffer.copyBytes(from: bytes[Int(offset)..<Int(offset) + buffer.count])
    }

    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        var place = Int(offset)
        for buffer in buffers {
            bytes.replaceSubrange(place..<place + buffer.count, with: buffer)
            place += buffer.count
        }
    }

    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        bytes.replaceSubrange(
            Int(range.offset)..<Int(range.end), with: repeatElement(0, count: Int(range.length)))
    }

    func flush() throws(MediumError) {}
}

final class Oracle {
    // Unsafe: the group has the oracle, and the world the group.
    private unowned(unsafe) let group: SimGroup
    private unowned(unsafe) let world: World
    private var promises = Promises(blocks: 2 * Blocks.perVolume)
    private(set) var history = History(blocks: 2 * Blocks.perVolume)
    /// The oracle's clock: every event has its own time.
    private var time: UInt64 = 1
    /// When a write was acknowledged last.
    private(set) var lastAcknowledgement: UInt64 = 0
    private var lastAcknowledging = Epoch.none
    private var lastWriting = Epoch.none
    private var highestEpoch = Epoch.none
    /// The epoch that each process won, by its number.
    private var won: [Int32: Epoch] = [:]
    /// When each process last gave a sign of life at the coordinator, and since when it has not missed any.
    private var lastAnnounced: [Int32: UInt64] = [:]
    private var announcesSince: [Int32: UInt64] = [:]
    /// Owners and claimers that were claimed over since the last publication.
    private var claimedOver: [ProcessIdentity] = []
    /// Owners that lost the group to a suspicion, by no operator's word.
    private var takenFrom: Set<ProcessIdentity> = []
    private var commandedToTakeOver: Set<ProcessIdentity> = []
    private var commandedByForce: Set<ProcessIdentity> = []
    /// Up to where space was given back when that was last compared with the head of a mirror's process, which only grows.
    private var comparedLimit: (mirror: Int32, limit: LSN)?
    private var comparedTo: (owner: ProcessIdentity, end: LSN)?
    /// A takeover by force was published.
    private var isForced = false

    init(_ group: SimGroup) {
        self.group = group
        world = group.world
    }

    func expect(_ condition: Bool, _ message: @autoclosure () -> String) {
        guard !condition else { return }
        world.violate(world.groups.count > 1 ? "\(group.id): \(message())" : message())
    }

    func count() -> UInt64 {
        time += 1
        return time
    }

    /// Of a write, for people, and whose it is if not this group's.
    private func name(of stamp: UInt64) -> String {
        guard let other = world.writes.group(of: stamp), other != group.index else { return "write \(stamp)" }
        return "write \(stamp) of \(world.groups[other].id)"
    }

    // MARK: Clients

    private func blocks(_ blocks: Range<Int>, of volume: Int) -> Range<Int> {
        blocks.lowerBound + volume * Blocks.perVolume..<blocks.upperBound + volume * Blocks.perVolume
    }

    func willWrite(_ range: Range<Int>, _ connection: Connection, isZero: Bool) -> Write {
        let number = world.writes.next(of: group.index)
        let write = Write(
            number: number, stamp: isZero ? 0 : number, blocks: blocks(range, of: connection.volume),
            connection: connection.life, askedAt: count())
        promises.asked(write)
        for block in write.blocks { history.issued(block, write.number, begun: write.askedAt) }
        group.note(
            "  \(connection.server.name) gets write \(write.number) of blocks \(write.blocks)\(isZero ? ": zeros" : "")"
        )
        return write
    }

    func acknowledged(_ write: Write, by server: Server) {
        group.note("  \(server.name) acknowledges write \(write.number)")
        expectOwner(server, "acknowledges write \(write.number)")
        let epoch = won[server.identity.pid] ?? .none
        expect(
            epoch >= lastAcknowledging, "S15: \(server.name) acknowledges in \(epoch) after \(lastAcknowledging) did")
        lastAcknowledging = epoch
        let end = count()
        promises.answered(write, at: end)
        for block in write.blocks { history.written(block, write.number, end: end) }
        world.coverage.acknowledgedWrites += 1
        lastAcknowledgement = world.now
        countNeighbours(of: server)
        if server.engine(of: group).machine.authority.rule.needsMirror, let owner = server.engine(of: group).owner {
            compareImage(of: server, upTo: owner.owned.acknowledged)
        }
    }

    /// What the node's other groups go through meanwhile.
    private func countNeighbours(of server: Server) {
        for other in world.groups where other !== group {
            if other.ownerNode.map({ $0 !== server.node }) == true { world.coverage.writesWithOwnersApart += 1 }
            if other.record?.phase == .claimed { world.coverage.writesBesideClaims += 1 }
            let path = other.path(of: server.node)
            if path.fails || path.hang.isOn || other.media.fails { world.coverage.writesBesideMediumTrouble += 1 }
        }
    }

    func readAnswered(_ range: Range<Int>, of volume: Int, _ bytes: ByteBuffer?, askedAt: UInt64, by server: Server) {
        expectOwner(server, "answers a read")
        let byteCount = bytes?.readableBytes ?? 0
        expect(byteCount == range.count * Blocks.bytes, "\(server.name) answers a read with \(byteCount) bytes")
        let end = count()
        let first = blocks(range, of: volume).lowerBound
        bytes?.withUnsafeReadableBytes { bytes in
            Blocks.forEachStamp(of: UnsafeRawBufferPointer(rebasing: bytes.prefix(range.count * Blocks.bytes))) {
                place, stamp, isWhole in
                let block = first + place
                expect(
                    promises.mayBeRead(stamp, at: block, askedAt: askedAt),
                    "\(server.name) reads \(name(of: stamp)) of block \(block), which may hold \(promises.possible(at: block))"
                )
                if isWhole, stamp != 0 { history.read(block, stamp, begun: askedAt, end: end) }
            }
        }
        world.coverage.reads += 1
    }

    /// No owner answers once another is published, or once it gave the group away (S15, S17).
    private func expectOwner(_ server: Server, _ what: @autoclosure () -> String) {
        guard group.record != nil else {
            return expect(false, "\(server.name) \(what()) without a record")
        }
        expectRight(of: server, what())
        expect(
            !isTakenFromOwner(server),
            "S15: \(server.name) \(what()) while the record says \(group.record.map { "\($0.owner) \($0.phase) epoch \($0.epoch)" } ?? "")"
        )
    }

    /// By the record, another process is the owner, or the last one gave the group away.
    private func isTakenFromOwner(_ server: Server) -> Bool {
        group.ownerPID != server.identity.pid && (group.isPublished || group.ownerPID == nil)
    }

    /// Under a lease, alone, or while every other node that counts has promised to claim nothing (S17).
    private func expectRight(of server: Server, _ what: @autoclosure () -> String) {
        expect(
            !takenFrom.contains(server.identity),
            "S17: \(server.name) \(what()) though another node has claimed the group")
        let announced = lastAnnounced[server.identity.pid] ?? 0
        guard world.now > announced + World.lease, let record = group.record, record.ownerProcess == server.identity
        else { return }
        let others = world.nodes.filter { $0 !== server.node && record.isHolder($0.name) }
        if others.isEmpty { world.coverage.servedAlone += 1 } else { world.coverage.servedByGrant += 1 }
        for other in others {
            // One that is gone claims nothing in its first lease.
            guard let process = other.server, !process.isDead else { continue }
            expect(
                process.engine(of: group).machine.mayClaimFrom > process.clock,
                "S17: \(server.name) \(what()), but its lease began at \(announced / millisecond) ms, and \(process.name) may claim"
            )
        }
    }

    /// A claim on suspicion takes effect after the right of whom it is claimed from (S17).
    private func expectNoRight(of process: ProcessIdentity, against server: Server) {
        guard let owner = world.livingServer(process), !owner.isDying else { return }
        let authority = owner.engine(of: group).machine.authority
        expect(
            !authority.isValid(owner.clock),
            "S17: \(server.name) claims the group of \(owner.name), which may serve for \((authority.validUntil - owner.clock) / millisecond) ms"
        )
    }

    // MARK: The media

    /// A write to a medium takes effect.
    func willWrite(_ server: Server, _ volume: String) {
        expect(
            group.media.holder === server,
            "S18: \(server.name) writes to \(volume), which \(group.media.holder?.name ?? "nobody") holds")
        let isOthers = group.isPublished && group.ownerPID != server.identity.pid
        expect(!isOthers, "S15: \(server.name) writes to \(volume) while another owner is published")
        let epoch = won[server.identity.pid] ?? .none
        expect(
            epoch >= lastWriting,
            "S15: \(server.name) writes to \(volume) in epoch \(epoch) after \(lastWriting) began to")
        lastWriting = max(lastWriting, epoch)
        if server.isDead { world.coverage.killsInMediumCalls += 1 }
    }

    // MARK: The copies

    /// Now and then. A coordinator that has lost its memory says who may take over when it is put right.
    func checkCopiesNow() {
        guard group.record?.epoch ?? .none >= highestEpoch else { return }
        checkCopies("\(world.now / millisecond) ms")
    }

    /// Every node that may take over holds everything that is promised: in its log, or on the medium (S1, S13, S14).
    func checkCopies(_ occasion: @autoclosure () -> String) {
        guard world.violation == nil, let record = group.record, !record.setsAsideLog else { return }
        for node in world.nodes where record.isHolder(node.name) && !group.olderCopies.contains(node.index) {
            withoutRot(of: node) { region, pool in
                guard record.members[node.name]?.pool == pool.identity.uuid else { return }
                expectHolds(node, region, "after \(occasion())")
            }
            expectSoundCopies(beside: node, "after \(occasion())")
        }
    }

    /// Rot is nobody's breach of a promise: what a node was given counts.
    private func withoutRot(of node: SimNode, _ body: (Region, Pool) -> Void) {
        do {
            try group.withoutRot(of: node, body)
        } catch {
            expect(false, "\(node.name)'s pool cannot be opened: \(error)")
        }
    }

    /// Of what has rotted, the other node has the good bytes, in its log or on the medium (S5).
    private func expectSoundCopies(beside node: SimNode, _ when: String) {
        guard !group.hitsBothCopies, group.isRotten(node) else { return }
        let other = world.nodes[1 - node.index]
        withoutRot(of: other) { region, _ in
            for line in group.rottenLines where line.node === node && region.identity?.incarnation == line.incarnation {
                expect(
                    region.head > line.lsn || region.line(at: line.lsn) == line.good,
                    "S5, \(when): LSN \(line.lsn) has rotted at \(node.name), and \(other.name)'s good copy of it is gone"
                )
            }
        }
    }

    /// As a takeover would find it: the log, replayed onto what is durable on the media.
    private func expectHolds(_ node: SimNode, _ region: Region, _ when: String) {
        var images: [VolumeID: any Medium] = [:]
        var all: [Image] = []
        for volume in group.volumes {
            let image = Image(group.media.stored(volume).durable)
            all.append(image)
            images[volume.id] = image
        }
        do throws(ReplayError) {
            _ = try Replay.run(region, onto: images)
        } catch {
            return expect(false, "\(when): \(node.name) counts as in sync, and its log cannot be replayed: \(error)")
        }
        for (volume, image) in all.enumerated() {
            expectPromised(image.bytes, volume, "\(when): \(node.name) counts as in sync, but its copy")
        }
    }

    private func expectPromised(_ bytes: [UInt8], _ volume: Int, _ what: @autoclosure () -> String) {
        bytes.withUnsafeBytes { bytes in
            Blocks.forEachStamp(of: bytes) { place, stamp, _ in
                let block = place + volume * Blocks.perVolume
                expect(
                    promises.isPossible(stamp, at: block),
                    "\(what()) has \(name(of: stamp)) in block \(block), which may hold \(promises.possible(at: block))"
                )
            }
        }
    }

    /// The mirror log is the owner's, byte for byte, wherever both must hold it (S1). Goes on from the last comparison with the same owner.
    private func compareImage(of server: Server, upTo end: LSN, isWhole: Bool = false) {
        guard let record = group.record, record.ownerProcess == server.identity, record.phase == .published,
            let mirror = world.nodes[1 - server.node.index].server, record.isHolder(mirror.node.name),
            record.members[mirror.node.name]?.pool == mirror.pool.identity.uuid
        else { return }
        guard !group.olderCopies.contains(mirror.node.index) else { return }
        let mine = server.engine(of: group).region, theirs = mirror.engine(of: group).region
        guard let identity = theirs.identity, identity.logUUID == mine.identity?.logUUID,
            identity.incarnation == mine.identity?.incarnation
        else {
            return expect(false, "S1: \(mirror.name) counts as a mirror of \(server.name), and its log is another one")
        }
        let known = !isWhole && comparedTo?.owner == server.identity ? comparedTo?.end ?? .zero : .zero
        comparedTo = (server.identity, end)
        let from = max(known, mine.head, theirs.head)
        guard from < end else { return }
        world.coverage.imagesCompared += 1
        if group.rottenLines.isEmpty, !server.hasFailedMemory, !mirror.hasFailedMemory,
            mine.isEqual(to: theirs, from, end)
        {
            return
        }
        let copies = (mine: bytes(of: server.node, from, end), theirs: bytes(of: mirror.node, from, end))
        guard copies.mine != copies.theirs else { return }
        let place = zip(copies.mine, copies.theirs).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
        expect(
            false, "S1: \(mirror.name)'s log is not \(server.name)'s at LSN \(from + UInt64(place)), of \(from)..\(end)"
        )
    }

    private func bytes(of node: SimNode, _ from: LSN, _ end: LSN) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(end - from))
        withoutRot(of: node) { region, _ in bytes.withUnsafeMutableBytes { region.readRing(from: from, into: $0) } }
        return bytes
    }

    // MARK: The coordinator

    func swapped(from old: GroupRecord?, to new: GroupRecord, by server: Server) {
        expect(new.epoch >= old?.epoch ?? .none && new.version == (old?.version ?? 0) + 1, "S15: the epoch fell")
        highestEpoch = max(highestEpoch, new.epoch)
        if new.ownerProcess == server.identity { won[server.identity.pid] = new.epoch }
        if var same = old {
            same.version += 1
            if same == new, new.ownerProcess == server.identity, new.phase == .published {
                world.coverage.leasesSecured += 1
            } else if same == new {
                world.coverage.barriers += 1
            }
        }
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
            claimed(from: old, to: new, by: server)
        } else {
            published(from: old, to: new, by: server)
        }
        checkCopies("the swap to version \(new.version) by \(server.name)")
    }

    private func claimed(from old: GroupRecord?, to new: GroupRecord, by server: Server) {
        guard let old else { return }
        if let other = old.ownerProcess, other != server.identity { claimedOver.append(other) }
        if let other = old.ownerProcess, !new.mustFence.contains(other), new.ownerProcess == server.identity,
            other != server.identity
        {
            world.coverage.claimsFromEnded += 1
            expect(
                world.livingServer(other) == nil,
                "S16: \(server.name) claims the group of a process of \(other.node) that lives, as of a dead one")
        }
        if new.owner == server.node.name {
            expect(!new.mustFence.contains(server.identity), "S16: \(server.name) is to fence itself")
            expectSuspect(old, server)
            if let other = old.ownerProcess, other.node != server.node.name,
                !commandedToTakeOver.contains(server.identity)
            {
                expectNoRight(of: other, against: server)
                takenFrom.insert(other)
            }
            if new.setsAsideLog {
                return expect(wasForced(server), "S13: \(server.name) gives logs up, and nobody forced it")
            }
            expect(
                (old.isHolder(server.node.name) || old.previousHolders.contains(server.node.name))
                    && old.members[server.node.name]?.pool == server.pool.identity.uuid,
                "S13: \(server.name) claims with a stale copy")
            if old.previousHolders.contains(server.node.name) { world.coverage.forcedTakenBack += 1 }
            if old.phase == .published, old.owner != new.owner { world.coverage.takeovers += 1 }
            if old.phase == .claimed { world.coverage.claimsAnew += 1 }
            if world.groups.contains(where: { $0 !== group && $0.record?.phase == .claimed }) {
                world.coverage.claimsAtOnce += 1
            }
        } else {
            world.coverage.givenAway += 1
            if new.mustFence.contains(server.identity) {
                world.coverage.givenAwayUnreleased += 1
                claimedOver.append(server.identity)
            } else {
                expect(
                    group.media.holder !== server, "S16: \(server.name) gives the group away and holds the medium")
                claimedOver.removeAll { $0 == server.identity }
            }
        }
    }

    private func published(from old: GroupRecord?, to new: GroupRecord, by server: Server) {
        expect(new.owner == server.node.name, "S15: \(server.name) publishes \(new.owner)")
        if old?.phase == .claimed {
            world.coverage.publications += 1
            // The process from which the group was taken may win it again.
            takenFrom.remove(server.identity)
            // Itself it need not kill: it had released the medium before it locked it anew.
            let alive = claimedOver.filter { $0 != server.identity && world.livingServer($0) != nil }
            expect(alive.isEmpty, "S16: \(server.name) publishes while \(alive) may still write to the medium")
            claimedOver = []
            if old?.setsAsideLog == true { giveUp() }
            group.hasRotted = false
            for (index, volume) in group.volumes.enumerated() {
                expectPromised(
                    group.media.stored(volume).durable, index, "S16: \(server.name) publishes, but the medium")
            }
        } else if let old, new.inSync.count > old.inSync.count {
            world.coverage.catchUps += 1
            if !server.isDead, let owner = server.engine(of: group).owner {
                compareImage(of: server, upTo: owner.shipper.durable ?? .zero, isWhole: true)
            }
            // One that attached since it became an older copy was compared from its head on.
            for node in world.nodes
            where new.isHolder(node.name) && node.server?.engine(of: group).mirrorTarget != nil {
                group.olderCopies.remove(node.index)
            }
        } else if let old, new.inSync.count < old.inSync.count {
            world.coverage.degrades += 1
        }
    }

    func announced(_ server: Server) {
        let isLate = world.now > (lastAnnounced[server.identity.pid] ?? 0) + World.lease / 2
        if isLate { announcesSince[server.identity.pid] = world.now }
        lastAnnounced[server.identity.pid] = world.now
    }

    /// An operator says so, which needs no suspicion.
    func willTakeOver(_ server: Server, byForce: Bool) {
        commandedToTakeOver.insert(server.identity)
        if byForce { commandedByForce.insert(server.identity) }
    }

    /// What its claim sets aside, an operator gave up: this process', or one that the claim goes back to.
    private func wasForced(_ server: Server) -> Bool {
        commandedByForce.contains { $0.node == server.identity.node }
    }

    /// What is not on the media when a forced takeover is published is lost, by an operator's decision.
    private func giveUp() {
        world.coverage.forcedPublications += 1
        isForced = true
        let time = count()
        let isRotten = group.hasRotted || world.nodes.contains(where: group.isRotten)
        for (index, volume) in group.volumes.enumerated() {
            for (place, stamps) in Blocks.stamps(of: group.media.stored(volume).durable).enumerated() {
                promises.giveUp(
                    at: place + index * Blocks.perVolume, allBut: stamps, isRotten: isRotten, at: time)
            }
        }
    }

    /// Nobody takes the group from an owner that has given its signs of life in time for a while (S16).
    private func expectSuspect(_ old: GroupRecord, _ server: Server) {
        guard let owner = old.ownerProcess, owner.node != server.node.name, world.livingServer(owner) != nil,
            let since = announcesSince[owner.pid], let last = lastAnnounced[owner.pid],
            !commandedToTakeOver.contains(server.identity)
        else { return }
        let isWell = since + 4 * World.lease < world.now && last + World.lease / 2 > world.now
        expect(
            !isWell,
            "S16: \(server.name) claims the group of an owner that has announced itself since \(since / millisecond) ms"
        )
    }

    /// After a turn of a process that the record names as the owner, and counts another copy beside its own.
    func checkTurn(of server: Server) {
        guard let owner = server.engine(of: group).owner else { return }
        if owner.owned.isServing { checkRule(owner.owned.authority, server) }
        checkSpace(owner, server)
    }

    /// One copy is enough only while the record counts no other (S13), whatever the link is like.
    private func checkRule(_ authority: Authority, _ server: Server) {
        expect(
            !authority.rule.allowed || authority.rule.needsMirror || !authority.isValid(server.clock),
            "S13: \(server.name) would acknowledge with one copy while \(group.record?.holders ?? []) are in sync by the record"
        )
    }

    /// No space of the log is given back that the mirror's head has not passed (S6).
    private func checkSpace(_ owner: OwnerDataPath, _ server: Server) {
        let limit = owner.log.reclaimLimit
        guard let mirror = world.nodes[1 - server.node.index].server,
            comparedLimit.map({ $0 == (mirror.identity.pid, limit) }) != true,
            let record = group.record, record.phase == .published, record.isHolder(mirror.node.name),
            record.members[mirror.node.name]?.pool == mirror.pool.identity.uuid,
            !group.olderCopies.contains(mirror.node.index)
        else { return }
        let region = mirror.engine(of: group).region
        guard region.identity?.incarnation == server.engine(of: group).region.identity?.incarnation else { return }
        comparedLimit = (mirror.identity.pid, limit)
        expect(
            limit <= region.head,
            "S6: \(server.name) reuses space up to LSN \(limit), and \(mirror.name)'s head is at \(region.head)")
    }

    /// What a batch has brought to the media moves the head only if the right to serve has not ended meanwhile (S8).
    func batchEnded(_ server: Server) {
        guard !server.isDead, let owner = server.engine(of: group).owner, owner.owned.destage.isBusy,
            owner.healer.current == nil
        else { return }
        expect(
            owner.owned.mayDestage, "S8: \(server.name) moves the head of its log without the right to serve the group")
    }

    /// An owner's WRITE or head fits what its mirror holds (S6, S11).
    func refused(_ error: RemoteMemoryError, at server: Server) {
        guard error.code == .access else { return }
        expect(false, "\(server.name) refuses what its owner posts: \(error)")
    }

    // MARK: What happened

    func reported(_ report: Report, by server: Server) {
        switch report.kind {
        case .leaseLost: world.coverage.leasesLost += 1
        case .mirrorLost where report.cause == .mirrorIsStuck: world.coverage.mirrorsStuck += 1
        case .railMoved: world.coverage.sessionsMoved += 1
        case .takeoverWaits: world.coverage.takeoversWaiting += 1
        case .tailInDoubt: world.coverage.tailsInDoubt += 1
        case .leftToPartner: world.coverage.tailsLeftToPartner += 1
        case .decidedAlone: world.coverage.tailsDecidedAlone += 1
        case .mediumFailed where report.cause == .movedBefore:
            world.coverage.keptThoughMediumFails += 1
        case .mediumFailed where report.cause == .groupIsLeft: world.coverage.leftForMedium += 1
        case .releaseHangs: world.coverage.releasesHung += 1
        case .notTaken: world.coverage.giftsTakenBack += 1
        case .handoverAborted: world.coverage.handoversAborted += 1
        case .claimGivenBack: world.coverage.claimsGivenBack += 1
        case .destageFailed: world.coverage.destageFailures += 1
        case .mirrorAmnesia, .amnesia: world.coverage.amnesias += 1
        case .recordDamaged:
            world.coverage.recordsDamaged += 1
            expectRot(report, server)
            said(damageAt: server)
        case .recordHealed:
            world.coverage.recordsHealed += 1
            healings += 1
        case .scrubHealed: healings += 1
        case .logCorrupt:
            expectRot(report, server)
            said(damageAt: server)
        case .blocked:
            if report.cause == .coordinatorForgot, group.wasRolledBack { break }
            expectRot(report, server)
            if server.hasFailedMemory(of: group) { break }
            said(damageAt: server)
            world.faults.blocked(group, byDamageAt: server.node)
        case .memoryFailed, .persistFailed:
            expect(server.hasFailedMemory(of: group), "\(server.name) \(report.kind.rawValue): \(report.message)")
        case .logHeldMore:
            // An owner that loses power loses what it had shipped and not made durable: nobody was promised that.
            expect(
                isForced || world.coverage.lossesOfPower > 0,
                "\(server.name) \(report.kind.rawValue): \(report.message)")
        case .mirrorConflict:
            expect(false, "\(server.name) \(report.kind.rawValue): \(report.message)")
        default: break
        }
    }

    private func expectRot(_ report: Report, _ server: Server) {
        expect(
            server.hasFailedMemory(of: group) || group.isRotten(server.node),
            "\(server.name) \(report.kind.rawValue): \(report.message)")
    }

    /// Where records cannot be had any more, that is said: a read is refused, a catch-up stops, a takeover does not go on.
    private(set) var damageSaid = 0
    /// Records that are good again, by what the servers say.
    private(set) var healings = 0

    func said(damageAt server: Server) {
        group.note("\(server.name) says that its log is damaged")
        damageSaid += 1
    }

    func commandDone(_ command: Command, _ refusal: String?) {
        if case .takeOver = command, refusal?.contains("is not in sync") == true { world.coverage.staleRefusals += 1 }
        if command == .handOver, refusal == nil { world.coverage.handovers += 1 }
    }

    func ticked(_ server: Server) {
        let engine = server.engine(of: group), now = server.clock
        let machine = engine.machine, state = machine.state(now)
        if state == .unavailable { world.coverage.staleWaits += 1 }
        if state == .resyncing, !machine.authority.rule.needsMirror { world.coverage.farBehind += 1 }
        if engine.owner.map({ $0.owned.isServing && !$0.requests.isEmpty }) == true {
            world.coverage.backPressure += 1
        }
        expect(
            machine.takeoverPossible(now) || machine.reason(now) != nil,
            "\(server.name), \(state), knows no reason why no takeover is possible")
    }

    // MARK: The end

    /// The group is mirrored as the coordinator sees it too: either node could take over.
    func checkBothInSync() {
        for node in world.nodes {
            expect(
                group.record?.isHolder(node.name) == true,
                "the group says that it is mirrored, but \(node.name) could not take over")
        }
        checkCopies("the end of the faults")
    }

    /// What was promised before a drain was asked for is on the media.
    func drained(_ server: Server, askedAt: UInt64) {
        world.coverage.drains += 1
        for (index, volume) in group.volumes.enumerated() {
            for (place, stamps) in Blocks.stamps(of: group.media.stored(volume).durable).enumerated() {
                let block = place + index * Blocks.perVolume
                // What was written later, and is in the log still, hides whatever a batch has left there.
                guard !isInLog(of: server, volume, place) else { continue }
                for stamp in stamps {
                    expect(
                        promises.mayBeRead(stamp, at: block, askedAt: askedAt),
                        "S8: \(server.name)'s log is drained, and the medium has \(name(of: stamp)) in block \(block), which may hold "
                            + "\(promises.possible(at: block))")
                }
            }
        }
    }

    private func isInLog(of server: Server, _ volume: ClusterConfiguration.Volume, _ place: Int) -> Bool {
        let range = ByteRange(offset: UInt64(place * Blocks.bytes), length: UInt64(Blocks.bytes))
        return server.engine(of: group).owner?.owned.overlay.covers(volume.id, range) == true
    }

    /// The media alone hold what is promised.
    var isEverythingOnMedia: Bool {
        group.volumes.enumerated().allSatisfy { index, volume in
            Blocks.stamps(of: group.media.stored(volume).durable).enumerated().allSatisfy { place, stamps in
                stamps.allSatisfy { promises.isPossible($0, at: place + index * Blocks.perVolume) }
            }
        }
    }

    /// Everything is drained: the medium has what was promised, or a later write that was not answered.
    func checkMedia() {
        for (index, volume) in group.volumes.enumerated() {
            expectPromised(group.media.stored(volume).durable, index, "at the end \(volume.name)")
        }
        // What an operator gave up by force is gone for clients too.
        guard !isForced else { return }
        if let problem = history.violation() { expect(false, "not linearizable: \(problem)") }
    }
}
