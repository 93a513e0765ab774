// What a group's machine allows its owner, as numbers: the data path asks several times for every write. They hold until the
// machine's next event.

public struct Authority: Hashable, Sendable {
    /// When the right to acknowledge, read, destage and trim ends (S8, S17). 0: there is none.
    public var validUntil: Nanos
    public var rule: AcknowledgementRule

    public init(validUntil: Nanos, rule: AcknowledgementRule) {
        self.validUntil = validUntil
        self.rule = rule
    }

    public func isValid(_ now: Nanos) -> Bool { now < validUntil }
}
