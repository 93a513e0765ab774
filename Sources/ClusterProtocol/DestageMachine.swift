// What an owner does with its log after the acknowledgement: which writes go to the medium next, when the head may move,
// and when the space below it may be used again. Pure, like the group's machine; the shell writes a batch, makes the head
// durable, and lets its overlay forget what is below ``unreferencedBelow``.
//
// A batch: `nextBatch` → written and flushed → `written` → the head is durable → `headMoved`. `giveUp` ends it anywhere,
// and it is done anew from the log (S8, S10).
//
// A batch costs two changes of threads, a flush, and a head that is made durable and told to the mirror. So writes wait for company, for
// ``paceTime`` at most, unless somebody waits for the medium or for space.

internal import DequeModule
public import LogModel

public struct DestageMachine: Sendable {
    /// Enough for a medium to be used well, little enough to keep the space coming back.
    public static let usualBatchBytes: UInt64 = 16 << 20
    /// A batch is written in order of offset, so a write costs a disk of 7200 turns a minute half a turn and a short seek: 5 ms. So
    /// many are flushed within ten seconds, however small and scattered they are, and a medium that takes longer is stuck and
    /// not slow (``GroupSettings/mediumLimit``).
    public static let usualBatchWrites = 2048
    /// A medium that takes half as many, each in another place, in this time, which no disk does that seeks, gets twice as many at once: fewer
    /// flushes, and more that its queue can put in order. One that fails, or is slower than ``slowTime``, is a disk again.
    public static let quickTime: Nanos = 150_000_000
    public static let slowTime: Nanos = 1_000_000_000

    /// So much leaves at once. Little enough to keep a core from clients for a millisecond only (Perf/NOTES.md).
    public static let paceBytes: UInt64 = 1 << 20
    /// How long the first write of a batch waits for others. What it saves grows little beyond this, and what a takeover replays does.
    public static let paceTime: Nanos = 50_000_000

    private enum Phase {
        case idle
        case writing(to: LSN)
        case movingHead(to: LSN)
    }

    struct Drain: Sendable {
        var id: UInt64
        var to: LSN
        var endsWithService: Bool
    }

    /// The durable head: everything below is on the medium.
    public private(set) var head: LSN
    /// Nothing below is needed by a read: neither the bytes in the log nor what the overlay says of them (S6).
    public private(set) var unreferencedBelow: LSN
    private let batchBytes: UInt64
    private let batchWrites: Int
    /// ``batchWrites``, or twice that.
    private var mostWrites: Int
    private var batchBegan: Nanos = 0
    private var phase = Phase.idle
    private var retryAt: Nanos = 0
    /// Since when there has been something to destage that no batch has taken to the medium.
    private var waitingSince: Nanos?
    /// The ends of the acknowledged writes at and above the head, in order: where the head may stand (S7).
    private var writeEnds = Deque<LSN>()
    private var readsInFlight: [UInt64] = []
    private var nextRead: UInt64 = 1
    /// Destaged, but perhaps still needed by reads that began before read number `before`.
    private var leaving = Deque<(head: LSN, before: UInt64)>()
    private var drains: [Drain] = []
    private var nextDrain: UInt64 = 1

    public init(start: LSN, batchBytes: UInt64 = usualBatchBytes, batchWrites: Int = usualBatchWrites) {
        self.batchBytes = batchBytes
        self.batchWrites = batchWrites
        mostWrites = batchWrites
        head = start
        unreferencedBelow = start
    }

    /// A batch is under way; the medium may be written to.
    public var isBusy: Bool { if case .idle = phase { false } else { true } }

    /// Acknowledged writes that are not on the medium yet.
    public var undestagedWrites: Int { writeEnds.count }

    /// A write that ends at `end` is acknowledged whole. In LSN order.
    public mutating func acknowledged(writeTo end: LSN) {
        precondition(end > (writeEnds.last ?? head), "the write up to \(end) is acknowledged out of order")
        writeEnds.append(end)
    }

    // MARK: Batches

    /// Begins a batch and answers its range, if there is something to destage and it may be done now: acknowledged whole
    /// writes, as many as fit the batch, one at least. Control records are nobody's write: a log whose rest is only
    /// those (`allWritesAcknowledged`) may be trimmed to its acknowledged end. `isValid`: the lease holds (S17). `isPressed`: space
    /// in the log is short, so nothing waits for company.
    public mutating func nextBatch(
        acknowledged: LSN, allWritesAcknowledged: Bool, isValid: Bool, isPressed: Bool, now: Nanos
    ) -> Range<LSN>? {
        guard case .idle = phase, isValid, now >= retryAt else { return nil }
        let last = allWritesAcknowledged ? acknowledged : writeEnds.last
        guard let last, last > head, last <= acknowledged, isPressed || hasCompany(last, now) else { return nil }
        let end = batchEnd(last)
        phase = .writing(to: end)
        batchBegan = now
        return head..<end
    }

