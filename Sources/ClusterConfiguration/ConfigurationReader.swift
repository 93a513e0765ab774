// From YAML to a checked configuration. What belongs to later versions is refused by name; what contradicts itself is
// refused with the line of the second of the two.

internal import Foundation
internal import LogModel
internal import Yams

extension ClusterConfiguration {
    static let maximumFileBytes = 1 << 20

    /// Reads and checks `path`. Throws the first problem found, with file, line and key.
    public static func load(path: String) throws(ConfigurationError) -> ClusterConfiguration {
        func failure(_ reason: String) -> ConfigurationError {
            ConfigurationError(file: path, line: 0, key: "", reason: reason)
        }
        guard let handle = FileHandle(forReadingAtPath: path) else { throw failure("cannot be opened") }
        let data: Data
        do {
            data = try handle.read(upToCount: maximumFileBytes + 1) ?? Data()
            try handle.close()
        } catch {
            throw failure("cannot be read: \(error)")
        }
        guard data.count <= maximumFileBytes else {
            throw failure("is larger than \(Size.format(UInt64(maximumFileBytes)))")
        }
        guard let text = String(validating: data, as: UTF8.self) else { throw failure("is not UTF-8") }
        let absolute = URL(fileURLWithPath: path).standardizedFileURL.path
        return try parse(text, file: path, baseDirectory: (absolute as NSString).deletingLastPathComponent)
    }

    /// As ``load(path:)``, from text. `file` is only named in errors.
    public static func parse(
        _ text: String, file: String, baseDirectory: String
    ) throws(ConfigurationError) -> ClusterConfiguration {
        let root: Yams.Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            let (line, problem) = place(of: error)
            throw ConfigurationError(file: file, line: line, key: "", reason: "is not YAML: \(problem)")
        }
        guard let root else { throw ConfigurationError(file: file, line: 0, key: "", reason: "is empty") }
        let reader = ConfigurationReader(baseDirectory: baseDirectory)
        let configuration = try reader.read(YAMLValue(file: file, path: "", line: 1, node: root).section())
        return configuration
    }

    /// The line (0: not in one line) and the parser's words, without the text that it quotes.
    private static func place(of error: any Error) -> (line: Int, problem: String) {
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            (mark.line, problem)
        case .duplicatedKeysInMapping(let keys, let context):
            (context.mark.line, "\(keys.prefix(8).sorted().joined(separator: ", ")) is given twice")
        case .reader(let problem, _, _, _): (0, problem)
        default: (0, String("\(error)".prefix(200)))
        }
    }
}

struct ConfigurationReader {
    let baseDirectory: String

    func resolve(_ path: String) -> String {
        path.hasPrefix("/") ? path : "\(baseDirectory)/\(path)"
    }

