// The other process of a mirrored log: it holds the copy, and knows nothing of what is in it.

internal import Glibc
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory

/// Holds the second copy of a ``MirroredLog`` in a pool of its own, and tells that log of nothing but what is durable here. It begins
/// empty, and belongs for ever to the first log that comes.
///
/// When the log's own process is gone for good, close this and open its pool with ``Log/open(path:)`` or ``MirroredLog/open(path:mirror:secret:patience:)``: everything
/// that was promised is there. Who decides that is you: nothing here takes over by itself. A pool that was opened so is a log, and never a mirror again.
///
/// Safe from any number of threads. It lives on one of the process' shared event loops, until ``close()``.
public final class LogMirror: Sendable {
    /// Where it listens.
    public let port: Int
    /// What a record survives here.
    public let persistence: LogPersistence
    private let eventLoop: any EventLoop
    private let server: NIOLoopBound<MirrorServer>

    private init(
        port: Int, _ persistence: Persistence, _ eventLoop: any EventLoop, _ server: NIOLoopBound<MirrorServer>
    ) {
        self.port = port
        self.persistence = LogPersistence(persistence)
        self.eventLoop = eventLoop
        self.server = server
    }

    deinit { eventLoop.execute { [server] in server.value.close {} } }

    /// Opens the pool at `path`, or makes it with `capacityBytes`, which must be the log's, and listens at `address`: HOST:PORT of the
    /// loopback interface, port 0 for any. `secret`: 32 bytes that both processes know and nobody else; rails are proved, not encrypted.
    /// Throws `invalidValue`, `notThisPool` for a pool that is a log of its own, `inUse`, `corrupt` or `system`.
    public static func start(
        path: String, capacityBytes: UInt64, at address: String, secret: [UInt8]
    ) async throws(TwinLogError) -> LogMirror {
        let partner = try LogPartner(address: address, secret: secret)
        let (pool, region) = try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            try openPool(path, capacityBytes)
        }
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let (server, port): (NIOLoopBound<MirrorServer>, Int) = try await Answer.wait { answer in
            eventLoop.execute {
                let server = MirrorServer(pool, region, eventLoop)
                let bound = NIOLoopBound(server, eventLoop: eventLoop)
                server.listen(partner).assumeIsolated().whenComplete { result in
                    switch result {
                    case .success(let port): answer.give(.success((bound, port)))
                    case .failure(let error):
                        server.close {
                            answer.give(.failure(TwinLogError(.system, "\(address) cannot be listened on: \(error)")))
                        }
                    }
                }
            }
        }
        return LogMirror(port: port, pool.persistence, eventLoop, server)
    }

    /// Blocks.
    private static func openPool(_ path: String, _ capacityBytes: UInt64) throws(TwinLogError) -> (Pool, Region) {
        guard access(path, F_OK) == 0 else {
            return try LogStore.createPool(path: path, capacityBytes: capacityBytes, persistence: .auto)
        }
        let found = try LogStore.openPool(path: path, persistence: .auto)
        guard found.1.identity?.role != .owner else {
            throw TwinLogError(.notThisPool, "\(path): this pool is a log of its own; a mirror needs a new one")
        }
        return found
    }

    /// Ends the rail to the log, and lets go of the file. A second call does nothing.
    public func close() async {
        await withCheckedContinuation { continuation in
            eventLoop.execute { [server] in server.value.close { continuation.resume() } }
        }
    }
}
