// Clients that write and read blocks through whichever node serves them, and connect anew when their connection ends.

import ClusterProtocol
import LogModel
import SimulationSupport

/// One connection of one client to one process. What is not answered when it ends, the client does not know.
final class ClientSession {
    let process: SimProcess
    let owner: OwnerModel
    private let client: Client
    private(set) var isClosed = false

    init(_ client: Client, _ process: SimProcess, _ owner: OwnerModel) {
        self.client = client
        self.process = process
        self.owner = owner
        owner.enter(self)
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        owner.leave(self)
    }

    /// The server ended it, or is gone.
    func revoked() {
        guard !isClosed else { return }
        isClosed = true
        client.lost(self)
    }
}

final class Client {
    private let world: World
    private var session: ClientSession?
    private var requestsOut = 0
    private var nextNode: Int
    private var isConnecting = false
    private let depth: Int

    init(_ world: World, number: Int) {
        self.world = world
        nextNode = number % 2
        depth = Int(world.random.between(1, 4))
    }

    func lost(_ session: ClientSession) {
        guard session === self.session else { return }
        self.session = nil
        requestsOut = 0
        world.after(world.random.between(1, 30) * millisecond) { self.connect() }
    }

    func connect() {
        guard !world.clients.areDone, session == nil, !isConnecting else { return }
        isConnecting = true
        let node = world.nodes[nextNode]
        nextNode = 1 - nextNode
        world.after(world.networkDelay()) { [self] in
            guard let process = node.process, !process.isPaused, !process.isDying, process.machine.isServing,
                let owner = process.owner, owner.isServing
            else { return refused() }
            var isAnswered = false
            // A connection that does not open in time is tried elsewhere.
            world.after(second) { [self] in
                if !isAnswered { refused() }
                isAnswered = true
            }
            owner.open { [self] isOpen in
                guard !isAnswered else { return }
                isAnswered = true
                guard isOpen else { return refused() }
                isConnecting = false
                session = ClientSession(self, process, owner)
                submit()
            }
        }
    }

    private func refused() {
        isConnecting = false
        world.after(world.random.between(5, 40) * millisecond) { self.connect() }
    }

    /// Keeps `depth` requests out.
    private func submit() {
        while !world.clients.areDone, let session, requestsOut < depth {
            requestsOut += 1
            let block = Int(world.random.between(0, UInt64(World.blocks) - 1))
            let isRead = world.random.chance(25)
            let begun = world.now
            world.after(world.networkDelay()) { [self] in
                session.process.perform { [self] in
                    guard !session.isClosed else { return }
                    if isRead {
                        session.owner.read(block, session) { stamp in
                            self.answered(session) { end in
                                if let stamp { self.world.history.read(block, stamp, begun: begun, end: end) }
                            }
                        }
                    } else {
                        session.owner.write(
                            .init(session: session, block: block, bytes: world.recordBytes(), begun: begun) { stamp in
                                self.answered(session) { self.world.history.written(block, stamp, end: $0) }
                            })
                    }
                }
            }
            // Now and then a client goes away without waiting.
            if world.random.chance(1) { return leave() }
        }
    }

    /// The answer arrives if the connection still stands: `heard` gets the time.
    private func answered(_ session: ClientSession, _ heard: @escaping (UInt64) -> Void) {
        world.after(world.networkDelay()) { [self] in
            guard session === self.session, !session.isClosed else { return }
            heard(world.now)
            world.after(world.random.between(0, world.thinkMicros) * microsecond) { [self] in
                guard session === self.session, !session.isClosed else { return }
                requestsOut -= 1
                submit()
            }
        }
    }

    private func leave() {
        guard let session else { return }
        self.session = nil
        requestsOut = 0
        session.process.perform { session.close() }
        world.after(world.random.between(1, 30) * millisecond) { self.connect() }
    }

    func processDied(_ process: SimProcess) {
        if let session, session.process === process { session.revoked() }
    }
}

final class Clients {
    private var all: [Client]
    /// Nothing new is asked.
    var areDone = false

    init(_ world: World) { all = (0..<2).map { Client(world, number: $0) } }

    func begin() { for client in all { client.connect() } }

    func processDied(_ process: SimProcess) { for client in all { client.processDied(process) } }

    func end() { all = [] }
}
