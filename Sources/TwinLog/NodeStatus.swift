// What a node says of itself, and what happens on it.

internal import AdminProtocol

/// A node at one moment, by its own knowledge.
public struct NodeStatus: Hashable, Sendable {
    /// A volume group that the node takes part in.
    public struct Group: Hashable, Sendable {
        /// As the configuration has it.
        public let name: String
        /// The node that serves it; `nil` while nobody is known to.
        public let owner: String?
        /// This node is its owner.
        public let isServedHere: Bool
        /// A stable word: `mirrored`, `degraded`, `stalled`, `resyncing`, `recovering` … as `twinlog status` prints it.
        public let state: String
        /// Whether the partner could take it over without loss.
        public let isTakeoverPossible: Bool
        /// Why it is not whole, in words; `nil` if all is well.
        public let reason: String?
        /// Bytes of the log that are not on the media yet; `nil` where this node cannot know.
        public let logUsedBytes: UInt64?
    }

    /// Of the node's pool, with the logs of all its groups.
    public let persistence: LogPersistence
    /// In order of name.
    public let groups: [Group]
    /// What is wrong with the node itself, in words; `nil` if nothing is.
    public let problem: String?
}

/// Something that happened on a node, durably noted.
public struct NodeEvent: Hashable, Sendable {
    /// Grows by one with each event, over all starts of the node.
    public let number: UInt64
    /// UTC, ISO 8601 with milliseconds.
    public let time: String
    /// `nil`: about the node itself.
    public let group: String?
    /// A stable word, for programs.
    public let kind: String
    /// A sentence, for people.
    public let message: String
}

extension NodeStatus {
    init(_ status: AdminProtocol.NodeStatus) {
        persistence =
            switch status.persistence {
            case "pmem": .durable
            case "msync": .msync
            default: .volatile
            }
        groups = status.groups.map(Group.init)
        problem = status.problem
    }
}

extension NodeStatus.Group {
    init(_ group: AdminProtocol.NodeStatus.Group) {
        name = group.status.name
        owner = group.status.owner
        isServedHere = group.isOwner
        state = group.status.state
        isTakeoverPossible = group.status.takeoverPossible
        reason = group.status.reason
        logUsedBytes = group.status.log.usedBytes
    }
}

extension NodeEvent {
    init(_ event: AdminProtocol.NodeEvent) {
        number = event.sequence
        time = event.time
        group = event.group
        kind = event.kind
        message = event.message
    }
}
