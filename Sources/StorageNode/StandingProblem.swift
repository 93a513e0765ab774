// A problem that lasts is said once, again when its words change, and otherwise with a pause that grows: whoever reads the log sees it
// without losing what else is in there.

internal import ClusterProtocol

struct StandingProblem {
    static let firstPause: Nanos = 10_000_000_000
    static let longestPause: Nanos = 600_000_000_000

    private var text: String?
    private var pause = firstPause
    private var nextAt: Nanos = 0

    /// Whether `text`, what is wrong now, is to be said; `nil` if nothing is.
    mutating func isNews(_ text: String?, _ now: Nanos) -> Bool {
        defer { self.text = text }
        guard let text else { return false }
        if text != self.text {
            pause = Self.firstPause
        } else if now >= nextAt {
            pause = min(2 * pause, Self.longestPause)
        } else {
            return false
        }
        nextAt = now + pause
        return true
    }
}
