// An NBD server before a volume service that the tests hold in their hands, and clients: the project's own, and one that
// says what it likes with an encoder of its own.

import AdminProtocol
import Glibc
import LogModel
import Logging
import NBDClient
@testable import NBDServer
import NIOCore
import NIOPosix
import GroupEngine
import Testing

let volumeBytes = 2 << 20

/// Keeps the contract of VolumeService.swift. On the event loop only.
final class FakeService: VolumeService {
    var bytes = [UInt8](repeating: 0, count: volumeBytes)
    var sessions: [FakeSession] = []
    /// Requests are not carried out before they are let go.
    var isHolding = false
    var readError: VolumeError?
    /// Opens are not answered before this is emptied.
    var holdsOpens = false
    var heldOpens: [() -> Void] = []
    var givenUpOpens = 0
    var isReadOnly = false
    var quotesWholeNames = false
    /// The volume that it serves.
    var volume = "vol0"
    /// Those of other loops.
    var places: [String: VolumePlace] = [:]
    /// What every range is told to be.
    var extents: [VolumeExtent] = []

    func volumes() -> [VolumeInfo] {
        ["vol0", "elsewhere", "starting"].map { VolumeInfo(name: $0, sizeBytes: UInt64(volumeBytes)) }
    }

    func place(of name: String) -> VolumePlace? { places[name] }

    func find(_ name: String) -> Result<VolumeInfo, VolumeRefusal> {
        switch name {
        case volume: .success(VolumeInfo(name: name, sizeBytes: UInt64(volumeBytes), isReadOnly: isReadOnly))
        case "elsewhere": .failure(VolumeRefusal(.ownedElsewhere, "'elsewhere' is owned by beta"))
        case "starting": .failure(VolumeRefusal(.notReady, "'starting' is being replayed"))
        default:
            .failure(
                VolumeRefusal(
                    .unknownVolume, "there is no volume '\(quotesWholeNames ? name : String(name.prefix(20)))'"))
        }
    }

    func open(
        _ name: String, ready: @escaping (Result<any VolumeSession, VolumeRefusal>) -> Void
    ) -> () -> Void {
        let answer = { [self] in
            if case .failure(let refusal) = find(name) { return ready(.failure(refusal)) }
            let session = FakeSession(self)
            sessions.append(session)
            ready(.success(session))
        }
        guard holdsOpens else {
            answer()
            return {}
        }
        heldOpens.append(answer)
        return { [self] in givenUpOpens += 1 }
    }
}

final class FakeSession: VolumeSession {
    private let service: FakeService
    var parkedBytes = 0
    var onUnparked: (() -> Void)?
    var onRevoked: (() -> Void)?
    private(set) var isClosed = false
    private(set) var isInputEnded = false
    private(set) var submitted: [String] = []
    private(set) var held: [(request: VolumeRequest, completion: VolumeCompletion)] = []

    init(_ service: FakeService) { self.service = service }

    func submit(_ request: VolumeRequest, completion: @escaping VolumeCompletion) {
        precondition(!isClosed, "a session is used after its end")
        submitted.append(Self.describe(request))
        guard service.isHolding else { return completion(carryOut(request)) }
        if case .write(_, let payload) = request { parkedBytes += payload.readableBytes }
        held.append((request, completion))
    }

    /// Carries out the held request at `index`.
    func release(_ index: Int = 0) {
        let (request, completion) = held.remove(at: index)
        if case .write(_, let payload) = request { parkedBytes -= payload.readableBytes }
        completion(carryOut(request))
        onUnparked?()
    }

    func endInput() { isInputEnded = true }

    func extents(
        offset: UInt64, length: UInt64, completion: @escaping (Result<[VolumeExtent], VolumeError>) -> Void
    ) {
        submitted.append("extents \(offset) \(length)")
        completion(service.readError.map { .failure($0) } ?? .success(service.extents))
    }

    func close() {
        isClosed = true
        held = []
    }

    private func carryOut(_ request: VolumeRequest) -> Result<ByteBuffer?, VolumeError> {
        switch request {
        case .read(let offset, let length):
            if let error = service.readError { return .failure(error) }
            return .success(ByteBuffer(bytes: service.bytes[Int(offset)..<Int(offset) + length]))
        case .write(let offset, let payload):
            payload.withUnsafeReadableBytes { source in
                service.bytes.withUnsafeMutableBytes {
                    UnsafeMutableRawBufferPointer(rebasing: $0[Int(offset)...]).copyMemory(from: source)
                }
            }
        case .discard(let offset, let length), .writeZeroes(let offset, let length, _):
            service.bytes.withUnsafeMutableBytes {
                _ = UnsafeMutableRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset + length)])
                    .initializeMemory(as: UInt8.self, repeating: 0)
            }
        case .flush, .prefetch: break
        }
        return .success(nil)
    }

    private static func describe(_ request: VolumeRequest) -> String {
        switch request {
        case .read(let offset, let length): "read \(offset) \(length)"
        case .write(let offset, let payload): "write \(offset) \(payload.readableBytes)"
        case .discard(let offset, let length): "discard \(offset) \(length)"
        case .writeZeroes(let offset, let length, let mayRelease): "zero \(offset) \(length) \(mayRelease)"
        case .flush: "flush"
        case .prefetch(let offset, let length): "prefetch \(offset) \(length)"
        }
    }
}

