// Two nodes on one event loop: a target with a region whose durable bytes can be looked at, and an initiator; and a peer
// that says what it likes, with an encoder of its own.

import Crypto
import Glibc
import LogModel
import NIOCore
import NIOPosix
import RemoteMemory
import RemoteMemorySupport
import RemoteMemoryTCP
import Testing

/// A limit that no test waits for: one that is not given the processor for a minute shall not fail by it.
let patience = TimeAmount.minutes(10)

/// Everything in it lives on its event loop.
final class Rig {
    let loop: any EventLoop
    let registry = TCPRegionRegistry(), dialerRegistry = TCPRegionRegistry()
    let region = FakeRegion(1 << 20)
    private(set) var key = RegionKey(rawValue: 0)
    private var listener: TCPMirrorListener?
    var port = 0
    /// The target's ends of its rails.
    var accepted: [(queuePair: TCPQueuePair, peer: RailPeer, recorder: Recorder)] = []
    /// The initiator's end of its rail.
    var rail: TCPQueuePair?
    let recorder = Recorder()
    var dialError: RemoteMemoryError?
    /// What the last knock found.
    private(set) var isRefused: Bool?
    private(set) var isDialing = false

    init(_ loop: any EventLoop) {
        self.loop = loop
        key = registry.register(region, lengthBytes: UInt64(region.bytes.count))
    }

    /// Who dials, and whom the dialer met.
    static func identity(_ node: String, cluster: String = "demo") -> RailIdentity {
        RailIdentity(
            cluster: cluster, node: NodeID(node), secret: secret,
            configurationDigest: [UInt8](repeating: 7, count: RailIdentity.digestByteCount))
    }

    static let secret = ClusterSecret(bytes: Array(1...32))!
    var met: RailPeer?

    func listen(
        as identity: RailIdentity, greetingLimit: TimeAmount, over security: (any RailSecurity)?
    ) -> EventLoopFuture<SocketAddress> {
        let listener = TCPMirrorListener(
            identity: identity, registry: registry, eventLoop: loop, greetingLimit: greetingLimit
        ) { [unowned self] queuePair, peer in
            let recorder = Recorder()
            queuePair.delegate = recorder
            accepted.append((queuePair, peer, recorder))
        }
        self.listener = listener
        return listener.listen(on: TCPAddress("127.0.0.1:0")!, over: security)
    }

    /// A rail that is up is closed first.
    func dial(
        as identity: RailIdentity = Rig.identity("alpha"), expecting peer: String = "beta", port: Int? = nil,
        over security: (any RailSecurity)? = nil
    ) {
        rail?.delegate = nil
        rail?.close()
        rail = nil
        isDialing = true
        TCPMirrorDialer.dial(
            TCPAddress("127.0.0.1:\(port ?? self.port)")!, as: identity, expecting: NodeID(peer),
            over: security, registry: dialerRegistry, timeout: patience, on: loop
        ) { [self] result in
            isDialing = false
            switch result {
            case .success(let (queuePair, peer)):
                queuePair.delegate = recorder
                rail = queuePair
                met = peer
            case .failure(let error): dialError = error
            }
        }
    }

    /// Whether nobody listens where the target did.
    func knock() {
        isRefused = nil
        TCPMirrorDialer.isRefused(at: TCPAddress("127.0.0.1:\(port)")!, timeout: patience, on: loop) { [self] in
            isRefused = $0
        }
    }

    @discardableResult
    func write(_ bytes: [UInt8], at offset: UInt64, key: RegionKey? = nil) throws -> WorkRequestID {
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(RemoteMemoryError) in try rail!.postWrite(bytes, key: key ?? self.key, offset: offset) }
        }
        return try result.get()
    }

    func stop() {
        rail?.close()
        for rail in accepted { rail.queuePair.close() }
        listener?.close()
    }
}

/// The rig as seen from a test, which is not on the loop.
struct RemoteRig: Sendable {
    private let rig: NIOLoopBound<Rig>
    let group: MultiThreadedEventLoopGroup
    let port: Int

