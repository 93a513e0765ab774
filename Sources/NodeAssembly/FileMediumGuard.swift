// Files and block devices as a group's media: opened, known for what they are, and locked; all of them or none (S18).

package import ClusterConfiguration
package import GroupEngine
package import LogModel
package import StorageMedium

package struct FileMediumGuard: MediumGuard {
    /// What the node reaches a medium through: where a test puts its faults.
    var throughMedium: @Sendable (VolumeID, FileMedium) -> any Medium = { _, medium in medium }

    package func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia {
        var taken = Taken()
        // What was taken is let go of when one is refused: closing the descriptors ends the locks.
        for one in expected { try taken.take(one) }
        let files = taken.media
        return HeldMedia(
            media: zip(expected, files).map { throughMedium($0.volume.id, $1) }, identities: taken.identities,
            growthProblems: taken.growthProblems,
            release: { () throws(MediumError) in for file in files { try file.unlock() } })
    }

    private struct Taken {
        private(set) var media: [FileMedium] = []
        private(set) var identities: [String: UUID128] = [:]
        private(set) var growthProblems: [String] = []

        mutating func take(_ expected: ExpectedMedium) throws(MediumError) {
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
            let identity = try medium.admit(expected.expectation)
            do throws(MediumError) {
                try medium.grow(to: expected.growthBytes)
            } catch {
                growthProblems.append(error.message)
            }
            guard let identity else { return }
            if let other = identities.first(where: { $0.value == identity })?.key {
                throw MediumError(
                    .otherMedium,
                    "\(medium.path): is a copy of \(other)'s medium, with its id \(identity); if \(expected.volume.name) is to have it, "
                        + "run setfattr -x \(FileMedium.identityAttribute) on it")
            }
            identities[expected.volume.name] = identity
        }
    }

    package func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook {
        var look = MediaLook()
        for one in expected {
            do throws(MediumError) {
                let medium = try FileMedium.look(path: one.volume.mediumPath, sizeBytes: one.volume.sizeBytes)
                try medium.check(one.expectation)
                try one.checkProof()
                let stranger = try medium.stranger(besides: owner, user: one.user)
                look.stranger = look.stranger ?? stranger
            } catch {
                look.problem = error.message
                return look
            }
        }
        return look
    }

    package func readUncached(
        _ volume: ClusterConfiguration.Volume, _ range: ByteRange
    ) throws(MediumError) -> [UInt8] {
        try FileMedium.look(path: volume.mediumPath, sizeBytes: volume.sizeBytes).readUncached(range)
    }
}
