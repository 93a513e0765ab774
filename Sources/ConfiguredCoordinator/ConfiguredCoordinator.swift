// From a configuration to its coordinator, for nodes and tools alike: the only place that names the coordinators there are.

public import ClusterConfiguration
public import Coordination
internal import CoordinationEtcd
internal import Glibc
public import LogModel

public struct ConfiguredCoordinator: Sendable {
    public let coordinator: any Coordinator & SecretKeeper
    /// A group of users that is trusted with secrets, because it is with the records; `nil`: there is none.
    private let trustedGroup: UInt32?
    private let secretPath: String?

    /// For a node, which makes a directory that is missing. Others may not be able to change what is there.
    public init(forNodeOf configuration: ClusterConfiguration) throws(CoordinationError) {
        switch configuration.coordinator {
        case .file(let path, let access):
            let file = try FileCoordinator(directory: path, access: access)
            try file.checkPermissions()
            self.init(file, trusting: file.trustedGroup, configuration)
        case .etcd(let etcd): self.init(try Self.coordinator(etcd, configuration), trusting: nil, configuration)
        }
    }

    /// For a tool, which makes nothing.
    public init(existingOf configuration: ClusterConfiguration) throws(CoordinationError) {
        switch configuration.coordinator {
        case .file(let path, let access):
            guard Glibc.access(path, F_OK) == 0 else {
                throw CoordinationError(.unreachable, "\(path): the coordinator's folder is missing")
            }
            let file = FileCoordinator(existing: path, access: access)
            self.init(file, trusting: file.trustedGroup, configuration)
        case .etcd(let etcd): self.init(try Self.coordinator(etcd, configuration), trusting: nil, configuration)
        }
    }

    private init(
        _ coordinator: any Coordinator & SecretKeeper, trusting group: UInt32?, _ configuration: ClusterConfiguration
    ) {
        self.coordinator = coordinator
        trustedGroup = group
        secretPath = configuration.secretPath
    }

    /// The cluster's secret, from the file that the configuration names or from the coordinator. Blocks.
    public func readSecret() throws(SecretError) -> ClusterSecret {
        guard let secretPath else { return try coordinator.clusterSecret() }
        return try SecretFile.read(secretPath, trusting: trustedGroup)
    }

    /// Two tries fit into the time after which a silent node is suspected.
    private static func coordinator(
        _ etcd: ClusterConfiguration.Etcd, _ configuration: ClusterConfiguration
    ) throws(CoordinationError) -> EtcdCoordinator {
        var settings = EtcdSettings(
            endpoints: etcd.endpoints.map { EtcdSettings.Endpoint($0.address, isSecure: $0.isSecure) },
            prefix: etcd.prefix, tryMillis: Int64(max(1, configuration.heartbeatTimeoutMillis / 2)))
        settings.caPath = etcd.caPath
        settings.certificatePath = etcd.certificatePath
        settings.keyPath = etcd.keyPath
        if let login = etcd.login {
            settings.login = EtcdSettings.Login(user: login.user) { () throws(SecretError) in
                try SecretFile.readPassword(login.passwordPath)
            }
        }
        do throws(SecretError) {
            if let path = etcd.keyPath { try SecretFile.checkPrivate(path) }
        } catch {
            throw CoordinationError(.unreachable, error.message)
        }
        return EtcdCoordinator(settings)
    }
}
