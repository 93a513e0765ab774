// Whether a node that does not own a group could open its media now (S18). A standby that cannot is no copy to rely on, and says
// so while the owner lives, not when it is needed. A look takes no lock, changes nothing, and may hang without harm.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import StorageMedium

/// The looks of one group, one at a time, on a thread of its own. Lives in the engine's one place.
final class StandbyProbe {
    static let interval: Nanos = 1_000_000_000
    /// A look opens a few files. One that takes longer waits for a file system that does not answer, and so would a takeover.
    static let returnLimit: Nanos = 5_000_000_000

    private let runtime: any Runtime
    private var isKnown = false
    private var lookedAt: Nanos = 0
    private var isLooking = false
    private var strangerBefore: String?
    /// Looks that were begun before the node took or lost the group tell nothing of it now.
    private var round = 0

    /// Why the media could not be taken; `nil`: they could, or nobody has looked yet.
    private(set) var problem: String?

    init(runtime: any Runtime) { self.runtime = runtime }

    /// Begins a look if it is time for one. `seen` is told when the first look has ended, and when the problem changes.
    func tick(_ now: Nanos, look: @escaping @Sendable () -> MediaLook, seen: @escaping () -> Void) {
        if isLooking {
            guard now >= lookedAt + Self.returnLimit else { return }
            let seconds = Self.returnLimit / 1_000_000_000
            return note("a look at the media has not returned for \(seconds) s", seen)
        }
        guard now >= lookedAt + Self.interval else { return }
        lookedAt = now
        isLooking = true
        let round = round
        runtime.run(.probe, look) { result in
            self.isLooking = false
            guard round == self.round, case .success(let look) = result else { return }
            let stranger = look.stranger == self.strangerBefore ? look.stranger : nil
            self.strangerBefore = look.stranger
            self.note(look.problem ?? stranger, seen)
        }
    }

    /// What was seen is of the past.
    func reset() {
        round += 1
        isKnown = false
        problem = nil
        strangerBefore = nil
    }

    private func note(_ problem: String?, _ seen: () -> Void) {
        guard !isKnown || problem != self.problem else { return }
        isKnown = true
        self.problem = problem
        seen()
    }
}
