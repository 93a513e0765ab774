// How long each stage of a group's data path takes, always on. What says the same for all of a turn is stamped once a turn: a clock is
// read for turns, WRITEs and batches, and of the requests of a turn only the numbers are counted. docs/SERVING.md has what each stage spans.

package import ClusterProtocol
internal import DequeModule
internal import RemoteMemory

package enum Stage: String, CaseIterable, Sendable {
    /// A write, discard or write-zeroes, from its front end's call until the turn begins that appends its last byte.
    case receive
    /// One turn's appends.
    case append
    /// A post to the mirror, from the turn that appended its oldest byte.
    case ship
    /// The same, until the mirror has persisted it.
    case mirrorPersist
    /// A write, from the beginning of its turn's appends until it is acknowledged.
    case complete
    /// One turn's answers, while they are handed to their front ends.
    case reply
    /// A batch on its way to the medium, its flush included.
    case destage
    /// A read, from its front end's call to its answer.
    case read
}

/// Bound to the engine's place.
package final class StageTimes {
    /// The last minute is told to within one of these.
    private static let sliceNanos: Nanos = 10_000_000_000
    private static let slicesPerMinute = 6

    /// A stage as it was at the end of a slice of time.
    private struct Mark {
        var histogram: LatencyHistogram
        /// Within the slice that ended.
        var greatest: Nanos
    }

    /// By the place of a stage in ``Stage/allCases``.
    private let counters = LatencyCounters(kinds: Stage.allCases.count)
    /// Of each stage, the oldest first; one more than a minute has.
    private var marks = Stage.allCases.map { _ in [Mark(histogram: LatencyHistogram(), greatest: 0)] }
    /// Of each stage, before the present slice.
    private var greatest = Stage.allCases.map { _ in Nanos(0) }
    private var sliceEnds: Nanos
    /// When the oldest byte was appended that is not posted to the mirror.
    private var unshippedSince: Nanos?
    /// The last WRITE of each post, and when.
    private var posted: Deque<(request: WorkRequestID, at: Nanos)> = []

    package init(now: Nanos) { sliceEnds = now + Self.sliceNanos }

    /// A clock that went back has measured nothing.
    package func record(_ stage: Stage, from start: Nanos, to end: Nanos) {
        counters.record(stage.index, end > start ? end - start : 0)
    }

    // MARK: WRITEs to the mirror

    func didAppend(at now: Nanos) {
        if unshippedSince == nil { unshippedSince = now }
    }

    /// `isAll`: nothing more waits for a post.
    func didPost(through request: WorkRequestID, isAll: Bool, at now: Nanos) {
        posted.append((request, now))
        // A catch-up ships what was appended before.
        if let since = unshippedSince { record(.ship, from: since, to: now) }
        if isAll { unshippedSince = nil }
    }

    func didComplete(through request: WorkRequestID, at now: Nanos) {
        while let first = posted.first, first.request <= request {
            posted.removeFirst()
            record(.mirrorPersist, from: first.at, to: now)
        }
    }

    /// What was posted is not completed any more.
    func mirrorLeft() {
        posted.removeAll()
        unshippedSince = nil
    }

    // MARK: The last minute

    /// Called now and then.
    package func tick(_ now: Nanos) {
        guard now >= sliceEnds else { return }
        // After a pause of more than a minute nothing of before is in the last one.
        let ended = min(Int((now - sliceEnds) / Self.sliceNanos), Self.slicesPerMinute) + 1
        sliceEnds = now + Self.sliceNanos
        for _ in 0..<ended { endSlice() }
    }

    private func endSlice() {
        for stage in Stage.allCases.indices {
            let mark = Mark(histogram: counters.histogram(stage), greatest: counters.takeGreatest(stage))
            marks[stage].append(mark)
            if marks[stage].count > Self.slicesPerMinute + 1 { marks[stage].removeFirst() }
            greatest[stage] = max(greatest[stage], mark.greatest)
        }
    }

    package func snapshot() -> [StageSnapshot] { Stage.allCases.map(snapshot) }

    private func snapshot(of stage: Stage) -> StageSnapshot {
        let histogram = counters.histogram(stage.index), marks = marks[stage.index]
        let greatestNow = counters.greatest(stage.index)
        // The first mark's own slice lies before the minute.
        let greatestOfMinute = marks.dropFirst().reduce(greatestNow) { max($0, $1.greatest) }
        return StageSnapshot(
            stage: stage, lastMinute: .init(histogram.since(marks[0].histogram), max: greatestOfMinute),
            sinceStart: .init(histogram, max: max(greatest[stage.index], greatestNow)))
    }
}

extension Stage {
    /// Its place in ``allCases``.
    fileprivate var index: Int {
        switch self {
        case .receive: 0
        case .append: 1
        case .ship: 2
        case .mirrorPersist: 3
        case .complete: 4
        case .reply: 5
        case .destage: 6
        case .read: 7
        }
    }
}

/// One stage as status tells it.
package struct StageSnapshot: Hashable, Sendable {
    package struct Times: Hashable, Sendable {
        package var count: UInt64
        package var p50: Nanos
        package var p99: Nanos
        package var p999: Nanos
        package var max: Nanos

        init(_ histogram: LatencyHistogram, max: Nanos) {
            count = histogram.count
            // A bucket's bound may lie above the greatest that was in it.
            p50 = min(histogram.percentile(perMille: 500), max)
            p99 = min(histogram.percentile(perMille: 990), max)
            p999 = min(histogram.percentile(perMille: 999), max)
            self.max = max
        }
    }

    package var stage: Stage
    package var lastMinute: Times
    package var sinceStart: Times
}
