// What a node says of itself, and the cluster's status that is made of it. The keys of ClusterStatus are an interface
// that others script against: extend them, never change them.

public struct ClusterStatus: Codable, Hashable, Sendable {
    public var cluster: String
    public var groups: [GroupStatus]
    public var nodes: [NodeSummary]

    public init(cluster: String, groups: [GroupStatus], nodes: [NodeSummary]) {
        self.cluster = cluster
        self.groups = groups
        self.nodes = nodes
    }
}

public struct NodeSummary: Codable, Hashable, Sendable {
    public var name: String
    public var reachable: Bool
    /// `pmem`, `msync` or `volatile`; `unknown` if the node does not answer.
    public var persistence: String
    /// `owner` if it owns a group, else `mirror`; `unknown` if it does not answer.
    public var role: String
    /// `nil` if it does not answer.
    public var clients: ClientTotals?
    /// Why it could not be asked; of a node that answers, what is wrong with it whoever owns its groups.
    public var reason: String?

    public init(
        name: String, reachable: Bool, persistence: String, role: String, clients: ClientTotals? = nil,
        reason: String? = nil
    ) {
        self.name = name
        self.reachable = reachable
        self.reason = reason
        self.persistence = persistence
        self.role = role
        self.clients = clients
    }
}

public struct GroupStatus: Codable, Hashable, Sendable {
    /// `nil`: whoever answered cannot know it.
    public struct Log: Codable, Hashable, Sendable {
        public var capacityBytes: UInt64
        public var headLSN: UInt64?
        public var tailLSN: UInt64?
        public var durableLSN: UInt64?
        public var mirroredLSN: UInt64?
        public var acknowledgedLSN: UInt64?
        public var usedBytes: UInt64?
        public init(capacityBytes: UInt64) { self.capacityBytes = capacityBytes }

