// What no single key of a configuration can tell.

internal import LogModel

/// References, overlaps, and room.
struct ConfigurationCheck {
    let configuration: ClusterConfiguration
    let root: YAMLSection
    let problems: ConfigurationProblems

    /// Bytes of a pool that are not rings: superblocks and directory, and two pages of each region.
    static let poolOverheadBytes: UInt64 = 16 << 10
    static let regionOverheadBytes: UInt64 = 8192

    func run() {
        checkAddresses()
        checkEncryption()
        checkSecret()
        checkFiles()
        checkGroups()
        checkPools()
    }

    /// Looks the key up from the root: for complaints only.
    private func complain(_ path: [String], at index: Int? = nil, _ reason: String) {
        guard let value = problems.note(try entry(path)) else { return }
        guard let index, let list = problems.note(try value.list()) else { return problems.add(value.error(reason)) }
        problems.add(list[index].error(reason))
    }

    private func entry(_ path: [String]) throws(ConfigurationError) -> YAMLValue {
        var section = root
        for key in path.dropLast() { section = try section.required(key).section() }
        return try section.required(path[path.count - 1])
    }

    /// No two listen at one place, however it is spelt.
    private func checkAddresses() {
        var users: [String: (address: String, key: [String])] = [:]
        func take(_ address: String, _ key: [String]) {
            for place in ClusterConfiguration.places(of: address) {
                guard let other = users.updateValue((address, key), forKey: place) else { continue }
                let what = other.address == address ? "is used by" : "is the same place as \(other.address) of"
                return complain(key, "\(address) \(what) \(other.key.joined(separator: ".")) already")
            }
        }
        for node in configuration.nodes {
            for rail in node.mirror { take(rail, ["nodes", node.id.rawValue, "mirror"]) }
            if !node.nbd.hasPrefix("unix:") { take(node.nbd, ["nodes", node.id.rawValue, "nbd"]) }
        }
    }

    /// What leaves this machine is encrypted, or the file says that it need not be (S27).
    private func checkEncryption() {
        for node in configuration.nodes {
            let name = node.id.rawValue
            for (index, rail) in node.mirror.enumerated() {
                railProblem(rail).map { complain(["nodes", name, "mirror"], at: index, "\(rail) \($0)") }
            }
            guard !configuration.isInsecure, node.nbdSecurity?.isRequired != true, isOnNetwork(node.nbd) else {
                continue
            }
            complain(
                ["nodes", name, "nbd"],
                "\(node.nbd) is not a loopback address: clients on other networks need `nbd: {listen: …, tls: require, certificate: …, key: …}`, "
                    + "or, for all the network to read, `security: {insecure: true}`")
        }
    }

    private func railProblem(_ rail: String) -> String? {
        guard isOnNetwork(rail) else { return nil }
        if let host = TCPAddress(rail)?.host, ["0.0.0.0", "::"].contains(host) {
            return "is no address that the other nodes can dial"
        }
        guard !configuration.isInsecure, configuration.secretPath == nil, configuration.railCertificates == nil else {
            return nil
        }
        return
            "is not a loopback address: rails on other networks need `security: {psk-file: FILE}`, or `ca`, `certificate` and `key` there, "
            + "or, for all the network to read, `insecure: true`"
    }

    private func isOnNetwork(_ address: String) -> Bool { TCPAddress(address)?.isLoopback == false }

    /// A secret that the nodes keep at etcd is not sent there in the clear (S22).
    private func checkSecret() {
        guard case .etcd(let etcd) = configuration.coordinator, configuration.secretPath == nil,
            configuration.railCertificates == nil, !configuration.isInsecure,
            let endpoint = etcd.endpoints.first(where: { !$0.isPrivate })
        else { return }
        complain(
            ["coordinator", "endpoints"],
            "\(endpoint) would let everybody on the way read the cluster's secret (S22): use https, or give a secret with `security: {psk-file: …}`"
        )
    }

    /// No two keys lead to one file, by whatever names: one writer would destroy what the other one keeps there.
    private func checkFiles() {
        var names = FileNames()
        func take(_ path: String, _ key: [String]) {
            guard let other = names.add(path, key: key.joined(separator: ".")) else { return }
            let what = other.path == path ? "is used by" : "is the same file as \(other.path) of"
            complain(key, "\(path) \(what) \(other.key) already")
        }
        if case .file(let path, _) = configuration.coordinator { take(path, ["coordinator", "path"]) }
        for node in configuration.nodes {
            let name = node.id.rawValue
            take(node.adminPath, ["nodes", name, "admin"])
            if node.nbd.hasPrefix("unix:") { take(String(node.nbd.dropFirst(5)), ["nodes", name, "nbd"]) }
            take(node.pool.path, ["nodes", name, "pool", "path"])
            // Where it is not given, the pool's path is what to change.
            let isBesidePool = node.eventsPath == node.pool.path + ".events"
            for path in [node.eventsPath, node.eventsPath + ".1"] {
                take(path, ["nodes", name] + (isBesidePool ? ["pool", "path"] : ["events"]))
            }
        }
        var units: [ISCSIAddress: [String]] = [:]
        for group in configuration.groups {
            for volume in group.volumes {
                let key = ["groups", group.id.rawValue, "volumes", volume.name, "medium"]
                guard case .iscsi(let unit) = volume.unit else {
                    take(volume.mediumPath, key)
                    continue
                }
                if let other = units.updateValue(key, forKey: unit) {
                    complain(key, "\(unit) is used by \(other.joined(separator: ".")) already")
                }
            }
        }
    }

    private func checkGroups() {
        var exports: [String: GroupID] = [:]
        for group in configuration.groups {
            let name = group.id.rawValue
            for (key, node) in [("home", group.home), ("mirror", group.mirror)] where configuration.node(node) == nil {
                complain(["groups", name, key], "there is no node '\(node)'")
            }
            if group.home == group.mirror { complain(["groups", name, "mirror"], "a node cannot mirror itself") }
            var ids: [VolumeID: String] = [:]
            for volume in group.volumes {
                let key = ["groups", name, "volumes", volume.name]
                if let other = exports.updateValue(group.id, forKey: volume.name) {
                    complain(
                        key, "group \(other) has a volume of this name already; a volume's name is its export's name")
                }
                if let other = ids.updateValue(volume.name, forKey: volume.id) {
                    complain(key, "the names '\(other)' and '\(volume.name)' have the same identifier; rename one")
                }
            }
        }
    }

    private func checkPools() {
        for node in configuration.nodes {
            let groups = configuration.groups(of: node.id)
            if groups.count > PoolLimits.maximumLogs {
                complain(
                    ["nodes", node.id.rawValue],
                    "takes part in \(groups.count) groups; a pool holds at most \(PoolLimits.maximumLogs) logs")
            }
            let needed = groups.reduce(Self.poolOverheadBytes) { $0 + $1.logBytes + Self.regionOverheadBytes }
            if node.pool.sizeBytes < needed {
                complain(
                    ["nodes", node.id.rawValue, "pool", "size"],
                    "\(Size.format(node.pool.sizeBytes)) is not enough for the logs of \(node.id), which need \(Size.format(needed))"
                )
            }
        }
    }
}
