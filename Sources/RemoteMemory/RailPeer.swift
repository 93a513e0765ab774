// Who is at the other end of a rail.

public import LogModel

/// Who has proved itself at the other end of a rail, and what the two agreed on.
public struct RailPeer: Hashable, Sendable {
    public var node: NodeID
    /// The highest version that both speak.
    public var version: UInt16
    /// What both can do.
    public var features: UInt64
    /// The two configurations have one digest: the nodes may mirror each other (S27).
    public var hasSameConfiguration: Bool
    /// What crosses the rail is encrypted.
    public var isEncrypted: Bool

    public init(
        node: NodeID, version: UInt16, features: UInt64, hasSameConfiguration: Bool, isEncrypted: Bool = false
    ) {
        self.isEncrypted = isEncrypted
        self.node = node
        self.version = version
        self.features = features
        self.hasSameConfiguration = hasSameConfiguration
    }
}
