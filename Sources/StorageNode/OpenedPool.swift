// A node's pool, opened or made at its start, with a region for each of its groups.

internal import CHostSupport
internal import ClusterConfiguration
internal import LogModel
internal import Logging
internal import NodeNeeds
package import PersistentMemory

/// A pool that is open and has its regions.
public struct OpenedPool: Sendable {
    package let pool: Pool
    let events: OpenedEvents
    /// Created at this start.
    let isNew: Bool
    /// `pmem`, `msync` or `volatile`.
    public var persistence: String { pool.persistence.rawValue }

    init(configuration: ClusterConfiguration, node id: NodeID, logger: Logger) throws(NodeError) {
        guard let node = configuration.node(id) else {
            throw NodeError(
                message:
                    "the configuration has no node '\(id)'; it has \(configuration.nodes.map(\.id.rawValue).joined(separator: ", "))"
            )
        }
        guard let request = PersistenceRequest(rawValue: node.pool.persistence) else {
            throw NodeError(message: "nodes.\(id).pool.persistence: '\(node.pool.persistence)' is not known")
        }
        if let problem = DescriptorNeed(configuration, node: node).problem(limit: tl_process_descriptors()) {
            throw NodeError(message: configuration.source.problem("nodes.\(id)", problem).description)
        }
        let found: PoolContents?
        do throws(PoolError) {
            found = try Pool.look(path: node.pool.path, expecting: (configuration.cluster, id), persistence: request)
        } catch {
            throw NodeError(message: error.advice)
        }
        let problems = found.map { PoolNeed.problems($0, configuration, node: node) } ?? []
        guard problems.isEmpty else { throw NodeError(message: problems.map(\.description).joined(separator: "\n")) }
        do throws(PoolError) {
            (pool, isNew) = try Self.openOrCreate(
                configuration.cluster, node, request, isThere: found != nil, logger)
            for group in configuration.groups(of: id) { try Self.ensureRegion(group, in: pool).countStart() }
            if node.pool.isPrefaulted { try pool.prefault() }
        } catch {
            throw NodeError(message: error.advice)
        }
        events = OpenedEvents(path: node.eventsPath, node: id, isNewPool: isNew, access: node.pool.access)
        if pool.persistence == .volatile {
            logger.warning(
                "\(node.pool.path): memory is VOLATILE: it survives a crash of the process, not a loss of power")
        }
    }

    private static func openOrCreate(
        _ cluster: String, _ node: ClusterConfiguration.Node, _ request: PersistenceRequest, isThere: Bool,
        _ logger: Logger
    ) throws(PoolError) -> (Pool, isNew: Bool) {
        if isThere {
            let pool = try Pool.open(
                path: node.pool.path, expecting: (cluster, node.id), persistence: request, access: node.pool.access)
            return (pool, false)
        }
        logger.notice("creating the pool \(node.pool.path)")
        let pool = try Pool.create(
            path: node.pool.path, sizeBytes: node.pool.sizeBytes,
            identity: PoolIdentity(uuid: .random(), cluster: cluster, node: node.id), persistence: request,
            access: node.pool.access)
        return (pool, true)
    }

    private static func ensureRegion(_ group: ClusterConfiguration.Group, in pool: Pool) throws(PoolError) -> Region {
        if let region = pool.region(of: group.id) { return region }
        return try pool.allocateRegion(group: group.id, ringBytes: group.logBytes)
    }
}
