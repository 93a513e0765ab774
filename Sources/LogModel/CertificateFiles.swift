// Where TLS finds what it needs: files, of which only the paths are configured.

/// In PEM.
public struct CertificateFiles: Hashable, Sendable {
    /// The certificate, and those between it and an authority.
    public var certificate: String
    /// Its private key.
    public var key: String
    /// The authorities whose certificates the other side may have; `nil`: the other side need not have one.
    public var authorities: String?

    public init(certificate: String, key: String, authorities: String?) {
        self.certificate = certificate
        self.key = key
        self.authorities = authorities
    }
}
