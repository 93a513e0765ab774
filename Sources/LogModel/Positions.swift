// The numbers that the whole system agrees on: where a record is, and in whose time it was written.
// Each is a type of its own, so that an LSN is never passed where an epoch is meant.

/// A byte position in a group's log. It only grows and never wraps; its physical place is `lsn mod ring bytes` (S3).
/// Every record starts at a multiple of ``alignment``.
public struct LSN: RawRepresentable, Hashable, Comparable, Sendable, Codable, CustomStringConvertible {
    /// Records are laid out in units of one cache line.
    public static let alignment: UInt64 = 64
    public static let zero = LSN(0)
    /// No log gets so far; it leaves room for every sum with a ring's size.
    public static let maximum = LSN(1 << 62)

    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// Whether a record may start here.
    public var isPlaceOfRecord: Bool { rawValue % Self.alignment == 0 && self <= .maximum }

    public static func < (a: LSN, b: LSN) -> Bool { a.rawValue < b.rawValue }
    public static func + (a: LSN, bytes: UInt64) -> LSN { LSN(a.rawValue + bytes) }
    /// Bytes from `b` up to `a`. Precondition: `a >= b`.
    public static func - (a: LSN, b: LSN) -> UInt64 {
        precondition(a >= b, "LSN distance \(a) - \(b) is negative")
        return a.rawValue - b.rawValue
    }
    /// The first place for a record at or above this. Precondition: below 2^63.
    public var alignedUp: LSN { LSN((rawValue + Self.alignment - 1) / Self.alignment * Self.alignment) }
    public var description: String { String(rawValue) }

    public init(from decoder: any Decoder) throws {
        rawValue = try decoder.singleValueContainer().decode(UInt64.self)
    }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}

/// The number of an ownership period of a group. It only grows; every change of owner, and every change of the
/// in-sync set that removes a member, raises it (S13, S15).
public struct Epoch: RawRepresentable, Hashable, Comparable, Sendable, Codable, CustomStringConvertible {
    public static let none = Epoch(0)

    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    public var next: Epoch { Epoch(rawValue + 1) }
    public static func < (a: Epoch, b: Epoch) -> Bool { a.rawValue < b.rawValue }
    public var description: String { String(rawValue) }

    public init(from decoder: any Decoder) throws {
        rawValue = try decoder.singleValueContainer().decode(UInt64.self)
    }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}

/// The epoch in which a log was opened for writing. Part of every record's checksum seed, so that what an earlier
/// opening left behind never validates (S4).
public struct Incarnation: RawRepresentable, Hashable, Comparable, Sendable, Codable, CustomStringConvertible {
    public static let none = Incarnation(0)

    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    public init(_ epoch: Epoch) { rawValue = epoch.rawValue }

    public static func < (a: Incarnation, b: Incarnation) -> Bool { a.rawValue < b.rawValue }
    public var description: String { String(rawValue) }

    public init(from decoder: any Decoder) throws {
        rawValue = try decoder.singleValueContainer().decode(UInt64.self)
    }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}

/// A half-open range of bytes of a volume.
public struct ByteRange: Hashable, Sendable, CustomStringConvertible {
    public var offset: UInt64
    public var length: UInt64

    /// Precondition: `offset + length` does not overflow.
    public init(offset: UInt64, length: UInt64) {
        precondition(!offset.addingReportingOverflow(length).overflow, "byte range overflows")
        self.offset = offset
        self.length = length
    }

    public var end: UInt64 { offset + length }
    public var isEmpty: Bool { length == 0 }
    public func overlaps(_ other: ByteRange) -> Bool { offset < other.end && other.offset < end }
    public var description: String { "[\(offset), \(end))" }
}
