// How a group's record is written down: JSON, format 2. A record of format 1 is read and raised; the next swap writes it anew.
//
// What a later version adds survives: keys that are not known here are kept and written back. What must not be passed over
// is named in `critical`, and refused here if it is not known.
//
// `inSync`, `sources` and `mustFence` repeat what `members` and `fences` say, for people and scripts; they are not read.

internal import Foundation
internal import LogModel

extension GroupRecord.Member: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: JSONKey.self)
        role = try container.decode(Role.self, forKey: "role")
        pool = try container.decode(UUID128.self, forKey: "pool")
        generation = try container.decode(UInt64.self, forKey: "generation")
        incarnation = try container.decode(Incarnation.self, forKey: "incarnation")
        unknown = try UnknownKeys(in: container, beside: ["role", "pool", "generation", "incarnation"])
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: JSONKey.self)
        try unknown.encode(into: &container)
        try container.encode(role, forKey: "role")
        try container.encode(pool, forKey: "pool")
        try container.encode(generation, forKey: "generation")
        try container.encode(incarnation, forKey: "incarnation")
    }
}

extension GroupRecord.Fence: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: JSONKey.self)
        target = try container.decode(ProcessIdentity.self, forKey: "target")
        confirmed = try container.decodeIfPresent(Confirmation.self, forKey: "confirmed")
        unknown = try UnknownKeys(in: container, beside: ["target", "confirmed"])
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: JSONKey.self)
        try unknown.encode(into: &container)
        try container.encode(target, forKey: "target")
        try container.encodeIfPresent(confirmed, forKey: "confirmed")
    }
}

extension GroupRecord: Codable {
    private static let known: Set<String> = [
        "version", "group", "logUUID", "owner", "epoch", "phase", "members", "previousHolders", "fences",
        "ownerProcess", "setsAsideLog", "isNew", "leftForMedium", "replayed", "media", "leaseMillis", "critical",
        "features", "inSync", "sources", "mustFence",
    ]

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: JSONKey.self)
        version = try container.decode(UInt64.self, forKey: "version")
        group = try container.decode(GroupID.self, forKey: "group")
        logUUID = try container.decode(UUID128.self, forKey: "logUUID")
        owner = try container.decode(NodeID.self, forKey: "owner")
        epoch = try container.decode(Epoch.self, forKey: "epoch")
        claim = try Self.claim(in: container)
        let byName = try container.decode([String: Member].self, forKey: "members")
        members = Dictionary(uniqueKeysWithValues: byName.map { (NodeID($0.key), $0.value) })
        fences = try container.decodeIfPresent([Fence].self, forKey: "fences") ?? []
        ownerProcess = try container.decodeIfPresent(ProcessIdentity.self, forKey: "ownerProcess")
        leftForMedium = try container.decodeIfPresent(Bool.self, forKey: "leftForMedium") ?? false
        media = try container.decodeIfPresent([String: UUID128].self, forKey: "media") ?? [:]
        leaseMillis = try container.decodeIfPresent(UInt64.self, forKey: "leaseMillis")
        criticalFeatures = try container.decodeIfPresent([String].self, forKey: "critical") ?? []
        features = try container.decodeIfPresent([String].self, forKey: "features") ?? []
        unknown = try UnknownKeys(in: container, beside: Self.known)
    }

    private static func claim(in container: KeyedDecodingContainer<JSONKey>) throws -> Claim? {
        let claim = Claim(
            isNew: try container.decodeIfPresent(Bool.self, forKey: "isNew") ?? false,
            setsAsideLog: try container.decodeIfPresent(Bool.self, forKey: "setsAsideLog") ?? false,
            replayed: try container.decodeIfPresent(Replayed.self, forKey: "replayed"),
            previousHolders: try container.decodeIfPresent([NodeID].self, forKey: "previousHolders") ?? [])
        switch try container.decode(Phase.self, forKey: "phase") {
        case .claimed: return claim
        case .published:
            guard claim.isPlain else {
                throw DecodingError.dataCorruptedError(
                    forKey: "phase", in: container, debugDescription: notRecovered)
            }
            return nil
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: JSONKey.self)
        try unknown.encode(into: &container)
        try container.encode(version, forKey: "version")
        try container.encode(group, forKey: "group")
        try container.encode(logUUID, forKey: "logUUID")
        try container.encode(owner, forKey: "owner")
        try container.encode(epoch, forKey: "epoch")
        try container.encode(phase, forKey: "phase")
        let byName = Dictionary(uniqueKeysWithValues: members.map { ($0.key.rawValue, $0.value) })
        try container.encode(byName, forKey: "members")
        if !previousHolders.isEmpty { try container.encode(previousHolders, forKey: "previousHolders") }
        try container.encode(fences, forKey: "fences")
        try container.encodeIfPresent(ownerProcess, forKey: "ownerProcess")
        if setsAsideLog { try container.encode(true, forKey: "setsAsideLog") }
        if isNew { try container.encode(true, forKey: "isNew") }
        if leftForMedium { try container.encode(true, forKey: "leftForMedium") }
        try container.encodeIfPresent(replayed, forKey: "replayed")
        try container.encode(media, forKey: "media")
        try container.encodeIfPresent(leaseMillis, forKey: "leaseMillis")
        if !criticalFeatures.isEmpty { try container.encode(criticalFeatures, forKey: "critical") }
        if !features.isEmpty { try container.encode(features, forKey: "features") }
        try container.encode(inSync, forKey: "inSync")
        try container.encode(sources, forKey: "sources")
        try container.encode(mustFence, forKey: "mustFence")
    }
}

