// The node around a group, for the group: what it reaches other nodes, the coordinator, media and people with.

package import ClusterConfiguration
package import ClusterProtocol
package import Coordination
package import LogModel
package import PersistentMemory
package import RemoteMemory
package import StorageMedium

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

    /// Makes a rail to `peer`, whose rails are tried in turn. Its delegate is to be set before `done` returns.
    func dial(
        _ peer: NodeID, attempt: Int,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void)
    func group(_ id: GroupID) -> Group?
    /// The rail that a peer made is closed.
    func forget(_ rail: AcceptedRail)
    /// What this node's configuration has in common with those of its peers.
    var configurationEntries: ConfigurationEntries { get }
    func configurationDiffers(from peer: NodeID, _ theirs: ConfigurationEntries)
    func configurationAgrees(with peer: NodeID)
    /// How the configurations differ, in words, as far as the peer has said; `nil` if they do not.
    func knownDifference(from peer: NodeID) -> String?

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

/// Opens media and keeps other writers from them (S18). Thread-safe; every call blocks.
package protocol MediumGuard: Sendable {
    /// Opens, checks and locks all of them, or none. Acquiring the locks is what confirms that no other writer is left.
    func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia
    /// Whether they could be taken now. Takes no lock and changes nothing. `owner`: the owner's process, if it is of this host.
    func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook
    /// What the medium holds where this node reaches it, past any cache.
    func readUncached(_ volume: ClusterConfiguration.Volume, _ range: ByteRange) throws(MediumError) -> [UInt8]
}

/// A group's media, locked.
package struct HeldMedia: Sendable {
    /// In the order of the volumes.
    package var media: [any Medium]
    /// By the volume's name; of those that have one.
    package var identities: [String: UUID128]
    /// Ends the locks. Nobody may use the media any more. Blocks.
    package var release: @Sendable () throws(MediumError) -> Void

    package init(
        media: [any Medium] = [], identities: [String: UUID128] = [:],
        release: @escaping @Sendable () throws(MediumError) -> Void = {}
    ) {
        self.media = media
        self.identities = identities
        self.release = release
    }
}

/// What one look at a group's media found.
package struct MediaLook: Equatable, Sendable {
    /// Why they could not be taken.
    package var problem: String?
    /// A process that holds a lock and is not the owner's. Right after a change of owners that is no surprise.
    package var stranger: String?
    package init(problem: String? = nil, stranger: String? = nil) {
        self.problem = problem
        self.stranger = stranger
    }
}

/// Keeps logs that are set aside. Thread-safe; blocks.
package protocol LogArchives: Sendable {
    /// Archives the region's log up to `end`; durable when it returns. One that is not prunable stays until an operator removes it.
    /// Answers where it is kept.
    func archive(_ region: Region, upTo end: LSN, isPrunable: Bool) throws(ArchiveError) -> String
}

/// A log could not be archived, so its region was not touched.
package struct ArchiveError: Error, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}
