// What a log holds: records, each at a position that it keeps for ever.

internal import LogModel
internal import PersistentMemory

/// A place in a log, in bytes ever written: it only grows, over all openings. Keep its ``rawValue`` wherever you like.
public struct LogPosition: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static func < (a: LogPosition, b: LogPosition) -> Bool { a.rawValue < b.rawValue }
    public var description: String { String(rawValue) }
}

/// What one append stored.
public struct LogRecord: Hashable, Sendable {
    /// Where it begins, for ever.
    public let position: LogPosition
    /// Where the record ends, and the next one begins or will.
    public let end: LogPosition
    /// As they were appended.
    public let bytes: [UInt8]
}

/// What survives what.
public enum LogPersistence: Hashable, Sendable {
    /// Persistent memory: every record survives a loss of power, at the price of a few stores.
    case durable
    /// An ordinary file, made durable by `msync`: survives a loss of power too, and every append waits for the disk.
    case msync
    /// A memory file system: survives the process, not a loss of power.
    case volatile
}

/// What an opening found.
public struct LogRecovery: Hashable, Sendable {
    /// Whole and verified, from the head on.
    public let records: UInt64
    /// A crash cut appends that had not returned: what was left of them was discarded.
    public let hadTornTail: Bool
}

extension LogPersistence {
    init(_ persistence: Persistence) {
        switch persistence {
        case .pmem: self = .durable
        case .msync: self = .msync
        case .volatile: self = .volatile
        }
    }
}

extension LogPosition {
    init(_ lsn: LSN) { self.init(rawValue: lsn.rawValue) }
    var lsn: LSN { LSN(rawValue) }
}
