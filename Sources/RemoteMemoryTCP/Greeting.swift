// The first thing that each side says: the payload of HELLO and, before the listener's proof, of WELCOME.
//
//   u16 layout (2), then tagged fields (LogModel/TaggedFields.swift):
//   1  u16       lowest version spoken         5  text      cluster
//   2  u16       highest version spoken        6  text      node
//   3  u64       critical features             7  32 bytes  nonce, fresh for each connection
//   4  u64       optional features             8  32 bytes  digest of the configuration
//
// The layout stands where version 1 had its version number, so either version can name the other.

internal import LogModel
internal import RemoteMemory

struct Greeting: Equatable {
    static let layout: UInt16 = 2
    /// All fields of this version take 250 bytes; the rest is for those of later ones.
    static let maximumBytes = 4096
    static let nonceByteCount = 32

    private enum Tag {
        static let lowest: UInt8 = 1, highest: UInt8 = 2, critical: UInt8 = 3, optional: UInt8 = 4
        static let cluster: UInt8 = 5, node: UInt8 = 6, nonce: UInt8 = 7, digest: UInt8 = 8
    }

    var versions: ClosedRange<UInt16>
    var features: RailFeatures
    var cluster: String
    var node: NodeID
    var nonce: [UInt8]
    var digest: [UInt8]

    init(of identity: RailIdentity, nonce: [UInt8]) {
        versions = identity.versions
        features = identity.features
        cluster = identity.cluster
        node = identity.node
        digest = identity.configurationDigest
        self.nonce = nonce
    }

    static func freshNonce() -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<nonceByteCount).map { _ in generator.next() }
    }

    var encoded: [UInt8] {
        var out = FieldWriter(prefix: [UInt8(Self.layout & 0xff), UInt8(Self.layout >> 8)])
        out.put(Tag.lowest, versions.lowerBound)
        out.put(Tag.highest, versions.upperBound)
        out.put(Tag.critical, features.critical)
        out.put(Tag.optional, features.optional)
        out.put(Tag.cluster, bytes: cluster.utf8)
        out.put(Tag.node, bytes: node.rawValue.utf8)
        out.put(Tag.nonce, bytes: nonce)
        out.put(Tag.digest, bytes: digest)
        return out.bytes
    }

    /// Of another layout only the layout is read.
    init(_ bytes: some Collection<UInt8>) throws(HandshakeFailure) {
        let bytes = Array(bytes)
        guard bytes.count >= 2, bytes.count <= Self.maximumBytes else {
            throw Self.malformed("it has \(bytes.count) bytes")
        }
        let layout = UInt16(bytes[0]) | UInt16(bytes[1]) << 8
        guard layout == Self.layout else {
            throw HandshakeFailure(
                layout < Self.layout ? .tooOld : .tooNew,
                "the peer greets as mirror protocol \(layout) does, this node as \(Self.layout)")
        }
        do throws(FieldError) {
            let fields = try FieldReader(bytes[2...])
            let lowest: UInt16 = try fields.number(Tag.lowest)
            let highest: UInt16 = try fields.number(Tag.highest)
            guard lowest > 0, lowest <= highest else { throw .malformed(Tag.highest) }
            versions = lowest...highest
            features = RailFeatures(
                critical: try fields.number(Tag.critical), optional: try fields.number(Tag.optional))
            cluster = try Self.name(Tag.cluster, fields)
            node = NodeID(try Self.name(Tag.node, fields))
            nonce = try Self.exactly(Self.nonceByteCount, Tag.nonce, fields)
            digest = try Self.exactly(RailIdentity.digestByteCount, Tag.digest, fields)
        } catch {
            throw Self.malformed(error.description)
        }
    }

    private static func malformed(_ why: String) -> HandshakeFailure {
        HandshakeFailure(.malformed, "the greeting is malformed: \(why)")
    }

    private static func name(_ tag: UInt8, _ fields: FieldReader) throws(FieldError) -> String {
        let text = try fields.text(tag, maximumBytes: Name.maximumLength)
        guard Name.isValid(text) else { throw .malformed(tag) }
        return text
    }

    private static func exactly(_ count: Int, _ tag: UInt8, _ fields: FieldReader) throws(FieldError) -> [UInt8] {
        let bytes = try fields.bytes(tag)
        guard bytes.count == count else { throw .malformed(tag) }
        return Array(bytes)
    }

    /// What the two sides agree on; or why they cannot.
    func agree(with identity: RailIdentity) throws(HandshakeFailure) -> RailPeer {
        guard versions.overlaps(identity.versions) else {
            throw HandshakeFailure(
                versions.upperBound < identity.versions.lowerBound ? .tooOld : .tooNew,
                "the peer speaks mirror protocol \(Self.text(versions)), this node \(Self.text(identity.versions))")
        }
        let unknown = features.critical & ~identity.features.all
        guard unknown == 0 else {
            throw HandshakeFailure(
                .unknownFeature,
                "the peer requires features 0x\(String(unknown, radix: 16)), which this node does not know")
        }
        guard cluster == identity.cluster else {
            throw HandshakeFailure(.otherCluster, "the peer is of another cluster than this node")
        }
        guard node != identity.node else {
            throw HandshakeFailure(.unexpectedNode, "the peer bears this node's own name")
        }
        return RailPeer(
            node: node, version: min(versions.upperBound, identity.versions.upperBound),
            features: features.all & identity.features.all, hasSameConfiguration: digest == identity.configurationDigest
        )
    }

    private static func text(_ versions: ClosedRange<UInt16>) -> String {
        versions.count == 1 ? "\(versions.lowerBound)" : "\(versions.lowerBound) to \(versions.upperBound)"
    }
}
