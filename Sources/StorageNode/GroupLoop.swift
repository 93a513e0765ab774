// One event loop of a node, and the groups that live on it: the node around them, as they see it. A node has several, so that what one group
// has to do keeps no other waiting. What they share is in NodeCommons.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import Foundation
internal import GroupEngine
internal import LogModel
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import RemoteMemory
internal import Synchronization

/// The other loops of the node, for each of them. Thread-safe.
protocol LoopNeighbours: AnyObject, Sendable {
    /// `nil` for a volume that is not of one of this node's groups.
    func place(of volume: String) -> VolumePlace?
    /// All that the node owns but `group` is handed over, wherever it lives. `done` is called on `home`, where this is called.
    func evacuate(for group: GroupID, from home: any EventLoop, _ done: @escaping () -> Void)
}

/// A group of the configuration, and what it has on this node.
struct SettledGroup: Sendable {
    var configuration: ClusterConfiguration.Group
    var region: Region
    var threads: GroupThreads
    var settings: GroupSettings
}

/// Bound to its event loop.
final class GroupLoop {
    /// Rails of peers, all together: far above what the groups of one loop need.
    private static let maximumRails = 256

    let commons: NodeCommons
    let eventLoop: any EventLoop
    let groups = NodeGroups()
    private weak var neighbours: (any LoopNeighbours)?
    private let railsOfLoop: @Sendable (any EventLoop) -> any GroupRails
    /// Made before anybody listens.
    private var rails: (any GroupRails)?
    private var accepted: [ObjectIdentifier: AcceptedRail] = [:]
    private var ticking: RepeatedTask?
    /// Groups that were told to leave a pool without a name: once, so that two nodes whose pools have both lost their names do not pass
    /// them to and fro.
    private var leftPool: Set<GroupID> = []

    init(
        _ commons: NodeCommons, on eventLoop: any EventLoop,
        _ groups: [SettledGroup], beside neighbours: any LoopNeighbours,
        rails: @escaping @Sendable (any EventLoop) -> any GroupRails
    ) {
        self.commons = commons
        self.eventLoop = eventLoop
        self.neighbours = neighbours
        railsOfLoop = rails
        for group in groups {
            self.groups.add(
                Group(
                    host: self, runtime: LoopRuntime(eventLoop: eventLoop, threads: group.threads),
                    configuration: group.configuration, region: group.region,
                    machine: GroupMachine(settings: group.settings, freshLogUUID: .random(), now: BootClock.now)))
        }
    }

    // MARK: Life

    func makeRails(as identity: RailIdentity) {
        rails = railsOfLoop(eventLoop)
        rails?.begin(as: identity)
    }

    func begin() {
        groups.begin()
        let interval = TimeAmount.milliseconds(Int64(commons.configuration.heartbeatIntervalMillis))
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        ticking = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: interval) { _ in bound.value.tick() }
    }

    private func tick() {
        groups.tick()
        for rail in accepted.values { rail.closeIfIdle() }
    }

    /// Nothing is done by itself any more, and no peer's WRITE comes.
    func close() {
        ticking?.cancel()
        ticking = nil
        for rail in accepted.values { rail.close() }
        for group in groups.all { group.closeRails() }
    }

    /// Groups whose partner could serve them without loss go there.
    func leavePool() {
        for group in groups.all where group.machine.isServing && !leftPool.contains(group.id) {
            let id = group.id
            guard group.machine.takeoverPossible(BootClock.now) else { continue }
            leftPool.insert(id)
            group.command(.handOver) { [unowned self] refusal in
                guard let refusal else { return }
                // Asked again after the next look.
                leftPool.remove(id)
                commons.logger.notice("\(id): cannot leave a pool without a name: \(refusal)")
            }
        }
    }

    // MARK: What the node hears from the coordinator

    func renewed(_ id: GroupID, startedAt: Nanos, record: GroupRecord?) {
        groups.renewed(id, startedAt: startedAt, record: record)
        noteMedia(of: id)
    }

    private func noteMedia(of id: GroupID) {
        commons.knownMedia.note(groups[id]?.machine.record?.media ?? [:], of: id)
    }

    // MARK: Rails that peers made

    /// `messages` have come on it.
    func accept(_ queuePair: any QueuePair, _ peer: RailPeer, after messages: [[UInt8]] = []) {
        guard accepted.count < Self.maximumRails else {
            warn("a rail of \(peer.node) is closed: there are \(accepted.count) already")
            return queuePair.close()
        }
        let rail = AcceptedRail(queuePair: queuePair, peer: peer, host: self)
        accepted[ObjectIdentifier(rail)] = rail
        queuePair.delegate = rail
        for message in messages where queuePair.delegate === rail { rail.queuePair(queuePair, received: message) }
    }

    /// One that another loop let go of.
    func attach(_ connection: any DetachedRail, _ peer: RailPeer, after messages: [[UInt8]]) {
        rails?.attach(connection) { self.accept($0, peer, after: messages) }
    }
}

