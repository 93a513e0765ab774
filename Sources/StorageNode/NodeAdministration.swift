// What an operator may ask of a node: its status, its events, and a few commands.

public import AdminProtocol
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

extension ServerNode {
    /// How long `events` waits for one.
    private static var eventWait: TimeAmount { .seconds(20) }

    /// Carries out one request on the event loop and answers once.
    public func administer(_ request: AdminRequest, _ answer: @escaping (AdminResponse) -> Void) {
        switch request {
        case .status: status { answer(.status($0)) }
        case .clients:
            guard let frontEnd else { return answer(.refused("\(id) serves no clients")) }
            let totals = frontEnd.clientTotals
            frontEnd.clients { [id] clients in
                answer(.clients(NodeClients(name: id.rawValue, totals: totals, clients: clients)))
            }
        case .events(let after, let wait):
            guard wait else {
                return journal.allTold().assumeIsolated().whenComplete { _ in
                    answer(.events(self.journal.after(after)))
                }
            }
            journal.wait(after: after, atMost: Self.eventWait) { answer(.events($0)) }
        case .handover(let group, let to):
            withGroup(group, answer) { group, done in
                guard group.peer.rawValue == to else {
                    let owner = group.machine.record?.owner.rawValue
                    return done(
                        owner == to
                            ? "\(to) owns \(group.configuration.id) already"
                            : "\(group.configuration.id) cannot live on '\(to)'")
                }
                group.command(.handOver, done: done)
            }
        case .takeover(let group, let on, let force):
            withGroup(group, answer) { [id] group, done in
                guard on == id.rawValue else { return done("this is \(id), not \(on)") }
                group.command(.takeOver(force: force), done: done)
            }
        case .drain(let group): withGroup(group, answer) { group, done in group.drain(done) }
        case .forgetCoordinator(let group):
            withGroup(group, answer) { group, done in group.command(.forgetCoordinator, done: done) }
        case .logLevel(let name): answer(setLogLevel(name))
        case .configuration:
            answer(.configuration(configuration.sharedEntries.map { ConfigurationKey(key: $0.key, value: $0.value) }))
        case .confirmDead(let group, let node, let by, let at):
            withGroup(group, answer) { group, done in
                group.command(.confirmDead(NodeID(node), by: by, at: at), done: done)
            }
        }
    }

    /// Calls `answer` on some thread when every event loop has turned and a thread that works on a medium is free. A group whose threads all
    /// hang is not asked again before they answer; the others answer for it, as long as there are any.
    public func askMediumThread(_ answer: @escaping @Sendable () -> Void) {
        guard !threads.isEmpty else { return answer() }
        loops.all.ask(from: eventLoop) { _, hasTurned in
            hasTurned(())
        } _: { _ in
            self.askMediumThreads(answer)
        }
    }

    private func askMediumThreads(_ answer: @escaping @Sendable () -> Void) {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        for (id, threads) in threads where groupsAsked.insert(id).inserted {
            threads.steps.runIfActive(eventLoop: eventLoop) { answer() }.whenComplete { _ in
                bound.value.groupsAsked.remove(id)
            }
        }
    }

    /// With a handler that has one level for the whole process, of all loggers.
    private func setLogLevel(_ name: String) -> AdminResponse {
        guard let level = Logger.Level(rawValue: name) else { return .refused("'\(name)' is not a level of a log") }
        var logger = logger
        logger.logLevel = level
        commons.report(Report(.logLevel, "the log's level is \(level) now"), group: nil)
        return .done
    }

    private func withGroup(
        _ name: String, _ answer: @escaping (AdminResponse) -> Void,
        _ body: @escaping @Sendable (Group, @escaping (String?) -> Void) -> Void
    ) {
        let id = GroupID(name)
        guard let loop = loops.loop(of: id) else {
            return answer(.refused("\(self.id) takes no part in a group '\(name)'"))
        }
        loop.ask(from: eventLoop) { loop, done in
            if let group = loop.groups[id] { body(group, done) }
        } _: { (refusal: String?) in
            answer(refusal.map { .refused($0) } ?? .done)
        }
    }

