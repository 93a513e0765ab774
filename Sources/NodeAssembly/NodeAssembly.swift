// From a configuration to a node: which coordinator, fence, media, archives and transport stand behind the contracts. The only place
// that names them.

public import ClusterConfiguration
internal import Coordination
public import LogModel
public import Logging
public import NIOCore
public import StorageNode
internal import TransportSecurity

extension ServerNode {
    /// A node as the configuration describes it, with the certificates of `security`. On the event loop. Throws ``NodeError`` and errors
    /// of the coordinator.
    public convenience init(
        configuration: ClusterConfiguration, node id: NodeID, pool: OpenedPool, security: WireSecurity,
        eventLoop: any EventLoop, logger: Logger
    ) throws {
        try self.init(
            configuration: configuration, node: id, pool: pool, eventLoop: eventLoop, logger: logger,
            parts: NodeParts.described(by: configuration, id, pool, security, eventLoop))
    }
}

extension NodeParts {
    package static func described(
        by configuration: ClusterConfiguration, _ id: NodeID, _ pool: OpenedPool, _ security: WireSecurity,
        _ eventLoop: any EventLoop
    ) throws -> NodeParts {
        let coordinator = try FileCoordinator(
            directory: configuration.coordinatorPath, access: configuration.coordinatorAccess)
        try coordinator.checkPermissions()
        let secretPath = configuration.secretPath
        var parts = NodeParts(
            process: try ProcessIdentity.current(node: id), coordinator: coordinator,
            readSecret: { () throws(SecretError) in
                if let secretPath {
                    try SecretFile.read(secretPath, trusting: coordinator.trustedGroup)
                } else {
                    try coordinator.clusterSecret()
                }
            }, fence: KillingFence(), media: FileMediumGuard(), archives: PoolArchives(beside: pool.pool),
            transport: TCPTransport(
                eventLoop: eventLoop,
                certified: security.rails.map { CertifiedRails($0, cluster: configuration.cluster) },
                encryptsNetwork: configuration.secretPath != nil,
                // Peers dial for no longer than that.
                greetingLimit: .milliseconds(Int64(max(1000, configuration.heartbeatTimeoutMillis)))))
        parts.wireProblem = { security.problem() }
        return parts
    }
}