extension GroupLoop: RailKeeper {
    var id: NodeID { commons.id }
    var now: Nanos { BootClock.now }
    var process: ProcessIdentity { commons.process }
    var poolUUID: UUID128 { commons.poolUUID }
    var isPoolNew: Bool { commons.isPoolNew }
    var fence: any Fence { commons.fence }
    var media: any MediumGuard { commons.media }
    var archives: any LogArchives { commons.archives }
    var knownMedia: [UUID128: String] { commons.knownMedia.all }
    var heartbeatTimeout: Nanos { commons.configuration.heartbeatTimeoutMillis * 1_000_000 }
    var problem: String? { commons.poolProblem.withLock(\.self) }

    var regions: any RegionRegistry {
        guard let rails else {
            preconditionFailure("a region is offered on a rail, and there is none before the beginning")
        }
        return rails.regions
    }

    func mirrorSide(of group: GroupID) -> (any MirrorSide)? { groups[group] }
    func forget(_ rail: AcceptedRail) { accepted[ObjectIdentifier(rail)] = nil }

    // MARK: People

    func report(_ report: Report, group: GroupID?) { commons.report(report, group: group) }
    func debug(_ text: String) { commons.logger.debug("\(text)") }
    func warn(_ text: String) { commons.logger.warning("\(text)") }

    // MARK: The coordinator

    func readRecord(of group: GroupID, _ done: @escaping (Result<GroupRecord?, any Error>) -> Void) {
        let coordinator = commons.coordinator
        commons.coordinatorThread.runIfActive(eventLoop: eventLoop) { try coordinator.read(group) }
            .assumeIsolated().whenComplete { result in
                done(result)
                self.noteMedia(of: group)
            }
    }

    func swapRecord(
        of group: GroupID, expecting expected: UInt64, to record: GroupRecord,
        _ done: @escaping (Result<SwapOutcome, any Error>) -> Void
    ) {
        let coordinator = commons.coordinator
        commons.coordinatorThread.runIfActive(eventLoop: eventLoop) {
            try coordinator.swap(expecting: expected, to: record)
        }.assumeIsolated().whenComplete { result in
            done(result)
            self.noteMedia(of: group)
        }
    }

    // MARK: Peers

    func rails(of peer: NodeID) -> [String] {
        guard let places = commons.configuration.node(peer)?.mirror, !places.isEmpty else {
            preconditionFailure("the configuration gives \(peer) a rail")
        }
        return places
    }

    private var timeout: TimeAmount { .milliseconds(Int64(commons.configuration.heartbeatTimeoutMillis)) }

    func dial(
        _ peer: NodeID, rail: Int,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        rails?.dial(rails(of: peer)[rail], expecting: peer, timeout: timeout, done)
    }

    func nobodyListens(at peer: NodeID, _ done: @escaping (Bool) -> Void) {
        let places = rails(of: peer)
        var waiting = places.count
        var areRefused = true
        for place in places {
            rails?.isRefused(at: place, timeout: timeout) {
                areRefused = areRefused && $0
                waiting -= 1
                if waiting == 0 { done(areRefused) }
            }
        }
    }

    var configurationEntries: ConfigurationEntries { commons.partners.entries }
    func knownDifference(from peer: NodeID) -> String? { commons.partners.difference(from: peer) }
    func knowsConfiguration(of peer: NodeID) -> Bool { commons.partners.knows(peer) }

    func agreement(on group: GroupID, with peer: NodeID) -> GroupAgreement {
        commons.partners.agreement(on: group, with: peer)
    }

    func configurationDiffers(from peer: NodeID, _ theirs: ConfigurationEntries) {
        commons.configurationDiffers(from: peer, theirs)
    }

    func configurationAgrees(with peer: NodeID) { commons.configurationAgrees(with: peer) }

    // MARK: Other groups

    func evacuate(for group: GroupID, _ done: @escaping () -> Void) {
        guard let neighbours else { return done() }
        neighbours.evacuate(for: group, from: eventLoop, done)
    }
}

// MARK: Volumes

extension GroupLoop: VolumeService {
    func volumes() -> [VolumeInfo] { commons.volumes }

    func place(of name: String) -> VolumePlace? {
        neighbours?.place(of: name).flatMap { $0.eventLoop === eventLoop ? nil : $0 }
    }

    private func locate(_ name: String) -> Result<(Group, ClusterConfiguration.Volume), VolumeRefusal> {
        for group in commons.configuration.groups {
            guard let volume = group.volumes.first(where: { $0.name == name }) else { continue }
            if let local = groups[group.id] { return .success((local, volume)) }
            return .failure(
                VolumeRefusal(.ownedElsewhere, "volume '\(name)' lives on \(group.home) and \(group.mirror)"))
        }
        return .failure(VolumeRefusal(.unknownVolume, "there is no volume '\(name)'"))
    }

    func find(_ name: String) -> Result<VolumeInfo, VolumeRefusal> {
        locate(name).flatMap { group, volume in group.find(volume) }
    }

    func open(
        _ name: String, ready: @escaping (Result<any VolumeSession, VolumeRefusal>) -> Void
    ) -> () -> Void {
        switch locate(name) {
        case .success(let (group, volume)): return group.open(volume, ready: ready)
        case .failure(let refusal):
            ready(.failure(refusal))
            return {}
        }
    }
}
