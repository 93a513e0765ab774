// The connections of one event loop, and what they have there.

internal import GroupEngine
internal import LoopChange
internal import LoopPolling
internal import NIOCore

/// The rooms of all loops, for each of them. Thread-safe.
protocol ClientRooms: AnyObject, Sendable {
    /// A client waits for memory that others hold.
    func watchMemory()
    /// A connection goes on in the room of `place`.
    func goOn(_ moving: MovingConnection, at place: VolumePlace)
}

/// Bound to its event loop, as `service` and `poller` are.
final class NBDRoom: NBDConnectionOwner {
    let commons: NBDCommons
    let service: any VolumeService
    let eventLoop: any EventLoop
    let poller: LoopPoller?
    private let others: any ClientRooms
    private(set) var connections: [ObjectIdentifier: NBDConnection] = [:]
    /// What stays here, with TLS, of connections that went on elsewhere.
    private var outer: [ObjectIdentifier: any Channel] = [:]
    private var isClosed = false
    /// Those beyond the limit, which are told so. The oldest first.
    private var refused: [NBDConnection] = []

    init(
        _ commons: NBDCommons, service: any VolumeService, on eventLoop: any EventLoop, poller: LoopPoller?,
        others: any ClientRooms
    ) {
        self.commons = commons
        self.service = service
        self.eventLoop = eventLoop
        self.poller = poller
        self.others = others
    }

    var outerCount: Int { outer.count }

    /// A new client, which has its place, or is told `refusal`.
    func admit(_ channel: any Channel, refusal: String?) throws {
        try channel.configureForClients(commons)
        let connection = NBDConnection(room: self, channel: channel, refusal: refusal)
        if refusal == nil {
            connections[ObjectIdentifier(connection)] = connection
        } else {
            if refused.count >= NBDServerLimits.refusedConnections { refused[0].close() }
            refused.append(connection)
        }
        try begin(connection, channel)
    }

    /// One that has come from another loop, with its place.
    func goOn(_ moving: MovingConnection) {
        let socket = moving.socket
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        socket.attach(to: eventLoop) { channel in
            let room = bound.value
            guard !room.isClosed else { throw ChannelError.ioOnClosedChannel }
            try channel.configureForClients(room.commons)
            let connection = NBDConnection(room: room, channel: channel, moving)
            room.connections[ObjectIdentifier(connection)] = connection
            try room.begin(connection, channel)
            connection.goOn(from: moving)
        }.whenFailure { _ in
            // Its socket is closed, and so is what led to it.
            bound.value.commons.places.giveBack()
        }
    }

    private func begin(_ connection: NBDConnection, _ channel: any Channel) throws {
        channel.closeFuture.assumeIsolated().whenComplete { _ in connection.channelEnded() }
        try channel.pipeline.syncOperations.addHandler(connection)
    }

    /// Clients that are gone without a word, or say nothing in their handshake, give way to a new one. Of those whose connections began
    /// here, before any other room is asked.
    func makePlaces() {
        for channel in outer.values where channel.isPeerSilent { channel.close(promise: nil) }
        for connection in connections.values where connection.isUnresponsive {
            connection.fail("it does not answer, and a new client needs its place")
        }
    }

    /// Those that sit on borrowed memory lose it in time.
    func endWhoSitsOnMemory() {
        let limit = NIODeadline.now() - commons.limits.patience
        for connection in connections.values where connection.owesSince.map({ $0 < limit }) == true {
            connection.fail("others wait for the memory of what it neither sent nor took")
        }
    }

    /// What the same client sent before, and nobody has taken, is of a connection that it has given up (S24).
    func endOlder(than newer: NBDConnection) {
        guard let named = newer.named, let client = named.client else { return }
        for older in connections.values where older !== newer && older.named == named {
            older.fail("\(client) has opened \(named.volume) again")
        }
    }

    func ended(_ connection: NBDConnection) {
        if connections.removeValue(forKey: ObjectIdentifier(connection)) != nil { giveBackPlace(of: connection) }
        refused.removeAll { $0 === connection }
    }

    /// The client has its place until its connection is gone, wherever that is.
    private func giveBackPlace(of connection: NBDConnection) {
        let places = commons.places
        guard let outer = connection.outer else { return places.giveBack() }
        outer.channel.closeFuture.whenComplete { _ in places.giveBack() }
    }

    func move(_ connection: NBDConnection, _ moving: MovingConnection, to place: VolumePlace) {
        connections[ObjectIdentifier(connection)] = nil
        if let channel = moving.outer?.channel, channel.eventLoop === eventLoop {
            outer[ObjectIdentifier(channel)] = channel
            channel.closeFuture.assumeIsolated().whenComplete { _ in self.outer[ObjectIdentifier(channel)] = nil }
        }
        others.goOn(moving, at: place)
    }

    func watchMemory() { others.watchMemory() }

    func close() {
        isClosed = true
        for channel in outer.values { channel.close(promise: nil) }
        for connection in Array(connections.values) + refused { connection.close() }
    }
}

extension Channel {
    /// How a client's socket is read and written. On the channel's loop.
    func configureForClients(_ commons: NBDCommons) throws {
        guard let options = syncOptions else { return }
        // Of replies that a client has not taken: no more requests of it are taken then.
        let unsent = max(64 << 10, min(commons.limits.unsentBytes, commons.memory.shareBytes))
        try options.setOption(
            .recvAllocator,
            value: AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65536, maximum: 256 << 10))
        // One such buffer a turn of the loop: then the other connections have theirs (S28).
        try options.setOption(.maxMessagesPerRead, value: 1)
        try options.setOption(
            .writeBufferWaterMark, value: ChannelOptions.Types.WriteBufferWaterMark(low: unsent / 2, high: unsent))
        try options.setOption(.allowRemoteHalfClosure, value: true)
    }
}
