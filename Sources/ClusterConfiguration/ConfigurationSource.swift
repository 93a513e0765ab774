// Where a configuration was read, so that what its machine says against a key is told with the line of that key.

internal import Yams

public struct ConfigurationSource: Sendable {
    private var file = ""
    private var lines: [String: Int] = [:]

    /// Nowhere.
    init() {}

    init(_ root: YAMLValue) {
        file = root.file
        note(root)
    }

    /// The path of a key is its name in the file: `nodes.alpha.pool.size`.
    private mutating func note(_ value: YAMLValue) {
        if !value.path.isEmpty { lines[value.path] = value.line }
        switch Result(catching: { () throws(ConfigurationError) in try value.section() }) {
        case .success(let section): for key in section.keys { section[key].map { note($0) } }
        // A text or a list: its own line is all that there is.
        case .failure: break
        }
    }

    /// What is wrong with `key`; of a key that the file does not have, with the section that it would be in.
    public func problem(_ key: String, _ reason: String) -> ConfigurationError {
        var place = key[...]
        while lines[String(place)] == nil, let end = place.lastIndex(of: ".") { place = place[..<end] }
        return ConfigurationError(file: file, line: lines[String(place)] ?? 0, key: key, reason: reason)
    }
}
