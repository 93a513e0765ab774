// A node: a pool, a mirror listener, a coordinator, and the groups that this server owns or mirrors. Lives on one event
// loop; the coordinator has a thread of its own, everything else that blocks has the threads of Threads.swift.

public import ClusterConfiguration
package import ClusterProtocol
package import Coordination
public import GroupEngine
internal import Glibc
public import LogModel
public import Logging
public import NIOCore
internal import NIOPosix
internal import PersistentMemory
package import RemoteMemory

/// Bound to its event loop: create it, call it and let go of it there.
public final class ServerNode: VolumeService {
    public let id: NodeID
    public let configuration: ClusterConfiguration
    let eventLoop: any EventLoop
    let logger: Logger
    let pool: Pool
    package let isPoolNew: Bool
    let parts: NodeParts
    /// For what makes pool memory durable; see ``GroupThreads``.
    let memoryThreads: NIOThreadPool
    /// One thread, so that calls to the coordinator happen in the order in which they were made.
    let coordinatorThread: NIOThreadPool
    let groups = NodeGroups()
    /// Of each group.
    private(set) var threads: [GroupID: GroupThreads] = [:]
    let journal: EventJournal
    let poolWatch: PoolWatch
    /// Who tells of the clients, if somebody serves any.
    public weak var frontEnd: (any VolumeFrontEnd)?
    private(set) var accepted: [ObjectIdentifier: AcceptedRail] = [:]
    private var ticking: RepeatedTask?
    private var isAnnouncing = false
    private var isWatching = false
    /// Why the leases could not be renewed, and why a partner could not be looked for.
    private var leaseProblem = StandingProblem()
    private var watchProblem = StandingProblem()
    private var nextAnnouncement: NIODeadline = .now()
    private var presenceCounter: UInt64 = 0
    private var whenCoordinatorAnswers: EventLoopPromise<Void>?
    private var isStopping = false
    /// Whose threads have not answered ``askMediumThread(_:)`` yet.
    var groupsAsked: Set<GroupID> = []

    package let configurationEntries: ConfigurationEntries
    private var differences: [NodeID: Difference] = [:]
    /// Whose configuration was compared with this node's.
    private var compared: Set<NodeID> = []

    /// How a partner's configuration differs from this node's.
    private struct Difference {
        /// In words.
        var text: String
        var agreements: [GroupID: GroupAgreement]
    }

    /// Opens or creates the pool, with a region for each group of this node. Blocks. Throws ``NodeError``.
    public static func openPool(
        configuration: ClusterConfiguration, node: NodeID, logger: Logger
    ) throws(NodeError) -> OpenedPool {
        try OpenedPool(configuration: configuration, node: node, logger: logger)
    }

    /// On the event loop.
    package init(
        configuration: ClusterConfiguration, node id: NodeID, pool: OpenedPool, eventLoop: any EventLoop,
        logger: Logger, parts: NodeParts
    ) throws {
        eventLoop.preconditionInEventLoop()
        self.parts = parts
        self.configuration = configuration
        self.id = id
        self.eventLoop = eventLoop
        self.logger = logger
        self.pool = pool.pool
        isPoolNew = pool.isNew
        configurationEntries = ConfigurationEntries(
            configuration.sharedEntries.map { ConfigurationEntries.Entry(key: $0.key, value: $0.value) })
        let ownGroups = configuration.groups(of: id)
        memoryThreads = NIOThreadPool(numberOfThreads: GroupThreads.memoryThreadCount(groups: ownGroups.count))
        coordinatorThread = NIOThreadPool(numberOfThreads: 1)
        journal = EventJournal(pool.events, eventLoop: eventLoop)
        poolWatch = PoolWatch(pool.pool, eventLoop: eventLoop)
        for group in ownGroups { try addGroup(group) }
        if let problem = pool.events.problem { journalProblem(problem) }
        journal.onProblem = { [unowned self] problem in journalProblem(problem) }
    }

    private func journalProblem(_ problem: String?) {
        logger.warning("\(problem.map { "events are kept in memory only: \($0)" } ?? "events are on disk again")")
    }

    private func addGroup(_ group: ClusterConfiguration.Group) throws {
        guard let region = pool.region(of: group.id) else {
            throw NodeError(message: "\(pool.path): has no region for group \(group.id)")
        }
        let millis: UInt64 = 1_000_000
        var settings = GroupSettings(
            group: group.id, node: id, partners: [group.peer(of: id)], home: group.home, process: process,
            pool: pool.identity.uuid, heartbeatInterval: configuration.heartbeatIntervalMillis * millis,
            heartbeatTimeout: configuration.heartbeatTimeoutMillis * millis, lease: configuration.leaseMillis * millis,
            degradeOnMirrorLoss: group.degradeOnMirrorLoss)
        settings.doubtLimit = configuration.doubtMillis * millis
        parts.settings(&settings)
        let threads = GroupThreads(memory: memoryThreads)
        self.threads[group.id] = threads
        groups.add(
            Group(
                host: self, runtime: LoopRuntime(eventLoop: eventLoop, threads: threads), configuration: group,
                region: region,
                machine: GroupMachine(settings: settings, freshLogUUID: .random(), now: BootClock.now)))
    }

