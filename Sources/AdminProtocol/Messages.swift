// Requests to a node and its answers: one JSON object a line, over the node's Unix socket.

internal import Foundation

public enum AdminRequest: Codable, Hashable, Sendable {
    case status
    case clients
    case handover(group: String, to: String)
    case takeover(group: String, on: String, force: Bool)
    /// Destage up to the tail at the time of the call.
    case drain(group: String)
    case forgetCoordinator(group: String)
    /// What ran on `node` is dead, by the word of `by`, where a takeover of the group waits for that.
    case confirmDead(group: String, node: String, by: String, at: String)
    /// Events with a sequence number above `after`; waits a while for one if there is none and `wait` is true.
    case events(after: UInt64, wait: Bool)

    /// One of swift-log's, until the process ends or reads its configuration again.
    case logLevel(String)
    /// What must be equal in the configurations of all nodes, as the node has read it.
    case configuration

    public static let maximumBytes = 64 << 10
}

public enum AdminResponse: Codable, Hashable, Sendable {
    case status(NodeStatus)
    case clients(NodeClients)
    case events([NodeEvent])
    case configuration([ConfigurationKey])
    case done
    case refused(String)

    public static let maximumBytes = 4 << 20
}

/// A key of a node's configuration, with its value as canonical text.
public struct ConfigurationKey: Codable, Hashable, Sendable {
    public var key: String
    public var value: String

    public init(key: String, value: String) {
        self.key = key
        self.value = value
    }
}

/// Something that happened on a node.
public struct NodeEvent: Codable, Hashable, Sendable {
    /// Grows by one, from 1, over all starts of the node.
    public var sequence: UInt64
    /// What a reader of JSON with floating-point numbers can tell apart.
    public static let maximumSequence: UInt64 = (1 << 53) - 1
    /// UTC, ISO 8601 with milliseconds.
    public var time: String
    public var node: String
    public var group: String?
    /// A stable word, for scripts.
    public var kind: String
    /// A sentence, for people.
    public var message: String

    public init(sequence: UInt64, time: String, node: String, group: String?, kind: String, message: String) {
        self.sequence = sequence
        self.time = time
        self.node = node
        self.group = group
        self.kind = kind
        self.message = message
    }
}

public enum AdminCodec {
    public static func line(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(value)) + [UInt8(ascii: "\n")]
    }

    public static func decode<Value: Decodable>(_ type: Value.Type, from line: some Sequence<UInt8>) throws -> Value {
        try JSONDecoder().decode(type, from: Data(line))
    }

    /// `value` as people and scripts read it.
    public static func pretty(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}
