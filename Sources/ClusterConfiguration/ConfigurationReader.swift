// From YAML to a checked configuration. What belongs to later versions is refused by name; what contradicts itself is
// refused with the line of the second of the two. All that is wrong is said at once.

internal import Foundation
internal import LogModel
internal import Yams

extension ClusterConfiguration {
    static let maximumFileBytes = 1 << 20

    /// Reads and checks `path`. Throws all problems found, each with file, line and key.
    public static func load(path: String) throws(ConfigurationError) -> ClusterConfiguration {
        func failure(_ reason: String) -> ConfigurationError {
            ConfigurationError(file: path, line: 0, key: "", reason: reason)
        }
        guard let handle = FileHandle(forReadingAtPath: path) else {
            throw failure("cannot be opened: \(String(cString: strerror(errno)))")
        }
        let data: Data
        do {
            data = try handle.read(upToCount: maximumFileBytes + 1) ?? Data()
            try handle.close()
        } catch {
            var isFolder: ObjCBool = false
            _ = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
            throw failure(isFolder.boolValue ? "is a folder" : "cannot be read: \(error)")
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
            // Some editors begin a file with the mark of its byte order.
            root = try Yams.compose(yaml: text.hasPrefix("\u{feff}") ? String(text.unicodeScalars.dropFirst()) : text)
        } catch {
            let (line, problem) = place(of: error)
            throw ConfigurationError(file: file, line: line, key: "", reason: "is not YAML: \(problem)")
        }
        guard let root else { throw ConfigurationError(file: file, line: 0, key: "", reason: "is empty") }
        let reader = ConfigurationReader(baseDirectory: baseDirectory)
        return try reader.read(YAMLValue(file: file, path: "", line: 1, node: root).section())
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
    let problems = ConfigurationProblems()

    init(baseDirectory: String) { self.baseDirectory = baseDirectory }

    func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : "\(baseDirectory)/\(path)" }

