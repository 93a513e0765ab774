// Not the owner: this node watches, and lets the owner mirror here; or it can do neither before an operator decides.

internal import Coordination
internal import LogModel

/// Whether calls of the medium that this node began as owner have all returned. While one has not, this node cannot lock the medium,
/// and a claim would keep the group from the partner, which can end this process.
enum MediumRelease: Sendable { case complete, awaited }

struct Standby: Sendable {
    var release = MediumRelease.complete
    /// An owner that asks to mirror here, until the coordinator has said whether it may.
    var waitingAttach: AttachRequest?
    var ending: Ending?

    /// The owner's process, where nobody listens any more, is made certain to have ended before the group is claimed from it.
    enum Ending: Sendable {
        /// The record is read: whoever cannot claim ends nobody.
        case asking(ProcessIdentity)
        case fencing(ProcessIdentity)
    }

    /// A fence is under way, so a claim would only begin another one.
    var isFencing: Bool { if case .fencing = ending { true } else { false } }
}

/// An operator has to decide.
struct Blocked: Sendable {
    var reason: String
    var cause: Report.Cause?
    var release = MediumRelease.complete
}
