// Whether a pool may be replayed: by the coordinator's word it must hold everything that was acknowledged (S13), and no
// process that could still write may live (S16).

import ClusterConfiguration
import ConfiguredCoordinator
import Coordination
import Glibc
import LogModel
import PersistentMemory

/// What the coordinator knows of a log that may be brought to the medium, and what the operator should know all the same.
struct InSync {
    static let unknown =
        "warning: without --config nobody can say whether this pool is in sync; if the group ran on without this node, "
        + "newer acknowledged writes are in the other node's pool only"

    var record: GroupRecord
    var coordinator: any Coordinator
    var warnings: [String]
    /// Why the medium may be newer than the log, though the log may be salvaged: an operator decides.
    var mayBeOlder: String?
    /// An earlier run has written the log and told the coordinator; only the marks may be missing.
    var isTold = false
    /// The identities of the group's media, by volume.
    var media: [String: UUID128] { record.media }

    /// What the operator asked for, as far as it widens what is allowed.
    struct Request {
        /// Sound parts of a log that was set aside may be brought out.
        var salvages = false
        /// A run that was cut after the coordinator was told may be finished.
        var marks = false
    }

    /// Throws why the log must not be brought to the medium.
    static func judge(
        _ file: LogFile, _ region: Region, _ configuration: ClusterConfiguration, _ request: Request
    ) throws(Failure) -> InSync {
        let node = file.identity.node
        guard file.identity.cluster == configuration.cluster else {
            throw Failure(
                .unreadable,
                "\(file.path): belongs to cluster \(file.identity.cluster), the configuration to \(configuration.cluster)"
            )
        }
        guard let group = configuration.group(region.group), group.includes(node) else {
            throw Failure(
                .usage, "\(file.path): node \(node) takes no part in group \(region.group) by the configuration")
        }
        let (coordinator, record) = try read(group.id, configuration)
        var standing = InSync(record: record, coordinator: coordinator, warnings: try checkWritersGone(record))
        if request.marks, let replayed = record.replayed, replayed.node == node, record.ownerProcess == nil,
            problem(record, file.identity, region.identity, region.standing, isTold: true) == nil
        {
            standing.isTold = true
            return standing
        }
        let setAside = file.archive == nil ? nil : "this log was set aside: what is on the medium may be newer (S9)"
        guard let problem = problem(record, file.identity, region.identity, region.standing) ?? setAside else {
            return standing
        }
        let isSetAside = file.archive != nil || record.setsAsideLog
        guard request.salvages, isSetAside, record.logUUID == region.identity?.logUUID else {
            let hint =
                isSetAside && !request.salvages
                ? "; `--salvage` brings out what it holds, if that is wanted all the same" : ""
            throw Failure(.refused, "\(file.path): \(problem)\(hint)")
        }
        standing.mayBeOlder = problem
        return standing
    }

    /// What an earlier run has told the coordinator is finished only for the same log.
    func checkIsWhatWasTold(_ path: String, end: LSN) throws(Failure) {
        guard isTold, let replayed = record.replayed, replayed.end != end else { return }
        throw Failure(
            .refused,
            "\(path): the coordinator was told at \(replayed.at) that this log is on the medium up to LSN \(replayed.end), and it ends "
                + "at \(end) now; nothing was done")
    }

    private static func read(
        _ group: GroupID, _ configuration: ClusterConfiguration
    ) throws(Failure) -> (any Coordinator, GroupRecord) {
        let advice = "so nobody can say whether the pool is in sync; without --config it is replayed on your word"
        do throws(CoordinationError) {
            let coordinator = try ConfiguredCoordinator(existingOf: configuration).coordinator
            if let record = try coordinator.read(group) { return (coordinator, record) }
        } catch {
            throw Failure(.refused, "\(error), \(advice)")
        }
        throw Failure(.refused, "the coordinator has no record of group \(group), \(advice)")
    }