/// Stands where TLS would: everything passes.
final class Passer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
}

/// Stands where TLS would: nothing passes, either way.
private final class Swallower: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}
    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) { promise?.succeed() }
}

final class Rig {
    let service = FakeService()
    let server: NBDServer
    init(_ loop: any EventLoop, _ limits: NBDServerLimits, _ security: NBDServerSecurity? = nil) {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        server = NBDServer(service: service, eventLoop: loop, limits: limits, security: security, logger: logger)
    }
}

extension Rig {
    var clients: [ClientStatus] { server.room.clients.map(\.status) }
}

struct RemoteRig: Sendable {
    private let rig: NIOLoopBound<Rig>
    let group: MultiThreadedEventLoopGroup
    let path: String
    /// Of a server on TCP.
    let port: Int

    init(_ limits: NBDServerLimits, onTCP: Bool, requiresTLS: Bool?, passesTLS: Bool) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let path = "/tmp/twinlog-nbd-\(UUID128.random()).sock"
        let address: Endpoint = onTCP ? .tcp(TCPAddress(host: "127.0.0.1", port: 0)) : .unix(path: path)
        (rig, port) = try await loop.flatSubmit {
            let security = requiresTLS.map {
                NBDServerSecurity(isRequired: $0) { passesTLS ? Passer() as any ChannelHandler : Swallower() }
            }
            let bound = NIOLoopBound(Rig(loop, limits, security), eventLoop: loop)
            return bound.value.server.start(on: address).map { (bound, $0.port ?? 0) }
        }.get()
        (self.group, self.path) = (group, path)
    }

    func raw() throws -> RawClient { try port > 0 ? RawClient(port: port) : RawClient(path) }

    @discardableResult
    func on<Value: Sendable>(_ body: @escaping @Sendable (Rig) throws -> Value) async throws -> Value {
        try await rig.eventLoop.submit { [rig] in try body(rig.value) }.get()
    }

    /// What `body` answers, later or at once.
    func told<Value: Sendable>(
        _ body: @escaping @Sendable (Rig, @escaping (Value) -> Void) -> Void
    ) async throws -> Value {
        try await rig.eventLoop.flatSubmit { [rig] in
            let answer = rig.eventLoop.makePromise(of: Value.self)
            body(rig.value) { answer.succeed($0) }
            return answer.futureResult
        }.get()
    }

    func eventually(_ condition: @escaping @Sendable (Rig) -> Bool) async throws -> Bool {
        for _ in 0..<15000 {
            if try await on(condition) { return true }
            try await Task.sleep(for: .milliseconds(2))
        }
        return false
    }

    func client(structured: Bool = true, export: String = "vol0") async throws -> NBDClient {
        try await NBDClient.connect(
            to: port > 0 ? .tcp(TCPAddress(host: "127.0.0.1", port: port)) : .unix(path: path), export: export,
            on: group,
            timeout: .seconds(30), structuredReplies: structured)
    }

    /// Another client is served.
    func serves() async throws -> Bool {
        let client = try await client()
        let bytes = try await client.read(offset: 0, length: 512)
        await client.disconnect()
        return bytes.readableBytes == 512
    }
}

/// A slow machine is not a slow client: only the test of the limit shortens it.
let patientLimits: NBDServerLimits = {
    var limits = NBDServerLimits()
    limits.handshake = .seconds(60)
    return limits
}()

func withRig(
    _ limits: NBDServerLimits = patientLimits, onTCP: Bool = false, requiresTLS: Bool? = nil, passesTLS: Bool = false,
    _ body: (RemoteRig) async throws -> Void
) async throws {
    let rig = try await RemoteRig(limits, onTCP: onTCP, requiresTLS: requiresTLS, passesTLS: passesTLS)
    var failure: (any Error)?
    do { try await body(rig) } catch { failure = error }
    try await rig.on { $0.server.stop() }
    try await rig.group.shutdownGracefully()
    #expect(access(rig.path, F_OK) != 0)
    if let failure { throw failure }
}

// MARK: A client of raw bytes

func big<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    (0..<Number.bitWidth / 8).reversed().map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
}

func option(_ number: UInt32, _ data: [UInt8] = [], claiming length: UInt32? = nil) -> [UInt8] {
    Array("IHAVEOPT".utf8) + big(number) + big(length ?? UInt32(data.count)) + data
}

/// The data of INFO and GO.
func asking(for export: String, infos: [UInt16] = []) -> [UInt8] {
    big(UInt32(export.utf8.count)) + Array(export.utf8) + big(UInt16(infos.count)) + infos.flatMap { big($0) }
}

