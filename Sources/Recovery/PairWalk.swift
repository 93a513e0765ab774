// Two copies of one log, side by side: which of them holds a valid record, position by position.
//
// Invariants:
//  - both copies are of the same log and incarnation, so at one position both hold the same record or one is damaged;
//    two valid records that contradict each other are told as such, never chosen between;
//  - each byte of a ring is looked at a bounded number of times, whatever stands there (S21).

internal import LogModel
internal import PersistentMemory
internal import WriteLog

/// Who holds valid records in a range.
public enum PairState: String, Hashable, Sendable {
    case both, onlyFirst, onlySecond, neither
    /// Both hold valid records that contradict each other. No crash and no rot explains it.
    case different
}

struct PairWalk: Sequence, IteratorProtocol {
    struct Segment {
        var from: LSN
        var to: LSN
        var state: PairState
    }

    let first: LogCopy
    let second: LogCopy
    /// The highest LSN that either copy knows to be acknowledged: up to it something must be there.
    let acknowledged: LSN
    private var position: LSN
    private let end: LSN
    /// Where each copy's next header stands; to be looked for again once the walk has passed it.
    private var nextFirst: LSN
    private var nextSecond: LSN

    /// Walks from `start` as far as either copy has a record, and at least to `acknowledged`.
    init(_ first: LogCopy, _ second: LogCopy, from start: LSN, acknowledged: LSN) {
        self.first = first
        self.second = second
        self.acknowledged = acknowledged
        position = start
        nextFirst = start
        nextSecond = start
        end = start + first.region.ringBytes
    }

    mutating func next() -> Segment? {
        guard position < end else { return nil }
        let from = position
        let (to, state) = judge()
        position = to
        guard to == end, state == .neither else { return Segment(from: from, to: to, state: state) }
        // Nothing follows: what was promised is missing, the rest is free space.
        return acknowledged > from ? Segment(from: from, to: Swift.min(acknowledged, end), state: .neither) : nil
    }

    private mutating func judge() -> (LSN, PairState) {
        // Headers that contradict each other are not looked into: the walk goes on by the shorter one, and each payload
        // that is read is passed by (S21).
        if let to = first.headerEnd(at: position, below: end), let otherTo = second.headerEnd(at: position, below: end),
            to != otherTo
        {
            return (Swift.min(to, otherTo), .different)
        }
        switch (first.find(at: position, below: end), second.find(at: position, below: end)) {
        case (.record(let to), .record):
            return (to, first.holdsSameRecord(as: second, at: position) ? .both : .different)
        case (.record(let to), let damaged): return (to, contradicts(damaged, second, to) ? .different : .onlyFirst)
        case (let damaged, .record(let to)): return (to, contradicts(damaged, first, to) ? .different : .onlySecond)
        case (.badPayload(let to), _), (_, .badPayload(let to)): return (to, .neither)
        case (.nothing, .nothing): return (nextHeader(), .neither)
        }
    }

    /// Whether `copy`, damaged here, knows of another record at this place: then nobody can say which of them is right.
    private func contradicts(_ damaged: LogCopy.Finding, _ copy: LogCopy, _ to: LSN) -> Bool {
        guard case .nothing = damaged else { return false }
        let inside = position + LSN.alignment
        return inside < to && copy.nextHeader(from: inside, below: to) != to
    }

    private mutating func nextHeader() -> LSN {
        let from = position + LSN.alignment
        if nextFirst < from { nextFirst = first.nextHeader(from: from, below: end) }
        if nextSecond < from { nextSecond = second.nextHeader(from: from, below: end) }
        return Swift.min(nextFirst, nextSecond)
    }
}
