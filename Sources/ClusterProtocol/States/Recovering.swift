// Between a claim that was won and its publication.

internal import Coordination
internal import LogModel

struct Recovering: Sendable {
    /// In S16's order; then the ways out of it.
    enum Step: Sendable {
        case fencing, locking, sealing
        /// `asksFirst`: the log is in doubt, and does not decide before the partner was asked.
        case replaying(asksFirst: Bool)
        /// Where the log ended is in doubt: waiting for the partner's sign of life.
        case asking(since: Nanos)
        case opening(end: LSN)
        case publishing
        /// A partner gets the group: the medium first, then the swap.
        case releasing(Leaving)
        case givingAway(Leaving)
    }

    /// Why a partner gets the group.
    struct Leaving: Sendable {
        var heir: NodeID
        var reason: String
        /// The log here holds everything that was acknowledged, as far as it can tell.
        var isSource = true
        /// The partner shall remember that the group was moved because this node could not go on.
        var isForMedium = false
    }

    enum Work: Sendable {
        case due(at: Nanos)
        /// The step's directive is being carried out.
        case underWay
    }

    struct Obstacle: Sendable {
        var reason: String
        let since: Nanos
    }

    let epoch: Epoch
    let since: Nanos
    /// The claim follows this node's own restart: the log's end is in doubt.
    let asksFirst: Bool
    var release: MediumRelease
    var step = Step.fencing
    var work = Work.due(at: 0)
    /// Why the present step fails.
    var obstacle: Obstacle?
    /// Confirmed dead by this node.
    var confirmed: [GroupRecord.Fence] = []
    /// Identities of the locked media.
    var media: [String: UUID128] = [:]

    init(epoch: Epoch, asksFirst: Bool, release: MediumRelease, since now: Nanos) {
        self.epoch = epoch
        self.asksFirst = asksFirst
        self.release = release
        since = now
    }

    var isUnderWay: Bool { if case .underWay = work { true } else { false } }

    var leaving: Leaving? {
        switch step {
        case .releasing(let leaving), .givingAway(let leaving): leaving
        case .fencing, .locking, .sealing, .replaying, .asking, .opening, .publishing: nil
        }
    }

    /// For people.
    var reason: String {
        obstacle?.reason ?? leaving.map { "leaves the group: \($0.reason)" } ?? "taking over in epoch \(epoch)"
    }

    /// The present step has ended, and this one is next.
    mutating func go(to step: Step) {
        self.step = step
        work = .due(at: 0)
        obstacle = nil
    }

    mutating func heldUp(_ reason: String, _ now: Nanos, retryAt: Nanos) {
        obstacle = Obstacle(reason: reason, since: obstacle?.since ?? now)
        work = .due(at: retryAt)
    }
}
