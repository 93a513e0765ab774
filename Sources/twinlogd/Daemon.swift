// The parts of a running node, put together on one event loop, and taken apart again in order.

import AdminProtocol
import ClusterConfiguration
import Dispatch
import Foundation
import Glibc
import HostProcess
import LogModel
import Logging
import LoopPolling
import NBDServer
import NIOCore
import NIOPosix
import NodeAssembly
import NodeLog
import NodeNeeds
import StorageNode
import Synchronization
import TransportSecurity

struct Daemon {
    let configuration: ClusterConfiguration
    let node: NodeID
    let log: LogQueue
    let logger: Logger
    let stopTimeout: TimeAmount
    /// From the configuration, read again.
    let readLevel: @Sendable () throws -> Logger.Level
    private let supervisor = ServiceNotification()
    private var serving: String { "\(node) of \(configuration.cluster) takes part" }

    init(
        configuration: ClusterConfiguration, node: NodeID, log: LogQueue, logger: Logger, stopTimeout: TimeAmount,
        readLevel: @escaping @Sendable () throws -> Logger.Level
    ) {
        self.configuration = configuration
        self.node = node
        self.log = log
        self.logger = logger
        self.stopTimeout = stopTimeout
        self.readLevel = readLevel
    }

    /// The parts that live on the event loop.
    private final class Parts {
        let node: ServerNode
        let nbd: NBDServer
        let admin: AdminServer

        init(node: ServerNode, nbd: NBDServer, admin: AdminServer) {
            self.node = node
            self.nbd = nbd
            self.admin = admin
        }
    }

    func run() throws {
        guard let entry = configuration.node(node) else {
            throw DaemonError(
                message:
                    "there is no node '\(node)'; there are \(configuration.nodes.map(\.id.rawValue).joined(separator: ", "))"
            )
        }
        try ProcessLimits.raiseDescriptors()
        let security = try WireSecurity(configuration, node: node)
        if let problem = security.problem() { logger.warning("\(problem)") }
        let signals = try SignalWatch(logger: logger) { signal in self.reload(signal, security) }
        if let problem = MemoryLimit.problem(configuration, bytes: MemoryLimit.bytes()) { logger.warning("\(problem)") }
        supervisor.status("\(node) of \(configuration.cluster) opens its pool and looks for the coordinator")
        if let problem = UnitNeed.problems(configuration, node: entry).first { throw problem }
        let pool = try ServerNode.openPool(configuration: configuration, node: node, logger: logger)
        let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        // What one group has to do keeps no other waiting (S28), and each has a processor of its own where there are enough.
        let ownGroups = configuration.groups(of: node)
        let groupLoops =
            ownGroups.isEmpty
            ? [] : Array(MultiThreadedEventLoopGroup(numberOfThreads: ownGroups.count).makeIterator())
        let configuration = configuration
        let id = node
        let logger = logger
        let parts = try eventLoop.submit {
            let pollers = LoopPollers(entry.polling)
            let node = try ServerNode(
                configuration: configuration, node: id, pool: pool, security: security, eventLoop: eventLoop,
                groupLoops: groupLoops, pollers: pollers, logger: logger)
            let nbd = NBDServer(
                service: node, eventLoop: eventLoop, limits: NBDServerLimits(configuration.limits),
                security: security.nbd.map { contexts in
                    NBDServerSecurity(isRequired: entry.nbdSecurity?.isRequired == true) { contexts.serverHandler() }
                }, pollers: pollers, logger: logger)
            node.frontEnd = nbd
            let admin = AdminServer(path: entry.adminPath, access: entry.adminAccess, eventLoop: eventLoop) {
                node.administer($0, $1)
            }
            return NIOLoopBound(Parts(node: node, nbd: nbd, admin: admin), eventLoop: eventLoop)
        }.wait()
        try eventLoop.flatSubmit {
            Listening.begin(on: "unix:\(entry.adminPath)", for: "nodes.\(id).admin", eventLoop: eventLoop) { _ in
                parts.value.admin.start()
            }
            .flatMap {
                Listening.begin(on: entry.nbd, for: "nodes.\(id).nbd", eventLoop: eventLoop) { place in
                    guard let address = Endpoint(place) else { preconditionFailure("\(place) was checked") }
                    return parts.value.nbd.start(on: address, access: entry.nbdAccess)
                }
            }
            .flatMap { parts.value.node.start() }
        }.wait()
        signals.isReady()
        sayReady()
        supervisor.ready(serving)
        ServiceWatchdog.start(supervisor) { answer in
            eventLoop.execute { parts.value.node.askMediumThread(answer) }
        }
        logger.notice("ready: \(id) of \(configuration.cluster), \(pool.persistence) memory, NBD on \(entry.nbd)")

        signals.waitForStop()
        logger.notice(
            "handing over and destaging, at most \(stopTimeout.nanoseconds / 1_000_000_000) s; a second signal stops at once"
        )
        stop(parts, eventLoop)
    }

