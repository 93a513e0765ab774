// The proof that a side holds the cluster's secret (S27): HMAC-SHA256 (RFC 2104) over the side's role and both greetings,
// whole. The nonces make it good for one connection; the role keeps a side from sending the other's proof back; what else
// the greetings say (versions, features, names, digests) cannot be changed on the way without spoiling both proofs.
//
// It proves who the two ends are when the rail is made. It does not encrypt, and it does not seal what follows.

internal import Crypto
internal import LogModel

public enum RailRole: String, Sendable {
    case dialer, listener
}

struct RailProof {
    static let byteCount = 32

    private let key: SymmetricKey
    private let greetings: [UInt8]

    init(secret: ClusterSecret, hello: [UInt8], welcome: [UInt8]) {
        key = SymmetricKey(data: secret.bytes)
        greetings = Self.framed(hello) + Self.framed(welcome)
    }

    /// Lengths stand before the parts: one text has one meaning.
    private static func framed(_ part: [UInt8]) -> [UInt8] {
        withUnsafeBytes(of: UInt32(part.count).littleEndian) { Array($0) } + part
    }

    private func text(_ role: RailRole) -> [UInt8] {
        Self.framed(Array("TwinLog rail proof, \(role.rawValue)".utf8)) + greetings
    }

    func proof(of role: RailRole) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: text(role), using: key))
    }

    /// Takes the same time wherever `bytes` are wrong.
    func isProof(_ bytes: [UInt8], of role: RailRole) -> Bool {
        HMAC<SHA256>.isValidAuthenticationCode(bytes, authenticating: text(role), using: key)
    }
}
