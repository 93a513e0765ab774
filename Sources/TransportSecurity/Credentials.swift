// A certificate, its key and the authorities that are trusted, read from files and checked.

internal import Glibc
internal import LogModel
internal import NIOSSL

struct Credentials {
    private static let maximumFileBytes = 1 << 20

    let chain: [NIOSSLCertificate]
    let key: NIOSSLPrivateKey
    let authorities: [NIOSSLCertificate]?

    /// When the certificate is valid no more, in seconds since 1970.
    var expires: Int { chain.map { Int($0.notValidAfter) }.min() ?? 0 }

    /// Blocks.
    init(_ files: CertificateFiles) throws(TLSError) {
        chain = try Self.certificates(files.certificate)
        authorities = if let path = files.authorities { try Self.certificates(path) } else { nil }
        let bytes = try Self.read(files.key, isSecret: true)
        do {
            key = try NIOSSLPrivateKey(bytes: bytes, format: .pem)
        } catch {
            throw TLSError(files.key, "is no private key in PEM")
        }
    }

    private static func certificates(_ path: String) throws(TLSError) -> [NIOSSLCertificate] {
        let bytes = try read(path, isSecret: false)
        do {
            let found = try NIOSSLCertificate.fromPEMBytes(bytes)
            if !found.isEmpty { return found }
        } catch {
            // Said below.
        }
        throw TLSError(path, "has no certificate in PEM")
    }

    /// A key that others could have read is nobody's.
    private static func read(_ path: String, isSecret: Bool) throws(TLSError) -> [UInt8] {
        // O_NONBLOCK: a FIFO in its place holds nobody up.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw TLSError(path, "cannot be opened", errno: errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw TLSError(path, "cannot be looked at", errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw TLSError(path, "is not a file") }
        guard status.st_size <= maximumFileBytes else { throw TLSError(path, "is larger than 1 MiB") }
        if isSecret {
            // Debian gives its keys to a group (ssl-cert): root's are read by whom root lets.
            guard status.st_mode & (status.st_uid == 0 ? 0o027 : 0o077) == 0 else {
                throw TLSError(
                    path, "others may read this key (mode 0\(String(status.st_mode & 0o777, radix: 8))): `chmod 600` it"
                )
            }
            guard status.st_uid == geteuid() || status.st_uid == 0 else {
                throw TLSError(path, "belongs to user \(status.st_uid); `chown` it to the user of this node")
            }
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        guard count >= 0 else { throw TLSError(path, "cannot be read", errno: errno) }
        return Array(bytes.prefix(count))
    }
}