        /// Every key is always there, `null` if its number is unknown.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(capacityBytes, forKey: .capacityBytes)
            try container.encode(headLSN, forKey: .headLSN)
            try container.encode(tailLSN, forKey: .tailLSN)
            try container.encode(durableLSN, forKey: .durableLSN)
            try container.encode(mirroredLSN, forKey: .mirroredLSN)
            try container.encode(acknowledgedLSN, forKey: .acknowledgedLSN)
            try container.encode(usedBytes, forKey: .usedBytes)
        }
    }
    public struct Loss: Codable, Hashable, Sendable {
        /// `nil`: cannot be known from here.
        public var lostAcknowledgedWrites: UInt64?
        public var estimatedTakeoverSeconds: Double?
        public init(lostAcknowledgedWrites: UInt64?, estimatedTakeoverSeconds: Double?) {
            self.lostAcknowledgedWrites = lostAcknowledgedWrites
            self.estimatedTakeoverSeconds = estimatedTakeoverSeconds
        }

        /// Both keys are always there, as scripts expect them.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(lostAcknowledgedWrites, forKey: .lostAcknowledgedWrites)
            try container.encode(estimatedTakeoverSeconds, forKey: .estimatedTakeoverSeconds)
        }
    }
    public struct Coordinator: Codable, Hashable, Sendable {
        /// It has answered the node within the last lease.
        public var reachable: Bool
        /// When it began to answer, or when it answered last.
        public var since: String
        public init(reachable: Bool, since: String) {
            self.reachable = reachable
            self.since = since
        }
    }
    /// One of the owner's rails to the mirror.
    public struct Rail: Codable, Hashable, Sendable {
        /// Where the mirror listens.
        public var address: String
        /// `session`: the log crosses it; `standby`: it is up, and only heartbeats do; `connecting`, `down`.
        public var state: String
        public var since: String
        /// Of the log, posted and not completed.
        public var bytesInFlight: UInt64
        /// Of its last heartbeat that was answered; `nil` before the first one.
        public var roundTripSeconds: Double?
        /// `nil` while it is not up.
        public var tls: Bool?
        /// Why it ended last, or could not be made.
        public var lastError: String?

        public init(
            address: String, state: String, since: String, bytesInFlight: UInt64, roundTripSeconds: Double?,
            tls: Bool?, lastError: String?
        ) {
            self.address = address
            self.state = state
            self.since = since
            self.bytesInFlight = bytesInFlight
            self.roundTripSeconds = roundTripSeconds
            self.tls = tls
            self.lastError = lastError
        }

        /// Every key is always there.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(address, forKey: .address)
            try container.encode(state, forKey: .state)
            try container.encode(since, forKey: .since)
            try container.encode(bytesInFlight, forKey: .bytesInFlight)
            try container.encode(roundTripSeconds, forKey: .roundTripSeconds)
            try container.encode(tls, forKey: .tls)
            try container.encode(lastError, forKey: .lastError)
        }
    }
    /// How long one stage of the owner's data path takes, in nanoseconds. A percentile is at most a sixteenth above the truth.
    public struct Stage: Codable, Hashable, Sendable {
        public struct Times: Codable, Hashable, Sendable {
            public var count: UInt64
            public var p50Nanos: UInt64
            public var p99Nanos: UInt64
            public var p999Nanos: UInt64
            public var maxNanos: UInt64

            public init(count: UInt64, p50Nanos: UInt64, p99Nanos: UInt64, p999Nanos: UInt64, maxNanos: UInt64) {
                self.count = count
                self.p50Nanos = p50Nanos
                self.p99Nanos = p99Nanos
                self.p999Nanos = p999Nanos
                self.maxNanos = maxNanos
            }
        }

        public var name: String
        /// Of the last 60 to 70 s.
        public var lastMinute: Times
        /// Since the node opened the log.
        public var sinceStart: Times

        public init(name: String, lastMinute: Times, sinceStart: Times) {
            self.name = name
            self.lastMinute = lastMinute
            self.sinceStart = sinceStart
        }
    }
    public struct Volume: Codable, Hashable, Sendable {
        public var name: String
        public var sizeBytes: UInt64
        public init(name: String, sizeBytes: UInt64) {
            self.name = name
            self.sizeBytes = sizeBytes
        }
    }

    public var name: String
    public var owner: String?
    public var home: String
    public var mirror: String
    /// The highest that is known; `nil` if none is.
    public var epoch: UInt64?
    public var state: String
    public var takeoverPossible: Bool
    public var reason: String?
    public var log: Log
    public var ifOwnerDiedNow: Loss
    /// As the node sees it that answers for the group; `nil` if nobody does, or an earlier release.
    public var coordinator: Coordinator?
    /// As the owner sees them; `nil` if it does not answer, or is of an earlier release.
    public var rails: [Rail]?
    /// In the order of a request's way; `nil` if the owner does not answer, or is of an earlier release.
    public var stages: [Stage]?
    public var volumes: [Volume]

    public init(
        name: String, owner: String?, home: String, mirror: String, epoch: UInt64?, state: String,
        takeoverPossible: Bool, reason: String?, log: Log, ifOwnerDiedNow: Loss,
        coordinator: Coordinator? = nil, rails: [Rail]? = nil, stages: [Stage]? = nil, volumes: [Volume]
    ) {
        self.name = name
        self.owner = owner
        self.home = home
        self.mirror = mirror
        self.epoch = epoch
        self.state = state
        self.takeoverPossible = takeoverPossible
        self.reason = reason
        self.log = log
        self.ifOwnerDiedNow = ifOwnerDiedNow
        self.coordinator = coordinator
        self.rails = rails
        self.stages = stages
        self.volumes = volumes
    }

    private enum CodingKeys: String, CodingKey {
        case name, owner, home, mirror, epoch, state, takeoverPossible, reason, log, ifOwnerDiedNow, coordinator,
            rails, stages, volumes
    }

    /// `owner`, `epoch`, `reason`, `coordinator`, `rails` and `stages` are always there, `null` if there is none.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(owner, forKey: .owner)
        try container.encode(home, forKey: .home)
        try container.encode(mirror, forKey: .mirror)
        try container.encode(epoch, forKey: .epoch)
        try container.encode(state, forKey: .state)
        try container.encode(takeoverPossible, forKey: .takeoverPossible)
        try container.encode(reason, forKey: .reason)
        try container.encode(log, forKey: .log)
        try container.encode(ifOwnerDiedNow, forKey: .ifOwnerDiedNow)
        try container.encode(coordinator, forKey: .coordinator)
        try container.encode(rails, forKey: .rails)
        try container.encode(stages, forKey: .stages)
        try container.encode(volumes, forKey: .volumes)
    }
}

