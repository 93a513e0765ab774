// The section `coordinator`: a directory, or etcd.

internal import LogModel

extension ConfigurationReader {
    func readCoordinator(
        _ section: YAMLSection, cluster: String
    ) throws(ConfigurationError) -> ClusterConfiguration.Coordinator {
        switch try section.required("type").choice(["file", "etcd"]) {
        case "etcd": return .etcd(try readEtcd(section, cluster: cluster))
        default:
            problems.allow(section, ["type", "path", "mode", "group"])
            return .file(path: resolve(try section.required("path").text()), access: try readAccess(section))
        }
    }

    private func readEtcd(
        _ section: YAMLSection, cluster: String
    ) throws(ConfigurationError) -> ClusterConfiguration.Etcd {
        problems.allow(
            section, ["type", "endpoints", "prefix", "ca", "certificate", "key", "user", "password-file"])
        var etcd = ClusterConfiguration.Etcd(
            endpoints: try readEndpoints(section.required("endpoints")),
            prefix: try section["prefix"].map(readPrefix) ?? "/twinlog/\(cluster)")
        try readTLS(section, &etcd)
        try readLogin(section, &etcd)
        return etcd
    }

    private func readEndpoints(_ value: YAMLValue) throws(ConfigurationError) -> [ClusterConfiguration.Etcd.Endpoint] {
        var endpoints: [ClusterConfiguration.Etcd.Endpoint] = []
        for entry in try value.list() {
            let endpoint = try readEndpoint(entry)
            guard !endpoints.contains(endpoint) else { throw entry.error("\(endpoint) is given twice") }
            endpoints.append(endpoint)
        }
        guard !endpoints.isEmpty else { throw value.error("needs at least one http://HOST:PORT") }
        return endpoints
    }

    private func readEndpoint(_ value: YAMLValue) throws(ConfigurationError) -> ClusterConfiguration.Etcd.Endpoint {
        let text = try value.text()
        for (scheme, isSecure) in [("http://", false), ("https://", true)] where text.hasPrefix(scheme) {
            guard let address = TCPAddress(String(text.dropFirst(scheme.count))), address.port > 0,
                !address.host.contains("/"), !address.host.contains("@")
            else { break }
            return ClusterConfiguration.Etcd.Endpoint(address: address, isSecure: isSecure)
        }
        throw value.error("'\(text)' is not http://HOST:PORT or https://HOST:PORT")
    }

    private static let longestPrefix = 200

    private func readPrefix(_ value: YAMLValue) throws(ConfigurationError) -> String {
        let text = try value.text()
        let isPrintable = text.utf8.allSatisfy { (UInt8(ascii: "!")...UInt8(ascii: "~")).contains($0) }
        guard text.hasPrefix("/"), !text.hasSuffix("/"), isPrintable, text.utf8.count <= Self.longestPrefix else {
            throw value.error(
                "'\(text)' is not a prefix: a slash and up to \(Self.longestPrefix) characters without spaces, no slash at the end"
            )
        }
        return text
    }

    private func readTLS(_ section: YAMLSection, _ etcd: inout ClusterConfiguration.Etcd) throws(ConfigurationError) {
        for key in ["ca", "certificate", "key"] {
            guard let value = section[key] else { continue }
            guard etcd.endpoints.contains(where: \.isSecure) else {
                throw value.error("is for https, and no endpoint has it")
            }
        }
        if let value = section["certificate"], section["key"] == nil { throw value.error("needs 'key' beside it") }
        if let value = section["key"], section["certificate"] == nil {
            throw value.error("needs 'certificate' beside it")
        }
        etcd.caPath = try section["ca"].map(path)
        etcd.certificatePath = try section["certificate"].map(path)
        etcd.keyPath = try section["key"].map(path)
    }

    private func path(_ value: YAMLValue) throws(ConfigurationError) -> String { resolve(try value.text()) }

    private func readLogin(_ section: YAMLSection, _ etcd: inout ClusterConfiguration.Etcd) throws(ConfigurationError) {
        guard let user = section["user"] else {
            if let value = section["password-file"] { throw value.error("needs 'user' beside it") }
            return
        }
        guard let password = section["password-file"] else { throw user.error("needs 'password-file' beside it") }
        if let endpoint = etcd.endpoints.first(where: { !$0.isPrivate }) {
            throw password.error("\(endpoint) would let everybody on the way read the password (S22): https does not")
        }
        etcd.login = ClusterConfiguration.Etcd.Login(user: try user.text(), passwordPath: try path(password))
    }
}

extension ClusterConfiguration.Etcd.Endpoint {
    /// Nobody on the way can read what is said.
    var isPrivate: Bool { isSecure || address.isLoopback }
}
