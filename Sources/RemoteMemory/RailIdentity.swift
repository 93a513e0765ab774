// Who this node is on its rails, and what it learns of who is at the other end.

public import LogModel

/// Bits of what a side can do beyond its protocol version.
public struct RailFeatures: Hashable, Sendable {
    /// The other side must know these, or refuses.
    public var critical: UInt64
    /// Used where both sides have them.
    public var optional: UInt64

    public init(critical: UInt64 = 0, optional: UInt64 = 0) {
        self.critical = critical
        self.optional = optional
    }

    package var all: UInt64 { critical | optional }
}

/// Holds the cluster's secret, so it is not for logs; its description leaves the secret out (S22).
public struct RailIdentity: Hashable, Sendable {
    /// What this version speaks. Version 1 knew no proof; its peers are refused.
    public static let spokenVersions: ClosedRange<UInt16> = 2...2
    public static let digestByteCount = 32

    public var cluster: String
    public var node: NodeID
    public var secret: ClusterSecret
    /// SHA-256 of what must be equal in the nodes' configurations.
    public var configurationDigest: [UInt8]
    public var versions: ClosedRange<UInt16>
    public var features: RailFeatures

    public init(
        cluster: String, node: NodeID, secret: ClusterSecret, configurationDigest: [UInt8],
        versions: ClosedRange<UInt16> = RailIdentity.spokenVersions, features: RailFeatures = RailFeatures()
    ) {
        precondition(Name.isValid(cluster) && Name.isValid(node.rawValue), "names come from a checked configuration")
        precondition(configurationDigest.count == Self.digestByteCount, "a digest has 32 bytes")
        self.cluster = cluster
        self.node = node
        self.secret = secret
        self.configurationDigest = configurationDigest
        self.versions = versions
        self.features = features
    }
}
