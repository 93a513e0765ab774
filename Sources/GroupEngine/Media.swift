// What a group needs of its media: opened and locked, looked at, read past any cache (S18). A contract: adapters carry it out.

package import ClusterConfiguration
package import LogModel
package import StorageMedium

/// Opens media and keeps other writers from them (S18). Thread-safe; every call blocks.
package protocol MediumGuard: Sendable {
    /// Opens, checks and locks all of them, or none. Acquiring the locks is what confirms that no other writer is left.
    func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia
    /// Whether they could be taken now. Takes no lock and changes nothing. `owner`: the owner's process, if it is of this host.
    func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook
    /// What the medium holds where this node reaches it, past any cache.
    func readUncached(_ volume: ClusterConfiguration.Volume, _ range: ByteRange) throws(MediumError) -> [UInt8]
}

/// A group's media, locked.
package struct HeldMedia: Sendable {
    /// In the order of the volumes.
    package var media: [any Medium]
    /// By the volume's name; of those that have one.
    package var identities: [String: UUID128]
    /// What keeps volumes from having the bytes that the configuration gives them, for people; they are served with what there is.
    package var growthProblems: [String]
    /// Ends the locks. Nobody may use the media any more. Blocks.
    package var release: @Sendable () throws(MediumError) -> Void

    package init(
        media: [any Medium] = [], identities: [String: UUID128] = [:], growthProblems: [String] = [],
        release: @escaping @Sendable () throws(MediumError) -> Void = {}
    ) {
        self.media = media
        self.identities = identities
        self.growthProblems = growthProblems
        self.release = release
    }
}

/// What one look at a group's media found.
package struct MediaLook: Equatable, Sendable {
    /// Why they could not be taken.
    package var problem: String?
    /// A process that holds a lock and is not the owner's. Right after a change of owners that is no surprise.
    package var stranger: String?
    package init(problem: String? = nil, stranger: String? = nil) {
        self.problem = problem
        self.stranger = stranger
    }
}

/// A volume, and what is known of its medium.
package struct ExpectedMedium: Sendable {
    package var volume: ClusterConfiguration.Volume
    package var group: GroupID
    package var expectation: MediumExpectation
    /// Up to here a file may be made longer that its volume has outgrown.
    package var growthBytes: UInt64
    /// The owner found that this node reaches other bytes than it writes, and nothing has proved otherwise since.
    package var isRefuted = false

    package init(
        volume: ClusterConfiguration.Volume, group: GroupID, expectation: MediumExpectation, growthBytes: UInt64 = 0,
        isRefuted: Bool = false
    ) {
        self.volume = volume
        self.group = group
        self.expectation = expectation
        self.growthBytes = growthBytes
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
