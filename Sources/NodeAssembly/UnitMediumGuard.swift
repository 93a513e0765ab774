// Logical units as a group's media: looked at over ways that are kept, and taken by a persistent reservation (S18).

package import ClusterConfiguration
package import GroupEngine
package import LogModel
package import StorageMedium
internal import StorageMediumSCSI
internal import Synchronization

package final class UnitMediumGuard: MediumGuard {
    private let opener: UnitMedium.Opener
    private let looks = Mutex<[UnitAddress: UnitMedium.Look]>([:])

    package init(_ me: NodeID, of configuration: ClusterConfiguration) {
        opener = UnitMedium.Opener(me, of: configuration.nodes.map(\.id), cluster: configuration.cluster)
    }

    package func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia {
        var media: [UnitMedium] = []
        var identities: [String: UUID128] = [:]
        do throws(MediumError) {
            for one in expected {
                let medium = try take(one, besides: identities)
                media.append(medium)
                identities[one.volume.name] = medium.identity
            }
        } catch {
            for medium in media { medium.release() }
            throw error
        }
        let taken = media
        return HeldMedia(media: taken, identities: identities) { for medium in taken { medium.release() } }
    }

    private func take(_ one: ExpectedMedium, besides taken: [String: UUID128]) throws(MediumError) -> UnitMedium {
        let address = address(of: one.volume)
        return try UnitMedium.take(address, sizeBytes: one.volume.sizeBytes, as: opener) {
            identity throws(MediumError) in
            try one.expectation.check(identity, of: address.description)
            try one.checkProof()
            guard let other = taken.first(where: { $0.value == identity })?.key else { return }
            throw MediumError(.otherMedium, "\(address): is \(other)'s medium, by another address")
        }
    }

    package func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook {
        for one in expected {
            do throws(MediumError) {
                let address = address(of: one.volume)
                let identity = try look(at: address).check(sizeBytes: one.volume.sizeBytes)
                try one.expectation.check(identity, of: address.description)
                try one.checkProof()
            } catch {
                return MediaLook(problem: error.message)
            }
        }
        return MediaLook()
    }

    package func readUncached(
        _ volume: ClusterConfiguration.Volume, _ range: ByteRange
    ) throws(MediumError) -> [UInt8] {
        try look(at: address(of: volume)).read(range)
    }

    private func look(at address: UnitAddress) -> UnitMedium.Look {
        looks.withLock { looks in
            let look = looks[address] ?? UnitMedium.Look(address, as: opener)
            looks[address] = look
            return look
        }
    }

    private func address(of volume: ClusterConfiguration.Volume) -> UnitAddress {
        guard let address = volume.unit else { preconditionFailure("\(volume.mediumPath) is of another guard") }
        return address
    }
}
