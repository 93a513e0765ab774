// Why a request or a connection of the client failed.

public struct NBDClientError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// The connection could not be made.
        case unreachable
        /// The server does not serve the export; the message is the server's.
        case refused
        /// The connection ended; what became of the request is not known.
        case disconnected
        /// The server answered the request with this error: it was not carried out.
        case failed(errno: UInt32)
        case protocolViolation
    }
    public var code: Code
    public var message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
