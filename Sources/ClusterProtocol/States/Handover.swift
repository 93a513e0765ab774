// Giving the group away, or stopping with nobody to take it.

internal import LogModel

struct Handover: Sendable {
    enum Destination: Sendable {
        /// In sync; it gets the group.
        case partner(NodeID)
        /// A stop with nobody to take over.
        case nobody
    }

    /// What a partner finds that gets the group.
    enum Legacy: Sendable {
        /// Everything that was acknowledged is on the medium.
        case drained
        /// The partner replays its log.
        case undrained
        /// As `undrained`; the partner is to remember that the medium took nothing.
        case mediumFails
        /// As `undrained`; this node's log does not count any more.
        case logFailed

        /// The log here holds everything that was acknowledged.
        var isSource: Bool {
            switch self {
            case .drained, .undrained, .mediumFails: true
            case .logFailed: false
            }
        }
    }

    struct Gift: Sendable {
        var heir: NodeID
        var legacy: Legacy
    }

    enum Step: Sendable {
        case draining(Destination, since: Nanos)
        /// Of a stop with nobody to take over.
        case releasingAlone
        case releasing(Gift, since: Nanos)
        /// The release does not end: this process will be fenced, and its other groups leave it first.
        case evacuating(Gift, since: Nanos)
        /// `release` is awaited where the partner has to end this process (S16).
        case swapping(Gift, release: MediumRelease)
    }

    var owner: Owner
    var step: Step

    /// Who gets the group; `nil` if nobody does.
    var heir: NodeID? {
        switch step {
        case .draining(.partner(let node), _): node
        case .draining(.nobody, _), .releasingAlone: nil
        case .releasing(let gift, _), .evacuating(let gift, _), .swapping(let gift, _): gift.heir
        }
    }

    /// Whether this process may still write to the medium.
    var release: MediumRelease {
        switch step {
        case .swapping(_, let release): release
        case .draining, .releasingAlone, .releasing, .evacuating: .awaited
        }
    }

    var isDraining: Bool {
        switch step {
        case .draining: true
        case .releasingAlone, .releasing, .evacuating, .swapping: false
        }
    }
}
