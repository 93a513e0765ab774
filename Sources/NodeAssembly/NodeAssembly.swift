// From a configuration to a node: which coordinator, fence, media, archives and transport stand behind the contracts. The only place
// that names them.

public import ClusterConfiguration
internal import ConfiguredCoordinator
internal import Coordination
internal import FenceCommand
internal import FenceReservation
public import LogModel
public import Logging
public import LoopPolling
public import NIOCore
internal import RemoteMemoryTCP
internal import SCSICommands
internal import StorageMediumSCSI
public import StorageNode
internal import TransportSecurity

extension ServerNode {
    /// A node as the configuration describes it, with the certificates of `security`. Its groups live on `groupLoops`, in turn. On `eventLoop`.
    /// Throws ``NodeError`` and errors of the coordinator.
    public convenience init(
        configuration: ClusterConfiguration, node id: NodeID, pool: OpenedPool, security: WireSecurity,
        eventLoop: any EventLoop, groupLoops: [any EventLoop], pollers: LoopPollers = LoopPollers(.off),
        logger: Logger
    ) throws {
        try self.init(
            configuration: configuration, node: id, pool: pool, eventLoop: eventLoop, groupLoops: groupLoops,
            logger: logger, parts: NodeParts.described(by: configuration, id, pool, security, eventLoop, pollers))
    }
}

extension NodeParts {
    package static func described(
        by configuration: ClusterConfiguration, _ id: NodeID, _ pool: OpenedPool, _ security: WireSecurity,
        _ eventLoop: any EventLoop, _ pollers: LoopPollers = LoopPollers(.off)
    ) throws -> NodeParts {
        let configured = try ConfiguredCoordinator(forNodeOf: configuration)
        // Rails that arrive on the loop of their group stay as they are, so its regions are known where they arrive.
        let here = NIOLoopBound(TCPRegionRegistry(), eventLoop: eventLoop)
        let rails = TCPRailSecurity(
            certified: security.rails.map { CertifiedRails($0, cluster: configuration.cluster) },
            encryptsNetwork: configuration.secretPath != nil)
        var parts = NodeParts(
            process: try ProcessIdentity.current(node: id), coordinator: configured.coordinator,
            readSecret: { () throws(SecretError) in try configured.readSecret() },
            fence: configuration.fence(for: id),
            media: ConfiguredMediumGuard(
                id, files: FileMediumGuard(), units: UnitMediumGuard(id, of: configuration),
                coordinator: configured.coordinator), archives: PoolArchives(beside: pool.pool),
            transport: TCPTransport(
                eventLoop: eventLoop, registry: here.value, security: rails,
                // Peers dial for no longer than that.
                greetingLimit: .milliseconds(Int64(max(1000, configuration.heartbeatTimeoutMillis))),
                poller: pollers.poller(of: eventLoop)),
            rails: { loop in
                TCPGroupRails(
                    eventLoop: loop, registry: loop === eventLoop ? here.value : TCPRegionRegistry(), security: rails,
                    poller: pollers.poller(of: loop))
            })
        parts.wireProblem = { security.problem() }
        return parts
    }
}

extension ClusterConfiguration {
    fileprivate func fence(for id: NodeID) -> any Coordination.Fence {
        let fences = fences.map { fence($0, for: id) }
        return fences.count == 1 ? fences[0] : FenceChain(fences)
    }

    private func fence(_ described: Fence, for id: NodeID) -> any Coordination.Fence {
        switch described {
        case .process: KillingFence()
        case .command(let agent):
            CommandFence(
                CommandFence.Command(
                    run: agent.run, options: agent.options,
                    optionsOfNodes: Dictionary(uniqueKeysWithValues: nodes.map { ($0.id, $0.fenceOptions) }),
                    timeoutMillis: agent.timeoutMillis))
        case .reservation:
            ReservationFence(sharedMedia(of: id), by: id, of: nodes.map(\.id), cluster: cluster)
        }
    }

    private func sharedMedia(of id: NodeID) -> [ReservationFence.SharedMedium] {
        let opener = UnitMedium.Opener(id, of: nodes.map(\.id), cluster: cluster)
        return groups(of: id).flatMap { group in
            group.volumes.map { volume in
                ReservationFence.SharedMedium(nodes: [group.home, group.mirror]) { () throws(SCSIError) in
                    guard let unit = volume.unit else {
                        throw SCSIError(.failed, "\(volume.mediumPath): is a file, which knows no reservations")
                    }
                    return try opener.connect(to: unit)
                }
            }
        }
    }
}
