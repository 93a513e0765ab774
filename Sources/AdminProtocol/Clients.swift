// Who uses a node's volumes, and what that costs it.

/// One client connection.
public struct ClientStatus: Codable, Hashable, Sendable {
    /// HOST:PORT, or `unix` and the process.
    public var address: String
    /// By its own word, where it gave one.
    public var name: String?
    /// `nil` during the handshake.
    public var export: String?
    /// UTC, ISO 8601 with milliseconds.
    public var since: String
    /// Requests that are not answered yet.
    public var inFlight: Int
    /// Payload that waits for space in the log.
    public var parkedBytes: Int
    /// Payload, and data that the client has not taken.
    public var heldBytes: Int
    /// `nil` if nothing is due.
    public var waitsFor: String?

    public init(
        address: String, name: String? = nil, export: String?, since: String, inFlight: Int, parkedBytes: Int,
        heldBytes: Int,
        waitsFor: String?
    ) {
        self.address = address
        self.name = name
        self.export = export
        self.since = since
        self.inFlight = inFlight
        self.parkedBytes = parkedBytes
        self.heldBytes = heldBytes
        self.waitsFor = waitsFor
    }

    private enum CodingKeys: String, CodingKey {
        case address, name, export, since, inFlight, parkedBytes, heldBytes, waitsFor
    }

    /// Every key is always there, `null` if there is nothing.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(address, forKey: .address)
        try container.encode(name, forKey: .name)
        try container.encode(export, forKey: .export)
        try container.encode(since, forKey: .since)
        try container.encode(inFlight, forKey: .inFlight)
        try container.encode(parkedBytes, forKey: .parkedBytes)
        try container.encode(heldBytes, forKey: .heldBytes)
        try container.encode(waitsFor, forKey: .waitsFor)
    }
}

/// All clients of a node together, and their limits.
public struct ClientTotals: Codable, Hashable, Sendable {
    public var connections: Int
    public var connectionLimit: Int
    /// Connections that found no place, since the start.
    public var refused: Int
    /// What is lent beyond each connection's share.
    public var lentBytes: Int
    public var lendableBytes: Int
    /// What each connection has without asking.
    public var shareBytes: Int

    public init(
        connections: Int, connectionLimit: Int, refused: Int, lentBytes: Int, lendableBytes: Int, shareBytes: Int
    ) {
        self.connections = connections
        self.connectionLimit = connectionLimit
        self.refused = refused
        self.lentBytes = lentBytes
        self.lendableBytes = lendableBytes
        self.shareBytes = shareBytes
    }
}

/// One node's answer to `clients`.
public struct NodeClients: Codable, Hashable, Sendable {
    public var name: String
    public var totals: ClientTotals
    /// The oldest first.
    public var clients: [ClientStatus]

    public init(name: String, totals: ClientTotals, clients: [ClientStatus]) {
        self.name = name
        self.totals = totals
        self.clients = clients
    }
}
