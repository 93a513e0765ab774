// Clients that write, discard and read through whichever node serves, over connections that end, and connect anew. They call the engine
// where a front end does.

import ClusterConfiguration
import GroupEngine
import LogModel
import NIOCore
import SimulationSupport
import TestSupport

/// One connection of one client to one process.
final class Connection {
    let server: Server
    let volume: Int
    let session: any VolumeSession
    let life: ConnectionLife
    private(set) var isOpen = true

    init(_ server: Server, volume: Int, _ session: any VolumeSession, _ life: ConnectionLife) {
        self.server = server
        self.volume = volume
        self.session = session
        self.life = life
    }

    deinit { session.onRevoked = nil }

    /// The server knows that it has ended, or is gone.
    func end(at time: UInt64) {
        isOpen = false
        life.endedAt = life.endedAt ?? time
    }
}

final class Client {
    private let group: SimGroup
    private var random: SplitMix64
    private var connection: Connection?
    private var requestsOut = 0
    private var nextNode: Int
    private var isConnecting = false
    private let depth: Int
    private let thinkMicros: UInt64

    init(_ group: SimGroup, number: Int) {
        self.group = group
        let world = group.world
        random = SplitMix64(seed: world.random.next())
        nextNode = (number + group.index) % 2
        depth = Int(random.between(1, 4))
        let think = random.chance(40) ? random.between(100, 5000) : random.between(5000, 100_000)
        thinkMicros = world.lastingFault == nil ? think : 500_000
    }

    private var world: World { group.world }

    private func later(_ delay: UInt64, _ body: @escaping () -> Void) { world.after(delay, body) }

    private func delay() -> UInt64 { random.between(20, 300) * microsecond }

    // MARK: Connecting

    func connect() {
        guard !group.clients.areDone, connection == nil, !isConnecting else { return }
        isConnecting = true
        let node = world.nodes[nextNode]
        nextNode = 1 - nextNode
        let volume = Int(random.between(0, 1))
        later(delay()) { [self] in
            guard let server = node.server, !server.isPaused, !server.isDying else { return refused() }
            open(volume, at: server)
        }
    }

    private func open(_ volume: Int, at server: Server) {
        var isAnswered = false
        var giveUp: () -> Void = {}
        // A connection that does not open in time is tried elsewhere.
        later(second) { [self] in
            guard !isAnswered else { return }
            isAnswered = true
            server.perform { giveUp() }
            refused()
        }
        server.perform { [self] in
            giveUp = server.engine(of: group).open(group.volumes[volume]) { [self] result in
                guard !isAnswered else { return }
                isAnswered = true
                guard case .success(let session) = result else { return later(delay()) { self.refused() } }
                isConnecting = false
                opened(Connection(server, volume: volume, session, ConnectionLife(openedAt: group.oracle.count())))
            }
        }
    }

    private func refused() {
        isConnecting = false
        later(random.between(5, 40) * millisecond) { self.connect() }
    }

    private func opened(_ connection: Connection) {
        self.connection = connection
        requestsOut = 0
        // Unsafe: a connection that is gone hears of nothing.
        connection.session.onRevoked = { [self, unowned(unsafe) connection] in lost(connection) }
        later(delay()) { self.submit() }
    }

    private func lost(_ connection: Connection) {
        connection.end(at: group.oracle.count())
        guard connection === self.connection else { return }
        self.connection = nil
        later(random.between(1, 30) * millisecond) { self.connect() }
    }

    func died(_ server: Server) {
        if let connection, connection.server === server { lost(connection) }
    }

    /// The client goes away, without waiting for its answers.
    private func leave() {
        guard let connection else { return }
        self.connection = nil
        connection.server.perform { [self] in
            connection.session.close()
            connection.end(at: group.oracle.count())
        }
        later(random.between(1, 30) * millisecond) { self.connect() }
    }

    // MARK: Requests

    /// Keeps `depth` requests out.
    private func submit() {
        while !group.clients.areDone, let connection, requestsOut < depth {
            requestsOut += 1
            let request = nextRequest()
            later(delay()) { [self] in
                connection.server.perform { [self] in
                    guard connection.isOpen, connection === self.connection else { return }
                    carryOut(request, connection)
                }
            }
            if random.chance(1) { return leave() }
        }
    }

    private enum Request { case read, write, discard, writeZeroes, flush }

    private func nextRequest() -> (Request, Range<Int>) {
        let count = Int(random.chance(80) ? random.between(1, 4) : random.between(1, 12))
        let first = Int(random.between(0, UInt64(Blocks.perVolume - count)))
        let kind: Request =
            switch random.between(0, 99) {
            case 0..<35: .read
            case 35..<85: .write
            case 85..<91: .discard
            case 91..<96: .writeZeroes
            default: .flush
            }
        return (kind, first..<first + count)
    }

    private func carryOut(_ request: (kind: Request, blocks: Range<Int>), _ connection: Connection) {
        let offset = UInt64(request.blocks.lowerBound * Blocks.bytes)
        let length = UInt64(request.blocks.count * Blocks.bytes)
        switch request.kind {
        case .read: read(request.blocks, connection)
        case .flush:
            connection.session.submit(.flush) { [self] _ in
                world.coverage.flushes += 1
                answered(connection)
            }
        case .write:
            let write = group.oracle.willWrite(request.blocks, connection, isZero: false)
            let payload = Blocks.filled(write.stamp, count: request.blocks.count)
            submit(.write(offset: offset, payload: payload), write, connection)
        case .discard:
            submit(
                .discard(offset: offset, length: length),
                group.oracle.willWrite(request.blocks, connection, isZero: true), connection)
        case .writeZeroes:
            submit(
                .writeZeroes(offset: offset, length: length, mayRelease: random.chance(50)),
                group.oracle.willWrite(request.blocks, connection, isZero: true), connection)
        }
    }

    private func submit(_ request: VolumeRequest, _ write: Write, _ connection: Connection) {
        connection.session.submit(request) { [self] result in
            guard case .success = result else {
                return group.oracle.expect(false, "write \(write.number) fails: \(result)")
            }
            group.oracle.acknowledged(write, by: connection.server)
            answered(connection)
        }
    }

    private func read(_ blocks: Range<Int>, _ connection: Connection) {
        let askedAt = group.oracle.count()
        connection.session.submit(
            .read(offset: UInt64(blocks.lowerBound * Blocks.bytes), length: blocks.count * Blocks.bytes)
        ) { [self] result in
            switch result {
            case .success(let bytes):
                group.oracle.readAnswered(
                    blocks, of: connection.volume, bytes, askedAt: askedAt, by: connection.server)
            case .failure: world.coverage.readsRefused += 1
            }
            answered(connection)
        }
    }

    /// The answer arrives if the connection still stands, and the client thinks.
    private func answered(_ connection: Connection) {
        later(delay() + random.between(0, thinkMicros) * microsecond) { [self] in
            guard connection === self.connection, connection.isOpen else { return }
            requestsOut -= 1
            submit()
        }
    }
}

final class Clients {
    private var all: [Client]
    /// Nothing new is asked.
    var areDone = false

    /// All groups together have about as many as one group alone.
    init(_ group: SimGroup) {
        all = (0..<max(1, 4 - group.world.groups.count)).map { Client(group, number: $0) }
    }

    func begin() { for client in all { client.connect() } }

    func died(_ server: Server) { for client in all { client.died(server) } }

    func end() { all = [] }
}
