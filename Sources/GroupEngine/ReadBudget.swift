// How much of the media is read on the loop itself. A read there costs a copy and no thread, but keeps the loop from everybody
// else for as long (S28).

internal import ClusterProtocol

struct ReadBudget {
    /// About as long as what a turn appends takes (``WaitingRequest/turnBytes``): so much may be read in each.
    static let window: Nanos = 300_000

    private var left = WaitingRequest.turnBytes
    private var since: Nanos = 0

    /// Whether `bytes` may be read on the loop at `now`.
    mutating func take(_ bytes: UInt64, _ now: Nanos) -> Bool {
        if now >= since + Self.window {
            since = now
            left = WaitingRequest.turnBytes
        }
        guard bytes <= left else { return false }
        left -= bytes
        return true
    }
}
