// A storage node inside of a program, with the program's own front end in place of NBD.

internal import AdminProtocol
internal import ClusterConfiguration
internal import GroupEngine
internal import LogModel
public import Logging
internal import NIOCore
internal import NIOPosix
internal import NodeAssembly
internal import StorageNode
internal import TransportSecurity

/// Where a cluster's configuration is. The keys are those of `twinlogd`; every node of a cluster has the same.
public enum NodeConfiguration: Hashable, Sendable {
    case file(String)
    /// As a file in `folder` would have it: relative paths begin there.
    case text(String, folder: String)
}

/// One node of a cluster: it owns groups, serves their volumes, mirrors the groups of its partners, and takes over from them. It and its
/// groups live on the process' shared event loops, with threads of its own for what blocks, and it runs until ``stop()``.
///
/// Safe from any number of threads.
public final class Node: Sendable {
    /// Bound to the event loop.
    private final class Running {
        let server: ServerNode
        var isStopping = false
        init(_ server: ServerNode) { self.server = server }
    }

    /// How often a volume that is not ready is asked for again.
    private static let retryInterval = Duration.milliseconds(10)

    /// As the configuration has it.
    public let name: String
    private let eventLoop: any EventLoop
    private let running: NIOLoopBound<Running>

    private init(_ name: String, _ eventLoop: any EventLoop, _ running: NIOLoopBound<Running>) {
        self.name = name
        self.eventLoop = eventLoop
        self.running = running
    }

    // MARK: Start and stop

    /// Starts the node `name` of the configuration: makes its pool, or opens the one that it has, and returns when it listens for its
    /// partners and the coordinator has answered, which it waits for. Volumes are ready when their groups are recovered, a little later.
    /// Throws `configuration`, or `system` with what an operator needs to know.
    public static func start(
        _ configuration: NodeConfiguration, as name: String, logger: Logger
    ) async throws(TwinLogError) -> Node {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let (checked, pool, security) = try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            try open(configuration, name, logger)
        }
        let groupLoops = checked.groups(of: NodeID(name)).map { _ in MultiThreadedEventLoopGroup.singleton.next() }
        let running = try await awaiting(
            eventLoop.submit {
                let server = try ServerNode(
                    configuration: checked, node: NodeID(name), pool: pool, security: security, eventLoop: eventLoop,
                    groupLoops: groupLoops, logger: logger)
                return NIOLoopBound(Running(server), eventLoop: eventLoop)
            })
        do throws(TwinLogError) {
            try await awaiting(eventLoop.flatSubmit { running.value.server.start() })
        } catch {
            try await awaiting(eventLoop.flatSubmit { running.value.server.close() })
            throw error
        }
        return Node(name, eventLoop, running)
    }

    /// Blocks.
    private static func open(
        _ configuration: NodeConfiguration, _ name: String, _ logger: Logger
    ) throws(TwinLogError) -> (ClusterConfiguration, OpenedPool, WireSecurity) {
        let checked = try translating { () throws(ConfigurationError) in
            switch configuration {
            case .file(let path): try ClusterConfiguration.load(path: path)
            case .text(let text, let folder):
                try ClusterConfiguration.parse(text, file: "configuration", baseDirectory: folder)
            }
        }
        let security = try translating { () throws(TLSError) in try WireSecurity(checked, node: NodeID(name)) }
        let pool = try translating { () throws(NodeError) in
            try ServerNode.openPool(configuration: checked, node: NodeID(name), logger: logger)
        }
        return (checked, pool, security)
    }

    /// Hands the groups over where a partner is in sync, destages, and gives back all that the node took; returns when that is done.
    /// What waits on its volumes throws `servedElsewhere`, and everything later `closed`. A second call does nothing.
    public func stop() async throws(TwinLogError) {
        let running = running, eventLoop = eventLoop
        try await Self.awaiting(
            eventLoop.flatSubmit {
                guard !running.value.isStopping else { return eventLoop.makeSucceededVoidFuture() }
                running.value.isStopping = true
                return running.value.server.stop().flatMap { running.value.server.close() }
            })
    }

    // MARK: Looking at it

    /// Throws `closed`.
    public func status() async throws(TwinLogError) -> NodeStatus {
        try await onLoop { server, answer in
            server.status { answer.give(.success(NodeStatus($0))) }
        }
    }

    /// The events after number `number`, as far as they are kept, and then those that happen, each once it is on disk. At most 4,000 are
    /// kept for a reader that falls behind: it finds the next ones by their numbers, with a gap. Ends when the node stops or the task
    /// is cancelled.
    public func events(after number: UInt64 = 0) -> some AsyncSequence<NodeEvent, Never> & Sendable {
        EventSequence(start: number) { [self] after in
            do throws(TwinLogError) {
                return try await onLoop { server, answer in
                    server.administer(.events(after: after, wait: true)) { response in
                        guard case .events(let events) = response else {
                            preconditionFailure("events are answered with events")
                        }
                        answer.give(.success(events.map(NodeEvent.init)))
                    }
                }
            } catch {
                // Closed or cancelled.
                return nil
            }
        }
    }

    // MARK: Volumes

    /// Opens a volume for one client. While its group starts, is recovered, or moves, it waits up to `limit`. Throws `unknownVolume`,
    /// `servedElsewhere` with the owner's name, `notReady` with the reason, `cancelled` or `closed`.
    public func volume(_ name: String, within limit: Duration = .seconds(30)) async throws(TwinLogError) -> Volume {
        let deadline = ContinuousClock.now + limit
        while true {
            do throws(TwinLogError) {
                return try await open(name)
            } catch {
                guard error.code == .notReady, ContinuousClock.now < deadline else { throw error }
            }
            do { try await Task.sleep(for: Self.retryInterval) } catch { throw .cancelled }
        }
    }

    private func open(_ name: String) async throws(TwinLogError) -> Volume {
        let eventLoop = eventLoop
        return try await onLoop { server, answer in
            guard let place = server.place(of: name) else { return Self.open(name, of: server, eventLoop, answer) }
            place.eventLoop.execute { Self.open(name, of: place.service(), place.eventLoop, answer) }
        }
    }

    /// On `eventLoop`, where `service` lives.
    private static func open(
        _ name: String, of service: any VolumeService, _ eventLoop: any EventLoop, _ answer: Answer<Volume>
    ) {
        // It knows the owner; an opening knows only that it is not this node.
        switch service.find(name) {
        case .failure(let refusal): answer.give(.failure(TwinLogError(refusal)))
        case .success(let about):
            service.open(about.name) { result in
                switch result {
                case .failure(let refusal): answer.give(.failure(TwinLogError(refusal)))
                case .success(let session):
                    // One that nobody waits for any more closes with this reference.
                    answer.give(.success(Volume(about, session, eventLoop)))
                }
            }
        }
    }

    /// Calls `body` on the event loop and waits for its answer. Throws `closed` once the node stops.
    private func onLoop<Value: Sendable>(
        _ body: @escaping @Sendable (ServerNode, Answer<Value>) -> Void
    ) async throws(TwinLogError) -> Value {
        let running = running
        return try await Answer.wait { answer in
            eventLoop.execute {
                guard !running.value.isStopping else {
                    answer.give(.failure(TwinLogError(.closed, "the node is stopped")))
                    return
                }
                body(running.value.server, answer)
            }
        }
    }

    private static func awaiting<Value: Sendable>(
        _ future: EventLoopFuture<Value>
    ) async throws(TwinLogError) -> Value {
        try await Answer.wait { answer in
            future.whenComplete { result in answer.give(result.mapError { TwinLogError(.system, "\($0)") }) }
        }
    }
}
