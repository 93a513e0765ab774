// Who must hold a write before it is acknowledged, and how far that is so (S1). The group's machine says who; the shell knows
// the numbers.

public import LogModel

/// Some of a group's partners, by their place in ``GroupSettings/partners``. Costs a word.
public struct MemberSet: Hashable, Sendable, Sequence {
    /// A record has 64 members at most.
    private var bits: UInt64 = 0

    public init() {}

    /// The first `count` partners.
    public init(first count: Int) {
        for index in 0..<count { insert(index) }
    }

    public mutating func insert(_ index: Int) {
        precondition(index < UInt64.bitWidth, "a group has at most 64 members")
        bits |= 1 << UInt64(index)
    }

    public var isEmpty: Bool { bits == 0 }

    /// Their places, in order.
    public func makeIterator() -> Iterator { Iterator(rest: bits) }

    public struct Iterator: IteratorProtocol, Sendable {
        var rest: UInt64
        public mutating func next() -> Int? {
            guard rest != 0 else { return nil }
            defer { rest &= rest - 1 }
            return rest.trailingZeroBitCount
        }
    }
}

/// What an acknowledgement needs now.
public struct AcknowledgementRule: Hashable, Sendable {
    /// False while nothing may be acknowledged, whoever holds it.
    public var allowed: Bool
    /// The partners that must hold a write, by their place in ``GroupSettings/partners``.
    public var required: MemberSet

    public init(allowed: Bool, required: MemberSet) {
        self.allowed = allowed
        self.required = required
    }

    public var needsMirror: Bool { !required.isEmpty }

    /// Of who is no owner, or may not act as one.
    static func nothing(partners: Int) -> AcknowledgementRule {
        AcknowledgementRule(allowed: false, required: MemberSet(first: partners))
    }
}

/// The least of the durable LSNs of every store that must hold a write. Never falls.
public struct Acknowledgement: Sendable {
    public private(set) var acknowledged: LSN

    public init(_ acknowledged: LSN) { self.acknowledged = acknowledged }

    /// Answers whether it moved. `local` is durable here; `held` is what is durable at the partner of that place, `nil` while nothing is
    /// known of its copy.
    public mutating func update(local: LSN, by rule: AcknowledgementRule, held: (Int) -> LSN?) -> Bool {
        guard rule.allowed else { return false }
        var reached = local
        for member in rule.required {
            guard let durable = held(member) else { return false }
            reached = min(reached, durable)
        }
        guard reached > acknowledged else { return false }
        acknowledged = reached
        return true
    }
}
