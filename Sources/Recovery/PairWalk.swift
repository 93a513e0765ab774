// Two copies of one log, side by side: which of them holds a valid record, position by position.
//
// Invariants:
//  - both copies are of the same log and incarnation, so at one position both hold the same record or one is damaged;
//    two valid records that contradict each other are told as such, never chosen between;
//  - each byte of a ring is looked at a bounded number of times, whatever stands there (S21).

internal import LogModel
internal import PersistentMemory
internal import WriteLog

struct PairWalk: Sequence, IteratorProtocol {
    struct Segment {
        var from: LSN
        var to: LSN
        var state: LogComparison.State
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
        let (to, state) = judge(first.find(at: from, below: end), second.find(at: from, below: end))
        position = to
        guard to == end, state == .neither else { return Segment(from: from, to: to, state: state) }
        // Nothing follows: what was promised is missing, the rest is free space.
        return acknowledged > from ? Segment(from: from, to: Swift.min(acknowledged, end), state: .neither) : nil
    }

    private mutating func judge(_ one: LogCopy.Finding, _ other: LogCopy.Finding) -> (LSN, LogComparison.State) {
        switch (one, other) {
        case (.record(let to), .record(let otherTo)):
            let isSame = to == otherTo && first.holdsSameRecord(as: second, at: position)
            return (Swift.max(to, otherTo), isSame ? .both : .different)
        case (.record(let to), let damaged): return (to, contradicts(damaged, second, to) ? .different : .onlyFirst)
        case (let damaged, .record(let to)): return (to, contradicts(damaged, first, to) ? .different : .onlySecond)
        case (.badPayload(let to), .badPayload(let otherTo)):
            return (Swift.max(to, otherTo), to == otherTo ? .neither : .different)
        case (.badPayload(let to), .nothing), (.nothing, .badPayload(let to)): return (to, .neither)
        case (.nothing, .nothing): return (nextHeader(), .neither)
        }
    }

    /// Whether `copy`, damaged here, knows of another record at this place: then nobody can say which of them is right.
    private func contradicts(_ damaged: LogCopy.Finding, _ copy: LogCopy, _ to: LSN) -> Bool {
        if case .badPayload(let other) = damaged { return other != to }
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