    /// `done` is called on the event loop, once.
    public func status(_ done: @escaping (NodeStatus) -> Void) {
        loops.all.ask(from: eventLoop) { loop, answer in
            answer(loop.status)
        } _: { groups in
            done(
                NodeStatus(
                    name: self.id.rawValue, persistence: self.pool.persistence.rawValue,
                    groups: groups.joined().sorted { $0.status.name < $1.status.name },
                    clients: self.frontEnd?.clientTotals, problem: self.nodeProblem))
        }
    }

    /// Whoever owns its groups.
    private var nodeProblem: String? {
        let problems = [poolWatch.problem, parts.wireProblem()].compactMap(\.self)
        return problems.isEmpty ? nil : problems.joined(separator: "; ")
    }
}

extension GroupLoop {
    /// A replay's speed for estimates: what the emulated medium here is known to exceed.
    private static var replayBytesPerSecond: Double { 400e6 }

    var status: [NodeStatus.Group] {
        groups.all.map { NodeStatus.Group(isOwner: $0.machine.isOwner, status: status(of: $0)) }
    }

    private func status(of group: Group) -> GroupStatus {
        let now = BootClock.now
        let machine = group.machine
        let snapshot = group.snapshot
        var log = GroupStatus.Log(capacityBytes: snapshot.capacityBytes)
        log.headLSN = snapshot.head.rawValue
        log.tailLSN = snapshot.tail?.rawValue
        log.durableLSN = snapshot.durable?.rawValue
        log.mirroredLSN = snapshot.mirrored?.rawValue
        log.acknowledgedLSN = snapshot.acknowledged?.rawValue
        log.usedBytes = snapshot.usedBytes
        let lost = machine.isHeldTwice(now) ? 0 : snapshot.undestagedWrites.map(UInt64.init)
        let isTakeoverPossible = machine.takeoverPossible(now) && agreement(on: group.id, with: group.peer) != .none
        let detection = Double(commons.configuration.leaseMillis) / 1000
        let takeover =
            isTakeoverPossible ? detection + Double(snapshot.usedBytes) / Self.replayBytesPerSecond : nil
        return GroupStatus(
            name: group.configuration.id.rawValue, owner: machine.record?.owner.rawValue,
            home: group.configuration.home.rawValue, mirror: group.configuration.mirror.rawValue,
            epoch: machine.epochSeen?.rawValue, state: machine.state(now).rawValue,
            takeoverPossible: isTakeoverPossible, reason: group.reason, log: log,
            ifOwnerDiedNow: GroupStatus.Loss(lostAcknowledgedWrites: lost, estimatedTakeoverSeconds: takeover),
            coordinator: GroupStatus.Coordinator(
                reachable: machine.coordinatorAnswers(now),
                since: Self.time(of: machine.coordinatorSince(now), now)),
            rails: machine.isOwner ? rails(of: group, now) : nil,
            stages: group.stageSnapshots?.map(GroupStatus.Stage.init),
            volumes: group.configuration.volumes.map {
                GroupStatus.Volume(name: $0.name, sizeBytes: group.servedBytes(of: $0))
            })
    }

    private func rails(of group: Group, _ now: Nanos) -> [GroupStatus.Rail] {
        group.railSnapshots.map { rail in
            GroupStatus.Rail(
                address: rail.address, state: rail.state.rawValue, since: Self.time(of: rail.since, now),
                bytesInFlight: UInt64(rail.bytesInFlight), roundTripSeconds: rail.roundTrip.map { Double($0) / 1e9 },
                tls: rail.isEncrypted, lastError: rail.lastError)
        }
    }

    /// When the boot clock, which is at `now`, was at `instant`.
    private static func time(of instant: Nanos, _ now: Nanos) -> String {
        (Date() - Double(now - min(now, instant)) / 1e9).statusText
    }
}

extension GroupStatus.Stage {
    fileprivate init(_ stage: StageSnapshot) {
        self.init(
            name: stage.stage.rawValue, lastMinute: Times(stage.lastMinute), sinceStart: Times(stage.sinceStart))
    }
}

extension GroupStatus.Stage.Times {
    fileprivate init(_ times: StageSnapshot.Times) {
        self.init(
            count: times.count, p50Nanos: times.p50, p99Nanos: times.p99, p999Nanos: times.p999, maxNanos: times.max)
    }
}
