// The node around a group, for the group: what it reaches other nodes, the coordinator, media and people with.

package import ClusterConfiguration
package import ClusterProtocol
package import Coordination
package import LogModel
package import RemoteMemory

/// Bound to the engine's place, where every answer comes too: once, later or at once.
package protocol Host: AnyObject {
    var id: NodeID { get }
    /// As ``Runtime/now``.
    var now: Nanos { get }
    /// This process, as a fence must find it.
    var process: ProcessIdentity { get }
    var poolUUID: UUID128 { get }
    var fence: any Fence { get }
    var media: any MediumGuard { get }
    var archives: any LogArchives { get }
    /// The mirror regions that peers may write.
    var regions: any RegionRegistry { get }
    /// The volumes whose media the records of this node's groups know, by identity.
    var knownMedia: [UUID128: String] { get }
    /// How long a peer may be silent.
    var heartbeatTimeout: Nanos { get }

    // MARK: People

    func report(_ report: Report, group: GroupID?)
    /// For whoever looks for the cause of something, and needs it rarely.
    func debug(_ text: String)
    func warn(_ text: String)

    // MARK: The coordinator: one call of a group at a time

    func readRecord(of group: GroupID, _ done: @escaping (Result<GroupRecord?, any Error>) -> Void)
    func swapRecord(
        of group: GroupID, expecting: UInt64, to record: GroupRecord,
        _ done: @escaping (Result<SwapOutcome, any Error>) -> Void)

    // MARK: Peers

    /// The places where `peer` listens for rails: one at least.
    func rails(of peer: NodeID) -> [String]
    /// Makes a rail to one of the places of `peer`. Its delegate is to be set before `done` returns, which is called once, within two
    /// heartbeat timeouts.
    func dial(
        _ peer: NodeID, rail: Int,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void)
    /// Tells whether every place of `peer` refuses connections: its host answers, and no process listens there. False where anything
    /// listens, and where nothing answers within a heartbeat timeout.
    func nobodyListens(at peer: NodeID, _ done: @escaping (Bool) -> Void)
    /// What this node's configuration has in common with those of its peers.
    var configurationEntries: ConfigurationEntries { get }
    func configurationDiffers(from peer: NodeID, _ theirs: ConfigurationEntries)
    func configurationAgrees(with peer: NodeID)
    /// How the configurations differ, in words, as far as the peer has said; `nil` if they do not.
    func knownDifference(from peer: NodeID) -> String?
    /// The peer has said, since this node started, what its configuration is.
    func knowsConfiguration(of peer: NodeID) -> Bool
    /// What they have in common of `group`, as far as the peer has said.
    func agreement(on group: GroupID, with peer: NodeID) -> GroupAgreement

    /// What is wrong with the node itself, whoever owns its groups; for people.
    var problem: String? { get }
    /// The pool was made at this start: no earlier process had it.
    var isPoolNew: Bool { get }

    // MARK: Other groups

    /// This process will be fenced because `group` cannot release its medium: what else it owns goes to the partners first.
    func evacuate(for group: GroupID, _ done: @escaping () -> Void)
}

extension Host {
    /// How the configuration of a peer differs that is known to differ, in words.
    func difference(from peer: NodeID) -> String {
        knownDifference(from: peer) ?? "the configurations of \(id) and \(peer) differ"
    }
}