    func read(_ root: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration {
        problems.allow(
            root,
            [
                "cluster", "coordinator", "heartbeat", "lease", "fence", "security", "doubt", "limits", "log", "nodes",
                "groups",
            ])
        let heartbeat = problems.note(try readHeartbeat(root))
        let lease = problems.note(try readLease(root, timeout: heartbeat?.timeout ?? 0))
        let fences = problems.note(try readFences(root["fence"]))
        let cluster = problems.note(try root.required("cluster").name())
        let coordinator = problems.note(
            try readCoordinator(root.required("coordinator").section(), cluster: cluster ?? ""))
        let doubt = problems.note(try root["doubt"]?.millis() ?? 30_000)
        let security = problems.note(try readSecurity(root["security"]))
        let limits = problems.note(try readLimits(root["limits"]))
        let log = problems.note(try readLog(root["log"]))
        let nodes = problems.note(try readNodes(root.required("nodes").section()))
        let groups = problems.note(try readGroups(root.required("groups").section()))
        try problems.finish()
        guard let heartbeat, let lease, let fences, let cluster, let coordinator, let doubt, let security, let limits,
            let log,
            let nodes,
            let groups
        else { throw root.value.error("cannot be read") }
        let configuration = ClusterConfiguration(
            cluster: cluster, baseDirectory: baseDirectory, coordinator: coordinator,
            heartbeatIntervalMillis: heartbeat.interval, heartbeatTimeoutMillis: heartbeat.timeout, leaseMillis: lease,
            doubtMillis: doubt, fences: fences, secretPath: security.secretPath,
            railCertificates: security.certificates, isInsecure: security.isInsecure, limits: limits, log: log,
            nodes: nodes, groups: fences.contains(.reservation) ? groups.map(Self.reserved) : groups,
            source: ConfigurationSource(root.value))
        ConfigurationCheck(configuration: configuration, root: root, problems: problems).run()
        try problems.finish()
        return configuration
    }

    private static func reserved(_ group: ClusterConfiguration.Group) -> ClusterConfiguration.Group {
        var group = group
        for index in group.volumes.indices { group.volumes[index].isReserved = true }
        return group
    }

    private func readHeartbeat(_ root: YAMLSection) throws(ConfigurationError) -> (interval: UInt64, timeout: UInt64) {
        guard let value = root["heartbeat"] else { return (100, 500) }
        let section = try value.section()
        problems.allow(section, ["interval", "timeout"])
        let interval = try section["interval"]?.millis() ?? 100
        let timeout = try section["timeout"]?.millis() ?? 500
        guard timeout >= 2 * interval else {
            throw value.error("a timeout of \(timeout) ms does not let two heartbeats of \(interval) ms be missed")
        }
        return (interval, timeout)
    }

    private func readLease(_ root: YAMLSection, timeout: UInt64) throws(ConfigurationError) -> UInt64 {
        guard let value = root["lease"] else { return 1000 }
        let lease = try value.millis()
        guard lease >= timeout else {
            throw value.error(
                "a lease shorter than the heartbeat timeout (\(timeout) ms) would end before silence is noticed")
        }
        return lease
    }

    /// `mode` and `group` of what a node makes. A group without a mode may read and write.
    func readAccess(_ section: YAMLSection, isSocket: Bool = false) throws(ConfigurationError) -> FileAccess {
        let group = try section["group"]?.group()
        let standard = group == nil ? FileAccess.ownerOnly.mode : FileAccess.sharedMode
        return FileAccess(mode: try section["mode"]?.fileMode(isSocket: isSocket) ?? standard, group: group)
    }

    private struct Security {
        var secretPath: String?
        var certificates: CertificateFiles?
        var isInsecure = false
    }

    private func readSecurity(_ value: YAMLValue?) throws(ConfigurationError) -> Security {
        var security = Security()
        guard let value else { return security }
        let section = try value.section()
        problems.allow(section, ["psk-file", "ca", "certificate", "key", "insecure"])
        guard !section.keys.isEmpty else {
            throw value.error("needs psk-file, or ca, certificate and key, or insecure: true")
        }
        if let path = section["psk-file"] { security.secretPath = resolve(try path.text()) }
        if ["ca", "certificate", "key"].contains(where: section.keys.contains) {
            security.certificates = CertificateFiles(
                certificate: resolve(try section.required("certificate").text()),
                key: resolve(try section.required("key").text()),
                authorities: resolve(try section.required("ca").text()))
        }
        security.isInsecure = try section["insecure"]?.choice(["true", "false"]) == "true"
        return security
    }

    /// Two of the largest requests fit into the least memory; so many connections as leave each its share of it.
    private func readLimits(_ value: YAMLValue?) throws(ConfigurationError) -> ClusterConfiguration.Limits {
        var limits = ClusterConfiguration.Limits()
        guard let section = try value?.section() else { return limits }
        problems.allow(section, ["memory", "connections"])
        limits.memoryBytes = try section["memory"]?.size(atLeast: 128 << 20, multipleOf: 1)
        if let connections = section["connections"] { limits.connections = try connections.count(in: 1...4096) }
        return limits
    }

    /// Each entry of a section whose keys are names; what is wrong in one does not hide what is wrong in the next.
    private func entries<Entry>(
        _ section: YAMLSection, of what: String, _ read: (String, YAMLSection) throws(ConfigurationError) -> Entry?
    ) -> [Entry] {
        var found: [Entry] = []
        for key in section.keys.sorted() {
            guard let value = section[key] else { continue }
            if !Name.isValid(key) {
                problems.add(value.error("'\(key)' is not a name for a \(what): \(YAMLValue.nameRule)"))
            }
            guard let entry = problems.note(try value.section()) else { continue }
            if let entry = problems.note(try read(key, entry)) ?? nil { found.append(entry) }
        }
        return found
    }

    private func readLog(_ value: YAMLValue?) throws(ConfigurationError) -> ClusterConfiguration.Log {
        var log = ClusterConfiguration.Log()
        guard let section = try value?.section() else { return log }
        problems.allow(section, ["level", "format"])
        if let level = section["level"] { log.level = try level.choice(ClusterConfiguration.Log.levels) }
        if let format = section["format"] { log.format = try format.choice(ClusterConfiguration.Log.formats) }
        return log
    }

    private func readNodes(_ section: YAMLSection) throws(ConfigurationError) -> [ClusterConfiguration.Node] {
        let nodes = entries(section, of: "node", readNode)
        guard section.keys.count >= 2 else { throw section.value.error("a cluster has at least two nodes") }
        return nodes
    }

    private func readNode(_ name: String, _ entry: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration.Node?
    {
        problems.allow(entry, ["mirror", "nbd", "admin", "events", "fence", "poll", "pool"], later: ["http"])
        let rails = problems.note(try readRails(entry.required("mirror")))
        let nbd = problems.note(try readNBD(entry.required("nbd")))
        let admin = problems.note(try readAdmin(entry.required("admin")))
        let pool = problems.note(try readPool(entry.required("pool").section()))
        let events = problems.note(try entry["events"]?.text() ?? "")
        let fence = problems.note(try readNodeFence(entry["fence"]))
        let polling = problems.note(try readPolling(entry["poll"]))
        guard let rails, let nbd, let admin, let pool, let events, let fence, let polling else { return nil }
        return ClusterConfiguration.Node(
            id: NodeID(name), mirror: rails, nbd: nbd.address, nbdAccess: nbd.access, nbdSecurity: nbd.security,
            adminPath: admin.path,
            adminAccess: admin.access, fenceOptions: fence,
            eventsPath: events.isEmpty ? pool.path + ".events" : resolve(events), polling: polling, pool: pool)
    }

    private func readPolling(_ value: YAMLValue?) throws(ConfigurationError) -> PollMode {
        guard let value else { return .off }
        let text = try value.text()
        guard let mode = PollMode.parse(text) else {
            throw value.error("'\(text)' is not off, auto, or a time from 1us to \(PollMode.maximumMicros)us")
        }
        return mode
    }

    /// An address, or a section with one.
    private func readNBD(
        _ value: YAMLValue
    ) throws(ConfigurationError) -> (address: String, access: FileAccess, security: ClusterConfiguration.NBDSecurity?) {
        guard value.isSection else { return (try address(value, orSocket: true), .ownerOnly, nil) }
        let section = try value.section()
        problems.allow(section, ["listen", "mode", "group", "tls", "certificate", "key", "ca"])
        let listen = try section.required("listen")
        let places = listen.isList ? try listen.list() : [listen]
        guard let place = places.first else { throw listen.error("needs an address") }
        guard places.count == 1 else { throw listen.error("more than one address is not supported by this version") }
        let address = try address(place, orSocket: true)
        if !address.hasPrefix("unix:"), let key = section["mode"] ?? section["group"] {
            throw key.error("is of a Unix socket, and \(address) is none")
        }
        return (address, try readAccess(section, isSocket: true), try readNBDSecurity(section))
    }

    private func readNBDSecurity(_ section: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration.NBDSecurity?
    {
        let policy = try section["tls"]?.choice(["off", "allow", "require"]) ?? "off"
        guard policy != "off" else {
            if let key = section["certificate"] ?? section["key"] ?? section["ca"] {
                throw key.error("is of no use without tls: require, or allow")
            }
            return nil
        }
        var files = CertificateFiles(
            certificate: resolve(try section.required("certificate").text()),
            key: resolve(try section.required("key").text()), authorities: nil)
        if let path = section["ca"] { files.authorities = resolve(try path.text()) }
        return ClusterConfiguration.NBDSecurity(isRequired: policy == "require", files: files)
    }

    /// The path of a socket, or a section with one.
    private func readAdmin(_ value: YAMLValue) throws(ConfigurationError) -> (path: String, access: FileAccess) {
        guard value.isSection else { return (try socketPath(resolve(value.text()), value), .ownerOnly) }
        let section = try value.section()
        problems.allow(section, ["path", "mode", "group"])
        let path = try section.required("path")
        return (try socketPath(resolve(path.text()), path), try readAccess(section, isSocket: true))
    }

    private func readRails(_ value: YAMLValue) throws(ConfigurationError) -> [String] {
        var rails: [String] = []
        for rail in try value.list() { rails.append(try address(rail)) }
        guard !rails.isEmpty else { throw value.error("needs at least one HOST:PORT") }
        guard rails.count <= ClusterConfiguration.Node.maximumRails else {
            throw value.error("\(rails.count) addresses are more than \(ClusterConfiguration.Node.maximumRails)")
        }
        return rails
    }

    private func readPool(_ section: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration.Pool {
        problems.allow(section, ["path", "size", "persistence", "prefault", "mode", "group"])
        return ClusterConfiguration.Pool(
            path: resolve(try section.required("path").text()),
            sizeBytes: try section.required("size").size(atLeast: 8 << 20, multipleOf: 4096),
            persistence: try section["persistence"]?.choice(["auto", "pmem", "msync", "volatile"]) ?? "auto",
            isPrefaulted: try section["prefault"]?.choice(["true", "false"]) != "false",
            access: try readAccess(section))
    }

    /// HOST:PORT, or, for NBD, a Unix socket.
    private func address(_ value: YAMLValue, orSocket: Bool = false) throws(ConfigurationError) -> String {
        let text = try value.text()
        if orSocket, text.hasPrefix("unix:") {
            guard text.utf8.count > 5 else { throw value.error("'unix:' needs the path of the socket: unix:/path") }
            return "unix:" + (try socketPath(resolve(String(text.dropFirst(5))), value))
        }
        guard let address = TCPAddress(text), address.port > 0, address.hostMayExist else {
            let isBare = !text.hasPrefix("[") && text.utf8.count { $0 == UInt8(ascii: ":") } > 1
            throw value.error(
                isBare
                    ? "an IPv6 address stands in brackets, as in [::1]:7101"
                    : "'\(text)' is not HOST:PORT\(orSocket ? " or unix:/path" : "")")
        }
        return text
    }

    /// `sockaddr_un` has room for 107 bytes.
    private func socketPath(_ path: String, _ value: YAMLValue) throws(ConfigurationError) -> String {
        guard path.utf8.count <= 107 else { throw value.error("\(path) is too long for a socket (107 bytes at most)") }
        return path
    }

    private func readGroups(_ section: YAMLSection) throws(ConfigurationError) -> [ClusterConfiguration.Group] {
        let groups = entries(section, of: "group", readGroup)
        guard !section.keys.isEmpty else { throw section.value.error("a cluster has at least one group") }
        return groups
    }

    private func readGroup(_ name: String, _ entry: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration
        .Group?
    {
        problems.allow(entry, ["home", "mirror", "log", "ack", "on-mirror-loss", "topology", "volumes"])
        problems.note(try entry["ack"]?.choice(["mirrored"], later: ["received", "local"]))
        problems.note(try entry["topology"]?.choice(["shared"], later: ["replicated"]))
        let home = problems.note(NodeID(try entry.required("home").name()))
        let mirror = problems.note(NodeID(try entry.required("mirror").name()))
        let log = problems.note(try entry.required("log").size(atLeast: 4 << 20, multipleOf: 4096))
        let onLoss = problems.note(try entry["on-mirror-loss"]?.choice(["degrade", "stall"]) ?? "degrade")
        let volumes = problems.note(try readVolumes(entry.required("volumes").section()))
        guard let home, let mirror, let log, let onLoss, let volumes else { return nil }
        return ClusterConfiguration.Group(
            id: GroupID(name), home: home, mirror: mirror, logBytes: log, degradeOnMirrorLoss: onLoss != "stall",
            volumes: volumes)
    }

    private func readVolumes(_ section: YAMLSection) throws(ConfigurationError) -> [ClusterConfiguration.Volume] {
        let volumes = entries(section, of: "volume", readVolume)
        guard !section.keys.isEmpty else { throw section.value.error("a group has at least one volume") }
        return volumes
    }

    /// A path, or the address of a logical unit.
    private func readMedium(_ value: YAMLValue) throws(ConfigurationError) -> String {
        let text = try value.text()
        guard text.hasPrefix(ISCSIAddress.scheme) else { return text }
        guard !text.contains("@") else {
            throw value.error("a login (CHAP) for an iSCSI target is not supported by this version")
        }
        guard let address = ISCSIAddress(text) else {
            throw value.error(
                "'\(text)' is not iscsi://HOST[:PORT]/TARGET/LUN, as in iscsi://192.0.2.5/iqn.2026-11.com.example:disk/1"
            )
        }
        return address.description
    }

    private func readVolume(_ name: String, _ entry: YAMLSection) throws(ConfigurationError) -> ClusterConfiguration
        .Volume?
    {
        problems.allow(entry, ["medium", "size", "read-only", "mode", "group"])
        let medium = problems.note(try readMedium(entry.required("medium")))
        let size = problems.note(try entry.required("size").size(atLeast: 4096, multipleOf: 512))
        let readOnly = problems.note(try entry["read-only"]?.choice(["true", "false"]) ?? "false")
        let access = problems.note(try readAccess(entry))
        guard let medium, let size, let readOnly, let access else { return nil }
        let isUnit = medium.hasPrefix(ISCSIAddress.scheme)
        if isUnit, let key = entry["mode"] ?? entry["group"] {
            problems.add(key.error("is of a file that a node makes, and \(medium) is none"))
        }
        return ClusterConfiguration.Volume(
            name: name, mediumPath: isUnit ? medium : resolve(medium), mediumText: medium, sizeBytes: size,
            isReadOnly: readOnly == "true", access: access)
    }
}
