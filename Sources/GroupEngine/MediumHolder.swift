// What a group expects its media to be (S18).

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import StorageMedium

extension Group {
    /// `identities`: those that the group's record knows.
    func expectedMedia(_ identities: [String: UUID128]) -> [ExpectedMedium] {
        var volumes = host.knownMedia
        for (name, identity) in identities { volumes[identity] = name }
        let isNew = machine.record?.isNew == true
        return configuration.volumes.map { volume in
            ExpectedMedium(
                volume: volume, group: configuration.id,
                expectation: MediumExpectation(
                    volume: volume.name, identity: identities[volume.name], volumes: volumes, isNew: isNew),
                isRefuted: refutedMedia.contains(volume.id))
        }
    }
}