/// One node's answer to `status`.
public struct NodeStatus: Codable, Hashable, Sendable {
    public struct Group: Codable, Hashable, Sendable {
        /// This node is the one that owns the group, by its own knowledge.
        public var isOwner: Bool
        public var status: GroupStatus
        public init(isOwner: Bool, status: GroupStatus) {
            self.isOwner = isOwner
            self.status = status
        }

        private enum CodingKeys: String, CodingKey { case isOwner, status, unknown }

        /// Tools of earlier releases know no unknown numbers: those cross as 0, and their names beside them.
        private static let numbers: [(name: String, path: any WritableKeyPath<GroupStatus, UInt64?> & Sendable)] = [
            ("epoch", \.epoch), ("headLSN", \.log.headLSN), ("tailLSN", \.log.tailLSN),
            ("durableLSN", \.log.durableLSN), ("mirroredLSN", \.log.mirroredLSN),
            ("acknowledgedLSN", \.log.acknowledgedLSN), ("usedBytes", \.log.usedBytes),
        ]

        public func encode(to encoder: any Encoder) throws {
            let unknown = Self.numbers.filter { status[keyPath: $0.path] == nil }
            var said = status
            for number in unknown { said[keyPath: number.path] = 0 }
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(isOwner, forKey: .isOwner)
            try container.encode(said, forKey: .status)
            if !unknown.isEmpty { try container.encode(unknown.map(\.name), forKey: .unknown) }
        }

        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            isOwner = try container.decode(Bool.self, forKey: .isOwner)
            status = try container.decode(GroupStatus.self, forKey: .status)
            let unknown = try container.decodeIfPresent([String].self, forKey: .unknown) ?? []
            for number in Self.numbers where unknown.contains(number.name) { status[keyPath: number.path] = nil }
        }
    }
    public var name: String
    public var persistence: String
    public var groups: [Group]
    public var clients: ClientTotals?
    /// What is wrong with the node itself, whoever owns its groups.
    public var problem: String?

    public init(
        name: String, persistence: String, groups: [Group], clients: ClientTotals? = nil, problem: String? = nil
    ) {
        self.problem = problem
        self.name = name
        self.persistence = persistence
        self.groups = groups
        self.clients = clients
    }
}

extension ClusterStatus {
    /// Merges the nodes' answers: the highest epoch wins, and at the same epoch its owner. `configured` gives every group
    /// as it is said when nobody answers for it, and every node's name. `failures` says why a node could not be asked.
    public static func merge(
        cluster: String, nodes: [String], configured: [GroupStatus], answers: [NodeStatus],
        failures: [String: String] = [:]
    ) -> ClusterStatus {
        let groups = configured.map { merge(configured: $0, answers) }
        let summaries = nodes.map { name in
            guard let answer = answers.first(where: { $0.name == name }) else {
                return NodeSummary(
                    name: name, reachable: false, persistence: "unknown", role: "unknown", reason: failures[name])
            }
            return NodeSummary(
                name: name, reachable: true, persistence: answer.persistence,
                role: answer.groups.contains { $0.isOwner } ? "owner" : "mirror", clients: answer.clients,
                reason: answer.problem)
        }
        return ClusterStatus(cluster: cluster, groups: groups, nodes: summaries)
    }

    private static func merge(configured group: GroupStatus, _ answers: [NodeStatus]) -> GroupStatus {
        let told = answers.flatMap { answer in
            answer.groups.filter { $0.status.name == group.name }.map { (node: answer.name, group: $0) }
        }
        let best = told.max { a, b in
            (a.group.status.epoch ?? 0, a.group.isOwner ? 1 : 0) < (b.group.status.epoch ?? 0, b.group.isOwner ? 1 : 0)
        }
        guard let best else { return group }
        var merged = best.group.status
        // What only an operator can mend comes first, whichever node it keeps.
        let blocked = told.filter { $0.node != best.node && $0.group.status.state == "unavailable" }
        let reasons = blocked.compactMap { other in other.group.status.reason.map { "\(other.node): \($0)" } }
        if !reasons.isEmpty {
            merged.reason = (reasons + [merged.reason.map { "\(best.node): \($0)" }].compactMap(\.self))
                .joined(separator: "; ")
        }
        return merged
    }

    public var isTakeoverPossibleEverywhere: Bool { groups.allSatisfy(\.takeoverPossible) }
}
