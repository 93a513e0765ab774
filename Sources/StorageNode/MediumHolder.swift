// The media of a group on the node that owns it: opened, known for what they are, and locked; all of them or none (S18).

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import StorageMedium

/// A volume, and what is known of its medium.
struct ExpectedMedium: Sendable {
    var volume: ClusterConfiguration.Volume
    var group: GroupID
    var expectation: MediumExpectation
    /// The owner found that this node reaches other bytes than it writes, and nothing has proved otherwise since.
    var isRefuted = false

    /// Throws if the owner's proof speaks against the path.
    func checkProof() throws(MediumError) {
        guard isRefuted else { return }
        throw MediumError(
            .otherMedium,
            "\(volume.mediumPath): holds other bytes than the owner of \(group) writes for \(volume.name): an older copy, or another "
                + "medium; correct the path, then let the owner prove it or restart this node")
    }

    /// Whom a lock of the medium is for.
    var user: String { "volume \(volume.name) of \(group)" }
}

struct HeldMedia: Sendable {
    /// In the order of the volumes.
    private(set) var media: [FileMedium] = []
    /// By the volume's name; of those that have one.
    private(set) var identities: [String: UUID128] = [:]

    /// Blocks. Acquiring the exclusive locks is what confirms that no other writer is left. What was taken is let go of again
    /// when one of the media is refused.
    static func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia {
        var held = HeldMedia()
        for medium in expected { try held.take(medium) }
        return held
    }

    private mutating func take(_ expected: ExpectedMedium) throws(MediumError) {
        // Later on, a missing file is one whose file system is not there: an empty one in its place would lose everything.
        let mayCreate = expected.expectation.isNew && expected.expectation.identity == nil
        let medium = try FileMedium.open(
            path: expected.volume.mediumPath, sizeBytes: expected.volume.sizeBytes, createIfMissing: mayCreate,
            access: expected.volume.access)
        try medium.lock(for: expected.user)
        media.append(medium)
        // What the file says of itself is the better reason.
        try medium.check(expected.expectation)
        try expected.checkProof()
        guard let identity = try medium.admit(expected.expectation) else { return }
        if let other = identities.first(where: { $0.value == identity })?.key {
            throw MediumError(
                .otherMedium,
                "\(medium.path): is a copy of \(other)'s medium, with its id \(identity); if \(expected.volume.name) is to have it, "
                    + "run setfattr -x \(FileMedium.identityAttribute) on it")
        }
        identities[expected.volume.name] = identity
    }

    /// Nobody else holds the descriptors, and closing them ends the locks.
    func release() throws(MediumError) {
        for medium in media { try medium.unlock() }
    }
}

extension Group {
    /// `identities`: those that the group's record knows.
    func expectedMedia(_ identities: [String: UUID128]) -> [ExpectedMedium] {
        var volumes = node.knownMedia
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

extension ServerNode {
    /// The volumes whose media the groups' records know.
    var knownMedia: [UUID128: String] {
        groups.values.reduce(into: [:]) { known, group in
            for (name, identity) in group.machine.record?.media ?? [:] { known[identity] = name }
        }
    }
}