func request(
    _ type: UInt16, cookie: UInt64 = 1, offset: UInt64 = 0, length: UInt32 = 0, flags: UInt16 = 0
) -> [UInt8] {
    big(0x2560_9513 as UInt32) + big(flags) + big(type) + big(cookie) + big(offset) + big(length)
}

func simpleReply(_ error: UInt32, cookie: UInt64 = 1) -> [UInt8] {
    big(0x6744_6698 as UInt32) + big(error) + big(cookie)
}

func optionReply(_ option: UInt32, _ type: UInt32, _ data: [UInt8] = []) -> [UInt8] {
    big(0x0003_e889_0455_65a9 as UInt64) + big(option) + big(type) + big(UInt32(data.count)) + data
}

func repeated(_ bytes: [UInt8], _ count: Int) -> [UInt8] {
    var all: [UInt8] = []
    all.reserveCapacity(bytes.count * count)
    for _ in 0..<count { all += bytes }
    return all
}

final class RawClient {
    let descriptor: CInt
    private(set) var received: [UInt8] = []

    init(_ path: String) throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(result == 0)
        try #require(fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0)
    }

    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        let result = try SocketAddress(ipAddress: "127.0.0.1", port: port).withSockAddr { address, length in
            connect(descriptor, address, socklen_t(length))
        }
        try #require(result == 0)
        try #require(fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0)
    }

    deinit { close(descriptor) }

    /// No more requests come from this client.
    func endInput() throws { try #require(shutdown(descriptor, Int32(SHUT_WR)) == 0) }

    /// The end of this client sends nothing to the server, as when its machine loses power. False without the capability for it.
    func willVanish() -> Bool {
        var on: CInt = 1
        let length = socklen_t(MemoryLayout<CInt>.size)
        // What came is acknowledged, or the server would notice by sending it again.
        guard setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_QUICKACK, &on, length) == 0 else { return false }
        return setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_REPAIR, &on, length) == 0
    }

    /// Sends until the connection is gone or nothing was taken for a while; how much was taken.
    @discardableResult
    func send(_ bytes: [UInt8], patienceMillis: Int = 500) async throws -> Int {
        var sent = 0
        var idle = 0
        while sent < bytes.count && idle < patienceMillis {
            let count = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count < 0 && errno != EAGAIN { break }
            if count < 0 {
                idle += 1
                try await Task.sleep(for: .milliseconds(1))
            } else {
                idle = 0
                sent += count
            }
        }
        return sent
    }

    /// Takes what is there; true if the connection has ended.
    func take() -> Bool {
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count == 0 || count < 0 && errno != EAGAIN { return true }
            if count < 0 { return false }
            received += chunk.prefix(count)
        }
    }

    func eventually(_ condition: () -> Bool) async throws -> Bool {
        for _ in 0..<15000 {
            if condition() { return true }
            try await Task.sleep(for: .milliseconds(2))
        }
        return false
    }

    /// The next chunk of a structured reply, which has to be the last of its reply.
    func chunk() async throws -> (type: UInt16, cookie: UInt64, body: [UInt8])? {
        func number(_ range: Range<Int>) -> UInt64 { received[range].reduce(0) { $0 << 8 | UInt64($1) } }
        guard try await eventually({ take() || received.count >= 20 }), received.count >= 20 else { return nil }
        let length = Int(number(16..<20))
        guard number(0..<4) == 0x668e_33ef, number(4..<6) == 1,
            try await eventually({ take() || received.count >= 20 + length }), received.count >= 20 + length
        else { return nil }
        let chunk = (UInt16(number(6..<8)), number(8..<16), Array(received[20..<20 + length]))
        received.removeFirst(20 + length)
        return chunk
    }

    func ends() async throws -> Bool { try await eventually { take() } }

    /// The next answer is exactly `bytes`, and is taken off.
    func answers(_ bytes: [UInt8]) async throws -> Bool {
        let isThere = try await eventually { take() || received.count >= bytes.count }
        guard isThere, received.starts(with: bytes) else { return false }
        received.removeFirst(bytes.count)
        return true
    }

    /// The server's first 18 bytes.
    static func greeted(_ path: String, flags: UInt32 = 3) async throws -> RawClient {
        try await RawClient(path).greeted(flags: flags)
    }

    func greeted(flags: UInt32 = 3) async throws -> RawClient {
        try #require(try await answers(Array("NBDMAGICIHAVEOPT".utf8) + big(3 as UInt16)))
        try await send(big(flags))
        return self
    }

    /// In transmission, with simple replies. No zeroes.
    static func opened(_ path: String, _ export: String = "vol0") async throws -> RawClient {
        try await RawClient(path).opened(export)
    }

    func opened(_ export: String = "vol0") async throws -> RawClient {
        _ = try await greeted()
        try await send(option(1, Array(export.utf8)))
        try #require(try await answers(big(UInt64(volumeBytes)) + big(transmissionFlags)))
        return self
    }
}

/// HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO.
let transmissionFlags: UInt16 = 1 | 4 | 8 | 32 | 64 | 256 | 1024 | 2048