/// A record of format 1. What it does not tell is not known: generations, incarnations, media.
private struct RecordOfFormat1: Codable {
    var version: UInt64
    var group: GroupID
    var logUUID: UUID128
    var owner: NodeID
    var epoch: Epoch
    var phase: GroupRecord.Phase
    var inSync: [NodeID]
    var sources: [NodeID]
    var mustFence: [ProcessIdentity]
    var ownerProcess: ProcessIdentity?
    var setsAsideLog: Bool?
    var isNew: Bool?
    var leftForMedium: Bool?
    var pools: [String: UUID128]

    func raised() throws -> GroupRecord {
        guard phase == .claimed || claim.isPlain else {
            let context = DecodingError.Context(codingPath: [], debugDescription: GroupRecord.notRecovered)
            throw DecodingError.dataCorrupted(context)
        }
        let holders = phase == .published ? inSync : sources
        var members: [NodeID: GroupRecord.Member] = [:]
        for (name, pool) in pools { members[NodeID(name)] = GroupRecord.Member(role: .out, pool: pool) }
        // One whose pool is not told has none that could be right.
        for node in holders + [owner] where members[node] == nil {
            members[node] = GroupRecord.Member(role: .out, pool: .zero)
        }
        var record = GroupRecord(
            version: version, group: group, logUUID: logUUID, owner: owner, epoch: epoch, phase: phase,
            members: members, fences: mustFence.map { GroupRecord.Fence(target: $0) }, ownerProcess: ownerProcess)
        record.setHolders(holders)
        if phase == .claimed { record.claim = claim }
        record.leftForMedium = leftForMedium ?? false
        return record
    }

    private var claim: GroupRecord.Claim {
        GroupRecord.Claim(isNew: isNew ?? false, setsAsideLog: setsAsideLog ?? false)
    }
}

extension GroupRecord {
    static let format = 2
    /// Features of records that this version understands.
    static let understood: Set<String> = []

    private struct FormatOnly: Codable { var format: Int }
    private struct Body<Record: Codable>: Codable {
        var format: Int
        var record: Record
    }

    /// The record's bytes; throws `invalidRecord` for one that no reader would take.
    package func encoded() throws(CoordinationError) -> [UInt8] {
        if let problem { throw CoordinationError(.invalidRecord, "the record of \(group) is not written: \(problem)") }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        do {
            return Array(try encoder.encode(Body(format: Self.format, record: self)))
        } catch {
            throw CoordinationError(.invalidRecord, "the record of \(group) cannot be encoded: \(error)")
        }
    }

    /// Throws `invalidRecord`, with `place` as the record's name.
    package init(encoded bytes: [UInt8], place: String) throws(CoordinationError) {
        let data = Data(bytes)
        do {
            let format = try JSONDecoder().decode(FormatOnly.self, from: data).format
            switch format {
            case 1: self = try JSONDecoder().decode(Body<RecordOfFormat1>.self, from: data).record.raised()
            case Self.format: self = try JSONDecoder().decode(Body<GroupRecord>.self, from: data).record
            default:
                throw CoordinationError(
                    .invalidRecord,
                    "\(place): format \(format) is not one that this version reads (1 to \(Self.format))")
            }
        } catch let error as CoordinationError {
            throw error
        } catch {
            throw CoordinationError(.invalidRecord, "\(place): is not a record: \(error)")
        }
        if let unknown = criticalFeatures.first(where: { !Self.understood.contains($0) }) {
            throw CoordinationError(
                .invalidRecord, "\(place): needs the feature '\(unknown)', which this version does not have")
        }
        if let problem { throw CoordinationError(.invalidRecord, "\(place): \(problem)") }
    }
}
