// Notices a producer that stopped between reserving and publishing (a thread that hangs or was lost): everything above its
// reservation is stored but can be neither acknowledged nor shipped. The append path pays nothing for it: no clock, no store.

import CLogCore
public import LogModel

extension WriteLog {
    /// What the watermark stands before: from ``published`` to the start of the first published write above it, or to
    /// ``tail``. `nil` if everything that is reserved is published. A write that is being stored just now is in it too:
    /// only time tells, see ``StallWatch``. Safe from any thread; the work is bounded by the log's window.
    public var unpublished: Range<LSN>? {
        var range = tl_range()
        return tl_log_unpublished(log, &range) ? LSN(range.start)..<LSN(range.end) : nil
    }
}

/// Reports each stall of a log's watermark once. For one user, who checks it now and then.
public struct StallWatch: Sendable {
    /// A watermark that does not move though something is reserved.
    public struct Stall: Hashable, Sendable {
        /// Holds the reservation that nobody publishes; see ``WriteLog/unpublished``.
        public var range: Range<LSN>
        /// For how long the watermark was seen to stand.
        public var duration: Duration

        public init(range: Range<LSN>, duration: Duration) {
            self.range = range
            self.duration = duration
        }
    }

    /// How long the watermark must have stood.
    public let limit: Duration
    private var standing: (watermark: LSN, since: Duration, isReported: Bool)?

    public init(limit: Duration) { self.limit = limit }

    /// The stall, when the watermark has stood for ``limit`` since it was first seen standing; once per stall. `now` is the time since
    /// any moment, always the same one.
    public mutating func check(_ log: WriteLog, at now: Duration) -> Stall? {
        guard let range = log.unpublished else {
            standing = nil
            return nil
        }
        guard let standing, standing.watermark == range.lowerBound else {
            standing = (range.lowerBound, now, false)
            return nil
        }
        let duration = now - standing.since
        guard !standing.isReported, duration >= limit else { return nil }
        self.standing?.isReported = true
        return Stall(range: range, duration: duration)
    }
}
