// What is wrong in a configuration, gathered while it is read, so that a person sees all of it at once.

final class ConfigurationProblems {
    private var found: [ConfigurationError] = []

    func add(_ problem: ConfigurationError) { found.append(problem) }

    /// What `read` answers, or `nil` with its problem added.
    @discardableResult
    func note<Value>(_ read: @autoclosure () throws(ConfigurationError) -> Value) -> Value? {
        do throws(ConfigurationError) {
            return try read()
        } catch {
            found.append(error)
            return nil
        }
    }

    /// Adds every key that is neither known nor of a later version.
    func allow(_ section: YAMLSection, _ known: [String], later: [String] = []) {
        for key in section.keys where !known.contains(key) {
            guard let entry = section[key] else { continue }
            add(
                entry.error(
                    later.contains(key)
                        ? "is not supported by this version"
                        : "is not a key that is known here (known: \(known.joined(separator: ", ")))"))
        }
    }

    /// Throws all that was added, in the order of the file.
    func finish() throws(ConfigurationError) {
        let inOrder = found.sorted { $0.line < $1.line }
        guard var first = inOrder.first else { return }
        first.others = Array(inOrder.dropFirst())
        throw first
    }
}