    /// Whoever started the node may not read what it says.
    private func sayReady() {
        let logger = logger
        Thread.detachNewThread {
            do throws(OutputError) {
                try StandardOutput.line("ready")
                try StandardOutput.flush()
            } catch {
                logger.warning("\(error)")
            }
        }
    }

    /// What SIGHUP can change: certificates, and the level of the log.
    private func reload(_ signal: String, _ security: WireSecurity) {
        supervisor.reloading()
        defer { supervisor.ready(serving) }
        do {
            try security.reload()
            if security.hasCertificates { logger.notice("\(signal): certificates and keys are read again") }
            let level = try readLevel()
            guard level != log.level else {
                return logger.notice(
                    "\(signal): nothing to reload: the log's level is \(level), and all else needs a restart")
            }
            log.level = level
            logger.notice("\(signal): the log's level is \(level) now")
        } catch {
            logger.error("\(signal): nothing is reloaded: \(error)")
        }
    }

    /// How often a supervisor is told that a stop goes on, and for how long it is asked to wait each time.
    private static let extensionMillis = 1000
    private static let extensionMicros: UInt64 = 10_000_000

    /// False if the time is up.
    private func wait(for stopped: DispatchSemaphore) -> Bool {
        let deadline = DispatchTime.now() + .nanoseconds(Int(stopTimeout.nanoseconds))
        while DispatchTime.now() < deadline {
            supervisor.extendTimeout(micros: Self.extensionMicros)
            let next = min(deadline, .now() + .milliseconds(Self.extensionMillis))
            if stopped.wait(timeout: next) == .success { return true }
        }
        return false
    }

    private func stop(_ parts: NIOLoopBound<Parts>, _ eventLoop: any EventLoop) {
        supervisor.stopping("\(node) hands its groups over and destages")
        let stopped = DispatchSemaphore(value: 0)
        eventLoop.execute {
            parts.value.node.stop().whenComplete { _ in stopped.signal() }
        }
        if !wait(for: stopped) {
            logger.warning(
                "not everything could be destaged in time; what is left stays in the log and is replayed from there")
        }
        let closed = DispatchSemaphore(value: 0)
        eventLoop.execute {
            parts.value.nbd.stop()
            parts.value.admin.stop()
            closed.signal()
        }
        closed.wait()
        logger.notice("stopped")
        log.flush(atMostMillis: 1000)
        // The event loop and the threads still run: nothing may be torn down under them.
        _exit(0)
    }
}

extension NBDServerLimits {
    init(_ configured: ClusterConfiguration.Limits) {
        self.init()
        connections = configured.connections
        memoryBytes = Int(clamping: configured.memoryBytes ?? MemoryLimit.bytes() / 4)
    }
}

struct DaemonError: ProgramError, CustomStringConvertible {
    var message: String
    var description: String { message }
    var exitCode: Int32 = ProgramExit.failed
}

/// What signals ask for, on a thread of its own. Before the node is ready there is nothing to hand over, and a stop ends the process
/// at once: whatever was begun can be cut there, as by a crash.
final class SignalWatch: Sendable {
    private enum Phase { case starting, ready, stopping }

    private let phase = Mutex(Phase.starting)
    private let stopRequested = DispatchSemaphore(value: 0)
    private let logger: Logger
    private let reload: @Sendable (_ signal: String) -> Void

    init(logger: Logger, reload: @escaping @Sendable (_ signal: String) -> Void) throws(DaemonSignalsError) {
        self.logger = logger
        self.reload = reload
        let signals = try DaemonSignals()
        Thread.detachNewThread { [self] in
            var told: Set<String> = []
            while true {
                let (request, name) = signals.next()
                switch request {
                case .stop: stop(name)
                case .reload: reload(name)
                case .stray: if told.insert(name).inserted { logger.notice("\(name) is ignored") }
                }
            }
        }
    }

    func isReady() { phase.withLock { $0 = .ready } }

    func waitForStop() { stopRequested.wait() }

    /// A second one ends the process without waiting for anything.
    private func stop(_ name: String) {
        let earlier = phase.withLock { phase in
            defer { if phase == .ready { phase = .stopping } }
            return phase
        }
        switch earlier {
        case .starting: _exit(ProgramExit.done)
        case .stopping: _exit(ProgramExit.failed)
        case .ready:
            logger.notice("\(name): stopping")
            stopRequested.signal()
        }
    }
}
