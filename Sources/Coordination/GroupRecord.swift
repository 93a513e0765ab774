// What the coordinator knows of a volume group. Ownership changes only by compare-and-swap of this record (S15). How it is
// written down is RecordFormat's matter.

public import LogModel

/// The record of one group. Every swap raises `version`; `epoch` never falls.
public struct GroupRecord: Hashable, Sendable {
    public enum Phase: String, Sendable, Codable {
        /// Won, but what the earlier incarnation left is not all on the medium yet: nobody serves, nothing is discarded.
        case claimed
        /// The owner serves (or did until it died).
        case published
    }

    /// A node's copy of the log, as it was when the node last took part.
    public struct Member: Hashable, Sendable {
        public enum Role: String, Sendable, Codable {
            /// Owns the group, and its log holds everything that was acknowledged.
            case owner
            /// Its log holds everything that was acknowledged (S13, S14).
            case inSync
            /// Its log may lack something.
            case out
        }
        public var role: Role
        /// A node with another pool is not in sync, whatever it says (S20).
        public var pool: UUID128
        /// Of the last start with this pool that was counted, here and in the pool: an older copy of either is told by it (S20).
        /// 0: not counted yet.
        public var generation: UInt64
        /// The opening of the log that this copy is of (S4). `none`: not known.
        public var incarnation: Incarnation
        var unknown = UnknownKeys()

        public init(
            role: Role, pool: UUID128, generation: UInt64 = 0, incarnation: Incarnation = .none
        ) {
            self.role = role
            self.pool = pool
            self.generation = generation
            self.incarnation = incarnation
        }
    }

    /// A process that could still write to the medium when the group was claimed (S16). One that gave the group away may be among them:
    /// a call of the medium did not return to it.
    public struct Fence: Hashable, Sendable {
        public struct Confirmation: Hashable, Sendable, Codable {
            /// How its end is known: `process`, `pool` whose lock it would hold, or `operator` who says so.
            public var method: String
            /// The node, or the person, who confirmed it.
            public var by: String
            /// RFC 3339, on the clock of whoever confirmed it; for people.
            public var at: String
            /// The medium's own reservation keeps the process from it.
            public static let reservation = "reservation"
            /// The process may live: it cannot write to the medium, and can still acknowledge and read for as long as it has the right to.
            public var mayLive: Bool { method == Self.reservation }
            public init(method: String, by: String, at: String) {
                self.method = method
                self.by = by
                self.at = at
            }
        }
        public var target: ProcessIdentity
        /// `nil`: it may live.
        public var confirmed: Confirmation?
        var unknown = UnknownKeys()

        public init(target: ProcessIdentity, confirmed: Confirmation? = nil) {
            self.target = target
            self.confirmed = confirmed
        }
    }

    /// The recovery tool wrote a log of the group to the medium, and the medium may have been used since.
    public struct Replayed: Hashable, Sendable, Codable {
        /// The node whose log it was, and where it ended.
        public var node: NodeID
        public var end: LSN
        /// RFC 3339; for people.
        public var at: String
        public init(node: NodeID, end: LSN, at: String) {
            self.node = node
            self.end = end
            self.at = at
        }
    }

    /// What is true of a claim until it is published.
    public struct Claim: Hashable, Sendable {
        /// Never published: nothing was ever written, so a pool without a log holds everything. Not from then on: a node whose pool
        /// has lost its log is not taken for a new one (S20).
        public var isNew: Bool
        /// Made by force with a log that is out of sync: that log is older than the medium may be, so it is set aside and not
        /// replayed (S9).
        public var setsAsideLog: Bool
        /// Everything is on the medium, no log has more, and each is set aside by whoever claims.
        public var replayed: Replayed?
        /// Who was complete before, where the claim was made by force, or the group was given away by a node whose log is in doubt. A
        /// claim by one of them needs no force. Sorted.
        public var previousHolders: [NodeID]

        public init(
            isNew: Bool = false, setsAsideLog: Bool = false, replayed: Replayed? = nil, previousHolders: [NodeID] = []
        ) {
            self.isNew = isNew
            self.setsAsideLog = setsAsideLog
            self.replayed = replayed
            self.previousHolders = previousHolders
        }

        /// Nothing of it has to be settled before the group can be published.
        var isPlain: Bool { self == Claim() }
    }

    /// Counts swaps of this record, from 1.
    public var version: UInt64
    public var group: GroupID
    /// The identity of the group's log (S4). It never changes.
    public var logUUID: UUID128
    public var owner: NodeID
    public var epoch: Epoch
    /// `nil` once it is published.
    public var claim: Claim?
    /// Everybody who took part, the owner among them.
    public var members: [NodeID: Member]
    /// While claimed: who must be confirmed dead before recovery; the confirmed ones stay for a while, for people.
    public var fences: [Fence]
    /// The owner's process; a taker fences it. `nil` after a handover: the new owner has not claimed yet, and the old one has
    /// released the medium or is among ``mustFence``.
    public var ownerProcess: ProcessIdentity?
    /// The group was left because its medium failed the owner, and no owner has destaged everything since.
    public var leftForMedium = false
    /// The identity of each volume's medium, by the volume's name; of those that carry one (S18).
    public var media: [String: UUID128] = [:]
    /// The lease that the owner runs on; `nil`: not told.
    public var leaseMillis: UInt64?
    /// What a reader must know to act on this record. An unknown one is refused by name.
    public var criticalFeatures: [String] = []
    /// What a reader may pass over.
    public var features: [String] = []
    var unknown = UnknownKeys()