    /// Whether what ends at `last` need not wait for more.
    private mutating func hasCompany(_ last: LSN, _ now: Nanos) -> Bool {
        let since = waitingSince ?? now
        waitingSince = since
        let isFull = last - head >= min(Self.paceBytes, batchBytes) || writeEnds.count >= batchWrites
        return isFull || !drains.isEmpty || now >= since + Self.paceTime
    }

    /// When what waits for company leaves without it; `nil` if nothing waits.
    public var waitsUntil: Nanos? {
        guard case .idle = phase else { return nil }
        return waitingSince.map { $0 + Self.paceTime }
    }

    /// `last`, where everything fits into one batch, else the end of a write.
    private func batchEnd(_ last: LSN) -> LSN {
        guard let first = writeEnds.first else { return last }
        let most = writeEnds[min(mostWrites, writeEnds.count) - 1]
        let end = min(most, max(first, lastWriteEnd(upTo: head + batchBytes) ?? first))
        return end == writeEnds.last ? last : end
    }

    /// By bisection.
    private func lastWriteEnd(upTo limit: LSN) -> LSN? {
        var low = 0
        var high = writeEnds.count
        while low < high {
            let middle = (low + high) / 2
            if writeEnds[middle] <= limit { low = middle + 1 } else { high = middle }
        }
        return low > 0 ? writeEnds[low - 1] : nil
    }

    /// The batch is on the medium, in so many places of it that do not touch, and flushed. Answers the head to make durable; `nil` if this
    /// owner may not say so any more, which is asked anew after the flush (S8).
    public mutating func written(places: Int, isValid: Bool, now: Nanos) -> LSN? {
        guard case .writing(let end) = phase else { preconditionFailure("no batch is being written") }
        learn(places, took: now - batchBegan)
        phase = isValid ? .movingHead(to: end) : .idle
        return isValid ? end : nil
    }

    private mutating func learn(_ places: Int, took time: Nanos) {
        if time > Self.slowTime { mostWrites = batchWrites }
        if places >= batchWrites / 2, time <= Self.quickTime { mostWrites = 2 * batchWrites }
    }

    /// The head of the batch is durable.
    public mutating func headMoved() {
        guard case .movingHead(let end) = phase else { preconditionFailure("no head is being moved") }
        phase = .idle
        waitingSince = nil
        head = end
        while let first = writeEnds.first, first <= end { writeEnds.removeFirst() }
        leaving.append((end, nextRead))
        forgetWhatNobodyReads()
    }

    /// The batch is not done, and nothing is begun before `time`.
    public mutating func giveUp(until time: Nanos) {
        phase = .idle
        retryAt = time
        mostWrites = batchWrites
    }

    // MARK: Reads

    /// A read of the medium begins; what it may find in the log only stays there until ``endRead(_:)``.
    public mutating func beginRead() -> UInt64 {
        defer { nextRead += 1 }
        readsInFlight.append(nextRead)
        return nextRead
    }

    public mutating func endRead(_ id: UInt64) {
        readsInFlight.removeAll { $0 == id }
        forgetWhatNobodyReads()
    }

    private mutating func forgetWhatNobodyReads() {
        let oldest = readsInFlight.first ?? .max
        while let first = leaving.first, oldest >= first.before {
            leaving.removeFirst()
            unreferencedBelow = first.head
        }
    }

    // MARK: Trim

    /// Space below is free: below every durable head that counts, and below what reads refer to (S6). `mirrorCounts`: the
    /// mirror is attached, or acknowledgements require it; its head is then at `mirrorHead` at least.
    public func reclaimLimit(mirrorHead: LSN, mirrorCounts: Bool) -> LSN {
        let limit = min(head, unreferencedBelow)
        return mirrorCounts ? min(limit, mirrorHead) : limit
    }

    // MARK: Drains

    /// Asks to be told when everything below `end` is on the medium. One that ends with service belongs to a handover: when
    /// that is given up, ``serve()`` forgets it, and a later destage does not finish it.
    public mutating func drain(to end: LSN, endsWithService: Bool) -> UInt64 {
        defer { nextDrain += 1 }
        drains.append(Drain(id: nextDrain, to: end, endsWithService: endsWithService))
        return nextDrain
    }

    public mutating func serve() { drains.removeAll(where: \.endsWithService) }

    /// The drains that are done, each told once; none while a batch is under way.
    public mutating func finishedDrains() -> [UInt64] {
        guard !isBusy, !drains.isEmpty else { return [] }
        let head = head
        let finished = drains.filter { $0.to <= head }.map(\.id)
        drains.removeAll { $0.to <= head }
        return finished
    }
}
