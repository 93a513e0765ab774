// Why a log could not be opened or made durable.

public struct WriteLogError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// The region was not just formatted for its owner.
        case notAnEmptyOwnersRegion
        case outOfMemory
        /// The pool could not make something durable.
        case notPersisted
    }
    public var code: Code
    public var message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
