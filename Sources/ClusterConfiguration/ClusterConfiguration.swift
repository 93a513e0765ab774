// The one configuration file of a cluster, as checked values. Every node reads the same file. ConfigurationReader.swift
// turns YAML into these and refuses what cannot be right.

public import LogModel

public struct ClusterConfiguration: Sendable {
    public var cluster: String
    /// The folder that relative paths of the file begin at.
    public var baseDirectory: String
    public var coordinator: Coordinator
    public var heartbeatIntervalMillis: UInt64
    public var heartbeatTimeoutMillis: UInt64
    public var leaseMillis: UInt64
    /// How long an owner that crashed waits for its in-sync partner before its log's end is decided alone.
    public var doubtMillis: UInt64
    /// Tried in this order.
    public var fences: [Fence]
    /// The file with the cluster's secret; `nil`: the one that the nodes keep at the coordinator.
    public var secretPath: String?
    /// What rails are encrypted with; `nil`: those that leave this machine, with a key of the secret.
    public var railCertificates: CertificateFiles?
    /// Other networks than the loopback interface are used without encryption, where there is none configured.
    public var isInsecure = false
    public var limits = Limits()
    public var log: Log
    /// In order of name.
    public var nodes: [Node]
    /// In order of name.
    public var groups: [Group]
    /// Where the keys stand in the file, for what is wrong with the machine and not with the file.
    public var source = ConfigurationSource()

    /// Where the groups' records are kept.
    public enum Coordinator: Hashable, Sendable {
        /// A directory that all nodes reach.
        case file(path: String, access: FileAccess)
        case etcd(Etcd)
    }

    public struct Etcd: Hashable, Sendable {
        public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
            public var address: TCPAddress
            /// https.
            public var isSecure: Bool
            public var description: String { "\(isSecure ? "https" : "http")://\(address)" }
        }

        public var endpoints: [Endpoint]
        /// Of every key; no slash at its end.
        public var prefix: String
        /// PEM files.
        public var caPath: String?
        public var certificatePath: String?
        public var keyPath: String?
        public var login: Login?

        public struct Login: Hashable, Sendable {
            public var user: String
            public var passwordPath: String
        }
    }

    /// What confirms that a process writes no more (S18).
    public enum Fence: Hashable, Sendable {
        /// SIGKILL, on one host.
        case process
        case command(FenceCommand)
        /// A persistent reservation of every medium.
        case reservation
    }

    /// A fence agent: a program that turns a node off, and says whether it is off.
    public struct FenceCommand: Hashable, Sendable {
        /// The program, a path or a name in PATH, and its arguments.
        public var run: [String]
        /// For every node; see ``Node/fenceOptions``.
        public var options: [String: String] = [:]
        /// Of each of its runs.
        public var timeoutMillis: UInt64 = 20_000
    }

    /// What clients may cost a node.
    public struct Limits: Sendable {
        /// Bytes that requests and replies of all clients take together; `nil`: a quarter of the memory that the process may use.
        public var memoryBytes: UInt64?
        public var connections: Int = 256
    }

    public struct Node: Sendable {
        /// More networks than a node has.
        public static let maximumRails = 8

        public var id: NodeID
        /// HOST:PORT of each rail.
        public var mirror: [String]
        /// HOST:PORT or unix:/path.
        public var nbd: String
        /// Of its Unix socket.
        public var nbdAccess = FileAccess.ownerOnly
        /// `nil`: clients are offered no TLS.
        public var nbdSecurity: NBDSecurity?
        public var adminPath: String
        public var adminAccess = FileAccess.ownerOnly
        /// What a fence agent is told when it is to turn this node off, beside and before the options of the command.
        public var fenceOptions: [String: String] = [:]
        /// The file of its events.
        public var eventsPath: String
        public var polling = PollMode.off
        public var pool: Pool
    }

    /// TLS for NBD clients.
    public struct NBDSecurity: Hashable, Sendable {
        /// Clients without TLS are served nothing.
        public var isRequired: Bool
        /// With authorities, clients must have a certificate of theirs.
        public var files: CertificateFiles

        public init(isRequired: Bool, files: CertificateFiles) {
            self.isRequired = isRequired
            self.files = files
        }
    }

    /// What every node logs, and how.
    public struct Log: Hashable, Sendable {
        /// In swift-log's words.
        public static let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
        public static let formats = ["text", "json"]

        /// One of ``levels``.
        public var level = "info"
        /// One of ``formats``.
        public var format = "text"
    }

    public struct Pool: Sendable {
        public var path: String
        public var sizeBytes: UInt64
        /// `auto`, `pmem`, `msync` or `volatile`.
        public var persistence: String
        /// Bring all of its pages in at the start.
        public var isPrefaulted: Bool
        /// Of the pool, and of what is made beside it: events and archives.
        public var access = FileAccess.ownerOnly
    }

    public struct Group: Sendable {
        public var id: GroupID
        public var home: NodeID
        public var mirror: NodeID
        public var logBytes: UInt64
        public var degradeOnMirrorLoss: Bool
        /// In order of name.
        public var volumes: [Volume]

        public func peer(of node: NodeID) -> NodeID { node == home ? mirror : home }
        public func includes(_ node: NodeID) -> Bool { node == home || node == mirror }
    }

    public struct Volume: Sendable {
        public var name: String
        /// Of a file or a block device, or the address of a logical unit behind an iSCSI target.
        public var mediumPath: String
        /// As the file has it, before it was resolved against the file's folder.
        public var mediumText: String
        public var sizeBytes: UInt64
        /// Its clients may not change it.
        public var isReadOnly = false
        /// Of a medium that a node makes.
        public var access = FileAccess.ownerOnly
        public var id: VolumeID { VolumeID(name: name) }
        /// A fence keeps nodes from it by a reservation, so a path is a block device's.
        public var isReserved = false
        /// `nil`: the medium is a file, or a block device that is used as one.
        public var unit: UnitAddress? {
            ISCSIAddress(mediumPath).map(UnitAddress.iscsi) ?? (isReserved ? .device(path: mediumPath) : nil)
        }
    }

    /// Where a server of `address` (HOST:PORT or unix:/path) listens: `localhost` is both loopback addresses, of which a machine may
    /// lack one.
    public static func places(of address: String) -> [String] {
        TCPAddress(address).map { $0.places.map(\.description) } ?? [address]
    }

    public func node(_ id: NodeID) -> Node? { nodes.first { $0.id == id } }
    public func group(_ id: GroupID) -> Group? { groups.first { $0.id == id } }
    public func groups(of node: NodeID) -> [Group] { groups.filter { $0.includes(node) } }
}
