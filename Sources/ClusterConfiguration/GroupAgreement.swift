// What two nodes whose configurations differ can still do together: a running pair takes a changed file node by node.

public import LogModel

/// What the configurations of two nodes have in common of one group.
public enum GroupAgreement: Hashable, Sendable {
    /// All of it.
    case whole
    /// All but volumes that only one of them has, or has with more bytes: by name, the bytes that both know.
    case part([String: UInt64])
    /// Too little: they would serve different things under one name (S27).
    case none
}

extension ClusterConfiguration {
    /// What entries of two nodes, each complete, have in common of `group`. Those of a partner are untrusted text (S21).
    public static func agreement(
        on group: GroupID, _ first: [SharedEntry], _ second: [SharedEntry]
    ) -> GroupAgreement {
        let first = SharedGroup(group, first)
        let second = SharedGroup(group, second)
        guard let first, let second, first.values == second.values, first.hasVolumes, second.hasVolumes else {
            return .none
        }
        guard first.volumes != second.volumes else { return .whole }
        var common: [String: UInt64] = [:]
        for name in Set(first.volumes.keys).union(second.volumes.keys) {
            guard let one = first.volumes[name], let other = second.volumes[name] else {
                common[name] = 0
                continue
            }
            guard one.values == other.values else { return .none }
            common[name] = min(one.sizeBytes, other.sizeBytes)
        }
        return .part(common)
    }

    /// What concerns one group of a node's entries.
    private struct SharedGroup {
        struct Volume: Hashable {
            var sizeBytes: UInt64 = 0
            var values: [String: String] = [:]
        }

        /// Of the cluster, and of the group itself.
        var values: [String: String] = [:]
        var volumes: [String: Volume] = [:]
        var hasVolumes: Bool { !volumes.isEmpty }

        /// `nil` if they are not what this version writes.
        init?(_ group: GroupID, _ entries: [SharedEntry]) {
            let groups = "groups."
            let own = "\(groups)\(group)."
            let ownVolumes = "\(own)volumes."
            for entry in entries {
                guard entry.key.hasPrefix(ownVolumes) else {
                    if entry.key.hasPrefix(own) || !entry.key.hasPrefix(groups) { values[entry.key] = entry.value }
                    continue
                }
                // A name may have dots, what is said of a volume has none.
                let path = entry.key.dropFirst(ownVolumes.count)
                guard let nameEnd = path.lastIndex(of: ".") else { return nil }
                let name = String(path[..<nameEnd])
                let key = String(path[nameEnd...].dropFirst())
                if key == "size" {
                    guard let bytes = UInt64(entry.value) else { return nil }
                    volumes[name, default: Volume()].sizeBytes = bytes
                } else {
                    volumes[name, default: Volume()].values[key] = entry.value
                }
            }
        }
    }
}
