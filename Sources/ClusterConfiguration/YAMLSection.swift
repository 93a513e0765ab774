// A mapping of the file with its path and lines, so that every complaint names file, line and key. A section knows which
// of its keys were asked for; what is left over is an unknown key.

internal import Glibc
internal import LogModel
internal import Yams

struct YAMLValue {
    let file: String
    let path: String
    let line: Int
    let node: Yams.Node

    func error(_ reason: String) -> ConfigurationError {
        ConfigurationError(file: file, line: line, key: path, reason: reason)
    }

    func text() throws(ConfigurationError) -> String {
        guard case .scalar(let scalar) = node, !scalar.string.isEmpty else { throw error("must be a text") }
        return scalar.string
    }

    static let nameRule =
        "1 to \(Name.maximumLength) of letters, digits, '-', '_' and '.', beginning with a letter, a digit or '_'"

    func name() throws(ConfigurationError) -> String {
        let text = try text()
        guard Name.isValid(text) else {
            throw error("'\(text)' is not a name: \(Self.nameRule)")
        }
        return text
    }

    func size(atLeast minimum: UInt64, multipleOf unit: UInt64) throws(ConfigurationError) -> UInt64 {
        let text = try text()
        guard let bytes = Size.parse(text) else {
            throw error("'\(text)' is not a size, such as 4096, 64KiB, 512MiB, 1GiB")
        }
        guard bytes >= minimum else { throw error("\(text) is less than \(Size.format(minimum))") }
        guard bytes <= 1 << 50 else { throw error("\(text) is more than a pebibyte") }
        guard bytes % unit == 0 else { throw error("\(text) is not a multiple of \(unit) bytes") }
        return bytes
    }

    func millis() throws(ConfigurationError) -> UInt64 {
        let text = try text()
        guard let millis = TimeSpan.parseMillis(text) else {
            throw error("'\(text)' is not a time: a whole number of ms or s, such as 100ms or 1s")
        }
        return millis
    }

    func count(in range: ClosedRange<Int>) throws(ConfigurationError) -> Int {
        let text = try text()
        guard !text.hasPrefix("+"), let count = Int(text), range.contains(count) else {
            throw error("'\(text)' is not a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return count
    }

    /// Permission bits. The node itself reads and writes; what it makes is not run, and only sockets may be everybody's.
    func fileMode(isSocket: Bool) throws(ConfigurationError) -> UInt32 {
        let text = try text()
        let digits = text.hasPrefix("0o") ? text.dropFirst(2) : text.hasPrefix("0") ? text.dropFirst() : text[...]
        guard digits.utf8.count == 3, digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "7")).contains($0) }),
            let mode = UInt32(digits, radix: 8)
        else { throw error("'\(text)' is not a mode: three octal digits, such as 0660") }
        guard mode & 0o600 == 0o600 else {
            throw error("\(text) keeps the node itself out: 06.. lets it read and write")
        }
        guard mode & 0o111 == 0 else { throw error("\(text) lets somebody run it: 0660 lets a group read and write") }
        guard isSocket || mode & 0o002 == 0 else {
            throw error("\(text) lets every user write: 0660 lets a group, with 'group' to say which")
        }
        return mode
    }

    /// A group of this machine by name, or any by number.
    func group() throws(ConfigurationError) -> UInt32 {
        let text = try text()
        if text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) {
            // The highest number means none in system calls.
            guard let number = UInt32(text), number < .max else { throw error("'\(text)' is not a group's number") }
            return number
        }
        let number: UInt32?
        do throws(GroupDatabase.LookupError) {
            number = try GroupDatabase.number(of: text)
        } catch {
            throw self.error("the group '\(text)' cannot be looked up: \(String(cString: strerror(error.number)))")
        }
        guard let number else { throw error("there is no group '\(text)' on this machine") }
        return number
    }

    var isSection: Bool { if case .mapping = node { true } else { false } }
    var isList: Bool { if case .sequence = node { true } else { false } }

    func choice(_ supported: [String], later: [String] = []) throws(ConfigurationError) -> String {
        let text = try text()
        if later.contains(text) { throw error("'\(text)' is not supported by this version") }
        guard supported.contains(text) else {
            throw error("'\(text)' is not one of \(supported.joined(separator: ", "))")
        }
        return text
    }

    func list() throws(ConfigurationError) -> [YAMLValue] {
        guard case .sequence(let sequence) = node else { throw error("must be a list") }
        return sequence.enumerated().map { index, element in
            YAMLValue(file: file, path: "\(path)[\(index)]", line: element.mark?.line ?? line, node: element)
        }
    }

    func section() throws(ConfigurationError) -> YAMLSection { try YAMLSection(self) }
}

struct YAMLSection {
    let value: YAMLValue
    /// In the order of the file.
    let keys: [String]
    private let entries: [String: YAMLValue]

    init(_ value: YAMLValue) throws(ConfigurationError) {
        guard case .mapping(let mapping) = value.node else { throw value.error("must be a section of keys") }
        var entries: [String: YAMLValue] = [:]
        var keys: [String] = []
        for (keyNode, node) in mapping {
            let line = keyNode.mark?.line ?? value.line
            guard let key = keyNode.string else {
                throw ConfigurationError(file: value.file, line: line, key: value.path, reason: "a key must be a text")
            }
            let path = value.path.isEmpty ? key : "\(value.path).\(key)"
            let entry = YAMLValue(file: value.file, path: path, line: line, node: node)
            guard entries.updateValue(entry, forKey: key) == nil else { throw entry.error("is given twice") }
            keys.append(key)
        }
        self.value = value
        self.keys = keys
        self.entries = entries
    }

    subscript(key: String) -> YAMLValue? { entries[key] }

    func required(_ key: String) throws(ConfigurationError) -> YAMLValue {
        guard let entry = entries[key] else { throw value.error("'\(key)' is missing") }
        return entry
    }
}
