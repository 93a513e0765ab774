// Heals one copy of a log from the other: records that the group promised, that this copy has lost, and that the other
// one holds valid (S5).
//
// Invariants:
//  - nothing is stored where the target holds a valid record, of whatever lap, and nothing that does not validate in the
//    source at that moment; the source is never written;
//  - what neither copy holds valid stays as it is, and is reported: nobody guesses;
//  - a record that is stored again is the same bytes, so a heal that is cut anywhere is finished by running it again (S10).

public import LogModel
public import PersistentMemory
public import WriteLog

public struct HealOutcome: Hashable, Sendable {
    /// Stored anew, or in a dry run to be stored.
    public internal(set) var healedRecords: UInt64 = 0
    public internal(set) var healedBytes: UInt64 = 0
    /// Joined where they touch; at most ``LogComparison/maximumRanges``.
    public internal(set) var healed: [Range<LSN>] = []
    /// The head that the target had lost and has again.
    public internal(set) var restoredHead: LSN?
    /// Promised, and valid in neither copy.
    public internal(set) var lost: [Range<LSN>] = []
    /// Damaged in the source and valid in the target.
    public internal(set) var damagedInSource: [Range<LSN>] = []
    /// Of both copies.
    public internal(set) var acknowledgedLSN: LSN = .zero
    /// Of the target as it is now (a dry run: as it would be).
    public internal(set) var verdict: LogScan.Verdict = .clean
}

/// Why nothing was healed, or the heal ended early. It can be run again.
public struct HealError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// Not two copies of one log in one incarnation.
        case notTwoCopies
        /// Both hold valid records that contradict each other; nothing was written.
        case contradiction
        /// What was stored does not read back: the target's memory is broken.
        case notHealed
        /// The target's pool failed.
        case pool
    }
    public var code: Code
    public var message: String
    public var description: String { message }
}

public enum Heal {
    /// Records stored between two drains.
    private static let batchRecords = 32

    /// Heals `target` from `source`, durably; nobody else may write either. Blocks. Every refusal comes before the first
    /// store. Throws `notTwoCopies`, `contradiction`, `notHealed` or `pool`. Precondition unless `dryRun`: the target's
    /// pool is open for writing.
    public static func run(
        _ target: Region, from source: Region, dryRun: Bool = false,
        progress: (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }
    ) throws(HealError) -> HealOutcome {
        let comparison = LogComparison.run(target, source, progress: progress)
        guard comparison.relation == .sameIncarnation, let good = LogCopy(region: source),
            let damaged = LogCopy(region: target)
        else { throw HealError(.notTwoCopies, refusal(comparison, target.group)) }
        if let range = comparison.ranges.first(where: { $0.state == .different })
            ?? (comparison.contains(.different, acknowledged: true) ? comparison.ranges.last : nil)
        {
            throw HealError(
                .contradiction,
                "both logs of \(target.group) hold valid records at LSN \(range.from) that contradict each other; nobody can "
                    + "say which is right, so nothing is written")
        }
        // Such a record was reserved when both heads were further (S6): below them its place is its own.
        let window = comparison.fromLSN + target.ringBytes
        if damaged.holdsRecord(beyond: window) || good.holdsRecord(beyond: window) {
            throw HealError(
                .contradiction,
                "a log of \(target.group) holds records beyond LSN \(window), a ring's size above the head that both copies "
                    + "know: both have lost their newest heads, so older records could be taken for what is missing; nothing is written"
            )
        }
        // The comparison has read all of it.
        try checkMemory(target)
        var healing = Healing(target: damaged, source: good, dryRun: dryRun)
        healing.outcome.acknowledgedLSN = comparison.acknowledgedLSN
        try healing.head(comparison)
        try healing.records(comparison)
        healing.judge(comparison)
        try checkMemory(target)
        return healing.outcome
    }

    /// What is stored where memory has failed does not reach the file (S26).
    private static func checkMemory(_ target: Region) throws(HealError) {
        guard let fault = target.memoryFault else { return }
        throw HealError(
            .notHealed,
            "\(fault): what is stored there does not stay, so the log of \(target.group) cannot be healed in this memory. If the "
                + "group was mirrored, the other pool holds everything that was acknowledged: use that one")
    }

    private static func refusal(_ comparison: LogComparison, _ group: GroupID) -> String {
        switch comparison.relation {
        case .otherIncarnation(let newer):
            let (one, other) = (comparison.first.identity, comparison.second.identity)
            return
                "the logs of \(group) are of different epochs (\(one?.incarnation.description ?? "?") and "
                + "\(other?.incarnation.description ?? "?")): the \(newer == .first ? "damaged" : "other") pool was opened since, "
                + "so their records are not the same and nothing is written"
        case .otherLogs: return "the two pools hold different logs of \(group) (their UUIDs differ): nothing is written"
        case .otherSizes: return "the two logs of \(group) differ in size: not a log and its mirror; nothing is written"
        case .unused, .sameIncarnation:
            return "a log of \(group) was never used, or was emptied: there is nothing to heal from; nothing is written"
        }
    }

