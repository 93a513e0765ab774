// What a group serves while the configurations of its two nodes differ: what both know. A partner could not take over the rest (S27).

package import ClusterConfiguration
internal import LogModel
internal import StorageMedium

extension Group {
    /// What both nodes know of a volume, as far as the partner has said.
    func commonBytes(of volume: ClusterConfiguration.Volume) -> UInt64 {
        switch host.agreement(on: id, with: peer) {
        case .part(let common): min(volume.sizeBytes, common[volume.name] ?? 0)
        // With too little in common the partner is no mirror, and what it knows does not count.
        case .whole, .none: volume.sizeBytes
        }
    }

    /// Up to where a file may be made longer: a partner that has not said what it knows may know less, and could not take it over then.
    func growthBytes(of volume: ClusterConfiguration.Volume) -> UInt64 {
        host.knowsConfiguration(of: peer) ? commonBytes(of: volume) : 0
    }

    /// What a client that comes now is offered, by an owner; a medium that was not made longer yet has less.
    package func servedBytes(of volume: ClusterConfiguration.Volume) -> UInt64 {
        min(commonBytes(of: volume), mediaByVolume[volume.id]?.sizeBytes ?? .max)
    }

    func notKnownToPeer(_ volume: ClusterConfiguration.Volume) -> VolumeRefusal {
        VolumeRefusal(
            .notReady,
            "volume '\(volume.name)' is not served yet: the configuration of \(peer) does not have it; restart \(peer) with the file of \(host.id)"
        )
    }

    /// Why a partner with another configuration cannot mirror the group, for people; `nil` if it can.
    var configurationObstacle: String? {
        switch host.agreement(on: id, with: peer) {
        case .whole: nil
        case .none: host.difference(from: peer)
        case .part(let common):
            configuration.volumes.lazy.compactMap { [self] volume in
                let (offered, known) = (owner?.offered[volume.id] ?? 0, common[volume.name] ?? 0)
                return offered > known
                    ? "clients of \(volume.name) were offered \(offered) bytes here, and the configuration of \(peer) has \(known): restart "
                        + "\(peer) with the file of \(host.id)" : nil
            }.first
        }
    }
}
