// What a group expects its media to be, and a standby's looks at them (S18).

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
                growthBytes: growthBytes(of: volume), isRefuted: refutedMedia.contains(volume.id))
        }
    }

    /// Looks at the media while another node owns the group and has written to them.
    func probeMedia() {
        guard let record = machine.record, record.owner != host.id, !record.isNew, !holdsMedia else {
            return standbyProbe.reset()
        }
        let expected = expectedMedia(record.media)
        let owner = record.ownerProcess.flatMap { process in
            process.bootID == host.process.bootID && process.pidNamespace == host.process.pidNamespace
                ? process.pid : nil
        }
        let media = host.media
        standbyProbe.tick(runtime.now) {
            media.look(expected, owner: owner)
        } seen: { [unowned self] in
            tellTakeoverProblem()
        }
    }

    func tellTakeoverProblem() { handle(.medium(.takeoverProblem(standbyProbe.problem))) }
}
