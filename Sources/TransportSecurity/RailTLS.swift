// TLS beneath the handshake of rails: by certificates that name cluster and node, or by the secret that the cluster shares.

internal import Crypto
public import LogModel
public import NIOCore
internal import NIOSSL
public import RemoteMemoryTCP

/// Mutual TLS 1.3. Both certificates are of the configured authorities and name their node as the URI twinlog://CLUSTER/NODE.
public struct CertifiedRails: RailSecurity {
    private let contexts: TLSContexts
    private let cluster: String

    public init(_ contexts: TLSContexts, cluster: String) {
        self.contexts = contexts
        self.cluster = cluster
    }

    /// What a node's certificate names, as a subject's alternative name.
    public static func name(of node: NodeID, in cluster: String) -> String { "twinlog://\(cluster)/\(node)" }

    public func protect(_ channel: any Channel, as role: RailRole) throws {
        let handler = role == .listener ? contexts.serverHandler() : try contexts.clientHandler()
        try channel.pipeline.syncOperations.addHandler(handler)
    }

    public func objection(to peer: NodeID, on channel: any Channel) -> String? {
        guard let certificate = try? channel.pipeline.syncOperations.nioSSL_peerCertificate() else {
            return "TLS: no certificate was shown"
        }
        let wanted = Self.name(of: peer, in: cluster)
        let names = certificate._subjectAlternativeNames().filter { $0.nameType == .uri }
            .map { String(decoding: $0.contents, as: UTF8.self) }
        return names.contains(wanted)
            ? nil : "TLS: the certificate is not that of node '\(peer)': it has no name \(wanted)"
    }

    public func words(for error: any Error) -> String? { TLSError.words(for: error) }
}

/// TLS 1.2 with a key that is derived from the cluster's secret, and an exchange of fresh keys (ECDHE): TLS 1.3 of this library knows no
/// shared keys. Who is who the handshake above proves.
public struct SharedKeyRails: RailSecurity {
    private let server: NIOSSLContext
    private let client: NIOSSLContext

    public init(secret: ClusterSecret) throws(TLSError) {
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: secret.bytes), info: Array("twinlog rail".utf8), outputByteCount: 32)
        let bytes = NIOSSLSecureBytes(key.withUnsafeBytes { Array($0) })
        var configuration = TLSConfiguration.makePreSharedKeyConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        configuration.maximumTLSVersion = .tlsv12
        // TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 (RFC 7905): the one of these that authenticates as it encrypts.
        configuration.cipherSuiteValues = [NIOTLSCipher(0xCCAC)]
        var serving = configuration
        serving.pskServerProvider = { _ in PSKServerIdentityResponse(key: bytes) }
        configuration.pskClientProvider = { _ in PSKClientIdentityResponse(key: bytes, identity: "twinlog") }
        do {
            server = try NIOSSLContext(configuration: serving)
            client = try NIOSSLContext(configuration: configuration)
        } catch {
            throw TLSError(nil, TLSError.words(for: error) ?? "\(error)")
        }
    }

    public func protect(_ channel: any Channel, as role: RailRole) throws {
        let handler: any ChannelHandler =
            role == .listener
            ? NIOSSLServerHandler(context: server) : try NIOSSLClientHandler(context: client, serverHostname: nil)
        try channel.pipeline.syncOperations.addHandler(handler)
    }

    public func objection(to peer: NodeID, on channel: any Channel) -> String? { nil }

    public func words(for error: any Error) -> String? { TLSError.words(for: error) }
}