    func read(_ root: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration {
        try root.allow(
            ["cluster", "coordinator", "heartbeat", "lease", "fence", "security", "doubt", "limits", "nodes", "groups"])
        let heartbeat = try readHeartbeat(root)
        let lease = try root["lease"]?.millis() ?? 1000
        if lease < heartbeat.timeout, let value = root["lease"] {
            throw value.error(
                "a lease shorter than the heartbeat timeout (\(heartbeat.timeout) ms) would end before silence is noticed"
            )
        }
        if let fence = root["fence"] {
            let section = try fence.section()
            _ = try section.required("type").choice(["process"], later: ["command"])
            try section.allow(["type"], later: ["run"])
        }
        let configuration = ClusterConfiguration(
            cluster: try root.required("cluster").name(),
            baseDirectory: baseDirectory,
            coordinatorPath: try readCoordinator(root.required("coordinator").section()),
            heartbeatIntervalMillis: heartbeat.interval,
            heartbeatTimeoutMillis: heartbeat.timeout,
            leaseMillis: lease,
            doubtMillis: try root["doubt"]?.millis() ?? 30_000,
            secretPath: try readSecurity(root["security"]),
            limits: try readLimits(root["limits"]),
            nodes: try readNodes(root.required("nodes").section()),
            groups: try readGroups(root.required("groups").section()))
        try ConfigurationCheck(configuration: configuration, root: root).run()
        return configuration
    }

    private func readHeartbeat(_ root: YAMLSection) throws(ConfigurationError) -> (interval: UInt64, timeout: UInt64) {
        guard let value = root["heartbeat"] else { return (100, 500) }
        let section = try value.section()
        try section.allow(["interval", "timeout"])
        let interval = try section["interval"]?.millis() ?? 100
        let timeout = try section["timeout"]?.millis() ?? 500
        guard timeout >= 2 * interval else {
            throw value.error("a timeout of \(timeout) ms does not let two heartbeats of \(interval) ms be missed")
        }
        return (interval, timeout)
    }

    private func readCoordinator(_ section: YAMLSection) throws(ConfigurationError) -> String {
        _ = try section.required("type").choice(["file"], later: ["etcd"])
        try section.allow(["type", "path"], later: ["endpoints", "prefix"])
        return resolve(try section.required("path").text())
    }

    private func readSecurity(_ value: YAMLValue?) throws(ConfigurationError) -> String? {
        guard let value else { return nil }
        let section = try value.section()
        try section.allow(["psk-file"], later: ["ca", "certificate", "key", "insecure"])
        return resolve(try section.required("psk-file").text())
    }

    /// Two of the largest requests fit into the least memory; so many connections as leave each its share of it.
    private func readLimits(_ value: YAMLValue?) throws(ConfigurationError) -> ClusterConfiguration.Limits {
        var limits = ClusterConfiguration.Limits()
        guard let section = try value?.section() else { return limits }
        try section.allow(["memory", "connections"])
        limits.memoryBytes = try section["memory"]?.size(atLeast: 128 << 20, multipleOf: 1)
        if let connections = section["connections"] { limits.connections = try connections.count(in: 1...4096) }
        return limits
    }

    private func readNodes(_ section: YAMLSection) throws(ConfigurationError) -> [ClusterConfiguration.Node] {
        var nodes: [ClusterConfiguration.Node] = []
        for key in section.keys.sorted() {
            let value = try section.required(key)
            guard Name.isValid(key) else { throw value.error("'\(key)' is not a name for a node") }
            let entry = try value.section()
            try entry.allow(["mirror", "nbd", "admin", "pool"], later: ["http"])
            var rails: [String] = []
            for rail in try entry.required("mirror").list() { rails.append(try address(rail)) }
            guard !rails.isEmpty else { throw try entry.required("mirror").error("needs at least one HOST:PORT") }
            nodes.append(
                ClusterConfiguration.Node(
                    id: NodeID(key), mirror: rails, nbd: try address(entry.required("nbd"), orSocket: true),
                    adminPath: try socketPath(resolve(entry.required("admin").text()), entry.required("admin")),
                    pool: try readPool(entry.required("pool").section())))
        }
        guard nodes.count >= 2 else { throw section.value.error("a cluster has at least two nodes") }
        return nodes
    }

    private func readPool(_ section: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration.Pool {
        try section.allow(["path", "size", "persistence", "prefault"])
        return ClusterConfiguration.Pool(
            path: resolve(try section.required("path").text()),
            sizeBytes: try section.required("size").size(atLeast: 8 << 20, multipleOf: 4096),
            persistence: try section["persistence"]?.choice(["auto", "pmem", "msync", "volatile"]) ?? "auto",
            isPrefaulted: try section["prefault"]?.choice(["true", "false"]) != "false")
    }

    /// HOST:PORT on the loopback interface, or, for NBD, a Unix socket.
    private func address(_ value: YAMLValue, orSocket: Bool = false) throws(ConfigurationError) -> String {
        let text = try value.text()
        if orSocket, text.hasPrefix("unix:") {
            return "unix:" + (try socketPath(resolve(String(text.dropFirst(5))), value))
        }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0 else {
            throw value.error("'\(text)' is not HOST:PORT\(orSocket ? " or unix:/path" : "")")
        }
        let host = text[..<colon]
        guard isLoopback(host) else {
            throw value.error(
                "\(host) is not a loopback address: other networks need encryption, which this version does not support"
            )
        }
        return text
    }

    /// A name such as 127.example.org is whatever its owner says it is.
    private func isLoopback(_ host: Substring) -> Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        let isAddress = parts.count == 4 && parts.allSatisfy { !$0.hasPrefix("+") && UInt8($0) != nil }
        return host == "localhost" || host == "[::1]" || isAddress && parts[0] == "127"
    }

    /// `sockaddr_un` has room for 107 bytes.
    private func socketPath(_ path: String, _ value: YAMLValue) throws(ConfigurationError) -> String {
        guard path.utf8.count <= 107 else { throw value.error("\(path) is too long for a socket (107 bytes at most)") }
        return path
    }

    private func readGroups(_ section: YAMLSection) throws(ConfigurationError) -> [ClusterConfiguration.Group] {
        var groups: [ClusterConfiguration.Group] = []
        for key in section.keys.sorted() {
            let value = try section.required(key)
            guard Name.isValid(key) else { throw value.error("'\(key)' is not a name for a group") }
            let entry = try value.section()
            try entry.allow(["home", "mirror", "log", "ack", "on-mirror-loss", "topology", "volumes"])
            _ = try entry["ack"]?.choice(["mirrored"], later: ["received", "local"])
            _ = try entry["topology"]?.choice(["shared"], later: ["replicated"])
            groups.append(
                ClusterConfiguration.Group(
                    id: GroupID(key), home: NodeID(try entry.required("home").name()),
                    mirror: NodeID(try entry.required("mirror").name()),
                    logBytes: try entry.required("log").size(atLeast: 4 << 20, multipleOf: 4096),
                    degradeOnMirrorLoss: try entry["on-mirror-loss"]?.choice(["degrade", "stall"]) != "stall",
                    volumes: try readVolumes(entry.required("volumes").section())))
        }
        guard !groups.isEmpty else { throw section.value.error("a cluster has at least one group") }
        return groups
    }

    private func readVolumes(_ section: YAMLSection) throws(ConfigurationError) -> [ClusterConfiguration.Volume] {
        var volumes: [ClusterConfiguration.Volume] = []
        for key in section.keys.sorted() {
            let value = try section.required(key)
            guard Name.isValid(key) else { throw value.error("'\(key)' is not a name for a volume") }
            let entry = try value.section()
            try entry.allow(["medium", "size", "read-only"])
            let medium = try entry.required("medium").text()
            volumes.append(
                ClusterConfiguration.Volume(
                    name: key, mediumPath: resolve(medium), mediumText: medium,
                    sizeBytes: try entry.required("size").size(atLeast: 4096, multipleOf: 512),
                    isReadOnly: try entry["read-only"]?.choice(["true", "false"]) == "true"))
        }
        guard !volumes.isEmpty else { throw section.value.error("a group has at least one volume") }
        return volumes
    }
}

/// What no single key can tell: references, overlaps, and room.
struct ConfigurationCheck {
    let configuration: ClusterConfiguration
    let root: YAMLSection

