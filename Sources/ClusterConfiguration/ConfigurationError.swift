// What is wrong with a configuration file, and where.

/// What is wrong in a configuration file, and where.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    public var file: String
    /// From 1; 0 if the problem is not in one line.
    public var line: Int
    /// The path of the key: `nodes.alpha.pool.size`.
    public var key: String
    public var reason: String
    /// What else is wrong, in the order of the file.
    public var others: [ConfigurationError] = []

    /// A line for each problem.
    public var description: String {
        let place = line > 0 ? "\(file):\(line)" : file
        let own = key.isEmpty ? "\(place): \(reason)" : "\(place): \(key): \(reason)"
        return ([own] + others.map(\.description)).joined(separator: "\n")
    }
}
