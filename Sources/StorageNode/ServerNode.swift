// A node: a pool, a mirror listener, a coordinator, and the groups that this server owns or mirrors. It lives on one event loop and its groups
// on loops of their own (GroupLoop.swift); the coordinator has a thread of its own, everything else that blocks has the threads of
// Threads.swift.

public import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
public import GroupEngine
internal import Glibc
public import LogModel
public import Logging
public import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import RemoteMemory

/// Bound to its event loop: create it, call it and let go of it there.
public final class ServerNode {
    public let id: NodeID
    public let configuration: ClusterConfiguration
    let eventLoop: any EventLoop
    let logger: Logger
    let pool: Pool
    let parts: NodeParts
    let commons: NodeCommons
    /// This event loop, and those with groups.
    let loops = NodeLoops()
    /// For what makes pool memory durable; see ``GroupThreads``.
    let memoryThreads: NIOThreadPool
    /// Of each group.
    let threads: [GroupID: GroupThreads]
    let journal: EventJournal
    let poolWatch: PoolWatch
    /// Who tells of the clients, if somebody serves any.
    public weak var frontEnd: (any VolumeFrontEnd)?
    /// Rails whose first message has not come.
    private(set) var arriving: [ObjectIdentifier: ArrivingRail] = [:]
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

    /// Opens or creates the pool, with a region for each group of this node. Blocks. Throws ``NodeError``.
    public static func openPool(
        configuration: ClusterConfiguration, node: NodeID, logger: Logger
    ) throws(NodeError) -> OpenedPool {
        try OpenedPool(configuration: configuration, node: node, logger: logger)
    }

    /// `groupLoops`: where the groups live, in turn; without any of them, on `eventLoop` too. On the event loop.
    package init(
        configuration: ClusterConfiguration, node id: NodeID, pool: OpenedPool, eventLoop: any EventLoop,
        groupLoops: [any EventLoop] = [], logger: Logger, parts: NodeParts
    ) throws {
        eventLoop.preconditionInEventLoop()
        self.parts = parts
        self.configuration = configuration
        self.id = id
        self.eventLoop = eventLoop
        self.logger = logger
        self.pool = pool.pool
        let ownGroups = configuration.groups(of: id)
        let memory = NIOThreadPool(numberOfThreads: GroupThreads.memoryThreadCount(groups: ownGroups.count))
        memoryThreads = memory
        let threads = Dictionary(uniqueKeysWithValues: ownGroups.map { ($0.id, GroupThreads(memory: memory)) })
        self.threads = threads
        journal = EventJournal(pool.events, eventLoop: eventLoop)
        poolWatch = PoolWatch(pool.pool, eventLoop: eventLoop)
        commons = NodeCommons(
            configuration, id, pool, parts, logger: logger, journal: journal, on: eventLoop)
        var living: [(loop: any EventLoop, groups: [ClusterConfiguration.Group])] = [(eventLoop, [])]
        for (index, group) in ownGroups.enumerated() {
            let loop = groupLoops.isEmpty ? eventLoop : groupLoops[index % groupLoops.count]
            if let known = living.firstIndex(where: { $0.loop === loop }) {
                living[known].groups.append(group)
            } else {
                living.append((loop, [group]))
            }
        }
        for (loop, groups) in living {
            let settled = try groups.map { group in
                guard let region = pool.pool.region(of: group.id), let threads = threads[group.id] else {
                    throw NodeError(message: "\(pool.pool.path): has no region for group \(group.id)")
                }
                return SettledGroup(
                    configuration: group, region: region, threads: threads,
                    settings: Self.settings(of: group, configuration, id, pool, parts))
            }
            loops.settle(
                groups, on: Placed(GroupLoop(commons, on: loop, settled, beside: loops, rails: parts.rails), on: loop))
        }
        if let problem = pool.events.problem { journalProblem(problem) }
        journal.onProblem = { [unowned self] problem in journalProblem(problem) }
    }

    private func journalProblem(_ problem: String?) {
        logger.warning("\(problem.map { "events are kept in memory only: \($0)" } ?? "events are on disk again")")
    }

