// The parts of a running node, put together on one event loop, and taken apart again in order.

import AdminProtocol
import ClusterConfiguration
import Dispatch
import Glibc
import LogModel
import Logging
import NBDServer
import NIOCore
import NIOPosix
import StorageNode
import Synchronization

struct Daemon {
    let configuration: ClusterConfiguration
    let node: NodeID
    let logger: Logger
    let stopTimeout: TimeAmount

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
        guard let entry = configuration.node(node), let nbdAddress = NBDListenAddress(entry.nbd) else {
            throw DaemonError(
                message:
                    "there is no node '\(node)'; there are \(configuration.nodes.map(\.id.rawValue).joined(separator: ", "))"
            )
        }
        let stopSignals = SignalQueue()
        let pool = try ServerNode.openPool(configuration: configuration, node: node, logger: logger)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let eventLoop = group.next()
        let configuration = configuration
        let id = node
        let logger = logger
        let parts = try eventLoop.submit {
            let node = try ServerNode(
                configuration: configuration, node: id, pool: pool, eventLoop: eventLoop, logger: logger)
            let nbd = NBDServer(
                service: node, eventLoop: eventLoop, limits: NBDServerLimits(configuration.limits), logger: logger)
            node.frontEnd = nbd
            let admin = AdminServer(path: entry.adminPath, eventLoop: eventLoop) { node.administer($0, $1) }
            return NIOLoopBound(Parts(node: node, nbd: nbd, admin: admin), eventLoop: eventLoop)
        }.wait()
        try eventLoop.flatSubmit {
            parts.value.admin.start()
                .flatMap { parts.value.nbd.start(on: nbdAddress) }
                .flatMap { _ in parts.value.node.start() }
        }.wait()
        stopSignals.isReady()
        FileHandleOutput.standardOutput.write("ready\n")
        SystemdNotification.ready()
        logger.notice("ready: \(id) of \(configuration.cluster), \(pool.persistence) memory, NBD on \(entry.nbd)")

        stopSignals.wait()
        logger.notice(
            "stopping: handing over and destaging, at most \(stopTimeout.nanoseconds / 1_000_000_000) s; a second signal stops at once"
        )
        stopSignals.exitOnNext()
        stop(parts, eventLoop)
    }

    private func stop(_ parts: NIOLoopBound<Parts>, _ eventLoop: any EventLoop) {
        let stopped = DispatchSemaphore(value: 0)
        eventLoop.execute {
            parts.value.node.stop().whenComplete { _ in stopped.signal() }
        }
        if stopped.wait(timeout: .now() + .nanoseconds(Int(stopTimeout.nanoseconds))) == .timedOut {
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
        // The event loop and the threads still run: nothing may be torn down under them.
        fflush(nil)
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

struct DaemonError: Error, CustomStringConvertible {
    var message: String
    var description: String { message }
}

/// SIGTERM and SIGINT, waited for. Before the node is ready there is nothing to hand over, and one ends the process at once:
/// whatever was begun can be cut there, as by a crash.
final class SignalQueue {
    private let semaphore = DispatchSemaphore(value: 0)
    private let ready = Mutex(false)
    private var sources: [any DispatchSourceSignal] = []

    init() {
        sources = [SIGTERM, SIGINT].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { [unowned self] in
                guard ready.withLock({ $0 }) else { _exit(0) }
                semaphore.signal()
            }
            source.resume()
            return source
        }
    }

    func isReady() { ready.withLock { $0 = true } }

    func wait() { semaphore.wait() }

    /// A second signal ends the process without waiting for anything.
    func exitOnNext() {
        let semaphore = semaphore
        DispatchQueue.global().async {
            semaphore.wait()
            _exit(1)
        }
    }
}

/// `sd_notify`'s protocol: one datagram to the socket that systemd names.
enum SystemdNotification {
    static func ready() {
        guard let path = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }), !path.isEmpty else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
        withUnsafeMutableBytes(of: &address.sun_path) { space in
            for (index, byte) in bytes.enumerated() {
                space[index] = index == 0 && byte == UInt8(ascii: "@") ? 0 : byte
            }
        }
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let message = Array("READY=1".utf8)
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                _ = sendto(descriptor, message, message.count, Int32(MSG_NOSIGNAL), name, length)
            }
        }
    }
}
