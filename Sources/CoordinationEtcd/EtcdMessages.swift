// The messages of etcd's JSON gateway that are used here (etcd: api/etcdserverpb/rpc.proto). Field names are in snake case on the wire,
// bytes in base64, 64-bit numbers in quotes, and what is zero is left out of answers.

internal import Foundation

/// A 64-bit number in quotes.
struct QuotedNumber<Number: FixedWidthInteger & LosslessStringConvertible & Sendable>: Codable, Hashable, Sendable {
    var value: Number
    init(_ value: Number) { self.value = value }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = Number(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a number")
        }
        self.value = value
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(String(value))
    }
}

typealias Revision = Int64

struct RangeRequest: Encodable {
    var key: Data
    /// The end of a range of keys, not included; `nil`: one key. `serializable` is never set: every answer is linearizable.
    var rangeEnd: Data?

    init(key: String) { self.key = Data(key.utf8) }

    /// All keys that begin with `folder`, which ends in a slash; the next character is its end.
    init(below folder: String) {
        precondition(folder.hasSuffix("/"), "a folder ends in a slash")
        key = Data(folder.utf8)
        rangeEnd = Data(folder.utf8.dropLast()) + [UInt8(ascii: "/") + 1]
    }
}

struct PutRequest: Encodable {
    var key: Data
    var value: Data

    init(key: String, value: [UInt8]) {
        self.key = Data(key.utf8)
        self.value = Data(value)
    }
}

struct TransactionRequest: Encodable {
    struct Comparison: Encodable {
        var key: Data
        var target: String
        var result = "EQUAL"
        var modRevision: QuotedNumber<Revision>?
        var value: Data?

        /// The key was last changed at `revision`; 0: it does not exist.
        static func revision(of key: String, is revision: Revision) -> Comparison {
            Comparison(key: Data(key.utf8), target: "MOD", modRevision: QuotedNumber(revision))
        }

        static func value(of key: String, is value: [UInt8]) -> Comparison {
            Comparison(key: Data(key.utf8), target: "VALUE", value: Data(value))
        }
    }

    struct Operation: Encodable {
        var requestPut: PutRequest?
        var requestRange: RangeRequest?

        static func put(_ request: PutRequest) -> Operation { Operation(requestPut: request) }
        static func range(_ request: RangeRequest) -> Operation { Operation(requestRange: request) }
    }

    var compare: [Comparison] = []
    var success: [Operation]
    var failure: [Operation] = []
}

struct LoginRequest: Encodable {
    var name: String
    var password: String
}

/// An answer that tells which etcd gave it, and how far that had come.
protocol DatedAnswer: Decodable {
    var header: AnswerHeader { get }
}

struct AnswerHeader: Decodable {
    var clusterId: QuotedNumber<UInt64>
    var revision: QuotedNumber<Revision>
}

struct KeyValue: Decodable {
    var key: Data
    var modRevision: QuotedNumber<Revision>
    var value: Data?
}

struct RangeAnswer: DatedAnswer {
    var header: AnswerHeader
    var kvs: [KeyValue]?
}

struct TransactionAnswer: DatedAnswer {
    struct OperationAnswer: Decodable {
        struct Range: Decodable { var kvs: [KeyValue]? }
        var responseRange: Range?
    }

    var header: AnswerHeader
    var succeeded: Bool?
    var responses: [OperationAnswer]?

    /// What its ranges found, one after another.
    var found: [KeyValue] { (responses ?? []).flatMap { $0.responseRange?.kvs ?? [] } }
}

struct LoginAnswer: Decodable { var token: String }

/// What is not status 200.
struct Refusal: Decodable {
    /// A code of gRPC.
    var code: Int
    var message: String
}