    public init(
        version: UInt64, group: GroupID, logUUID: UUID128, owner: NodeID, epoch: Epoch, phase: Phase,
        members: [NodeID: Member], fences: [Fence] = [], ownerProcess: ProcessIdentity?
    ) {
        self.version = version
        self.group = group
        self.logUUID = logUUID
        self.owner = owner
        self.epoch = epoch
        claim = phase == .published ? nil : Claim()
        self.members = members
        self.fences = fences
        self.ownerProcess = ownerProcess
    }

    /// `published` forgets the claim; `claimed` keeps one that is there.
    public var phase: Phase {
        get { claim == nil ? .published : .claimed }
        set {
            switch newValue {
            case .published: claim = nil
            case .claimed: claim = claim ?? Claim()
            }
        }
    }

    public var isNew: Bool { claim?.isNew ?? false }
    public var setsAsideLog: Bool { claim?.setsAsideLog ?? false }
    public var replayed: Replayed? { claim?.replayed }
    public var previousHolders: [NodeID] { claim?.previousHolders ?? [] }

    // MARK: Who holds what

    /// Nodes whose log holds every acknowledged record: while published those in sync, which may take over; while claimed those that
    /// did before the claim, of which any may claim anew and finish (S13, S14, S16). Sorted.
    public var holders: [NodeID] {
        members.filter { $0.value.role != .out }.keys.sorted()
    }

    /// Makes `nodes` the holders. Precondition: they are members.
    public mutating func setHolders(_ nodes: [NodeID]) {
        precondition(nodes.allSatisfy { members[$0] != nil }, "a holder is a member")
        for node in members.keys {
            members[node]?.role = !nodes.contains(node) ? .out : node == owner ? .owner : .inSync
        }
    }

    /// Nodes that may take over a published group, or the claimer.
    public var inSync: [NodeID] { phase == .published ? holders : [owner] }

    /// Nodes that may claim a claimed group anew.
    public var sources: [NodeID] { phase == .published ? [] : holders }

    public func isHolder(_ node: NodeID) -> Bool { members[node].map { $0.role != .out } ?? false }

    /// The processes whose end is not confirmed.
    public var mustFence: [ProcessIdentity] { fences.filter { $0.confirmed == nil }.map(\.target) }

    /// Confirmed ones that are kept for people.
    static let keptConfirmations = 8

    /// Adds `process` to those that must be fenced, and forgets the oldest of those that were.
    public mutating func fence(_ process: ProcessIdentity) {
        let surplus = fences.filter { $0.confirmed != nil }.dropLast(Self.keptConfirmations)
        fences.removeAll { surplus.contains($0) }
        if !fences.contains(where: { $0.target == process }) { fences.append(Fence(target: process)) }
    }

    public mutating func confirm(_ process: ProcessIdentity, _ confirmation: Fence.Confirmation) {
        for index in fences.indices where fences[index].target == process && fences[index].confirmed == nil {
            fences[index].confirmed = confirmation
        }
    }
}

extension GroupRecord {
    /// Swaps that no cluster ever makes; what is below is exact in every JSON reader and can be raised without overflow.
    static let maximumCount: UInt64 = 1 << 53
    /// More than a group can have, of each.
    static let maximumMembers = 64
    public static let maximumFences = 128

    static let notRecovered = "published, but not recovered"

    /// Why the record cannot be true, or `nil` (S21). Asked when one is read, and before one is written.
    var problem: String? {
        let nodes = [owner] + members.keys + previousHolders + fences.map(\.target.node)
        if !Name.isValid(group.rawValue) || nodes.contains(where: { !Name.isValid($0.rawValue) })
            || media.keys.contains(where: { !Name.isValid($0) })
        {
            return "a name is not valid"
        }
        if version == 0 || epoch == .none { return "version and epoch begin at 1" }
        let counts = [version, epoch.rawValue] + members.values.flatMap { [$0.generation, $0.incarnation.rawValue] }
        if counts.contains(where: { $0 > Self.maximumCount }) { return "version or epoch is beyond counting" }
        if members.values.contains(where: { $0.incarnation > Incarnation(epoch) }) {
            return "a log is of a later epoch than the group"
        }
        guard let ofOwner = members[owner] else { return "the owner is not a member" }
        if members.contains(where: { $0.value.role == .owner && $0.key != owner }) { return "two owners" }
        switch phase {
        case .published:
            if ofOwner.role != .owner { return "the owner is not in the in-sync set" }
            if !mustFence.isEmpty { return Self.notRecovered }
        case .claimed:
            if holders.isEmpty && replayed == nil { return "claimed from nobody" }
        }
        if !previousHolders.allSatisfy({ members[$0] != nil }) { return "a previous holder is not a member" }
        if members.count > Self.maximumMembers { return "more nodes than a group can have" }
        if fences.count > Self.maximumFences { return "more processes to fence than a group can have" }
        return nil
    }
}
