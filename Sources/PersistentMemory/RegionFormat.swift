// A region's identity and head slots in bytes: see docs/FORMATS.md, "The pool file".

public import LogModel

/// What a group's region in this pool is used for.
public enum RegionRole: UInt32, Hashable, Sendable {
    case empty = 0
    case owner = 1
    case mirror = 2
}

/// Whose log a region holds, and since when.
public struct RegionIdentity: Hashable, Sendable {
    public var role: RegionRole
    public var logUUID: UUID128
    public var incarnation: Incarnation
    /// The first LSN of the incarnation.
    public var startLSN: LSN
    /// The recovery tool wrote this log to the medium.
    public var isReplayed: Bool

    public init(role: RegionRole, logUUID: UUID128, incarnation: Incarnation, startLSN: LSN, isReplayed: Bool = false) {
        self.role = role
        self.logUUID = logUUID
        self.incarnation = incarnation
        self.startLSN = startLSN
        self.isReplayed = isReplayed
    }
}

/// What a region has seen of the coordinator, in whatever incarnation: by it an older copy of the pool, or an older coordinator, is
/// known (S20).
public struct RegionStanding: Hashable, Sendable {
    /// Grows with every start of a node with this region, by a random step: two copies of it never count alike.
    public var generation: UInt64
    /// The last one that the coordinator is known to have counted too.
    public var counted: UInt64
    /// The highest epoch that this node has acted on.
    public var epoch: Epoch

    public init(generation: UInt64 = 0, counted: UInt64 = 0, epoch: Epoch = .none) {
        self.generation = generation
        self.counted = counted
        self.epoch = epoch
    }
}

enum RegionFormat {
    static let headerBytes: UInt64 = 8192
    /// Relative to the region. One slot of a kind per page, so that no torn or lost sector takes both.
    static let identityOffsets: [UInt64] = [0, 4096]
    static let headOffsets: [UInt64] = [512, 4608]
    static let standingOffsets: [UInt64] = [1024, 5120]
    static let slotBytes = 64
    static let maximumLSN = LSN.maximum.rawValue
}

struct IdentitySlot: Equatable {
    static let magic: StaticString = "TWINREGN"

    var sequence: UInt64
    var identity: RegionIdentity

    func encoded() -> ByteBlock {
        var slot = ByteBlock(count: RegionFormat.slotBytes)
        slot.put(magic: Self.magic)
        slot.put(sequence, at: 8)
        slot.put(identity.logUUID, at: 16)
        slot.put(identity.incarnation.rawValue, at: 32)
        slot.put(identity.startLSN.rawValue, at: 40)
        slot.put(identity.role.rawValue, at: 48)
        slot.put(UInt32(identity.isReplayed ? 1 : 0), at: 52)
        slot.put(slot.checksum(of: RegionFormat.slotBytes, without: 56), at: 56)
        return slot
    }

    static func decode(_ slot: ByteBlock) -> IdentitySlot? {
        let start = slot.get(UInt64.self, at: 40), flags = slot.get(UInt32.self, at: 52)
        guard slot.starts(with: magic),
            slot.get(UInt32.self, at: 56) == slot.checksum(of: RegionFormat.slotBytes, without: 56),
            let role = RegionRole(rawValue: slot.get(UInt32.self, at: 48)), flags <= 1,
            start % LSN.alignment == 0, start <= RegionFormat.maximumLSN,
            slot.get(UInt64.self, at: 8) <= PoolFormat.maximumSequence,
            slot.get(UInt64.self, at: 32) <= PoolFormat.maximumSequence
        else { return nil }
        return IdentitySlot(
            sequence: slot.get(UInt64.self, at: 8),
            identity: RegionIdentity(
                role: role, logUUID: slot.uuid(at: 16), incarnation: Incarnation(slot.get(UInt64.self, at: 32)),
                startLSN: LSN(start), isReplayed: flags == 1))
    }
}

struct HeadSlot: Equatable {
    var sequence: UInt64
    var head: LSN
    var acknowledged: LSN

    func encoded(incarnation: Incarnation, seed: UInt32) -> ByteBlock {
        var slot = ByteBlock(count: RegionFormat.slotBytes)
        slot.put(sequence, at: 0)
        slot.put(incarnation.rawValue, at: 8)
        slot.put(head.rawValue, at: 16)
        slot.put(acknowledged.rawValue, at: 24)
        slot.put(slot.checksum(of: 60, without: 60, seed: seed), at: 60)
        return slot
    }

    /// `nil` unless it is of this very incarnation.
    static func decode(_ slot: ByteBlock, incarnation: Incarnation, seed: UInt32) -> HeadSlot? {
        let head = slot.get(UInt64.self, at: 16), acknowledged = slot.get(UInt64.self, at: 24)
        guard slot.get(UInt64.self, at: 8) == incarnation.rawValue,
            slot.get(UInt32.self, at: 60) == slot.checksum(of: 60, without: 60, seed: seed),
            head % LSN.alignment == 0, head <= RegionFormat.maximumLSN, acknowledged <= RegionFormat.maximumLSN,
            slot.get(UInt64.self, at: 0) <= PoolFormat.maximumSequence
        else { return nil }
        return HeadSlot(sequence: slot.get(UInt64.self, at: 0), head: LSN(head), acknowledged: LSN(acknowledged))
    }
}

struct StandingSlot: Equatable {
    static let magic: StaticString = "TWINSTND"

    var sequence: UInt64
    var standing: RegionStanding

    func encoded() -> ByteBlock {
        var slot = ByteBlock(count: RegionFormat.slotBytes)
        slot.put(magic: Self.magic)
        slot.put(sequence, at: 8)
        slot.put(standing.generation, at: 16)
        slot.put(standing.epoch.rawValue, at: 24)
        slot.put(standing.counted, at: 32)
        slot.put(slot.checksum(of: RegionFormat.slotBytes, without: 56), at: 56)
        return slot
    }

    static func decode(_ slot: ByteBlock) -> StandingSlot? {
        let sequence = slot.get(UInt64.self, at: 8), counted = slot.get(UInt64.self, at: 32)
        let generation = slot.get(UInt64.self, at: 16), epoch = slot.get(UInt64.self, at: 24)
        guard slot.starts(with: magic),
            slot.get(UInt32.self, at: 56) == slot.checksum(of: RegionFormat.slotBytes, without: 56),
            counted <= generation,
            max(sequence, generation, epoch) <= PoolFormat.maximumSequence
        else { return nil }
        return StandingSlot(
            sequence: sequence,
            standing: RegionStanding(generation: generation, counted: counted, epoch: Epoch(epoch)))
    }
}
