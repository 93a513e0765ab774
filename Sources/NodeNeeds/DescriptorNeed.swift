// How many descriptors a node may come to need, counted before it starts: what is missing would otherwise be found in a takeover,
// when the media of one more group are opened.

public import ClusterConfiguration
internal import LogModel

public struct DescriptorNeed: Sendable {
    let node: ClusterConfiguration.Node
    /// Of all groups that the node may own.
    let media: Int
    let groups: Int
    /// Of a group: the owner's rail and the mirror's to each address, an older one of each that ends, a standby's look at a medium, and its event loop.
    let ofGroup: Int
    let connections: Int
    /// Of each connection: its socket, and for one with TLS, which stays on the loop where it began, the pair that leads to its group's.
    let ofConnection: Int
    let rails: Int

    /// Of a logical unit: sessions, or descriptors of the device, of its writer, of each of the four threads that read (`GroupThreads`), of a look at it, and of a
    /// fence. A file is one.
    static let ofUnit = 7
    /// Of a group's event loop.
    static let ofLoop = 3
    /// Standard input, output and error, the pool, events, signals, the supervisor's socket, loops, what the coordinator's thread opens: 24.
    /// Operators, 64 (`AdminServer.maximumConnections`); peers that have not proved themselves, and clients that are told that there is no
    /// place, 32 of each; archives, directories and `/proc` for moments, 8.
    static let ofNode = 160

    public init(_ configuration: ClusterConfiguration, node: ClusterConfiguration.Node) {
        self.node = node
        let groups = configuration.groups(of: node.id)
        self.groups = groups.count
        media = groups.reduce(0) { count, group in
            group.volumes.reduce(count) { $0 + ($1.unit == nil ? 1 : Self.ofUnit) }
        }
        let railCount = configuration.nodes.map(\.mirror.count).max() ?? 0
        // A mirror's rail with TLS takes what a client's does.
        ofGroup = (2 + 2 * 3) * railCount + 1 + Self.ofLoop
        ofConnection = node.nbdSecurity == nil ? 1 : 3
        connections = configuration.limits.connections
        rails = node.mirror.count
    }

    /// Two listeners for each address that may be two, the sockets for NBD and operators.
    var listeners: Int { 2 * rails + 3 }

    public var count: UInt64 { UInt64(media + ofGroup * groups + ofConnection * connections + listeners + Self.ofNode) }

    /// `nil` if `limit` is enough.
    public func problem(limit: UInt64) -> String? {
        guard limit < count else { return nil }
        return
            "\(node.id) may come to need \(count) descriptors (\(media) for media, \(ofConnection * connections) for clients), and may have \(limit): raise "
            + "the limit (ulimit -n, or LimitNOFILE= of its unit), or lower limits.connections, or give it fewer volumes"
    }
}