    /// Bytes of a pool that are not rings: superblocks and directory, and two pages of each region.
    static let poolOverheadBytes: UInt64 = 16 << 10
    static let regionOverheadBytes: UInt64 = 8192

    func run() throws(ConfigurationError) {
        try checkAddresses()
        try checkFiles()
        try checkGroups()
        try checkPools()
    }

    private func entry(_ path: String...) throws(ConfigurationError) -> YAMLValue { try entry(path) }

    private func entry(_ path: [String]) throws(ConfigurationError) -> YAMLValue {
        var section = root
        for key in path.dropLast() { section = try section.required(key).section() }
        return try section.required(path[path.count - 1])
    }

    private func checkAddresses() throws(ConfigurationError) {
        var owners: [String: String] = [:]
        func take(_ thing: String, _ user: String, _ value: () throws(ConfigurationError) -> YAMLValue)
            throws(ConfigurationError)
        {
            if let other = owners.updateValue(user, forKey: thing) {
                throw try value().error("\(thing) is used by \(other) already")
            }
        }
        for node in configuration.nodes {
            let name = node.id.rawValue
            for rail in node.mirror {
                try take(rail, "nodes.\(name).mirror") { () throws(ConfigurationError) in
                    try entry("nodes", name, "mirror")
                }
            }
            try take(node.nbd, "nodes.\(name).nbd") { () throws(ConfigurationError) in try entry("nodes", name, "nbd") }
        }
    }

    /// No two keys lead to one file, by whatever names: one writer would destroy what the other one keeps there.
    private func checkFiles() throws(ConfigurationError) {
        var names = FileNames()
        func take(_ path: String, _ key: [String]) throws(ConfigurationError) {
            guard let other = names.add(path, key: key.joined(separator: ".")) else { return }
            let what = other.path == path ? "is used by" : "is the same file as \(other.path) of"
            throw try entry(key).error("\(path) \(what) \(other.key) already")
        }
        try take(configuration.coordinatorPath, ["coordinator", "path"])
        for node in configuration.nodes {
            let name = node.id.rawValue
            try take(node.adminPath, ["nodes", name, "admin"])
            if node.nbd.hasPrefix("unix:") { try take(String(node.nbd.dropFirst(5)), ["nodes", name, "nbd"]) }
            try take(node.pool.path, ["nodes", name, "pool", "path"])
        }
        for group in configuration.groups {
            for volume in group.volumes {
                try take(volume.mediumPath, ["groups", group.id.rawValue, "volumes", volume.name, "medium"])
            }
        }
    }

    private func checkGroups() throws(ConfigurationError) {
        var exports: [String: GroupID] = [:]
        for group in configuration.groups {
            for (key, node) in [("home", group.home), ("mirror", group.mirror)] where configuration.node(node) == nil {
                throw try entry("groups", group.id.rawValue, key).error("there is no node '\(node)'")
            }
            guard group.home != group.mirror else {
                throw try entry("groups", group.id.rawValue, "mirror").error("a node cannot mirror itself")
            }
            var ids: [VolumeID: String] = [:]
            for volume in group.volumes {
                let value = try entry("groups", group.id.rawValue, "volumes", volume.name)
                if let other = exports.updateValue(group.id, forKey: volume.name) {
                    throw value.error(
                        "group \(other) has a volume of this name already; a volume's name is its export's name")
                }
                if let other = ids.updateValue(volume.name, forKey: volume.id) {
                    throw value.error("the names '\(other)' and '\(volume.name)' have the same identifier; rename one")
                }
            }
        }
    }

    private func checkPools() throws(ConfigurationError) {
        for node in configuration.nodes {
            let needed = configuration.groups(of: node.id).reduce(Self.poolOverheadBytes) {
                $0 + $1.logBytes + Self.regionOverheadBytes
            }
            guard node.pool.sizeBytes >= needed else {
                throw try entry("nodes", node.id.rawValue, "pool", "size").error(
                    "\(Size.format(node.pool.sizeBytes)) is not enough for the logs of \(node.id), which need \(Size.format(needed))"
                )
            }
        }
    }
}