    private struct Healing {
        let target: LogCopy
        let source: LogCopy
        let dryRun: Bool
        var outcome = HealOutcome()
        private var undrained: [Range<LSN>] = []

        init(target: LogCopy, source: LogCopy, dryRun: Bool) {
            self.target = target
            self.source = source
            self.dryRun = dryRun
        }

        mutating func records(_ comparison: LogComparison) throws(HealError) {
            let acknowledged = comparison.acknowledgedLSN
            for segment in PairWalk(target, source, from: comparison.fromLSN, acknowledged: acknowledged) {
                guard segment.from < acknowledged else { break }
                switch segment.state {
                case .both: continue
                case .onlyFirst: HealOutcome.join(segment.from..<segment.to, to: &outcome.damagedInSource)
                case .neither: HealOutcome.join(segment.from..<segment.to, to: &outcome.lost)
                case .onlySecond: try heal(segment.from..<segment.to)
                case .different:
                    throw HealError(.contradiction, "the logs changed while they were compared, at LSN \(segment.from)")
                }
            }
            try drain()
        }

        private mutating func heal(_ range: Range<LSN>) throws(HealError) {
            if !dryRun {
                // The walk has verified it; this is the very moment that counts.
                guard source.find(at: range.lowerBound, below: range.upperBound) == .record(end: range.upperBound)
                else { return HealOutcome.join(range, to: &outcome.lost) }
                target.region.store(source.bytes(from: range.lowerBound, to: range.upperBound), at: range.lowerBound)
                undrained.append(range)
            }
            outcome.healedRecords += 1
            outcome.healedBytes += range.upperBound - range.lowerBound
            HealOutcome.join(range, to: &outcome.healed)
            if undrained.count == Heal.batchRecords { try drain() }
        }

        /// Makes durable what was stored, and reads it back.
        private mutating func drain() throws(HealError) {
            guard !undrained.isEmpty else { return }
            try onPool { () throws(PoolError) in try target.region.drain() }
            for range in undrained
            where target.find(at: range.lowerBound, below: range.upperBound) != .record(end: range.upperBound) {
                throw HealError(
                    .notHealed,
                    "\(target.region.group): what was stored at LSN \(range.lowerBound) does not read back (file offset "
                        + "\(target.region.ringOffset + range.lowerBound.rawValue % target.region.ringBytes)): the memory under the "
                        + "pool is broken; copy the pool to other memory")
            }
            undrained = []
        }

        /// A head below which the target holds nothing, or which lies so far back that what is healed takes the place of what it
        /// holds: the other copy's says that this is on the medium (S8). It is durable before anything is stored there.
        mutating func head(_ comparison: LogComparison) throws(HealError) {
            let (head, ring) = (target.region.head, target.region.ringBytes)
            let isOverwritten =
                comparison.acknowledgedLSN > head + ring && comparison.contains(.onlySecond, acknowledged: true)
            guard comparison.hasLostHead(.first) || (head < comparison.fromLSN && isOverwritten) else { return }
            if !dryRun {
                try onPool { () throws(PoolError) in
                    try target.region.setHead(comparison.fromLSN, acknowledged: comparison.acknowledgedLSN)
                }
            }
            outcome.restoredHead = comparison.fromLSN
        }

        mutating func judge(_ comparison: LogComparison) {
            guard outcome.lost.isEmpty else { return outcome.verdict = .corrupt }
            if dryRun {
                outcome.verdict = comparison.first.verdict
                guard outcome.healedRecords > 0 || outcome.restoredHead != nil else { return }
                // Whole up to there; how it goes on, the target says by itself.
                let healed = max(comparison.fromLSN, comparison.acknowledgedLSN).alignedUp
                guard var rest = LogScan(region: target.region, from: healed) else { return }
                outcome.verdict = rest.finish()
                return
            }
            guard var scan = LogScan(region: target.region) else { return }
            let verdict = scan.finish()
            outcome.verdict = scan.endLSN < comparison.acknowledgedLSN ? .corrupt : verdict
        }

        private func onPool(_ body: () throws(PoolError) -> Void) throws(HealError) {
            do throws(PoolError) { try body() } catch { throw HealError(.pool, error.description) }
        }
    }
}

extension HealError {
    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

extension HealOutcome {
    fileprivate static func join(_ range: Range<LSN>, to ranges: inout [Range<LSN>]) {
        if let last = ranges.last, last.upperBound == range.lowerBound {
            ranges[ranges.count - 1] = last.lowerBound..<range.upperBound
        } else if ranges.count < LogComparison.maximumRanges {
            ranges.append(range)
        }
    }
}
