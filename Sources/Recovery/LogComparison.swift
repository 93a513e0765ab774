// The owner's and the mirror's log of one group, held against each other: where they agree, and what only one of them
// holds. Reads only.
//
// A copy answers for the records from its own head on: what lies below the higher of the two heads is on the medium by
// the word of one copy, so the comparison begins there. Records of different incarnations cannot be held against each
// other (their checksums are seeded apart, S4); then each copy is judged for itself.

public import LogModel
public import PersistentMemory
public import WriteLog

public struct LogComparison: Sendable {
    public enum Side: String, Hashable, Sendable {
        case first, second
    }

    /// How the two copies stand to each other.
    public enum Relation: Hashable, Sendable {
        /// The same log in the same incarnation: ``ranges`` says where they agree.
        case sameIncarnation
        /// The same log, opened anew since one of them was cut off.
        case otherIncarnation(newer: Side)
        case otherLogs
        /// A copy that was never written, or was emptied.
        case unused
        /// An LSN's place differs: not an owner's log and its mirror.
        case otherSizes
    }

    public typealias State = PairState

    public struct Range: Hashable, Sendable {
        public var from: LSN
        public var to: LSN
        public var state: State
        /// It lies below the highest acknowledged LSN: both copies must hold it (S1).
        public var isAcknowledged: Bool
    }

    /// One copy, judged by itself.
    public struct Copy: Hashable, Sendable {
        public var identity: RegionIdentity?
        public var headLSN: LSN
        public var endLSN: LSN
        public var acknowledgedLSN: LSN
        public var records: UInt64
        public var verdict: LogScan.Verdict
        public var firstBadLSN: LSN?
    }

    /// Ranges beyond it are counted only; it bounds what a hostile pool can make of memory.
    public static let maximumRanges = 4096

    public var relation: Relation
    public var first: Copy
    public var second: Copy
    /// The highest LSN that either copy knows to be acknowledged, if both are of one incarnation.
    public var acknowledgedLSN: LSN
    /// Where the comparison begins: the higher head.
    public var fromLSN: LSN
    /// In order, neighbours of one state joined. Empty unless `relation` is `sameIncarnation`.
    public private(set) var ranges: [Range] = []
    public private(set) var rangesLeftOut: UInt64 = 0
    private var states: Set<Range> = []

    /// Compares two regions that nobody writes. Blocks. `progress` is called now and then with the bytes that are done
    /// and that there are.
    public static func run(
        _ first: Region, _ second: Region, progress: (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }
    ) -> LogComparison {
        let total = 2 * (first.ringBytes + second.ringBytes)
        var comparison = LogComparison(
            first: Copy(first) { progress($0, total) },
            second: Copy(second) { progress(first.ringBytes + $0, total) },
            haveSameSize: first.ringBytes == second.ringBytes)
        guard comparison.relation == .sameIncarnation, let one = LogCopy(region: first),
            let other = LogCopy(region: second)
        else { return comparison }
        let from = comparison.fromLSN
        for segment in PairWalk(one, other, from: from, acknowledged: comparison.acknowledgedLSN) {
            comparison.note(segment)
            progress(total / 2 + 2 * (segment.to - from), total)
        }
        return comparison
    }

    private init(first: Copy, second: Copy, haveSameSize: Bool) {
        self.first = first
        self.second = second
        relation = Self.relation(first.identity, second.identity, haveSameSize: haveSameSize)
        acknowledgedLSN = max(first.acknowledgedLSN, second.acknowledgedLSN)
        fromLSN = max(first.headLSN, second.headLSN)
    }

    private static func relation(
        _ first: RegionIdentity?, _ second: RegionIdentity?, haveSameSize: Bool
    ) -> Relation {
        guard let first, let second, first.role != .empty, second.role != .empty else { return .unused }
        guard first.logUUID == second.logUUID else { return .otherLogs }
        guard haveSameSize else { return .otherSizes }
        guard first.incarnation != second.incarnation else { return .sameIncarnation }
        return .otherIncarnation(newer: first.incarnation > second.incarnation ? .first : .second)
    }

    private mutating func note(_ segment: PairWalk.Segment) {
        let range = Range(
            from: segment.from, to: segment.to, state: segment.state, isAcknowledged: segment.from < acknowledgedLSN)
        states.insert(Range(from: .zero, to: .zero, state: range.state, isAcknowledged: range.isAcknowledged))
        if rangesLeftOut == 0, let last = ranges.last, last.state == range.state,
            last.isAcknowledged == range.isAcknowledged
        {
            ranges[ranges.count - 1].to = range.to
        } else if ranges.count < Self.maximumRanges {
            ranges.append(range)
        } else {
            rangesLeftOut += 1
        }
    }

    // MARK: Judging both

    /// Whether any record below (or not below) the acknowledged LSN is in one of `states`; counts ranges left out too.
    public func contains(_ states: State..., acknowledged: Bool) -> Bool {
        states.contains {
            self.states.contains(Range(from: .zero, to: .zero, state: $0, isAcknowledged: acknowledged))
        }
    }

    /// Whether the valid records of a copy end below the other's head: its head is lost, or what it held from there on.
    public func hasLostHead(_ side: Side) -> Bool {
        relation == .sameIncarnation && (side == .first ? first : second).endLSN < fromLSN
    }

    /// Of both copies together: `corrupt` if one of them lacks what it must hold, or both contradict each other; `torn` if
    /// they differ only in what was never acknowledged. Copies that cannot be compared are judged each for itself.
    public var verdict: LogScan.Verdict {
        guard relation == .sameIncarnation else { return .worse(first.verdict, second.verdict) }
        if contains(.onlyFirst, .onlySecond, .neither, .different, acknowledged: true)
            || contains(.different, acknowledged: false) || hasLostHead(.first) || hasLostHead(.second)
        {
            return .corrupt
        }
        let tailsDiffer = contains(.onlyFirst, .onlySecond, .neither, acknowledged: false)
        return .worse(tailsDiffer ? .torn : .clean, .worse(first.verdict, second.verdict))
    }
}

extension LogComparison.Copy {
    /// Reads all of the log; `progress` is told how many bytes are done.
    init(_ region: Region, progress: (UInt64) -> Void) {
        identity = region.identity
        headLSN = region.head
        endLSN = region.head
        acknowledgedLSN = region.acknowledged
        records = 0
        verdict = .clean
        guard var scan = LogScan(region: region) else { return }
        while let write = scan.next() { progress(write.end - scan.headLSN) }
        verdict = scan.finish()
        endLSN = scan.endLSN
        acknowledgedLSN = scan.acknowledgedLSN
        records = scan.recordCount
        firstBadLSN = scan.firstBadLSN
    }
}

extension LogScan.Verdict {
    static func worse(_ one: Self, _ other: Self) -> Self {
        if one == .corrupt || other == .corrupt { return .corrupt }
        return one == .torn || other == .torn ? .torn : .clean
    }
}
