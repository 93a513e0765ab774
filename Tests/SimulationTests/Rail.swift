// A connection between an owner's process and its mirror's: messages stay in order, are delayed, held back by a silent
// partition, or lost with the connection.

import ClusterProtocol
import LogModel
import SimulationSupport

enum Message {
    /// What nodes say to each other, as it crosses the wire.
    case said([UInt8])
    case write(key: UInt64, Range<LSN>, [Record], id: UInt64)
    case atomicWrite(key: UInt64, LSN, id: UInt64)
    case read(key: UInt64, Range<LSN>, id: UInt64)
    case readAnswer([Record], id: UInt64)
    case completed(UInt64)
    case accessError
    /// The other end is closed.
    case end
}

final class Rail {
    let world: World
    /// Who dialed, who accepted.
    let ends: [SimProcess]
    private var closed = [false, false]
    private var nextDelivery: [UInt64] = [0, 0]
    private var held: [[Message]] = [[], []]
    private var lastPosted: UInt64 = 0

    init(_ world: World, dialer: SimProcess, acceptor: SimProcess) {
        self.world = world
        ends = [dialer, acceptor]
    }

    func nextPost() -> UInt64 {
        lastPosted += 1
        return lastPosted
    }

    private func index(of process: SimProcess) -> Int { ends[0] === process ? 0 : 1 }

    func send(_ message: Message, from process: SimProcess) {
        let from = index(of: process)
        guard !closed[from] else { return }
        let time = max(nextDelivery[from], world.now + world.networkDelay())
        nextDelivery[from] = time
        world.after(time - world.now) { self.deliver(message, from) }
    }

    /// What does not arrive as it was sent was never said.
    func say(_ message: PeerMessage, from process: SimProcess) {
        let bytes = message.encoded
        do {
            let arrives = try PeerMessage(bytes)
            world.oracle.expect(
                arrives == message, "S21: \(process.name) says \(message), and \(arrives) arrives")
        } catch {
            world.oracle.expect(false, "S21: \(process.name) says \(message), which nobody can read: \(error)")
        }
        send(.said(bytes), from: process)
    }

    private func deliver(_ message: Message, _ from: Int) {
        // What is held back stays in order.
        guard !world.isBlocked(from: ends[from].node.index), held[from].isEmpty else {
            return held[from].append(message)
        }
        handOver(message, from)
    }

    private func handOver(_ message: Message, _ from: Int) {
        let receiver = ends[1 - from]
        receiver.perform { [self] in
            guard !closed[1 - from] else { return }
            switch message {
            case .end:
                closed[1 - from] = true
                receiver.railFailed(self, access: false)
            case .accessError:
                closed = [true, true]
                receiver.railFailed(self, access: true)
            default: receiver.received(message, on: self)
            }
        }
    }

    /// A partition ended: what it held back arrives.
    func releaseHeld() {
        for from in 0...1 where !world.isBlocked(from: ends[from].node.index) {
            let waiting = held[from]
            held[from] = []
            for message in waiting { handOver(message, from) }
        }
    }

    func close(by process: SimProcess) {
        send(.end, from: process)
        closed[index(of: process)] = true
    }

    /// The connection is lost: what is on the way is gone, both ends learn of it.
    func reset() {
        let open = (0...1).filter { !closed[$0] }
        closed = [true, true]
        for end in open {
            world.after(world.random.between(0, 50) * millisecond) { [self] in
                ends[end].perform { [self] in ends[end].railFailed(self, access: false) }
            }
        }
    }

    var isDone: Bool { closed == [true, true] }
}
