// What the connections of a server have in common, on whichever event loop they live.

internal import GroupEngine
internal import Logging
internal import LoopPolling
internal import NIOCore
internal import Synchronization

/// Thread-safe.
final class NBDCommons: Sendable {
    let limits: NBDServerLimits
    let security: NBDServerSecurity?
    let logger: Logger
    let memory: ClientMemory
    let places: ClientPlaces
    private let home: any EventLoop
    private let pollers: LoopPollers
    private let all = Mutex<[ObjectIdentifier: NIOLoopBound<NBDRoom>]>([:])
    private let watching = Atomic(false)

    init(
        _ limits: NBDServerLimits, _ security: NBDServerSecurity?, _ pollers: LoopPollers, _ logger: Logger,
        home: any EventLoop
    ) {
        self.limits = limits
        self.security = security
        self.logger = logger
        self.pollers = pollers
        self.home = home
        memory = ClientMemory(budgetBytes: limits.memoryBytes, connections: limits.connections)
        places = ClientPlaces(limit: limits.connections)
    }

    // MARK: Rooms

    var rooms: [NIOLoopBound<NBDRoom>] { all.withLock { Array($0.values) } }

    /// The room of an event loop, whose service is `service`. On that loop.
    func room(on eventLoop: any EventLoop, _ service: any VolumeService) -> NBDRoom {
        if let known = all.withLock({ $0[ObjectIdentifier(eventLoop)] }) { return known.value }
        let room = NBDRoom(self, service: service, on: eventLoop, poller: pollers.poller(of: eventLoop))
        let bound = NIOLoopBound(room, eventLoop: eventLoop)
        all.withLock { $0[ObjectIdentifier(eventLoop)] = bound }
        return room
    }

    /// The server has ended.
    func forgetRooms() { all.withLock { $0 = [:] } }

    func goOn(_ moving: MovingConnection, at place: VolumePlace) {
        place.eventLoop.execute { self.room(on: place.eventLoop, place.service()).goOn(moving) }
    }

    // MARK: Memory

    var isWatchingMemory: Bool { watching.load(ordering: .relaxed) }

    /// A client waits for memory that others hold: those that sit on borrowed memory lose it in time.
    func watchMemory() {
        guard !watching.exchange(true, ordering: .relaxed) else { return }
        home.scheduleTask(in: .nanoseconds(limits.patience.nanoseconds / 8)) {
            self.watching.store(false, ordering: .relaxed)
            guard self.memory.isContended else { return }
            for room in self.rooms { room.eventLoop.execute { room.value.endWhoSitsOnMemory() } }
            self.watchMemory()
        }
    }
}
