// What is wrong with certificates and keys, and what TLS says of a connection, in words.

internal import Glibc
internal import NIOSSL

/// TLS cannot be used as it is configured.
public struct TLSError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The file; `nil` if it is no single one.
    public var path: String?
    public var reason: String
    public var description: String { path.map { "\($0): \(reason)" } ?? reason }

    init(_ path: String?, _ reason: String) {
        self.path = path
        self.reason = reason
    }

    init(_ path: String, _ what: String, errno number: Int32) {
        self.init(path, "\(what): \(String(cString: strerror(number)))")
    }

    /// An error of NIOSSL's on a connection, as a short sentence; `nil` for other errors.
    public static func words(for error: any Error) -> String? {
        switch error {
        case NIOSSLError.handshakeFailed(let cause): "TLS: \(reason(in: "\(cause)"))"
        case NIOSSLError.uncleanShutdown: "TLS: the connection ended in the middle"
        case is NIOSSLError, is NIOSSLExtraError, is BoringSSLError: "TLS: \(reason(in: "\(error)"))"
        default: nil
        }
    }

    /// BoringSSL names its reasons like OPENSSL_internal:CERTIFICATE_VERIFY_FAILED.
    private static func reason(in text: String) -> String {
        guard let found = text.firstMatch(of: /OPENSSL_internal:([A-Z0-9_]+)/) else { return String(text.prefix(200)) }
        return found.1.lowercased().replacing("_", with: " ")
    }
}
