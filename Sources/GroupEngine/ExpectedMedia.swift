// What a group expects its media to be (S18).

package import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
package import LogModel
package import StorageMedium

/// A volume, and what is known of its medium.
package struct ExpectedMedium: Sendable {
    package var volume: ClusterConfiguration.Volume
    package var group: GroupID
    package var expectation: MediumExpectation
    /// The owner found that this node reaches other bytes than it writes, and nothing has proved otherwise since.
    package var isRefuted = false

    package init(
        volume: ClusterConfiguration.Volume, group: GroupID, expectation: MediumExpectation, isRefuted: Bool = false
    ) {
        self.volume = volume
        self.group = group
        self.expectation = expectation
        self.isRefuted = isRefuted
    }

    /// Throws if the owner's proof speaks against the path.
    package func checkProof() throws(MediumError) {
        guard isRefuted else { return }
        throw MediumError(
            .otherMedium,
            "\(volume.mediumPath): holds other bytes than the owner of \(group) writes for \(volume.name): an older copy, or another "
                + "medium; correct the path, then let the owner prove it or restart this node")
    }

    /// Whom a lock of the medium is for.
    package var user: String { "volume \(volume.name) of \(group)" }
}

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