    init(_ identity: RailIdentity, greetingLimit: TimeAmount, over security: (any RailSecurity)?) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        (rig, port) = try await loop.flatSubmit {
            let rig = Rig(loop)
            let bound = NIOLoopBound(rig, eventLoop: loop)
            return rig.listen(as: identity, greetingLimit: greetingLimit, over: security).map { address in
                bound.value.port = address.port ?? 0
                return (bound, address.port ?? 0)
            }
        }.get()
        self.group = group
    }

    @discardableResult
    func on<Value: Sendable>(_ body: @escaping @Sendable (Rig) throws -> Value) async throws -> Value {
        try await rig.eventLoop.submit { [rig] in try body(rig.value) }.get()
    }

    func eventually(seconds: Int = 30, _ condition: @escaping @Sendable (Rig) -> Bool) async throws -> Bool {
        for _ in 0..<seconds * 500 {
            if try await on(condition) { return true }
            try await Task.sleep(for: .milliseconds(2))
        }
        return try await on(condition)
    }

    /// Dials, and proves that the target serves it.
    func connect() async throws {
        try await on { $0.dial() }
        try #require(try await eventually { $0.rail != nil && !$0.accepted.isEmpty })
    }

    /// A rail of the initiator is served from end to end.
    func serves() async throws -> Bool {
        try await on { rig in if rig.rail == nil && !rig.isDialing { rig.dial() } }
        guard try await eventually({ $0.rail != nil }) else { return false }
        let id = try await on { try $0.write([7, 7, 7], at: 4000) }
        guard try await eventually({ $0.recorder.completed >= id }) else { return false }
        return try await on { $0.region.durable[4000..<4003] == [7, 7, 7] && $0.recorder.failure == nil }
    }
}

func withRig(
    as identity: RailIdentity = Rig.identity("beta"), greetingLimit: TimeAmount = patience,
    over security: (any RailSecurity)? = nil, _ body: (RemoteRig) async throws -> Void
) async throws {
    let rig = try await RemoteRig(identity, greetingLimit: greetingLimit, over: security)
    var failure: (any Error)?
    do { try await body(rig) } catch { failure = error }
    try await rig.on { $0.stop() }
    try await rig.group.shutdownGracefully()
    if let failure { throw failure }
}

// MARK: A peer of raw bytes

enum Kind {
    static let hello: UInt8 = 1, welcome: UInt8 = 2, refuse: UInt8 = 3
    static let write: UInt8 = 4, atomicWrite: UInt8 = 5, read: UInt8 = 6, flush: UInt8 = 7, message: UInt8 = 8
    static let complete: UInt8 = 9, readData: UInt8 = 10, error: UInt8 = 11, proof: UInt8 = 12, accept: UInt8 = 13
}

/// CRC32C, one bit at a time: shares nothing with the library's.
func bitwiseCRC32C(_ bytes: some Sequence<UInt8>) -> UInt32 {
    var crc = ~UInt32(0)
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82F6_3B78 : crc >> 1 }
    }
    return ~crc
}

func little<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    (0..<Number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
}

/// The bytes of a frame, as Frame.swift draws them.
func frame(
    _ kind: UInt8, _ payload: [UInt8] = [], claiming payloadBytes: UInt32? = nil, request: UInt64 = 0, key: UInt64 = 0,
    offset: UInt64 = 0, readBytes: UInt32 = 0
) -> [UInt8] {
    var bytes = Array("TLRM".utf8) + [kind, 0, 0, 0]
    bytes += little(payloadBytes ?? UInt32(payload.count)) + little(bitwiseCRC32C(payload))
    bytes += little(request) + little(key) + little(offset) + little(readBytes)
    return bytes + little(bitwiseCRC32C(bytes)) + payload
}

/// A greeting as Greeting.swift draws it, with any of its fields changed, left out (`nil`) or added.
func greeting(layout: UInt16 = 2, _ changes: [UInt8: [UInt8]?] = [:]) -> [UInt8] {
    let fields: [UInt8: [UInt8]] = [
        1: little(UInt16(2)), 2: little(UInt16(2)), 3: little(UInt64(0)), 4: little(UInt64(0)), 5: Array("demo".utf8),
        6: Array("alpha".utf8), 7: [UInt8](repeating: 9, count: 32), 8: [UInt8](repeating: 7, count: 32),
    ]
    var bytes = little(layout)
    for (tag, value) in fields.merging(changes.compactMapValues { $0 }, uniquingKeysWith: { $1 }).sorted(by: {
        $0.key < $1.key
    })
    where !(changes.keys.contains(tag) && changes[tag]! == nil) {
        bytes += [tag] + little(UInt16(value.count)) + value
    }
    return bytes
}

