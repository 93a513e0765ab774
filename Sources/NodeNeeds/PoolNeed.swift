// What a configuration says of a node's pool, held against the pool that is there.

public import ClusterConfiguration
internal import LogModel
public import PersistentMemory

public enum PoolNeed {
    /// What speaks against serving with `contents`, each with its key.
    public static func problems(
        _ contents: PoolContents, _ configuration: ClusterConfiguration, node: ClusterConfiguration.Node
    ) -> [ConfigurationError] {
        let size = contents.sizeProblem(node.pool.sizeBytes).map { ("nodes.\(node.id).pool.size", $0) }
        let logs = configuration.groups(of: node.id).compactMap { group in
            contents.logProblem(group.id, group.logBytes).map { ("groups.\(group.id).log", $0) }
        }
        return ([size].compactMap(\.self) + logs).map { configuration.source.problem($0, $1.description) }
    }
}
