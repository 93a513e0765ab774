// What logical units need to be a group's media: looked at over the way that leads there, without changing anything.

public import ClusterConfiguration
internal import LogModel
internal import StorageMedium
internal import StorageMediumSCSI

public enum UnitNeed {
    /// What no waiting mends, each with its key: media that can never be kept from a node. A target that does not answer now is none of
    /// that. Blocks, a few seconds for each target that does not answer.
    public static func problems(
        _ configuration: ClusterConfiguration, node: ClusterConfiguration.Node
    ) -> [ConfigurationError] {
        var problems: [ConfigurationError] = []
        for group in configuration.groups(of: node.id) {
            for volume in group.volumes {
                guard let reason = problem(of: volume, configuration, node) else { continue }
                problems.append(
                    configuration.source.problem("groups.\(group.id).volumes.\(volume.name).medium", reason))
            }
        }
        return problems
    }

    private static func problem(
        of volume: ClusterConfiguration.Volume, _ configuration: ClusterConfiguration,
        _ node: ClusterConfiguration.Node
    ) -> String? {
        guard let look = look(at: volume, configuration, node) else { return nil }
        do throws(MediumError) {
            _ = try look.check(sizeBytes: volume.sizeBytes)
            return nil
        } catch {
            return error.code == .notAMedium ? error.message : nil
        }
    }

    /// `nil`: the medium is no logical unit.
    static func look(
        at volume: ClusterConfiguration.Volume, _ configuration: ClusterConfiguration, _ node: ClusterConfiguration.Node
    ) -> UnitMedium.Look? {
        volume.unit.map { address in
            UnitMedium.Look(
                address,
                as: UnitMedium.Opener(node.id, of: configuration.nodes.map(\.id), cluster: configuration.cluster))
        }
    }
}
