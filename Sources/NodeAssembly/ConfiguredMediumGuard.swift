// The media of a group, each behind the guard of its kind; all of them or none.
//
// A reservation is taken by whoever asks for it last. So a node that was stopped between its claim and this must not write when it goes on:
// the claim's record is read once more *after* everything is taken. Whoever claims later takes the media later, too (S15, S18).

package import ClusterConfiguration
package import Coordination
package import GroupEngine
package import LogModel
package import StorageMedium

package struct ConfiguredMediumGuard: MediumGuard {
    private let me: NodeID
    private let files: any MediumGuard
    private let units: any MediumGuard
    private let coordinator: any Coordinator

    package init(_ me: NodeID, files: any MediumGuard, units: any MediumGuard, coordinator: any Coordinator) {
        self.me = me
        self.files = files
        self.units = units
        self.coordinator = coordinator
    }

    package func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia {
        let units = expected.filter { $0.volume.unit != nil }
        guard !units.isEmpty else { return try files.take(expected) }
        let heldFiles = try files.take(expected.filter { $0.volume.unit == nil })
        do throws(MediumError) {
            let heldUnits = try self.units.take(units)
            do throws(MediumError) {
                try checkClaim(of: units[0].group)
            } catch {
                try heldUnits.release()
                throw error
            }
            return Self.joined(expected, heldFiles, heldUnits)
        } catch {
            try heldFiles.release()
            throw error
        }
    }

    private func checkClaim(of group: GroupID) throws(MediumError) {
        let owner: NodeID?
        do throws(CoordinationError) {
            owner = try coordinator.read(group)?.owner
        } catch {
            throw MediumError(.open, "whether \(me) may still take the media of \(group) is not known: \(error)")
        }
        guard owner == me else {
            throw MediumError(.fenced, "\(owner?.rawValue ?? "nobody") owns \(group) by now, so \(me) leaves its media")
        }
    }

    /// In the order of `expected`.
    private static func joined(_ expected: [ExpectedMedium], _ files: HeldMedia, _ units: HeldMedia) -> HeldMedia {
        var (nextFile, nextUnit) = (files.media.makeIterator(), units.media.makeIterator())
        return HeldMedia(
            media: expected.compactMap { $0.volume.unit == nil ? nextFile.next() : nextUnit.next() },
            identities: files.identities.merging(units.identities) { file, _ in file },
            growthProblems: files.growthProblems
        ) { () throws(MediumError) in
            try units.release()
            try files.release()
        }
    }

    package func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook {
        var look = files.look(expected.filter { $0.volume.unit == nil }, owner: owner)
        guard look.problem == nil else { return look }
        look.problem = units.look(expected.filter { $0.volume.unit != nil }, owner: owner).problem
        return look
    }

    package func readUncached(
        _ volume: ClusterConfiguration.Volume, _ range: ByteRange
    ) throws(MediumError) -> [UInt8] {
        try (volume.unit == nil ? files : units).readUncached(volume, range)
    }
}
