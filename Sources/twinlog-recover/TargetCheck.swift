// What a replay would write to, by device and inode and never by its spelling: a replay must overwrite neither what it reads nor
// the medium of another volume. What the file itself says that it is, the medium's opening looks at.

import ClusterConfiguration
import LogModel
import StorageMedium

struct TargetCheck {
    /// Pools and archives that this run reads.
    var sources: [String]
    var group: GroupID
    var configuration: ClusterConfiguration?
    /// The operator says that another volume's medium is the right one.
    var isForced: Bool

    /// Throws before anything was written; the message says what the target is.
    func check(_ volumes: [VolumeArgument]) throws(Failure) {
        for volume in volumes {
            // What is missing, the opening of the medium tells.
            guard let file = FileIdentity(path: volume.path) else { continue }
            guard !sources.contains(where: { FileIdentity(path: $0) == file }) else {
                throw refusal(volume, "is a pool, not a medium: this run reads it")
            }
            if !isForced { try checkConfigured(volume, file) }
        }
    }

    private func checkConfigured(_ volume: VolumeArgument, _ file: FileIdentity) throws(Failure) {
        for other in configuration?.groups ?? [] {
            for configured in other.volumes where other.id != group || configured.name != volume.name {
                guard FileIdentity(path: configured.mediumPath) == file else { continue }
                throw refusal(
                    volume,
                    "is the configured medium of volume \(configured.name) of group \(other.id); if volume \(volume.name) is to overwrite "
                        + "it, add --force-target")
            }
        }
    }

    private func refusal(_ volume: VolumeArgument, _ what: String) -> Failure {
        Failure(.refused, "--volume \(volume.name)=\(volume.path): \(what); nothing was written")
    }
}
