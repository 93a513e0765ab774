// Which files a configuration names, so that one file under two names is found: links, `./` and `x/../` lead to it too.

internal import Glibc

struct FileNames {
    private struct File: Hashable {
        var device: UInt64
        var inode: UInt64
    }

    private var byName: [String: (path: String, key: String)] = [:]
    private var byFile: [File: (path: String, key: String)] = [:]

    /// Answers who named the file before; otherwise it is `key`'s from now on.
    mutating func add(_ path: String, key: String) -> (path: String, key: String)? {
        let name = Self.canonical(path)
        let file = Self.file(path)
        if let other = byName[name] ?? file.flatMap({ byFile[$0] }) { return other }
        byName[name] = (path, key)
        if let file { byFile[file] = (path, key) }
        return nil
    }

    /// By device and inode; a block device by its number, since it may have several nodes.
    private static func file(_ path: String) -> File? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        guard status.st_mode & S_IFMT == S_IFBLK else {
            return File(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        }
        return File(device: UInt64(status.st_rdev), inode: 0)
    }

    /// The real path of the folder that it is in, as far as that exists, and the rest of the name as it reads.
    private static func canonical(_ path: String) -> String {
        var folder = path.split(separator: "/", omittingEmptySubsequences: false)
        var rest: [Substring] = []
        var real: String?
        repeat {
            rest.insert(folder.removeLast(), at: 0)
            real = realPath(folder)
        } while real == nil && !folder.isEmpty
        var parts: [Substring] = []
        for part in rest where !part.isEmpty && part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        return (real ?? "") + "/" + parts.joined(separator: "/")
    }

    /// `nil` if the folder does not exist, or is the root.
    private static func realPath(_ folder: [Substring]) -> String? {
        guard let resolved = realpath(folder.joined(separator: "/"), nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}
