// Since when a medium takes nothing, and why. A slow medium is none of that: it is in trouble if a batch has failed and none
// has come to its end since, or if one call does not return.

/// Why nothing reaches the medium though there is something to write.
public struct MediumTrouble: Hashable, Sendable {
    /// The first failure, or the beginning of the call that does not return.
    public var since: Nanos
    /// Which medium, which call, and the error if there is one.
    public var reason: String
    /// Writers wait for space that only a working medium gives back.
    public var isLogFull: Bool
    /// It is full, for whoever writes to it: moving the group helps nobody.
    public var isFull: Bool

    public init(since: Nanos, reason: String, isLogFull: Bool, isFull: Bool = false) {
        self.isFull = isFull
        self.since = since
        self.reason = reason
        self.isLogFull = isLogFull
    }
}

public struct MediumWatch: Sendable {
    /// A call that takes longer is told. A disk under load takes a second for one; the flush of a whole batch on a slow
    /// one up to ten, which is worth saying too.
    public static let usualCallLimit: Nanos = 5_000_000_000

    private let callLimit: Nanos
    private var failure: (since: Nanos, error: String, isFull: Bool)?
    private var call: (number: UInt64, since: Nanos)?

    public init(callLimit: Nanos = usualCallLimit) { self.callLimit = callLimit }

    /// A batch did not reach the medium. `isFull`: for lack of space, which whoever else writes to it lacks too.
    public mutating func failed(_ error: String, isFull: Bool = false, now: Nanos) {
        // Time that a medium was only full for does not count against its path.
        let since = failure.map { $0.isFull == isFull ? $0.since : now } ?? now
        failure = (since, error, isFull)
    }

    /// A batch is on the medium, or is kept from it by something else.
    public mutating func cleared() { failure = nil }

    /// The call of the medium that has not returned is `number`; `nil`: there is none. Looked at again and again.
    public mutating func observe(call number: UInt64?, now: Nanos) {
        if number != call?.number { call = number.map { ($0, now) } }
    }

    /// `callText` names the call that was observed.
    public func trouble(callText: String?, isLogFull: Bool, now: Nanos) -> MediumTrouble? {
        if let failure {
            return MediumTrouble(
                since: failure.since, reason: failure.error, isLogFull: isLogFull, isFull: failure.isFull)
        }
        guard let call, let callText, now >= call.since + callLimit else { return nil }
        return MediumTrouble(since: call.since, reason: "\(callText) does not return", isLogFull: isLogFull)
    }
}
