// The published owner: its right to serve, its mirrors, its medium and its log.

internal import LogModel

struct Owner: Sendable {
    enum Service: Sendable {
        /// Before `since` the process may have been stopped, which is not the medium's doing.
        case serving(since: Nanos)
        /// The lease ran out (S17).
        case suspended
    }

    /// The record's epoch, and up to which one this node's pool knows what the coordinator does (S20).
    struct Standing: Sendable {
        private(set) var epoch: Epoch
        private var noted: Epoch

        init(_ epoch: Epoch) {
            self.epoch = epoch
            noted = epoch
        }

        var isNoted: Bool { noted >= epoch }

        mutating func raised(to epoch: Epoch) { self.epoch = epoch }
        mutating func noted(_ epoch: Epoch) { noted = max(noted, epoch) }
    }

    enum Medium: Sendable {
        case sound
        /// `stays`: why the group is kept all the same, as it was reported.
        case failing(MediumTrouble, stays: Obstacle?)

        var trouble: MediumTrouble? {
            switch self {
            case .sound: nil
            case .failing(let trouble, _): trouble
            }
        }

        /// Why the group stays though it fails; `nil` if that was not said.
        var stays: Obstacle? {
            switch self {
            case .sound: nil
            case .failing(_, let stays): stays
            }
        }

        mutating func seen(_ trouble: MediumTrouble?) { self = trouble.map { .failing($0, stays: stays) } ?? .sound }
    }

    /// Why no partner gets the group though the medium fails.
    struct Obstacle: Sendable, Equatable {
        var reason: String
        var cause: Report.Cause?
    }

    /// When it became the owner.
    let since: Nanos
    let incarnation: Incarnation
    var standing: Standing
    var service: Service
    var mirrors: Members<MemberMachine>
    /// What is durable here.
    var durable = LSN.zero
    var medium = Medium.sound
    /// The log's memory has failed and there is nobody to give the group to: nothing is acknowledged any more (S26).
    var logFailure: String?

    init(epoch: Epoch, service: Service, partners: [NodeID], since now: Nanos) {
        since = now
        incarnation = Incarnation(epoch)
        standing = Standing(epoch)
        self.service = service
        mirrors = Members(partners) { _ in MemberMachine(.absent(dialAt: now)) }
    }

    var isSuspended: Bool {
        switch service {
        case .serving: false
        case .suspended: true
        }
    }

    /// The first partner that the record counts and that is there.
    var heir: NodeID? { (0..<mirrors.count).first { mirrors[$0].isInSync }.map(mirrors.node) }
}