    /// Why the pool's log may lack something that was acknowledged, or belongs to another time; `nil` if it is in sync, or, with `isTold`,
    /// the very one that the record calls replayed.
    private static func problem(
        _ record: GroupRecord, _ pool: PoolIdentity, _ log: RegionIdentity?, _ standing: RegionStanding,
        isTold: Bool = false
    ) -> String? {
        guard let log, log.role != .empty else { return "the log of \(record.group) was never used" }
        guard let member = record.members[pool.node], member.pool == pool.uuid else {
            return "the coordinator knows another pool of node \(pool.node) (S20): this one is a copy, or older"
        }
        if record.logUUID != log.logUUID { return "the coordinator knows another log of group \(record.group) (S20)" }
        if let problem = disagreement(record, member, log, standing) { return problem }
        if record.setsAsideLog {
            return
                "a takeover by force of epoch \(record.epoch) gave this log up: what is on the medium may be newer (S9)"
        }
        if isTold { return nil }
        if let replayed = record.replayed {
            return
                "the log of \(replayed.node) was replayed at \(replayed.at) and marked so: what is on the medium may be newer (S9)"
        }
        guard member.role != .out else {
            let holders = record.holders.map(\.rawValue).joined(separator: " or ")
            return
                "node \(pool.node) is out of sync since epoch \(record.epoch) or before: acknowledged writes are missing in its log "
                + "(S13); replay the pool of \(holders) instead"
        }
        return nil
    }

    /// One of pool and coordinator is an older state (S20).
    private static func disagreement(
        _ record: GroupRecord, _ member: GroupRecord.Member, _ log: RegionIdentity, _ standing: RegionStanding
    ) -> String? {
        let seen = max(log.incarnation, Incarnation(standing.epoch))
        if seen > Incarnation(record.epoch) {
            return
                "the pool has seen epoch \(seen), the coordinator knows only epoch \(record.epoch) (S20): it lost something"
        }
        if member.generation < standing.counted, member.generation > 0 {
            return
                "the pool was counted as generation \(standing.counted), the coordinator knows only \(member.generation) (S20): it lost something"
        }
        // A start may have been counted already, or not.
        if member.generation > standing.counted, member.generation != standing.generation {
            return
                "this is a copy of generation \(standing.counted) of the pool, the coordinator has counted \(member.generation) (S20): it is "
                + "older than the medium"
        }
        let isOpenedByUnpublishedClaim = record.phase == .claimed && log.incarnation > member.incarnation
        if member.incarnation != .none, log.incarnation != member.incarnation, !isOpenedByUnpublishedClaim {
            return
                "this pool's log was opened in epoch \(log.incarnation), the group's in epoch \(member.incarnation) (S20): it is older than "
                + "the medium"
        }
        return nil
    }

    /// A live writer stops the replay; one that cannot be seen from here is warned of.
    private static func checkWritersGone(_ record: GroupRecord) throws(Failure) -> [String] {
        let writers = record.mustFence + [record.ownerProcess].compactMap(\.self)
        var living: ProcessIdentity?
        var unseen: [ProcessIdentity] = []
        do throws(FenceError) {
            let boot = try ProcessIdentity.current(node: record.owner).bootID
            for process in writers {
                switch try ProcessFence.liveness(of: process) {
                case .alive: living = process
                case .elsewhere: unseen.append(process)
                case .gone: if process.bootID != boot { unseen.append(process) }
                }
            }
        } catch {
            throw Failure(.refused, "whether the nodes are gone cannot be found out: \(error)")
        }
        if let living {
            throw Failure(
                .inUse, "process \(living.pid) of node \(living.node) lives and may write to the medium; stop it first")
        }
        return unseen.map {
            "warning: process \($0.pid) of node \($0.node) cannot be seen from here: it ran on another boot, machine or PID namespace, or "
                + "is another user's that /proc hides; make sure that it does not run there"
        }
    }
}
