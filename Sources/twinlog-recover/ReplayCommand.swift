// replay: brings everything that a surviving log holds to the medium, when no server is left to do it.
//
// In this order: judge the pool (S13, S20), find the writers gone (S16), lock the media (S18), read all of the log before
// the first byte is written (S5), write, flush; only then, and only if asked, note it in the pool.

import ArgumentParser
import ClusterConfiguration
import LogModel
import PersistentMemory
import Recovery
import StorageMedium
import WriteLog

struct ReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Write a surviving log to the medium.",
        discussion: """
            For the day when every server of the group is down and stays down. It can be cut and run again: the result is the \
            same. Nothing is written if the log is corrupt, if the pool is out of sync, or if a node holds a medium.
            """)
    @OptionGroup var options: PoolOptions
    @Option(help: "The group whose log it is.") var group: String
    @Option(
        help: ArgumentHelp(
            "A volume and its medium; once per volume. With --config, the configured media if none is given.",
            valueName: "name=path"))
    var volume: [String] = []
    @Flag(help: "Check everything, write nothing.") var dryRun = false
    @Option(help: "The cluster's configuration file: its coordinator says whether this pool is in sync.") var config:
        String?
    @Flag(help: "Note in the pool that its log is on the medium; a second replay is refused.") var markReplayed = false

    func run() throws {
        let configuration = try loadConfiguration()
        // A refusal leaves the pool as it was, so it is opened for writing only when nothing is left to refuse.
        var pool = try openPool(options.pool)
        var region = try region(of: pool, group: group)
        try checkReplayable(region)
        let standing = try configuration.map { try InSync.judge(pool, region, $0) }
        let volumes = try VolumeArgument.resolve(volume, group: GroupID(group), configuration)
        var media: [VolumeID: any Medium] = [:]
        for volume in volumes { media[volume.id] = try volume.openLocked(identities: standing?.media ?? [:]) }
        if markReplayed && !dryRun {
            _ = try replay(region, onto: media, dryRun: true)
            (pool, region) = try reopenForWriting(pool, region)
        }
        let outcome = try replay(region, onto: media, dryRun: dryRun)
        if markReplayed && !dryRun { try mark(region) }
        try report(outcome, volumes, pool, standing)
        throw ExitCode((outcome.verdict == .torn ? ToolExit.torn : ToolExit.clean).rawValue)
    }

    private func loadConfiguration() throws(Failure) -> ClusterConfiguration? {
        guard let config else { return nil }
        do throws(ConfigurationError) {
            return try ClusterConfiguration.load(path: config)
        } catch {
            throw Failure(.usage, error.description)
        }
    }

    private func checkReplayable(_ region: Region) throws(Failure) {
        guard let identity = region.identity, identity.role != .empty else {
            guard region.isBlank || region.identity != nil else {
                throw Failure(
                    .corrupt,
                    "\(options.pool): the identity of \(group)'s log is gone, so nobody can tell what of it counts; if the group was "
                        + "mirrored, replay the other node's pool; nothing was written")
            }
            throw Failure(.refused, "\(options.pool): the log of \(group) was never used, there is nothing to replay")
        }
        guard identity.isReplayed else { return }
        throw Failure(
            .refused,
            "\(options.pool): the log of \(group) was replayed before and marked so; a second replay could undo what was "
                + "written to the medium since, so nothing is done")
    }

    /// The pool is let go for a moment; if somebody used it meanwhile, it is another log now.
    private func reopenForWriting(_ pool: Pool, _ region: Region) throws(Failure) -> (Pool, Region) {
        pool.close()
        let reopened = try openPool(options.pool, writing: true)
        guard reopened.identity == pool.identity, let again = reopened.region(of: region.group),
            again.identity == region.identity, again.head == region.head
        else { throw Failure(.inUse, "\(options.pool): a node used the pool meanwhile; stop it and begin anew") }
        return (reopened, again)
    }

    private func replay(
        _ region: Region, onto media: [VolumeID: any Medium], dryRun: Bool
    ) throws(Failure) -> ReplayOutcome {
        var bar = ProgressBar("replaying \(region.group)")
        defer { bar.clear() }
        do throws(ReplayError) {
            guard let outcome = try Replay.run(region, onto: media, dryRun: dryRun, progress: { bar.show($0, of: $1) })
            else {
                preconditionFailure("the region was checked to hold a log")
            }
            return outcome
        } catch {
            throw Self.failure(error, options.pool)
        }
    }

    private static func failure(_ error: ReplayError, _ pool: String) -> Failure {
        switch error.code {
        case .corrupt: Failure(.corrupt, "\(pool): \(error)")
        case .unknownVolume:
            Failure(.usage, "\(pool): \(error); name every volume of the group with --volume; nothing was written")
        case .outOfRange: Failure(.refused, "\(pool): \(error); is it the right medium? nothing was written")
        case .medium: Failure(.refused, "\(error); repair the medium and run the replay again, it begins anew")
        }
    }

    private func mark(_ region: Region) throws(Failure) {
        do throws(PoolError) {
            try region.markReplayed()
        } catch {
            throw Failure(.refused, "everything is on the medium, but the pool could not be marked: \(error)")
        }
    }

    // MARK: The report

    private struct Report: Encodable {
        struct Volume: Encodable {
            var name: String
            var path: String
            var sizeBytes: UInt64
        }
        var path: String
        var group: String
        var dryRun: Bool
        var inSync: Nullable<Bool>
        var markedReplayed: Bool
        var writes: UInt64
        var payloadBytes: UInt64
        var headLSN: UInt64
        var endLSN: UInt64
        var acknowledgedLSN: UInt64
        var verdict: String
        var volumes: [Volume]
    }

    private func report(
        _ outcome: ReplayOutcome, _ volumes: [VolumeArgument], _ pool: Pool, _ standing: InSync?
    ) throws {
        for warning in standing?.warnings ?? [InSync.unknown] { printError(warning) }
        if options.json {
            try printJSON(
                Report(
                    path: pool.path, group: group, dryRun: dryRun, inSync: Nullable(standing.map { _ in true }),
                    markedReplayed: markReplayed && !dryRun, writes: outcome.writes, payloadBytes: outcome.payloadBytes,
                    headLSN: outcome.headLSN.rawValue, endLSN: outcome.endLSN.rawValue,
                    acknowledgedLSN: outcome.acknowledgedLSN.rawValue, verdict: outcome.verdict.rawValue,
                    volumes: volumes.map { Report.Volume(name: $0.name, path: $0.path, sizeBytes: $0.sizeBytes) }))
            return
        }
        let what =
            "\(outcome.writes) writes, \(outcome.payloadBytes) bytes of payload, LSN \(outcome.headLSN) to \(outcome.endLSN)"
        print("\(group): \(dryRun ? "would write" : "wrote and flushed") \(what)")
        if outcome.verdict == .torn {
            print(
                "  the log's tail is torn: what begins at LSN \(outcome.endLSN) is not known to be acknowledged and is left out"
            )
        }
        guard !dryRun else { return }
        print(
            markReplayed
                ? "  the pool is marked: a second replay is refused"
                : "  the pool is unchanged: a node that starts with it replays the same log again, so do not write to the medium before"
        )
    }
}
