// The rooms of a server, one for each event loop on which it has connections.

internal import GroupEngine
internal import LoopChange
internal import LoopPolling
internal import NIOCore
internal import StorageNode
internal import Synchronization

/// Thread-safe.
final class NBDRooms: ClientRooms {
    let commons: NBDCommons
    private let home: any EventLoop
    private let pollers: LoopPollers
    private let rooms = Mutex<[ObjectIdentifier: Placed<NBDRoom>]>([:])
    private let watching = Atomic(false)
    private let isClosed = Atomic(false)

    /// `home`: the server's own loop.
    init(_ commons: NBDCommons, _ pollers: LoopPollers, home: any EventLoop) {
        self.commons = commons
        self.pollers = pollers
        self.home = home
    }

    var all: [Placed<NBDRoom>] { rooms.withLock { Array($0.values) } }

    /// The room of an event loop, whose service is `service`. On that loop.
    func room(on eventLoop: any EventLoop, _ service: any VolumeService) -> NBDRoom {
        if let known = rooms.withLock({ $0[ObjectIdentifier(eventLoop)] }) { return known.value }
        let room = NBDRoom(
            commons, service: service, on: eventLoop, poller: pollers.poller(of: eventLoop), others: self)
        let placed = Placed(here: room, on: eventLoop)
        rooms.withLock { $0[ObjectIdentifier(eventLoop)] = placed }
        return room
    }

    func goOn(_ moving: MovingConnection, at place: VolumePlace) {
        place.eventLoop.execute {
            // After a look at the sockets there: the end of an earlier connection of the client is seen before this one begins (S24).
            place.eventLoop.assumeIsolated().executeNextTurn {
                guard !self.isClosed.load(ordering: .relaxed) else { return self.giveUp(moving) }
                self.room(on: place.eventLoop, place.service()).goOn(moving)
            }
        }
    }

    private func giveUp(_ moving: MovingConnection) {
        moving.socket.close()
        commons.places.giveBack()
    }

    /// The server ends: so does every connection.
    func close() {
        isClosed.store(true, ordering: .relaxed)
        for room in all { room.eventLoop.execute { room.value.close() } }
        rooms.withLock { $0 = [:] }
    }

    // MARK: Memory

    var isWatchingMemory: Bool { watching.load(ordering: .relaxed) }

    /// Those that sit on borrowed memory lose it in time.
    func watchMemory() {
        guard !watching.exchange(true, ordering: .relaxed) else { return }
        home.scheduleTask(in: .nanoseconds(commons.limits.patience.nanoseconds / 8)) {
            self.watching.store(false, ordering: .relaxed)
            guard self.commons.memory.isContended else { return }
            for room in self.all { room.eventLoop.execute { room.value.endWhoSitsOnMemory() } }
            self.watchMemory()
        }
    }
}
