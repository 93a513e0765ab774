// The steps of a group that lock its media and release them, where they overtake each other.

import ClusterConfiguration
import Dispatch
import LogModel
import StorageMedium
import Synchronization
import Testing

@testable import GroupEngine
@testable import StorageNode

/// Locks when it is let, and counts.
private final class SlowGuard: MediumGuard {
    let mayLock = DispatchSemaphore(value: 0)
    private let counts = Mutex((locked: 0, released: 0))
    var locked: Int { counts.withLock { $0.locked } }
    var released: Int { counts.withLock { $0.released } }

    func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia {
        mayLock.wait()
        counts.withLock { $0.locked += 1 }
        return HeldMedia(media: expected.map { _ in NoMedium() }) { self.counts.withLock { $0.released += 1 } }
    }

    func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook { MediaLook() }

    func readUncached(
        _ volume: ClusterConfiguration.Volume, _ range: ByteRange
    ) throws(MediumError) -> [UInt8] {
        throw MediumError(.read, "\(volume.mediumPath): nothing is read here")
    }
}

struct MediaStepsTests {
    private static let group =
        "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}"

    @Test("S16: a medium that is locked while its release waits is released with the rest")
    func lockedWhileReleasing() async throws {
        let media = SlowGuard()
        let adjust = { @Sendable (node: NodeID, parts: inout NodeParts) in
            if node == NodeID("beta") { parts.media = media }
        }
        try await PairRig.run(groups: Self.group, adjust: adjust) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            try await on { rig in
                let standby = try #require(rig.beta.groups[GroupID("g0")])
                standby.lockMedia([:])
                standby.releaseMedia()
            }
            media.mayLock.signal()
            try await on.eventually("released") { _ in media.locked == 1 && media.released == 1 }
            try await on { rig in #expect(rig.beta.groups[GroupID("g0")]?.holdsMedia == false) }
        }
    }
}
