// Not the owner: this node watches, and lets the owner mirror here; or it can do neither before an operator decides.

internal import LogModel

/// Whether calls of the medium that this node began as owner have all returned. While one has not, this node cannot lock the medium,
/// and a claim would keep the group from the partner, which can end this process.
enum MediumRelease: Sendable { case complete, awaited }

struct Standby: Sendable {
    var release = MediumRelease.complete
    /// An owner that asks to mirror here, until the coordinator has said whether it may.
    var waitingAttach: AttachRequest?
}

/// An operator has to decide.
struct Blocked: Sendable {
    var reason: String
    var cause: Report.Cause?
    var release = MediumRelease.complete
}
