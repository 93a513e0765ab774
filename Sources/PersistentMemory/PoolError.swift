// What can go wrong with a pool, and what an operator needs to know about it: which file, where in it, and why.

public struct PoolError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// The file has nothing of a pool.
        case notAPool
        /// The file is shorter than the pool that it holds.
        case truncated
        /// A pool, but of another cluster or node.
        case foreign
        /// Written by a later version of TwinLog.
        case newerFormat
        /// Contents that no crash explains.
        case corrupt
        /// Another opener, in this or another process, holds the file.
        case inUse
        /// No room on the file system or in the pool.
        case noSpace
        /// A system call failed.
        case system
        /// The file cannot give the persistence that was asked for.
        case noPersistence
        /// The group has a region already.
        case regionExists
        /// The directory has no entry left.
        case directoryFull
        /// A value that the caller gave is out of its range.
        case invalidValue
    }

    public var code: Code
    public var path: String
    /// Where in the file, in bytes, if it is about a place.
    public var offset: UInt64?
    public var message: String

    public init(_ code: Code, path: String, offset: UInt64? = nil, _ message: String) {
        self.code = code
        self.path = path
        self.offset = offset
        self.message = message
    }

    /// What an operator does about it, in the same words whoever meets it; `nil` where the message says all.
    public var nextStep: String? {
        switch code {
        case .truncated, .corrupt: "leave it as it is and use the pool of the group's other node"
        case .newerFormat: "use the programs of the version that wrote it"
        default: nil
        }
    }

    /// The description, with the next step.
    public var advice: String { nextStep.map { "\(description); \($0)" } ?? description }

    public var description: String {
        if let offset { "\(path): at offset \(offset): \(message)" } else { "\(path): \(message)" }
    }
}
