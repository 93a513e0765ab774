// Which file a descriptor is of, whatever its path, and which process has it open: for messages, and for a standby that looks
// whether a medium is held by somebody else than its owner. Nothing is fenced by what is found here (S18).

internal import CHostSupport
internal import Glibc
internal import Synchronization

/// A regular file by its device and inode, a block device by its number: two names of one file have one identity.
public struct FileIdentity: Hashable, Sendable {
    private let device: UInt64
    /// 0 for a block device: no file has it.
    private let inode: UInt64

    init(_ status: stat) {
        let isBlockDevice = status.st_mode & S_IFMT == S_IFBLK
        device = UInt64(isBlockDevice ? status.st_rdev : status.st_dev)
        inode = isBlockDevice ? 0 : UInt64(status.st_ino)
    }

    /// Of what is at `path` now; `nil` if nothing is, or it cannot be seen.
    public init?(path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.init(status)
    }
}

/// A process that has a file open. Only processes that this one may look into are found.
public struct FileHolder: Sendable, CustomStringConvertible {
    public var pid: Int32
    public var name: String
    public var description: String { "process \(pid) (\(name))" }

    /// Another process with `file` open; with `locking`, only one that holds a lock of it. Reads all of `/proc`.
    public static func find(_ file: FileIdentity, locking: Bool = false) -> FileHolder? {
        for entry in entries(of: "/proc") {
            guard let pid = Int32(entry), pid != getpid() else { continue }
            if case .some(true) = holds(pid, file, locking: locking) {
                return FileHolder(pid: pid, name: firstLine(of: "/proc/\(pid)/comm") ?? "?")
            }
        }
        return nil
    }

    /// Whether process `pid` has `file` open, or holds a lock of it; `nil` if its descriptors cannot be seen.
    public static func holds(_ pid: Int32, _ file: FileIdentity, locking: Bool) -> Bool? {
        let descriptors = entries(of: "/proc/\(pid)/fd")
        guard !descriptors.isEmpty else { return nil }
        return descriptors.contains { descriptor in
            guard FileIdentity(path: "/proc/\(pid)/fd/\(descriptor)") == file else { return false }
            return !locking || lines(of: "/proc/\(pid)/fdinfo/\(descriptor)").contains { $0.hasPrefix("lock:") }
        }
    }

    private static func entries(of folder: String) -> [String] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }

    private static func firstLine(of path: String) -> String? { lines(of: path).first }

    /// Of a small file of `/proc`; none if it is gone.
    private static func lines(of path: String) -> [String] {
        guard let file = fopen(path, "re") else { return [] }
        defer { fclose(file) }
        var lines: [String] = []
        var text = [CChar](repeating: 0, count: 256)
        while fgets(&text, CInt(text.count), file) != nil {
            let bytes = text.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }
            lines.append(String(decoding: bytes, as: UTF8.self))
        }
        return lines
    }
}

/// What this process holds locks of, and for whom: a second name of one file is told by the first. Thread-safe.
enum HeldLocks {
    private static let users = Mutex<[FileIdentity: (descriptor: CInt, user: String)]>([:])

    static func add(_ file: FileIdentity, _ descriptor: CInt, user: String) {
        users.withLock { $0[file] = (descriptor, user) }
    }

    /// The lock that `descriptor` holds ends; another's stays.
    static func remove(_ file: FileIdentity, _ descriptor: CInt) {
        users.withLock { if $0[file]?.descriptor == descriptor { $0[file] = nil } }
    }

    static func user(of file: FileIdentity) -> String? { users.withLock { $0[file]?.user } }
}
