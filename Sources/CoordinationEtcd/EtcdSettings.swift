// Where etcd is, and as whom it is asked.

public import Coordination
public import LogModel

public struct EtcdSettings: Sendable {
    public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
        public var address: TCPAddress
        /// https.
        public var isSecure: Bool

        public init(_ address: TCPAddress, isSecure: Bool) {
            self.address = address
            self.isSecure = isSecure
        }

        public var description: String { "\(isSecure ? "https" : "http")://\(address)" }
    }

    public struct Login: Sendable {
        public var user: String
        /// Asked at each login, so a changed password needs no restart. Blocks.
        public var password: @Sendable () throws(SecretError) -> String

        public init(user: String, password: @escaping @Sendable () throws(SecretError) -> String) {
            self.user = user
            self.password = password
        }
    }

    /// Members of one etcd, in the order in which they are tried.
    public var endpoints: [Endpoint]
    /// Of every key, without a slash at its end.
    public var prefix: String
    /// After which the next endpoint is tried. Below the heartbeat's timeout: whoever waits longer is taken for dead.
    public var tryMillis: Int64
    /// PEM files. Without `caPath` the system's authorities are trusted.
    public var caPath: String?
    public var certificatePath: String?
    public var keyPath: String?
    public var login: Login?

    public init(endpoints: [Endpoint], prefix: String, tryMillis: Int64) {
        precondition(!endpoints.isEmpty && tryMillis > 0, "the configuration was checked")
        self.endpoints = endpoints
        self.prefix = prefix
        self.tryMillis = tryMillis
    }
}
