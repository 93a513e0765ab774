// Where the cluster's secret is kept: in a file that the configuration names, or beside the records of the file
// coordinator, where the first node that starts makes it.
//
// A secret file holds 64 hexadecimal digits and a line end, mode 0600, or 0660 where a group of users runs the nodes. It is written whole under another name, made durable
// and linked into place, as a record is: of several nodes that start at once one makes it, and the others read that one.

internal import CHostSupport
internal import Glibc
public import LogModel

/// A secret cannot be read, made or trusted.
public struct SecretError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// The file or its directory does not answer now; it may later.
        case unreachable
        case missing
        case exists
        /// Others could have read or written it, or it is no secret: an operator must act.
        case untrusted
    }
    public var code: Code
    public var message: String
    public var description: String { message }

    package init(_ code: Code, _ path: String, _ reason: String) {
        self.code = code
        message = "\(path): \(reason)"
    }

    init(_ path: String, _ what: String, errno number: CInt) {
        self.init(.unreachable, path, "\(what): \(String(cString: strerror(number)))")
    }
}

public enum SecretFile {
    /// The digits and a line end.
    static let fileBytes = 2 * ClusterSecret.byteCount + 1

    /// Of a password.
    static let maximumPasswordBytes = 1024

    /// Reads a secret that nobody but this user, root, and the members of `group`, could have read or written. Blocks.
    public static func read(_ path: String, trusting group: UInt32? = nil) throws(SecretError) -> ClusterSecret {
        let text = try line(
            of: path, atMost: fileBytes, trusting: group, advice: "`twinlog init-keys \(path)` makes one")
        guard let secret = ClusterSecret(hexadecimal: text) else {
            throw SecretError(
                .untrusted, path,
                "a secret is \(2 * ClusterSecret.byteCount) hexadecimal digits, this is something else; "
                    + "`twinlog init-keys` makes one under another name")
        }
        return secret
    }

    /// Reads a password: one line, which nobody but this user and root could have read or written. Blocks.
    public static func readPassword(_ path: String) throws(SecretError) -> String {
        let text = try line(
            of: path, atMost: maximumPasswordBytes, trusting: nil, advice: "write the password into it, mode 0600")
        guard !text.isEmpty, text.utf8.count < maximumPasswordBytes, !text.contains("\n") else {
            throw SecretError(.untrusted, path, "a password is one line of up to \(maximumPasswordBytes - 1) bytes")
        }
        return text
    }

    /// Throws unless nobody but this user and root could have read or written the file, such as one with a private key. Blocks.
    public static func checkPrivate(_ path: String) throws(SecretError) {
        let descriptor = try opened(path, advice: "it is to hold a private key")
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw SecretError(path, "cannot be looked at", errno: errno) }
        // Debian gives its keys to a group (ssl-cert): root's are read by whom root lets.
        let isOfRoots = status.st_uid == 0 && status.st_mode & 0o037 == 0
        try check(descriptor, path, isOfRoots ? status.st_gid : nil)
    }

    /// Up to one byte more than `limit`, without the line's end.
    private static func line(
        of path: String, atMost limit: Int, trusting group: UInt32?, advice: String
    ) throws(SecretError) -> String {
        let descriptor = try opened(path, advice: advice)
        defer { close(descriptor) }
        try check(descriptor, path, group)
        var bytes = [UInt8](repeating: 0, count: limit + 1)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        guard count >= 0 else { throw SecretError(path, "the secret cannot be read", errno: errno) }
        let text = String(decoding: bytes.prefix(count), as: UTF8.self)
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    private static func opened(_ path: String, advice: String) throws(SecretError) -> CInt {
        // O_NONBLOCK: a FIFO in its place holds nobody up.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno == ENOENT { throw SecretError(.missing, path, "there is no secret; \(advice)") }
            throw SecretError(path, "the secret cannot be opened", errno: errno)
        }
        return descriptor
    }

    private static func check(_ descriptor: CInt, _ path: String, _ group: UInt32?) throws(SecretError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw SecretError(path, "cannot be looked at", errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw SecretError(.untrusted, path, "is not a file") }
        let isShared = group == status.st_gid
        guard status.st_mode & (isShared ? 0o007 : 0o077) == 0 else {
            throw SecretError(
                .untrusted, path,
                "others may read or write this secret (mode 0\(String(status.st_mode & 0o777, radix: 8))); "
                    + "`chmod 600` it, and make a new one if somebody may have read it")
        }
        guard status.st_uid == geteuid() || status.st_uid == 0 || isShared else {
            throw SecretError(.untrusted, path, "belongs to user \(status.st_uid); `chown` it to the user of this node")
        }
    }

    /// Makes a fresh secret at `path`, durably; never over something that is there. Blocks.
    @discardableResult
    public static func create(
        _ path: String, access: FileAccess = .ownerOnly
    ) throws(SecretError) -> ClusterSecret {
        let secret = ClusterSecret.random()
        let temporary = "\(path).\(UUID128.random()).new"
        defer { unlink(temporary) }
        try write(secret, to: temporary, access)
        guard link(temporary, path) == 0 else {
            if errno == EEXIST { throw SecretError(.exists, path, "is there already, and is not overwritten") }
            throw SecretError(path, "the secret cannot be put in its place", errno: errno)
        }
        try syncFolder(of: path)
        return secret
    }

    private static func write(
        _ secret: ClusterSecret, to path: String, _ access: FileAccess
    ) throws(SecretError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw SecretError(path, "the secret cannot be created", errno: errno) }
        defer { close(descriptor) }
        let given = tl_host_set_access(descriptor, access.mode, access.group ?? .max)
        guard given >= 0 else {
            throw SecretError(path, "the secret cannot be given its mode and group", errno: -given)
        }
        let text = Array((secret.hexadecimal + "\n").utf8)
        guard Glibc.write(descriptor, text, text.count) == text.count, fsync(descriptor) == 0 else {
            throw SecretError(path, "the secret cannot be written", errno: errno)
        }
    }

    private static func syncFolder(of path: String) throws(SecretError) {
        let folder = path.lastIndex(of: "/").map { path[...$0] } ?? "."
        let descriptor = open(String(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SecretError(String(folder), "cannot be opened", errno: errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw SecretError(String(folder), "cannot be made durable", errno: errno) }
    }
}

/// Where the nodes of a cluster keep a secret that the configuration does not name.
public protocol SecretKeeper: Sendable {
    /// The secret that the nodes keep here; the first that asks makes it. Blocks.
    func clusterSecret() throws(SecretError) -> ClusterSecret
}

extension FileCoordinator: SecretKeeper {
    public var secretPath: String { "\(directory)/secret" }

    public func clusterSecret() throws(SecretError) -> ClusterSecret {
        do throws(SecretError) {
            return try SecretFile.read(secretPath, trusting: trustedGroup)
        } catch {
            guard error.code == .missing else { throw error }
        }
        do throws(SecretError) {
            return try SecretFile.create(secretPath, access: access.secret)
        } catch {
            guard error.code == .exists else { throw error }
            return try SecretFile.read(secretPath, trusting: trustedGroup)
        }
    }
}