    private static func settings(
        of group: ClusterConfiguration.Group, _ configuration: ClusterConfiguration, _ id: NodeID, _ pool: OpenedPool,
        _ parts: NodeParts
    ) -> GroupSettings {
        let millis: UInt64 = 1_000_000
        var settings = GroupSettings(
            group: group.id, node: id, partners: [group.peer(of: id)], home: group.home, process: parts.process,
            pool: pool.pool.identity.uuid, heartbeatInterval: configuration.heartbeatIntervalMillis * millis,
            heartbeatTimeout: configuration.heartbeatTimeoutMillis * millis, lease: configuration.leaseMillis * millis,
            degradeOnMirrorLoss: group.degradeOnMirrorLoss)
        settings.doubtLimit = configuration.doubtMillis * millis
        parts.settings(&settings)
        return settings
    }

    /// Listens for rails and begins to take part. Succeeds once the sockets listen and the coordinator has answered.
    public func start() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        commons.report(
            Report(.started, "process \(parts.process.pid) of version \(TwinLogVersion.current)"), group: nil)
        memoryThreads.start()
        for threads in threads.values { threads.start() }
        commons.coordinatorThread.start()
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return learnSecret().flatMap { secret in
            let node = bound.value
            let identity = RailIdentity(
                cluster: node.configuration.cluster, node: node.id, secret: secret,
                configurationDigest: node.configuration.sharedDigest)
            for loop in node.loops.all { loop.tell { $0.makeRails(as: identity) } }
            return node.listen(as: identity).flatMap { bound.value.begin() }
        }
    }

    /// A coordinator that does not answer is asked again; a secret that is not to be trusted ends the start.
    private func learnSecret() -> EventLoopFuture<ClusterSecret> {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let readSecret = parts.readSecret
        return commons.coordinatorThread.runIfActive(eventLoop: eventLoop) { try readSecret() }.flatMapError { error in
            guard let error = error as? SecretError, error.code == .unreachable else {
                return bound.eventLoop.makeFailedFuture(error)
            }
            bound.value.logger.warning("the cluster's secret cannot be read yet: \(error)")
            return bound.eventLoop.flatScheduleTask(in: Self.secretRetry) { bound.value.learnSecret() }.futureResult
        }
    }

    private static let secretRetry = TimeAmount.seconds(1)

    private func listen(as identity: RailIdentity) -> EventLoopFuture<Void> {
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
        for loop in loops.all { loop.tell { $0.begin() } }
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
        commons.report(
            Report(.stopping, "process \(parts.process.pid) hands over, destages and ends"), group: nil)
        loops.all.ask(from: eventLoop) { loop, isStopped in
            loop.groups.stop { isStopped(()) }
        } _: { _ in
            done.succeed()
        }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        return done.futureResult.flatMap { bound.value.journal.flush() }
    }

    /// Nothing is done by itself any more.
    func endTurns() {
        ticking?.cancel()
        ticking = nil
    }

    // MARK: Time

    private func tick() {
        for rail in arriving.values { rail.closeIfIdle(BootClock.now) }
        announceIfDue()
        watchPeers()
        watchPool()
    }

    /// Renews the lease three times in its length: announce, *then* read the records (S17).
    private func announceIfDue() {
        guard !isAnnouncing, NIODeadline.now() >= nextAnnouncement else { return }
        isAnnouncing = true
        nextAnnouncement = .now() + .milliseconds(Int64(configuration.leaseMillis / 3))
        loops.all.ask(from: eventLoop) { loop, answer in
            answer(loop.groups.problemsToAnnounce ?? [:])
        } _: { problems in
            self.announce(problems.reduce(into: [:]) { $0.merge($1) { first, _ in first } })
        }
    }

    private func announce(_ problems: [String: String]) {
        presenceCounter += 1
        let presence = Presence(
            process: parts.process, counter: presenceCounter, pool: pool.identity.uuid,
            problems: problems.isEmpty ? nil : problems)
        let coordinator = parts.coordinator
        let ids = configuration.groups(of: id).map(\.id)
        let loops = loops
        commons.coordinatorThread.runIfActive(eventLoop: eventLoop) {
            let startedAt = BootClock.now
            var problems: [String] = []
            for (id, read) in try coordinator.renew(presence, reading: ids) {
                switch read {
                case .success(let record):
                    // From this thread straight to the group, as the answers to its swaps and reads: no record overtakes a newer one.
                    loops.loop(of: id)?.tell { $0.renewed(id, startedAt: startedAt, record: record) }
                case .failure(let error): problems.append("the lease of \(id) could not be renewed: \(error)")
                }
            }
            return problems
        }.assumeIsolated().whenComplete { result in
            self.isAnnouncing = false
            switch result {
            case .success(let problems):
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
        isWatching = true
        loops.all.ask(from: eventLoop) { loop, answer in
            answer(loop.groups.watchedPeers)
        } _: {
            self.watch(Array($0.joined()))
        }
    }

    private func watch(_ watched: [NodeGroups.WatchedPeer]) {
        guard !watched.isEmpty else { return isWatching = false }
        let coordinator = parts.coordinator
        let fence = parts.fence
        let loops = loops
        commons.coordinatorThread.runIfActive(eventLoop: eventLoop) {
            let askedAt = BootClock.now
            let presences = Result { () throws(CoordinationError) in
                try coordinator.presences(of: Set(watched.map(\.peer)))
            }
            var problem: String?
            for one in watched {
                switch presences.flatMap({ Self.look(for: one.process, $0[one.peer], fence) }) {
                case .success(let (presence, dead, unseen)):
                    loops.loop(of: one.group)?.tell { $0.groups.seen(one, presence, dead: dead, askedAt: askedAt) }
                    problem = unseen ?? problem
                case .failure(let error): problem = "\(error)"
                }
            }
            return problem
        }.assumeIsolated().whenComplete { result in
            self.isWatching = false
            guard case .success(let problem) = result else { return }
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

    // MARK: Rails

    private func accept(_ queuePair: any QueuePair, _ peer: RailPeer) {
        let rail = ArrivingRail(
            queuePair, peer, until: BootClock.now + 3 * configuration.heartbeatTimeoutMillis * 1_000_000, commons
        ) { [unowned self] rail, place in
            arriving[ObjectIdentifier(rail)] = nil
            if let (group, messages) = place { settle(queuePair, peer, in: group, after: messages) }
        }
        arriving[ObjectIdentifier(rail)] = rail
        queuePair.delegate = rail
        guard !peer.hasSameConfiguration else { return commons.configurationAgrees(with: peer.node) }
        // The queue pair gets its place in the pipeline when this returns.
        eventLoop.assumeIsolated().execute { rail.sendConfiguration() }
    }

    /// The rail goes on where `group` lives.
    private func settle(_ queuePair: any QueuePair, _ peer: RailPeer, in group: GroupID, after messages: [[UInt8]]) {
        guard let loop = loops.loop(of: group) else {
            queuePair.delegate = nil
            return queuePair.close()
        }
        guard loop.eventLoop !== eventLoop else { return loop.value.accept(queuePair, peer, after: messages) }
        parts.transport.detach(queuePair) { [logger] result in
            switch result {
            case .success(let connection): loop.tell { $0.attach(connection, peer, after: messages) }
            case .failure(let error): logger.debug("a rail of \(peer.node) has ended: \(error)")
            }
        }
    }
}

extension ServerNode: VolumeService {
    private var home: GroupLoop { loops.all[0].value }

    public func volumes() -> [VolumeInfo] { commons.volumes }
    public func place(of name: String) -> VolumePlace? { home.place(of: name) }
    public func find(_ name: String) -> Result<VolumeInfo, VolumeRefusal> { home.find(name) }

    @discardableResult
    public func open(
        _ name: String, ready: @escaping (Result<any VolumeSession, VolumeRefusal>) -> Void
    ) -> () -> Void {
        home.open(name, ready: ready)
    }
}