func hello(layout: UInt16 = 2, _ changes: [UInt8: [UInt8]?] = [:]) -> [UInt8] {
    frame(Kind.hello, greeting(layout: layout, changes))
}

/// What a peer of version 1 says first.
func versionOneHello() -> [UInt8] {
    frame(Kind.hello, little(UInt16(1)) + [4] + Array("demo".utf8) + [5] + Array("alpha".utf8))
}

/// The proof that RailProof.swift describes, made here once more.
func proof(of role: String, hello: [UInt8], welcome: [UInt8], secret: ClusterSecret = Rig.secret) -> [UInt8] {
    let label = Array("TwinLog rail proof, \(role)".utf8)
    let text = [label, hello, welcome].flatMap { little(UInt32($0.count)) + $0 }
    return Array(HMAC<SHA256>.authenticationCode(for: text, using: SymmetricKey(data: secret.bytes)))
}

final class RawPeer {
    let descriptor: CInt
    private(set) var received: [UInt8] = []

    init(_ port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(result == 0)
        try #require(fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0)
    }

    /// The other end of a connection that a ``RawListener`` accepted.
    init(accepted descriptor: CInt) throws {
        self.descriptor = descriptor
        try #require(fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0)
    }

    deinit { close(descriptor) }

    /// Sends what the other side takes; stops when the connection is gone or nothing was taken for a while.
    @discardableResult
    func send(_ bytes: [UInt8]) async throws -> Int {
        var sent = 0
        var idle = 0
        while sent < bytes.count && idle < 500 {
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

    func ends() async throws -> Bool { try await eventually { take() } }

    /// The frames that arrived whole.
    var frames: [(kind: UInt8, key: UInt64, payload: [UInt8])] {
        var frames: [(kind: UInt8, key: UInt64, payload: [UInt8])] = []
        var place = 0
        func number(_ at: Int, _ count: Int) -> UInt64 {
            (0..<count).reduce(0) { $0 | UInt64(received[place + at + $1]) << UInt64(8 * $1) }
        }
        while received.count >= place + 48 {
            let end = place + 48 + Int(number(8, 4))
            guard received.count >= end else { break }
            frames.append((received[place + 4], number(24, 8), Array(received[place + 48..<end])))
            place = end
        }
        return frames
    }

    var kinds: [UInt8] { frames.map(\.kind) }

    /// Greets, is welcomed, proves itself, and is accepted.
    static func greeted(_ port: Int) async throws -> RawPeer {
        let peer = try RawPeer(port)
        try await peer.send(hello())
        try #require(try await peer.eventually { !peer.take() && peer.kinds == [Kind.welcome] })
        try await peer.send(frame(Kind.proof, peer.proofOfDialer(greeting())))
        try #require(try await peer.eventually { !peer.take() && peer.kinds == [Kind.welcome, Kind.accept] })
        peer.received = []
        return peer
    }

    /// The dialer's answer to the WELCOME that arrived.
    func proofOfDialer(_ hello: [UInt8], secret: ClusterSecret = Rig.secret) -> [UInt8] {
        proof(of: "dialer", hello: hello, welcome: Array(frames[0].payload.dropLast(32)), secret: secret)
    }
}

/// Listens where a node should, and says what a test likes.
final class RawListener {
    private let descriptor: CInt
    let port: Int

    init() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        self.descriptor = descriptor
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 8) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        try #require(isBound)
        try #require(fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0)
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    deinit { close(descriptor) }

    func accept() async throws -> RawPeer {
        for _ in 0..<15000 {
            let accepted = Glibc.accept(descriptor, nil, nil)
            if accepted >= 0 { return try RawPeer(accepted: accepted) }
            try await Task.sleep(for: .milliseconds(2))
        }
        throw RemoteMemoryError(.disconnected, "nobody dials")
    }
}
