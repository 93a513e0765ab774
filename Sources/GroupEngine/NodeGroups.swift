// The groups of one node, side by side: what happens to the node is told to each of them, and what is meant for one reaches no other.

package import ClusterProtocol
package import Coordination
package import LogModel
internal import PersistentMemory

/// Bound to the engine's place, as its groups are.
package final class NodeGroups {
    /// In the order in which they were added.
    package private(set) var all: [Group] = []
    private var byID: [GroupID: Group] = [:]

    package init() {}

    /// Precondition: the node has no group of that name yet.
    package func add(_ group: Group) {
        precondition(byID.updateValue(group, forKey: group.id) == nil, "\(group.id) is added twice")
        all.append(group)
    }

    package subscript(_ id: GroupID) -> Group? { byID[id] }
    package var ids: [GroupID] { all.map(\.id) }

    // MARK: The node's life

    /// Each begins with what the pool holds of it. Before anything else.
    package func begin() {
        for group in all {
            let local = group.region.identity.flatMap {
                $0.role == .empty ? nil : LocalLog(logUUID: $0.logUUID, incarnation: $0.incarnation)
            }
            let standing = group.region.standing
            group.handle(
                .started(
                    local: local,
                    LocalStanding(generation: standing.generation, counted: standing.counted, epoch: standing.epoch)))
        }
    }

    package func tick() {
        for group in all { group.tick() }
    }

    /// Each hands over what can be handed over, and destages.
    package func stop(_ stopped: @escaping () -> Void) {
        Self.forEach(of: all, { $0.stop($1) }, then: stopped)
    }

    // MARK: The coordinator

    /// Why groups could not be taken over here, by name, for this node's presence.
    package var problemsToAnnounce: [String: String]? {
        let problems = all.compactMap { group in
            group.machine.problemToAnnounce.map { (group.id.rawValue, String($0.prefix(200))) }
        }
        return problems.isEmpty ? nil : Dictionary(uniqueKeysWithValues: problems)
    }

    /// The lease was renewed, by a call that began at `startedAt`, and `record` was read after it (S17).
    package func renewed(_ id: GroupID, startedAt: Nanos, record: GroupRecord?) {
        byID[id]?.handle(.coordinator(.renewed(startedAt: startedAt, record: record)))
    }

    /// Whom a standby looks for at the coordinator.
    package struct WatchedPeer: Sendable {
        package let group: GroupID
        package let peer: NodeID
        /// The owner, if it is another node's process.
        package let process: ProcessIdentity?
    }

    package var watchedPeers: [WatchedPeer] {
        all.filter { !$0.machine.isOwner }.map { group in
            let process = group.machine.record?.ownerProcess
            return WatchedPeer(
                group: group.id, peer: group.peer, process: process?.node == group.host.id ? nil : process)
        }
    }

    /// What a look for `watched` found, which began at `askedAt`.
    package func seen(_ watched: WatchedPeer, _ presence: Presence?, dead: ProcessIdentity?, askedAt: Nanos) {
        byID[watched.group]?.handle(
            .coordinator(.presence(of: watched.peer, presence, deadProcess: dead, askedAt: askedAt)))
    }

    // MARK: What they are to each other

    /// The volumes whose media the groups' records know, by identity (S18).
    package var knownMedia: [UUID128: String] {
        all.reduce(into: [:]) { known, group in
            for (name, identity) in group.machine.record?.media ?? [:] { known[identity] = name }
        }
    }

    /// This process will be fenced for the sake of `group`: what else it owns is handed over first.
    package func evacuate(for group: GroupID, _ done: @escaping () -> Void) {
        Self.forEach(of: all.filter { $0.id != group && $0.machine.isOwner }) { other, isDone in
            other.command(.handOver) { _ in isDone() }
        } then: {
            done()
        }
    }

    private static func forEach(
        of groups: [Group], _ body: (Group, @escaping () -> Void) -> Void, then done: @escaping () -> Void
    ) {
        guard !groups.isEmpty else { return done() }
        var waiting = groups.count
        for group in groups {
            body(group) {
                waiting -= 1
                if waiting == 0 { done() }
            }
        }
    }
}
