// What the partners of a node have said of their configurations, for all its groups.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import LogModel
internal import Synchronization

/// Thread-safe.
final class PartnerConfigurations: Sendable {
    /// How a partner's configuration differs from this node's.
    private struct Difference {
        /// In words.
        var text: String
        var agreements: [GroupID: GroupAgreement]
    }

    private struct Known {
        var differences: [NodeID: Difference] = [:]
        /// Whose configuration was compared with this node's.
        var compared: Set<NodeID> = []
    }

    let entries: ConfigurationEntries
    private let id: NodeID
    private let groups: [GroupID]
    private let known = Mutex(Known())

    /// Of the node `id`, with `groups`.
    init(_ configuration: ClusterConfiguration, of id: NodeID, groups: [GroupID]) {
        self.id = id
        self.groups = groups
        entries = ConfigurationEntries(
            configuration.sharedEntries.map { ConfigurationEntries.Entry(key: $0.key, value: $0.value) })
    }

    /// In words, as far as it has said; `nil` if it does not differ.
    func difference(from peer: NodeID) -> String? { known.withLock { $0.differences[peer]?.text } }

    func knows(_ peer: NodeID) -> Bool { known.withLock { $0.compared.contains(peer) } }

    func agreement(on group: GroupID, with peer: NodeID) -> GroupAgreement {
        known.withLock { known in known.differences[peer].map { $0.agreements[group] ?? .none } ?? .whole }
    }

    /// Answers how it differs, in words, if that is news.
    func differs(_ peer: NodeID, _ theirs: ConfigurationEntries) -> String? {
        let difference = difference(from: peer, theirs)
        return known.withLock { known in
            known.compared.insert(peer)
            let earlier = known.differences.updateValue(difference, forKey: peer)
            return earlier?.text == difference.text ? nil : difference.text
        }
    }

    /// Answers whether that is news.
    func agrees(_ peer: NodeID) -> Bool {
        known.withLock { known in
            known.compared.insert(peer)
            return known.differences.removeValue(forKey: peer) != nil
        }
    }

    private func difference(from peer: NodeID, _ theirs: ConfigurationEntries) -> Difference {
        func shared(_ entries: [ConfigurationEntries.Entry]) -> [ClusterConfiguration.SharedEntry] {
            entries.map { ClusterConfiguration.SharedEntry(key: $0.key, value: $0.value) }
        }
        var sides = [
            (id, shared(entries.comparable(with: theirs))), (peer, shared(theirs.comparable(with: entries))),
        ]
        // Both nodes say it in the same words.
        sides.sort { $0.0 < $1.0 }
        let text =
            ClusterConfiguration.difference(
                sides[0].1, of: sides[0].0.rawValue, sides[1].1, of: sides[1].0.rawValue)
            ?? "the configurations of \(sides[0].0) and \(sides[1].0) differ beyond what they can tell each other"
        let isWhole = entries.isWhole && theirs.isWhole
        let agreements = groups.map { group in
            let agreement =
                isWhole
                ? ClusterConfiguration.agreement(on: group, shared(entries.entries), shared(theirs.entries)) : .none
            return (group, agreement)
        }
        return Difference(text: text, agreements: Dictionary(uniqueKeysWithValues: agreements))
    }
}
