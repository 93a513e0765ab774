// The section `fence`: one fence, or a list that is tried in order; and what it needs to know of each node.

extension ConfigurationReader {
    func readFences(_ value: YAMLValue?) throws(ConfigurationError) -> [ClusterConfiguration.Fence] {
        guard let value else { return [.process] }
        guard value.isList else { return [try readFence(value.section())] }
        var fences: [ClusterConfiguration.Fence] = []
        for entry in try value.list() { fences.append(try readFence(entry.section())) }
        guard !fences.isEmpty else { throw value.error("needs at least one fence") }
        return fences
    }

    private func readFence(_ section: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration.Fence {
        switch try section.required("type").choice(["process", "command", "reservation"]) {
        case "command":
            problems.allow(section, ["type", "run", "options", "timeout"])
            return .command(try readCommand(section))
        case "reservation":
            problems.allow(section, ["type"])
            return .reservation
        default:
            problems.allow(section, ["type"])
            return .process
        }
    }

    private static let longestTimeoutMillis: UInt64 = 600_000

    private func readCommand(_ section: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration.FenceCommand {
        let run = try section.required("run")
        var words: [String] = []
        for word in try run.list() { words.append(try word.text()) }
        guard let program = words.first else { throw run.error("needs a program") }
        // A name alone is looked for in PATH.
        if program.contains("/") { words[0] = resolve(program) }
        var command = ClusterConfiguration.FenceCommand(run: words)
        command.options = try section["options"].map(readOptions) ?? [:]
        if let timeout = section["timeout"] {
            command.timeoutMillis = try timeout.millis()
            guard (1...Self.longestTimeoutMillis).contains(command.timeoutMillis) else {
                throw timeout.error("a fence has from 1 ms to \(Self.longestTimeoutMillis / 1000) s")
            }
        }
        return command
    }

    func readNodeFence(_ value: YAMLValue?) throws(ConfigurationError) -> [String: String] {
        guard let section = try value?.section() else { return [:] }
        problems.allow(section, ["options"])
        return try section["options"].map(readOptions) ?? [:]
    }

    /// Lines `key=value` for an agent.
    private func readOptions(_ value: YAMLValue) throws(ConfigurationError) -> [String: String] {
        let section = try value.section()
        var options: [String: String] = [:]
        for key in section.keys {
            let entry = try section.required(key)
            let text = try entry.text()
            guard key != "action" else { throw entry.error("is what the node tells the agent itself") }
            guard !key.contains(where: { $0 == "=" || $0.isWhitespace }), !text.contains(where: \.isNewline) else {
                throw entry.error("is not one line key=value")
            }
            options[key] = text
        }
        return options
    }
}
