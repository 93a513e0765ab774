// A small NBD client for the tools and tests: one connection, any number of requests at once, answered in any order.

public import LogModel
internal import NBDProtocol
public import NIOCore
internal import NIOPosix

/// Thread-safe.
public final class NBDClient: Sendable {
    public typealias Command = NBDClientCommand

    public let sizeBytes: UInt64
    public let flags: UInt16
    private let channel: any Channel
    private let handler: NIOLoopBound<NBDClientHandler>

    public var eventLoop: any EventLoop { channel.eventLoop }

    private init(channel: any Channel, handler: NIOLoopBound<NBDClientHandler>, size: UInt64, flags: UInt16) {
        self.channel = channel
        self.handler = handler
        sizeBytes = size
        self.flags = flags
    }

    /// Connects and opens `export`. Throws ``NBDClientError``.
    public static func connect(
        to address: Endpoint, export: String, on group: any EventLoopGroup, timeout: TimeAmount = .seconds(5),
        structuredReplies: Bool = true
    ) async throws -> NBDClient {
        try await open(
            "\(address)", export, on: group.next(), timeout, structuredReplies
        ) { bootstrap in
            switch address {
            case .tcp(let address):
                bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .connect(host: address.host, port: address.port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        }
    }

    /// Opens `export` over a connected stream socket, which is the client's from now on.
    public static func open(
        socket: NIOBSDSocket.Handle, export: String, on group: any EventLoopGroup, timeout: TimeAmount = .seconds(5)
    ) async throws -> NBDClient {
        try await open("the socket", export, on: group.next(), timeout, true) { $0.withConnectedSocket(socket) }
    }

    private static func open(
        _ place: String, _ export: String, on eventLoop: any EventLoop, _ timeout: TimeAmount, _ structured: Bool,
        _ connect: @escaping @Sendable (ClientBootstrap) -> EventLoopFuture<any Channel>
    ) async throws -> NBDClient {
        let opened = eventLoop.makePromise(of: NBDExportInfo.self)
        do {
            let (channel, handler) = try await eventLoop.flatSubmit {
                let handler = NBDClientHandler(export: export, structured: structured, opened: opened)
                let bound = NIOLoopBound(handler, eventLoop: eventLoop)
                let bootstrap = ClientBootstrap(group: eventLoop)
                    .connectTimeout(timeout)
                    .channelOption(
                        .recvAllocator,
                        value: AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65536, maximum: 1 << 20))
                let ready = bootstrap.channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(bound.value)
                    }
                }
                return connect(ready).map { ($0, bound) }
            }.get()
            let timer = eventLoop.scheduleTask(in: timeout) {
                opened.fail(
                    NBDClientError(
                        .unreachable, "\(place): no handshake within \(timeout.nanoseconds / 1_000_000) ms"))
            }
            do {
                let info = try await opened.futureResult.get()
                timer.cancel()
                return NBDClient(channel: channel, handler: handler, size: info.sizeBytes, flags: info.flags.rawValue)
            } catch {
                timer.cancel()
                channel.close(mode: .all, promise: nil)
                throw error
            }
        } catch let error as NBDClientError {
            throw error
        } catch {
            opened.fail(error)
            throw NBDClientError(.unreachable, "\(place): cannot be reached: \(error)")
        }
    }

    /// Carries out one command. The future fails with ``NBDClientError``; a read's value is its bytes.
    public func submit(_ command: Command) -> EventLoopFuture<ByteBuffer?> {
        eventLoop.flatSubmit { [handler] in handler.value.submit(command) }
    }

    public func read(offset: UInt64, length: Int) async throws -> ByteBuffer {
        try await submit(.read(offset: offset, length: length)).get() ?? ByteBuffer()
    }

    public func write(offset: UInt64, _ payload: ByteBuffer, fua: Bool = false) async throws {
        _ = try await submit(.write(offset: offset, payload: payload, fua: fua)).get()
    }

    public func flush() async throws { _ = try await submit(.flush).get() }
    public func trim(offset: UInt64, length: Int) async throws {
        _ = try await submit(.trim(offset: offset, length: length)).get()
    }
    public func writeZeroes(offset: UInt64, length: Int, noHole: Bool = false) async throws {
        _ = try await submit(.writeZeroes(offset: offset, length: length, noHole: noHole)).get()
    }

    /// Says goodbye and waits for the connection to end.
    public func disconnect() async {
        eventLoop.execute { [handler] in handler.value.disconnect() }
        _ = try? await channel.closeFuture.get()
    }

    /// Ends the connection without a word.
    public func drop() { channel.close(mode: .all, promise: nil) }
}
