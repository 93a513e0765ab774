// A coordinator in a directory that every node can reach: on one host, or on a shared file system with atomic `link`.
//
// A record of version v of group g is the file `g.v` (20 digits), written under another name, made durable, and linked
// into place: `link` fails if the name exists, so of several swappers from v-1 one wins, and no lock is held at any time.
// Then the directory is made durable. The record is the file with the highest version.
//
// Old versions are removed, so a name can become free again: a swapper that slept through several versions could link a
// low one. It therefore looks again *after* its link, and has lost if a higher version exists. Whoever reads takes the
// highest, so such a file misleads nobody. A winner that was overtaken at once is told that it lost, which is true by then.
//
// A reader makes the directory durable before it believes a version that it has not seen, since its writer may have died
// between link and fsync.
//
// A presence is one small file that is overwritten in place, so that a full file system takes nobody's lease. It is not made
// durable: it says that a process is alive now, and means nothing after a crash. Whoever reads half of a new one reads again.

internal import CHostSupport
internal import Foundation
internal import Glibc
public import LogModel
internal import Synchronization

public final class FileCoordinator: Coordinator {
    /// Far above any record; bounds what a damaged directory makes a reader load.
    static let maximumFileBytes = 64 << 10
    /// Versions kept for people who want to see what happened.
    static let keptVersions: UInt64 = 8

    public let directory: String
    let access: FileAccess
    private let durableVersions = Mutex<[GroupID: UInt64]>([:])

    /// `access` is of the files, and of the directory as far as it follows from that. Makes the directory if it is missing.
    public init(directory: String, access: FileAccess = .ownerOnly) throws(CoordinationError) {
        self.directory = directory
        self.access = access
        if mkdir(directory, 0o700) != 0 {
            guard errno == EEXIST else { throw Self.unreachable(directory, "cannot be created", errno) }
        } else if access != .ownerOnly {
            try giveDirectory()
        }
    }

    /// Of a directory that is there: makes nothing.
    public init(existing directory: String, access: FileAccess = .ownerOnly) {
        self.directory = directory
        self.access = access
    }

