// The proof that a mirror reaches the owner's media, on the rail: the owner asks, the mirror reads, the owner judges (S18). See
// MediumProof.swift for what proves what.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
package import LogModel
internal import Recovery
internal import StorageMedium

extension Group {
    // MARK: As owner

    /// With every tick: tells the mirror what its answers proved, and asks for what is due.
    func proveMedia() {
        guard let owner, owner.owned.isServing, owner.shipper.mirror != nil, let rail else { return }
        for verdict in owner.destager.mediumProof.takeVerdicts() {
            send(.mediumProof(volume: verdict.volume, isProved: verdict.isProved), on: rail)
        }
        let now = runtime.now
        for volume in configuration.volumes {
            if let question = owner.destager.mediumProof.question(volume.id, now) {
                let range = question.sample.range
                send(
                    .mediumQuestion(
                        id: question.id, volume: volume.id, offset: range.offset, lengthBytes: UInt32(range.length)),
                    on: rail)
            } else if owner.destager.mediumProof.mayRead(volume.id, now) {
                readMedium(of: volume.id, for: owner)
            }
        }
    }

    private func readMedium(of volume: VolumeID, for owner: OwnerDataPath) {
        guard let medium = owner.owned.media[volume] else { return }
        let count = owner.destager.mediumProof.batchCount
        let round = owner.destager.mediumProof.readCount
        runtime.run(.reads) {
            try MediumSample.find(on: medium, round: round)
        } _: { result in
            // A medium that cannot be read is seen by its readers.
            guard case .success(let found?) = result else { return }
            owner.destager.mediumProof.read(found, of: volume, since: count)
        }
    }

    // MARK: As mirror

    /// What the volume's medium holds where this node reaches it. A question too many, or about bytes that the volume does not have,
    /// is passed over (S21).
    package func answerQuestion(
        _ id: UInt64, of volume: VolumeID, offset: UInt64, lengthBytes: UInt32, on asking: AcceptedRail
    ) {
        guard let volume = configuration.volumes.first(where: { $0.id == volume }),
            (1...MediumSample.maximumBytes).contains(UInt64(lengthBytes)), offset <= volume.sizeBytes,
            UInt64(lengthBytes) <= volume.sizeBytes - offset, volumesAsked.insert(volume.id).inserted
        else { return }
        let range = ByteRange(offset: offset, length: UInt64(lengthBytes))
        let media = host.media
        runtime.run(.probe) {
            MediumProof.checksum(of: try media.readUncached(volume, range))
        } _: { [self] result in
            volumesAsked.remove(volume.id)
            guard mirrorRail === asking else { return }
            let answer: PeerMessage =
                switch result {
                case .success(let checksum): .mediumAnswer(id: id, checksum: checksum, error: nil)
                case .failure(let error): .mediumAnswer(id: id, checksum: nil, error: "\(error)")
                }
            send(answer, on: asking.queuePair)
        }
    }

    /// Counts with the next look at the media.
    package func mediumJudged(_ volume: VolumeID, isProved: Bool) {
        guard configuration.volumes.contains(where: { $0.id == volume }) else { return }
        if isProved { refutedMedia.remove(volume) } else { refutedMedia.insert(volume) }
    }
}

enum MediumSample {
    static let maximumBytes = UInt64(WrittenTrace.sampleBytes)
    /// A medium that is all zeros in these is not known from another.
    private static let tries = 16

    /// Blocks. The first block of a medium, or one of several that are spread over it, that is not all zeros. Each `round` looks at others.
    static func find(on medium: any Medium, round: UInt64) throws(MediumError) -> MediumProof.Sample? {
        let blocks = medium.sizeBytes / maximumBytes
        guard blocks > 0 else { return nil }
        for attempt in 0..<tries {
            // Multiples of the golden ratio, of which the whole part is left out, are spread evenly however many there are.
            let part = (round &* UInt64(tries) &+ UInt64(attempt)) &* 0x9E37_79B9_7F4A_7C15
            let offset = attempt == 0 ? 0 : part.multipliedFullWidth(by: blocks).high * maximumBytes
            var bytes = [UInt8](repeating: 0, count: Int(maximumBytes))
            let result = bytes.withUnsafeMutableBytes { space in
                Result { () throws(MediumError) in try medium.read(into: space, at: offset) }
            }
            try result.get()
            if bytes.contains(where: { $0 != 0 }) { return MediumProof.Sample(offset: offset, bytes: bytes) }
        }
        return nil
    }
}
