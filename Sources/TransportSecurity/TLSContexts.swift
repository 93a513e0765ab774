// TLS by certificates, as a server and as a client, from files that are read again on demand.

public import LogModel
public import NIOCore
internal import NIOSSL
internal import Synchronization

/// Thread-safe.
public final class TLSContexts: Sendable {
    private struct Loaded {
        var server: NIOSSLContext
        var client: NIOSSLContext
        var expires: Int
    }

    public let files: CertificateFiles
    private let minimum: TLSVersion
    private let loaded: Mutex<Loaded>

    /// Reads the files; blocks. `onlyNewest`: TLS 1.3, where both sides are ours; else 1.2 too.
    public init(_ files: CertificateFiles, onlyNewest: Bool) throws(TLSError) {
        self.files = files
        minimum = onlyNewest ? .tlsv13 : .tlsv12
        loaded = Mutex(try Self.load(files, minimum))
    }

    /// Reads the files again; connections that are made keep what they have. Blocks. After an error everything is as before.
    public func reload() throws(TLSError) {
        let fresh = try Self.load(files, minimum)
        loaded.withLock { $0 = fresh }
    }

    /// When this side's certificate is valid no more, in seconds since 1970.
    public var expires: Int { loaded.withLock { $0.expires } }

    /// The server's end of a connection. The other side's certificate is checked against the authorities, where there are any.
    public func serverHandler() -> any ChannelHandler { NIOSSLServerHandler(context: loaded.withLock { $0.server }) }

    /// The client's end of a connection. The server's certificate is checked against the authorities, its name is not.
    public func clientHandler() throws -> any ChannelHandler {
        try NIOSSLClientHandler(context: loaded.withLock { $0.client }, serverHostname: nil)
    }

    private static func load(_ files: CertificateFiles, _ minimum: TLSVersion) throws(TLSError) -> Loaded {
        let credentials = try Credentials(files)
        let chain = credentials.chain.map { NIOSSLCertificateSource.certificate($0) }
        var server = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain, privateKey: .privateKey(credentials.key))
        var client = TLSConfiguration.makeClientConfiguration()
        client.certificateChain = chain
        client.privateKey = .privateKey(credentials.key)
        server.minimumTLSVersion = minimum
        client.minimumTLSVersion = minimum
        client.certificateVerification = .noHostnameVerification
        if let authorities = credentials.authorities {
            server.certificateVerification = .noHostnameVerification
            server.trustRoots = .certificates(authorities)
            client.trustRoots = .certificates(authorities)
        }
        do {
            return Loaded(
                server: try NIOSSLContext(configuration: server), client: try NIOSSLContext(configuration: client),
                expires: credentials.expires)
        } catch {
            throw TLSError(
                files.certificate,
                "does not go with the key in \(files.key): \(TLSError.words(for: error) ?? "\(error)")")
        }
    }
}
