// A group's condition in one word.

/// The word for a group's condition in `status`.
public enum GroupState: String, Hashable, Sendable, Codable {
    case starting, unavailable, mirrored, degraded, stalled, resyncing, suspecting, fencing, replaying, stopped
    case handingOver = "handing-over"
}
