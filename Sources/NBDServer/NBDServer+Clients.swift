// What an operator is told of the clients.

public import AdminProtocol
internal import Foundation
internal import GroupEngine
internal import NBDProtocol
internal import NIOCore
public import StorageNode

extension NBDServer: VolumeFrontEnd {
    public var clientTotals: ClientTotals {
        let (memory, limits) = (rooms.commons.memory, rooms.commons.limits)
        return ClientTotals(
            connections: connectionCount, connectionLimit: limits.connections, refused: refusedCount,
            lentBytes: memory.lentBytes, lendableBytes: memory.lendableBytes, shareBytes: memory.shareBytes)
    }

    public func clients(_ done: @escaping ([ClientStatus]) -> Void) {
        rooms.all.ask(from: eventLoop) { room, answer in
            answer(room.clients)
        } _: { clients in
            done(clients.joined().sorted { $0.since < $1.since }.map(\.status))
        }
    }
}

extension NBDRoom {
    /// The oldest first.
    var clients: [(since: Date, status: ClientStatus)] {
        connections.values.map { ($0.connected, $0.status) }.sorted { $0.since < $1.since }
    }
}

extension NBDConnection {
    fileprivate var status: ClientStatus {
        return ClientStatus(
            address: peer, name: named?.client, export: export, since: connected.statusText, inFlight: requestsInFlight,
            parkedBytes: session?.parkedBytes ?? 0, heldBytes: account.heldBytes, waitsFor: waitsFor)
    }

    /// What holds the client up, from where it stands first.
    private var waitsFor: String? {
        guard handshake.isTransmission else {
            return handshake.isWaiting ? "earlier clients' writes" : "the client's handshake"
        }
        if account.isWaiting { return "memory that other clients hold" }
        if !channel.isWritable { return "the client to take its replies" }
        if session?.parkedBytes ?? 0 > 0 { return "space in the log" }
        if requestsInFlight > 0 { return "the volume" }
        return incoming == nil ? nil : "the rest of a payload"
    }
}

extension Channel {
    /// HOST:PORT, or the process behind a Unix socket: the first four bytes of `struct ucred`.
    var peerName: String {
        if let address = remoteAddress, let host = address.ipAddress, let port = address.port {
            return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        }
        do {
            let process = try syncOptions?.getOption(.socketOption(.init(rawValue: SO_PEERCRED)))
            return process.map { "unix, process \($0)" } ?? "unix"
        } catch {
            return "unix"
        }
    }
}
