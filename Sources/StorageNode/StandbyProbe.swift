// Whether a node that does not own a group could open its media now (S18). A standby that cannot is no copy to rely on, and says
// so while the owner lives, not when it is needed. A look takes no lock, changes nothing, and may hang without harm.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import StorageMedium

/// What one look at a group's media found.
struct MediaLook: Equatable, Sendable {
    /// Why they could not be taken.
    var problem: String?
    /// A process that holds a lock and is not the owner's. Right after a change of owners that is no surprise.
    var stranger: String?

    /// Blocks. `owner`: the owner's process, if it is of this host.
    static func run(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook {
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
}

/// The looks of one group, one at a time, on a thread of its own. Lives on the node's event loop.
final class StandbyProbe {
    static let interval: Nanos = 1_000_000_000
    /// A look opens a few files. One that takes longer waits for a file system that does not answer, and so would a takeover.
    static let returnLimit: Nanos = 5_000_000_000

    private let thread: NIOThreadPool
    private let eventLoop: any EventLoop
    private var isKnown = false
    private var lookedAt: Nanos = 0
    private var isLooking = false
    private var strangerBefore: String?
    /// Looks that were begun before the node took or lost the group tell nothing of it now.
    private var round = 0

    /// Why the media could not be taken; `nil`: they could, or nobody has looked yet.
    private(set) var problem: String?

    init(thread: NIOThreadPool, eventLoop: any EventLoop) {
        self.thread = thread
        self.eventLoop = eventLoop
    }

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
        thread.runIfActive(eventLoop: eventLoop, look).assumeIsolated().whenComplete { result in
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

extension Group {
    /// Looks at the media while another node owns the group and has written to them.
    func probeMedia() {
        guard let record = machine.record, record.owner != node.id, !record.isNew, !holdsMedia else {
            return standbyProbe.reset()
        }
        let expected = expectedMedia(record.media)
        let owner = record.ownerProcess.flatMap { process in
            process.bootID == node.process.bootID && process.pidNamespace == node.process.pidNamespace
                ? process.pid : nil
        }
        standbyProbe.tick(BootClock.now) {
            MediaLook.run(expected, owner: owner)
        } seen: { [unowned self] in
            tellTakeoverProblem()
        }
    }

    func tellTakeoverProblem() { handle(.takeoverProblem(standbyProbe.problem)) }
}