    /// Listens for rails and begins to take part. Succeeds once the sockets listen and the coordinator has answered.
    public func start() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        report(Report(.started, "process \(process.pid) of version \(TwinLogVersion.current)"), group: nil)
        memoryThreads.start()
        for threads in threads.values { threads.start() }
        coordinatorThread.start()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return learnSecret()
            .flatMap { secret in bound.value.listen(secret) }
            .flatMap { bound.value.begin() }
    }

    /// A coordinator that does not answer is asked again; a secret that is not to be trusted ends the start.
    private func learnSecret() -> EventLoopFuture<ClusterSecret> {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let readSecret = parts.readSecret
        return coordinatorThread.runIfActive(eventLoop: eventLoop) { try readSecret() }.flatMapError { error in
            guard let error = error as? SecretError, error.code == .unreachable else {
                return bound.eventLoop.makeFailedFuture(error)
            }
            bound.value.logger.warning("the cluster's secret cannot be read yet: \(error)")
            return bound.eventLoop.flatScheduleTask(in: Self.secretRetry) { bound.value.learnSecret() }.futureResult
        }
    }

    private static let secretRetry = TimeAmount.seconds(1)

    private func listen(_ secret: ClusterSecret) -> EventLoopFuture<Void> {
        let identity = RailIdentity(
            cluster: configuration.cluster, node: id, secret: secret, configurationDigest: configuration.sharedDigest)
        parts.transport.begin(as: identity) { [unowned self] in accept($0, $1) }
        let listening = (configuration.node(id)?.mirror ?? []).map { rail in
            Listening.begin(on: rail, for: "nodes.\(id).mirror", eventLoop: eventLoop) { [unowned self] in
                parts.transport.listen(at: $0)
            }
        }
        return EventLoopFuture.andAllSucceed(listening, on: eventLoop)
    }

    /// Takes part from now on; the future succeeds with the coordinator's first answer.
    private func begin() -> EventLoopFuture<Void> {
        let answered = eventLoop.makePromise(of: Void.self)
        whenCoordinatorAnswers = answered
        groups.begin()
        let interval = TimeAmount.milliseconds(Int64(configuration.heartbeatIntervalMillis))
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        ticking = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: interval) { _ in bound.value.tick() }
        return answered.futureResult
    }

    /// Hands over what can be handed over, destages, and leaves. The future succeeds when all of it is done.
    public func stop() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        let done = eventLoop.makePromise(of: Void.self)
        guard !isStopping else {
            done.succeed()
            return done.futureResult
        }
        isStopping = true
        report(Report(.stopping, "process \(process.pid) hands over, destages and ends"), group: nil)
        groups.stop { done.succeed() }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return done.futureResult.flatMap { bound.value.journal.flush() }
    }

    /// Nothing is done by itself any more.
    func endTurns() {
        ticking?.cancel()
        ticking = nil
    }

    package func evacuate(for group: GroupID, _ done: @escaping () -> Void) {
        groups.evacuate(for: group, done)
    }

    // MARK: Time

    private func tick() {
        groups.tick()
        for rail in accepted.values { rail.closeIfIdle() }
        announceIfDue()
        watchPeers()
        watchPool()
    }

    /// Renews the lease three times in its length: announce, *then* read the records (S17).
    private func announceIfDue() {
        guard !isAnnouncing, NIODeadline.now() >= nextAnnouncement else { return }
        isAnnouncing = true
        nextAnnouncement = .now() + .milliseconds(Int64(configuration.leaseMillis / 3))
        presenceCounter += 1
        let presence = Presence(
            process: process, counter: presenceCounter, pool: pool.identity.uuid, problems: groups.problemsToAnnounce)
        let coordinator = parts.coordinator
        let ids = groups.ids
        coordinatorThread.runIfActive(eventLoop: eventLoop) {
            let startedAt = BootClock.now
            return (startedAt, try coordinator.renew(presence, reading: ids))
        }.assumeIsolated().whenComplete { result in
            self.isAnnouncing = false
            switch result {
            case .success(let (startedAt, records)):
                var problems: [String] = []
                for (id, read) in records {
                    switch read {
                    case .success(let record): self.groups.renewed(id, startedAt: startedAt, record: record)
                    case .failure(let error): problems.append("the lease of \(id) could not be renewed: \(error)")
                    }
                }
                self.sayLeaseProblem(problems.isEmpty ? nil : problems.joined(separator: "; "))
                self.whenCoordinatorAnswers?.succeed()
                self.whenCoordinatorAnswers = nil
            case .failure(let error): self.sayLeaseProblem("the lease could not be renewed: \(error)")
            }
        }
    }

    private func sayLeaseProblem(_ problem: String?) {
        if leaseProblem.isNews(problem, BootClock.now), let problem { logger.warning("\(problem)") }
    }

    private func watchPeers() {
        guard !isWatching else { return }
        let watched = groups.watchedPeers
        guard !watched.isEmpty else { return }
        isWatching = true
        let coordinator = parts.coordinator
        let fence = fence
        coordinatorThread.runIfActive(eventLoop: eventLoop) {
            let askedAt = BootClock.now
            let presences = Result { () throws(CoordinationError) in
                try coordinator.presences(of: Set(watched.map(\.peer)))
            }
            return watched.map { one in
                (one, presences.flatMap { Self.look(for: one.process, $0[one.peer], fence) }, askedAt)
            }
        }.assumeIsolated().whenComplete { result in
            self.isWatching = false
            guard case .success(let seen) = result else { return }
            var problem: String?
            for (watched, look, askedAt) in seen {
                switch look {
                case .success(let (presence, dead, unseen)):
                    self.groups.seen(watched, presence, dead: dead, askedAt: askedAt)
                    problem = unseen ?? problem
                case .failure(let error): problem = "\(error)"
                }
            }
            if self.watchProblem.isNews(problem, BootClock.now), let problem {
                self.logger.warning("a partner cannot be watched: \(problem)")
            }
        }
    }

    /// A presence that cannot be read is none: it is not made durable, and a loss of power may leave anything of it. A process that cannot
    /// be seen is not known to be dead, and `unseen` says why.
    private static func look(
        for process: ProcessIdentity?, _ presence: Result<Presence, CoordinationError>?, _ fence: any Fence
    ) -> Result<(Presence?, dead: ProcessIdentity?, unseen: String?), CoordinationError> {
        var dead: ProcessIdentity?
        var unseen: String?
        if let process {
            do throws(FenceError) {
                if try fence.isGone(process) { dead = process }
            } catch {
                unseen = error.message
            }
        }
        switch presence {
        case .success(let presence): return .success((presence, dead, unseen))
        case .failure(let error) where error.code != .invalidRecord: return .failure(error)
        case nil, .failure: return .success((nil, dead, unseen))
        }
    }

    // MARK: The coordinator

    package func readRecord(of group: GroupID, _ done: @escaping (Result<GroupRecord?, any Error>) -> Void) {
        let coordinator = parts.coordinator
        coordinatorThread.runIfActive(eventLoop: eventLoop) { try coordinator.read(group) }
            .assumeIsolated().whenComplete(done)
    }

    package func swapRecord(
        of group: GroupID, expecting expected: UInt64, to record: GroupRecord,
        _ done: @escaping (Result<SwapOutcome, any Error>) -> Void
    ) {
        let coordinator = parts.coordinator
        coordinatorThread.runIfActive(eventLoop: eventLoop) { try coordinator.swap(expecting: expected, to: record) }
            .assumeIsolated().whenComplete(done)
    }

    // MARK: Rails

    private func accept(_ queuePair: any QueuePair, _ peer: RailPeer) {
        let rail = AcceptedRail(queuePair: queuePair, peer: peer, host: self)
        accepted[ObjectIdentifier(rail)] = rail
        queuePair.delegate = rail
        guard !peer.hasSameConfiguration else { return configurationAgrees(with: peer.node) }
        // The queue pair gets its place in the pipeline when this returns.
        eventLoop.assumeIsolated().execute { rail.sendConfiguration(self.configurationEntries) }
    }

    package func forget(_ rail: AcceptedRail) { accepted[ObjectIdentifier(rail)] = nil }

    package func rails(of peer: NodeID) -> [String] {
        guard let places = configuration.node(peer)?.mirror, !places.isEmpty else {
            preconditionFailure("the configuration gives \(peer) a rail")
        }
        return places
    }

    package func dial(
        _ peer: NodeID, rail: Int,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void
    ) {
        parts.transport.dial(
            rails(of: peer)[rail], expecting: peer,
            timeout: .milliseconds(Int64(configuration.heartbeatTimeoutMillis)), done)
    }

    package func nobodyListens(at peer: NodeID, _ done: @escaping (Bool) -> Void) {
        let places = rails(of: peer)
        var waiting = places.count
        var areRefused = true
        for place in places {
            parts.transport.isRefused(at: place, timeout: .milliseconds(Int64(configuration.heartbeatTimeoutMillis))) {
                areRefused = areRefused && $0
                waiting -= 1
                if waiting == 0 { done(areRefused) }
            }
        }
    }

    // MARK: The configurations of partners

    /// How the configuration of `peer` differs, in words, as far as it has said; `nil` if it does not.
    package func knownDifference(from peer: NodeID) -> String? { differences[peer]?.text }

    package func knowsConfiguration(of peer: NodeID) -> Bool { compared.contains(peer) }

    package func agreement(on group: GroupID, with peer: NodeID) -> GroupAgreement {
        differences[peer].map { $0.agreements[group] ?? .none } ?? .whole
    }

    package func configurationDiffers(from peer: NodeID, _ theirs: ConfigurationEntries) {
        compared.insert(peer)
        func shared(_ entries: [ConfigurationEntries.Entry]) -> [ClusterConfiguration.SharedEntry] {
            entries.map { ClusterConfiguration.SharedEntry(key: $0.key, value: $0.value) }
        }
        var sides = [
            (id, shared(configurationEntries.comparable(with: theirs))),
            (peer, shared(theirs.comparable(with: configurationEntries))),
        ]
        // Both nodes say it in the same words.
        sides.sort { $0.0 < $1.0 }
        let difference =
            ClusterConfiguration.difference(
                sides[0].1, of: sides[0].0.rawValue, sides[1].1, of: sides[1].0.rawValue)
            ?? "the configurations of \(sides[0].0) and \(sides[1].0) differ beyond what they can tell each other"
        let isWhole = configurationEntries.isWhole && theirs.isWhole
        let agreements = groups.ids.map { group in
            let agreement =
                isWhole
                ? ClusterConfiguration.agreement(
                    on: group, shared(configurationEntries.entries), shared(theirs.entries)) : .none
            return (group, agreement)
        }
        let known = differences.updateValue(
            Difference(text: difference, agreements: Dictionary(uniqueKeysWithValues: agreements)), forKey: peer)
        guard known?.text != difference else { return }
        report(Report(.configurationDiffers, difference), group: nil)
    }

    package func configurationAgrees(with peer: NodeID) {
        compared.insert(peer)
        guard differences.removeValue(forKey: peer) != nil else { return }
        report(Report(.configurationAgrees, "\(peer) has the configuration of \(id) now"), group: nil)
    }

    // MARK: Volumes

    public func volumes() -> [VolumeInfo] {
        configuration.groups.flatMap { group in
            group.volumes.map { VolumeInfo(name: $0.name, sizeBytes: $0.sizeBytes, isReadOnly: $0.isReadOnly) }
        }
    }

    private func locate(_ name: String) -> Result<(Group, ClusterConfiguration.Volume), VolumeRefusal> {
        for group in configuration.groups {
            guard let volume = group.volumes.first(where: { $0.name == name }) else { continue }
            if let local = groups[group.id] { return .success((local, volume)) }
            return .failure(
                VolumeRefusal(.ownedElsewhere, "volume '\(name)' lives on \(group.home) and \(group.mirror)"))
        }
        return .failure(VolumeRefusal(.unknownVolume, "there is no volume '\(name)'"))
    }

    public func find(_ name: String) -> Result<VolumeInfo, VolumeRefusal> {
        locate(name).flatMap { group, volume in group.find(volume) }
    }

    @discardableResult
    public func open(
        _ name: String, ready: @escaping (Result<any VolumeSession, VolumeRefusal>) -> Void
    ) -> () -> Void {
        switch locate(name) {
        case .success(let (group, volume)): return group.open(volume, ready: ready)
        case .failure(let refusal):
            ready(.failure(refusal))
            return {}
        }
    }

    // MARK: Events

    package func report(_ report: Report, group: GroupID?) {
        var about: Logger.Metadata = ["kind": "\(report.kind.rawValue)"]
        if let group { about["group"] = "\(group)" }
        logger.notice("\(group.map { "\($0): " } ?? "")\(report.kind.rawValue): \(report.message)", metadata: about)
        journal.append(kind: report.kind, message: report.message, group: group)
    }

    package func debug(_ text: String) { logger.debug("\(text)") }

    package func warn(_ text: String) { logger.warning("\(text)") }
}

// MARK: What groups need besides

extension ServerNode: RailKeeper {
    package var now: Nanos { BootClock.now }
    package var problem: String? { poolWatch.problem }
    package var poolUUID: UUID128 { pool.identity.uuid }
    package var process: ProcessIdentity { parts.process }
    package var fence: any Fence { parts.fence }
    package var media: any MediumGuard { parts.media }
    package var archives: any LogArchives { parts.archives }
    package var regions: any RegionRegistry { parts.transport.regions }
    package var heartbeatTimeout: Nanos { configuration.heartbeatTimeoutMillis * 1_000_000 }

    package var knownMedia: [UUID128: String] { groups.knownMedia }

    package func mirrorSide(of group: GroupID) -> (any MirrorSide)? { groups[group] }
}
