// replay: brings everything that a surviving log holds to the medium, when no server is left to do it.
//
// In this order: judge the log (S13, S20), find the writers gone (S16), look at what the targets are, lock the media (S18), read
// all of the log before the first byte is written (S5), write, flush; only then, and only if asked, tell the coordinator and
// mark the pools. The media stay locked over that, so no node starts in between.

import ArgumentParser
import ClusterConfiguration
import Coordination
import HostProcess
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
            same. Nothing is written if the log is corrupt, if the pool is out of sync, or if a node holds a medium. The log of an archive \
            is read like a pool's.
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
    @Flag(
        help:
            "Note that the log is on the medium, so that no node replays a copy of it later: at the coordinator (--config), and in the pools."
    )
    var markReplayed = false
    @Option(
        help: ArgumentHelp(
            "With --mark-replayed: the pool of the group's other node, to be marked too; without --config each must be named.",
            valueName: "pool"))
    var otherPool: [String] = []
    @Flag(help: "Write what is sound around damage, and list what is not. For a log that no other copy can heal.")
    var salvage = false
    @OptionGroup var consent: ConsentOption
    @Flag(help: "Write to a target that is not the volume's medium, by the configuration or by its identity.")
    var forceTarget = false

    func run() throws {
        let configuration = try loadConfiguration()
        // A refusal leaves the pool as it was, so it is opened for writing only when nothing is left to refuse.
        var file = try LogFile.open(options.pool)
        var region = try file.region(of: group)
        try checkOptions(file)
        try checkReplayable(region)
        let standing = try configuration.map { configuration in
            try InSync.judge(
                file, region, configuration, InSync.Request(salvages: salvage, marks: markReplayed))
        }
        let volumes = try VolumeArgument.resolve(volume, group: GroupID(group), configuration)
        let check = TargetCheck(
            sources: [options.pool] + otherPool, group: GroupID(group), configuration: configuration,
            isForced: forceTarget)
        try check.check(volumes)
        var media: [VolumeID: any Medium] = [:]
        let identities = forceTarget ? nil : standing?.media
        for volume in volumes { media[volume.id] = try volume.openLocked(identities: identities ?? [:]) }
        let others = try OtherPool.open(otherPool, beside: file, region)
        let outcome = try bring(region, onto: media, dryRun: true)
        try standing?.checkIsWhatWasTold(options.pool, end: outcome.replayed.endLSN)
        var report = ReplayReport(file, group, outcome, volumes, standing, dryRun: dryRun, isSalvage: salvage)
        if !dryRun {
            report.warn()
            // A replay can be cut and begun anew, and a medium that is newer is refused where a coordinator knows it. What a salvage
            // leaves out is lost.
            try consent.confirm(salvage ? .always : .onTerminal, report.loss, isQuiet: !salvage)
        }
        if !dryRun {
            if markReplayed { (file, region) = try reopenForWriting(file, region) }
            if standing?.isTold != true { _ = try bring(region, onto: media, dryRun: false) }
            if markReplayed {
                let mark = ReplayMark(
                    path: options.pool, node: file.identity.node, region: region, others: others, standing: standing)
                report.note(mark, try mark.make(end: outcome.replayed.endLSN))
            }
        }
        try report.show(asJSON: options.json)
        throw ExitCode(report.exit.rawValue)
    }

    private func loadConfiguration() throws(Failure) -> ClusterConfiguration? {
        guard let config else { return nil }
        do throws(ConfigurationError) {
            return try ClusterConfiguration.load(path: config)
        } catch {
            throw Failure(.usage, error.description)
        }
    }

    private func checkOptions(_ file: LogFile) throws(Failure) {
        if file.archive != nil, markReplayed {
            throw Failure(.usage, "\(file.path): is an archive, which no node replays; it is not marked")
        }
        if !otherPool.isEmpty, !markReplayed {
            throw Failure(.usage, "--other-pool goes with --mark-replayed")
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
    private func reopenForWriting(_ file: LogFile, _ region: Region) throws(Failure) -> (LogFile, Region) {
        file.close()
        let reopened = LogFile(try openPool(options.pool, writing: true))
        guard reopened.identity == file.identity, let again = reopened.region(of: region.group),
            again.identity == region.identity, again.head == region.head
        else { throw Failure(.inUse, "\(options.pool): a node used the pool meanwhile; stop it and begin anew") }
        return (reopened, again)
    }

    /// Replays, or salvages; only looks with `dryRun`.
    private func bring(
        _ region: Region, onto media: [VolumeID: any Medium], dryRun: Bool
    ) throws(Failure) -> SalvageOutcome {
        var bar = ProgressBar("\(dryRun ? "checking" : "replaying") \(region.group)")
        defer { bar.clear() }
        do throws(ReplayError) {
            let outcome =
                salvage
                ? try Salvage.run(region, onto: media, dryRun: dryRun, progress: { bar.show($0, of: $1) })
                : try Replay.run(region, onto: media, dryRun: dryRun, progress: { bar.show($0, of: $1) })
                    .map { SalvageOutcome(replayed: $0) }
            guard let outcome else { preconditionFailure("the region was checked to hold a log") }
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
        case .medium, .mediumTaken:
            Failure(.refused, "\(error); repair the medium and run the replay again, it begins anew")
        }
    }
}
