// What the files that a replay would write to are, by device and inode and never by their spelling: a replay must not
// overwrite a pool, an archive, or the medium of another volume.

import ClusterConfiguration
import LogModel
import PersistentMemory
import StorageMedium

struct TargetCheck {
    /// Pools and archives that this run reads.
    var sources: [String]
    var group: GroupID
    var configuration: ClusterConfiguration?
    /// The operator says that a target which does not look like it is the right one.
    var isForced: Bool

    /// Throws before anything was written; the message says what the target is.
    func check(_ volumes: [VolumeArgument]) throws(Failure) {
        var taken: [FileIdentity: VolumeArgument] = [:]
        for volume in volumes {
            // What is missing, the opening of the medium tells.
            guard let identity = FileIdentity(path: volume.path) else { continue }
            if let source = sources.first(where: { FileIdentity(path: $0) == identity }) {
                throw refusal(
                    volume,
                    "is \(source == volume.path ? "" : "the same file as \(source), ")a file that this run reads")
            }
            if let other = taken.updateValue(volume, forKey: identity) {
                throw Failure(
                    .usage,
                    "--volume \(volume.name)=\(volume.path): is the same file as volume \(other.name)'s, \(other.path); nothing was written"
                )
            }
            guard !isForced else { continue }
            try checkBeginning(of: volume)
            try checkConfigured(volume, identity)
        }
    }

    private func checkBeginning(of volume: VolumeArgument) throws(Failure) {
        let beginning: FileBeginning
        do throws(PoolError) { beginning = try FileBeginning.read(volume.path) } catch { throw Failure(error) }
        switch beginning {
        case .pool:
            throw refusal(
                volume, "begins as a pool does, not as a medium; if it is the medium all the same, add --force-target")
        case .archive:
            throw refusal(
                volume,
                "begins as an archive of a log does, not as a medium; if it is the medium all the same, add --force-target"
            )
        case .other: break
        }
    }

    private func checkConfigured(_ volume: VolumeArgument, _ identity: FileIdentity) throws(Failure) {
        for other in configuration?.groups ?? [] {
            for configured in other.volumes where other.id != group || configured.name != volume.name {
                guard FileIdentity(path: configured.mediumPath) == identity else { continue }
                throw refusal(
                    volume,
                    "is the configured medium of volume \(configured.name) of group \(other.id); if it is to be overwritten by volume "
                        + "\(volume.name), add --force-target")
            }
        }
    }

    private func refusal(_ volume: VolumeArgument, _ what: String) -> Failure {
        Failure(.refused, "--volume \(volume.name)=\(volume.path): \(what); nothing was written")
    }
}
