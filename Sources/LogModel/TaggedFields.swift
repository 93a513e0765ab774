// Fields that carry their tag and length, so that a reader steps over those that it does not know: what is sent between
// nodes of different versions consists of them.
//
//   u8 tag, u16 length, then so many bytes; numbers are little-endian and have one width for each tag
//
// A length is checked before it is used (S21). The reader skips unknown tags; a tag that stands twice where one is asked
// for is malformed.

public struct FieldWriter: Sendable {
    public private(set) var bytes: [UInt8]

    /// `prefix` stands before the first field.
    public init(prefix: [UInt8] = []) { bytes = prefix }

    /// Precondition: at most 65535 bytes.
    public mutating func put(_ tag: UInt8, bytes value: some Collection<UInt8>) {
        bytes.append(tag)
        append(UInt16(value.count))
        bytes.append(contentsOf: value)
    }

    public mutating func put(_ tag: UInt8, _ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { put(tag, bytes: $0) }
    }

    public mutating func put(_ tag: UInt8, _ value: Bool) { put(tag, UInt8(value ? 1 : 0)) }

    public mutating func put(_ tag: UInt8, _ value: UUID128) {
        withUnsafeBytes(of: (value.high.littleEndian, value.low.littleEndian)) { put(tag, bytes: $0) }
    }

    /// Longer text is cut between two characters.
    public mutating func put(_ tag: UInt8, text: String, maximumBytes: Int) {
        put(tag, bytes: text.prefix(utf8Bytes: maximumBytes).utf8)
    }

    private mutating func append(_ value: UInt16) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
}

/// Why fields could not be read.
public enum FieldError: Error, Hashable, Sendable, CustomStringConvertible {
    case truncated
    case missing(UInt8)
    case repeated(UInt8)
    /// The value has the wrong length, or is no text.
    case malformed(UInt8)

    public var description: String {
        switch self {
        case .truncated: "a field is cut short"
        case .missing(let tag): "field \(tag) is missing"
        case .repeated(let tag): "field \(tag) stands twice"
        case .malformed(let tag): "field \(tag) is malformed"
        }
    }
}

public struct FieldReader: Sendable {
    private var fields: [(tag: UInt8, value: ArraySlice<UInt8>)] = []

    public init(_ bytes: ArraySlice<UInt8>) throws(FieldError) {
        var rest = bytes
        while let tag = rest.popFirst() {
            guard rest.count >= 2 else { throw .truncated }
            let count = Int(rest[rest.startIndex]) | Int(rest[rest.startIndex + 1]) << 8
            rest = rest.dropFirst(2)
            guard rest.count >= count else { throw .truncated }
            fields.append((tag, rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
    }

    /// Every value of a tag that may stand any number of times.
    public func all(_ tag: UInt8) -> [ArraySlice<UInt8>] {
        fields.compactMap { $0.tag == tag ? $0.value : nil }
    }

    public func optionalBytes(_ tag: UInt8) throws(FieldError) -> ArraySlice<UInt8>? {
        var found: ArraySlice<UInt8>?
        for field in fields where field.tag == tag {
            guard found == nil else { throw .repeated(tag) }
            found = field.value
        }
        return found
    }

    public func bytes(_ tag: UInt8) throws(FieldError) -> ArraySlice<UInt8> {
        guard let value = try optionalBytes(tag) else { throw .missing(tag) }
        return value
    }

    /// Inlinable, so that it is compiled for each width, as every message has some. Of 64 bits at most.
    @inlinable public func optionalNumber<Number: FixedWidthInteger>(
        _ tag: UInt8, as type: Number.Type = Number.self
    ) throws(FieldError) -> Number? {
        guard let word = try optionalWord(tag, byteCount: MemoryLayout<Number>.size) else { return nil }
        return Number(truncatingIfNeeded: word)
    }

    @usableFromInline func optionalWord(_ tag: UInt8, byteCount: Int) throws(FieldError) -> UInt64? {
        guard let value = try optionalBytes(tag) else { return nil }
        guard value.count == byteCount else { throw .malformed(tag) }
        return Self.word(value)
    }

    private static func word(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        var word: UInt64 = 0
        for index in bytes.indices.reversed() { word = word << 8 | UInt64(bytes[index]) }
        return word
    }

    @inlinable public func number<Number: FixedWidthInteger>(
        _ tag: UInt8, as type: Number.Type = Number.self
    ) throws(FieldError) -> Number {
        guard let value = try optionalNumber(tag, as: type) else { throw .missing(tag) }
        return value
    }

    public func flag(_ tag: UInt8) throws(FieldError) -> Bool {
        switch try number(tag, as: UInt8.self) {
        case 0: return false
        case 1: return true
        default: throw .malformed(tag)
        }
    }

    public func uuid(_ tag: UInt8) throws(FieldError) -> UUID128 {
        let value = try bytes(tag)
        guard value.count == 16 else { throw .malformed(tag) }
        return UUID128(high: Self.word(value.prefix(8)), low: Self.word(value.dropFirst(8)))
    }

    public func optionalText(_ tag: UInt8, maximumBytes: Int) throws(FieldError) -> String? {
        guard let value = try optionalBytes(tag) else { return nil }
        guard value.count <= maximumBytes, let text = String(validating: value, as: UTF8.self) else {
            throw .malformed(tag)
        }
        return text
    }

    public func text(_ tag: UInt8, maximumBytes: Int) throws(FieldError) -> String {
        guard let text = try optionalText(tag, maximumBytes: maximumBytes) else { throw .missing(tag) }
        return text
    }
}

extension String {
    /// As many whole characters from the beginning as fit into so many bytes.
    public func prefix(utf8Bytes limit: Int) -> Substring {
        guard utf8.count > limit else { return self[...] }
        var end = startIndex
        var bytes = 0
        while end < endIndex {
            bytes += self[end].utf8.count
            guard bytes <= limit else { break }
            end = index(after: end)
        }
        return self[..<end]
    }

    /// The text with a question mark for each character that would steer a terminal: bytes of others end in logs.
    public var printable: String {
        String(String.UnicodeScalarView(unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : $0 }))
    }
}
