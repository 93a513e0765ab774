// Whether a file could be made or written at a place, by this user, without trying it.

internal import Glibc

enum Folders {
    /// Of a path; `.` if it names none.
    static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Why nothing can be made, renamed or removed in the folder of `path`.
    static func problem(makingIn path: String) -> String? {
        let folder = folder(of: path)
        var about = stat()
        guard stat(folder, &about) == 0 else {
            return errno == ENOENT
                ? "the folder \(folder) does not exist" : "the folder \(folder) cannot be seen: \(words(errno))"
        }
        guard about.st_mode & S_IFMT == S_IFDIR else { return "\(folder) is not a folder" }
        guard faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) == 0 else {
            return "nothing can be made in the folder \(folder) by user \(geteuid()): \(words(errno))"
        }
        return nil
    }

    static func isFolder(_ path: String) -> Bool {
        var about = stat()
        return stat(path, &about) == 0 && about.st_mode & S_IFMT == S_IFDIR
    }

    /// What of the file system that `path` is on, or would be on, this user may take.
    static func freeBytes(at path: String) -> UInt64? {
        var about = statvfs()
        guard statvfs(path, &about) == 0 || statvfs(folder(of: path), &about) == 0 else { return nil }
        let (bytes, overflow) = UInt64(about.f_bavail).multipliedReportingOverflow(by: UInt64(about.f_frsize))
        return overflow ? .max : bytes
    }

    /// Even a little more than what is there would not fit.
    static func fullness(at path: String) -> String? {
        freeBytes(at: path) == 0 ? "the file system of \(path) is full" : nil
    }

    /// Whether this user may give files to `group`: root may to any.
    static func isMember(of group: UInt32) -> Bool {
        guard geteuid() != 0, getegid() != group else { return true }
        // What is told first may be too few when somebody is given a group in between.
        var groups = [gid_t](repeating: 0, count: Int(max(0, getgroups(0, nil))))
        let count = getgroups(CInt(groups.count), &groups)
        return groups.prefix(Int(max(0, count))).contains(group)
    }

    static func words(_ number: CInt) -> String { String(cString: strerror(number)) }
}