    private func giveDirectory() throws(CoordinationError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.unreachable(directory, "cannot be opened", errno) }
        defer { close(descriptor) }
        do throws(CoordinationError) {
            try Self.give(descriptor, access.folderMode, access.group, directory)
        } catch {
            // A hardened service may not set the set-group-ID bit. Every file is given its group all the same.
            try Self.give(descriptor, access.folderMode & 0o777, access.group, directory)
        }
    }

    private static func give(
        _ descriptor: CInt, _ mode: UInt32, _ group: UInt32?, _ path: String
    ) throws(CoordinationError) {
        let result = tl_host_set_access(descriptor, mode, group ?? .max)
        guard result >= 0 else { throw unreachable(path, "cannot be given its mode and group", -result) }
    }

    /// The group whose members run the nodes of the cluster, and are trusted with what is here; `nil`: only this user is.
    public var trustedGroup: UInt32? { access.group ?? (access.mode & 0o060 == 0 ? nil : getegid()) }

    /// Whoever may write here can name any process as one to be fenced. Throws unless only this user, root, and the group that the
    /// configuration names may.
    public func checkPermissions() throws(CoordinationError) {
        var about = stat()
        guard stat(directory, &about) == 0 else { throw Self.unreachable(directory, "has no status", errno) }
        let isShared = trustedGroup == about.st_gid
        guard about.st_uid == geteuid() || about.st_uid == 0 || isShared else {
            throw CoordinationError(
                .unreachable,
                "\(directory): belongs to user \(about.st_uid), who could make this node end any process: `chown` it to user \(geteuid())"
            )
        }
        guard about.st_mode & (isShared ? 0o002 : 0o022) == 0 else {
            let advice = trustedGroup.map { "`chgrp \($0)` it and `chmod o-w` it" } ?? "`chmod go-w` it"
            throw CoordinationError(
                .unreachable,
                "\(directory): other users may write to it, and could make this node end any process: \(advice)")
        }
    }

    // MARK: Records

    public func read(_ group: GroupID) throws(CoordinationError) -> GroupRecord? {
        // A version can be pruned between listing and opening only if higher ones exist by then.
        for _ in 0..<100 {
            guard let version = try highestVersion(of: group) else { return nil }
            let path = path(of: group, version)
            guard let bytes = try contents(of: path) else { continue }
            let record = try GroupRecord(encoded: bytes, place: path)
            guard record.version == version, record.group == group else {
                throw CoordinationError(
                    .invalidRecord, "\(path): holds version \(record.version) of group \(record.group)")
            }
            if durableVersions.withLock({ $0[group] }) != version {
                try syncDirectory()
                durableVersions.withLock { $0[group] = version }
            }
            return record
        }
        throw CoordinationError(.unreachable, "\(directory): the record of \(group) changes faster than it can be read")
    }

    public func swap(expecting expected: UInt64, to record: GroupRecord) throws(CoordinationError) -> SwapOutcome {
        precondition(record.version == expected + 1, "a swap raises the version by one")
        let bytes = try record.encoded()
        guard try highestVersion(of: record.group) ?? 0 == expected else { return .lost(try read(record.group)) }
        let temporary = temporaryPath("swap")
        defer { unlink(temporary) }
        try write(bytes, to: temporary, durable: true, for: path(of: record.group, record.version))
        if link(temporary, path(of: record.group, record.version)) != 0 {
            let number = errno
            let error = Self.unreachable(directory, "a record cannot be linked into place", number)
            switch number {
            // A file server that repeats a request answers it so though its own link is there.
            case EEXIST:
                let present = try read(record.group)
                return present == record ? .won : .lost(present)
            case EACCES, EPERM, EROFS, ENOSPC, EDQUOT, ENOENT, ENOTDIR, EMLINK, EXDEV, ELOOP: throw error
            default: return .unknown(error.message)
            }
        }
        return confirm(record)
    }

    /// The link is made; what fails from here on leaves the outcome open.
    private func confirm(_ record: GroupRecord) -> SwapOutcome {
        do throws(CoordinationError) {
            try syncDirectory()
            guard try highestVersion(of: record.group) == record.version else { return .lost(try read(record.group)) }
        } catch {
            return .unknown(error.message)
        }
        durableVersions.withLock { $0[record.group] = record.version }
        prune(record.group, below: record.version)
        return .won
    }

    private func path(of group: GroupID, _ version: UInt64) -> String {
        let digits = String(version)
        return "\(directory)/\(group).\(String(repeating: "0", count: 20 - digits.count))\(digits)"
    }

    private func versions(of group: GroupID) throws(CoordinationError) -> [UInt64] {
        guard let stream = opendir(directory) else { throw Self.unreachable(directory, "cannot be listed", errno) }
        defer { closedir(stream) }
        let prefix = "\(group)."
        var found: [UInt64] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else { break }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name.hasPrefix(prefix) else { continue }
            let digits = name.utf8.dropFirst(prefix.utf8.count)
            let isNumber = digits.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            guard digits.count == 20, isNumber, let version = UInt64(Substring(digits)) else { continue }
            found.append(version)
        }
        // Half a listing could hide the newest version, or all of them.
        guard errno == 0 else { throw Self.unreachable(directory, "cannot be listed", errno) }
        return found
    }

    private func highestVersion(of group: GroupID) throws(CoordinationError) -> UInt64? {
        try versions(of: group).max()
    }

    /// Housekeeping: a version that stays because of an error harms nobody.
    private func prune(_ group: GroupID, below version: UInt64) {
        guard let versions = try? versions(of: group) else { return }
        for old in versions where old <= version && version - old >= Self.keptVersions { unlink(path(of: group, old)) }
    }

    // MARK: Presences

    private func presencePath(_ node: NodeID) -> String { "\(directory)/presence.\(node)" }

    public func announce(_ presence: Presence) throws(CoordinationError) {
        let path = presencePath(presence.process.node)
        var bytes = try presence.encoded()
        bytes += [UInt8](repeating: UInt8(ascii: "\n"), count: Presence.maximumBytes - bytes.count)
        if try !overwrite(path, bytes) { try createPresence(path, bytes) }
    }

    /// Answers whether there is a presence file to write into: one of its full size, and of one name.
    private func overwrite(_ path: String, _ bytes: [UInt8]) throws(CoordinationError) -> Bool {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ELOOP { return false }
            throw Self.unreachable(path, "cannot be opened", errno)
        }
        defer { close(descriptor) }
        var about = stat()
        guard fstat(descriptor, &about) == 0, about.st_size == off_t(bytes.count), about.st_nlink == 1 else {
            return false
        }
        guard pwrite(descriptor, bytes, bytes.count, 0) == bytes.count else {
            throw Self.unreachable(path, "cannot be written", errno)
        }
        return true
    }

    private func createPresence(_ path: String, _ bytes: [UInt8]) throws(CoordinationError) {
        let temporary = temporaryPath("presence")
        defer { unlink(temporary) }
        try write(bytes, to: temporary, durable: false, for: path)
        guard rename(temporary, path) == 0 else {
            throw Self.unreachable(directory, "a presence cannot be put in place", errno)
        }
    }

    /// A writer may be at it: what cannot be read is read again before it is called invalid.
    public func presence(of node: NodeID) throws(CoordinationError) -> Presence? {
        let path = presencePath(node)
        var invalid: CoordinationError?
        for _ in 0..<5 {
            guard let bytes = try contents(of: path) else { return nil }
            do throws(CoordinationError) {
                return try Presence(encoded: bytes, of: node, place: path)
            } catch {
                invalid = error
            }
        }
        throw invalid ?? CoordinationError(.invalidRecord, "\(path): is not a presence")
    }

    // MARK: Files

    /// A name that nobody else uses or used: a swapper that was killed after its `link` leaves a second name of the very
    /// record, and pids are equal across containers, hosts and restarts.
    private func temporaryPath(_ kind: String) -> String { "\(directory)/.\(kind).\(UUID128.random())" }

    /// `path`: what the file becomes. The name that it is written under is another one each time, and would make each error new.
    private func write(
        _ bytes: [UInt8], to temporary: String, durable: Bool, for path: String
    ) throws(CoordinationError) {
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Self.unreachable(path, "cannot be created", errno) }
        defer { close(descriptor) }
        if access != .ownerOnly { try Self.give(descriptor, access.mode, access.group, path) }
        let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress!, $0.count) }
        guard written == bytes.count, !durable || fsync(descriptor) == 0 else {
            throw Self.unreachable(path, "cannot be written", errno)
        }
    }

    /// `nil` if there is no such file.
    private func contents(of path: String) throws(CoordinationError) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw Self.unreachable(path, "cannot be opened", errno)
        }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: Self.maximumFileBytes + 1)
        var count = 0
        while count < bytes.count {
            let more = bytes.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress! + count, $0.count - count)
            }
            if more < 0 && errno == EINTR { continue }
            guard more >= 0 else { throw Self.unreachable(path, "cannot be read", errno) }
            if more == 0 { break }
            count += more
        }
        guard count <= Self.maximumFileBytes else {
            throw CoordinationError(.invalidRecord, "\(path): is larger than \(Self.maximumFileBytes) bytes")
        }
        return Array(bytes.prefix(count))
    }

    private func syncDirectory() throws(CoordinationError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.unreachable(directory, "cannot be opened", errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw Self.unreachable(directory, "cannot be made durable", errno) }
    }

    private static func unreachable(_ path: String, _ what: String, _ number: CInt) -> CoordinationError {
        CoordinationError(.unreachable, "\(path): \(what): \(String(cString: strerror(number)))")
    }
}
