// Looking at a pool that is not opened: what a start would find, also while a node has it open. Takes no lock, changes nothing.

import Glibc
public import LogModel

/// What a pool's file holds, as its superblock and directory say.
public struct PoolContents: Sendable {
    public var path: String
    public var sizeBytes: UInt64
    /// Ring bytes of each group's log.
    public var logs: [GroupID: UInt64]
    /// Behind the last region.
    var freeBytes: UInt64

    /// What speaks against a pool of `sizeBytes`, which is never changed. A larger file is no better than a smaller one: its node would
    /// serve with another pool than the configuration says.
    public func sizeProblem(_ sizeBytes: UInt64) -> PoolError? {
        guard self.sizeBytes != sizeBytes else { return nil }
        return PoolError(
            .invalidValue, path: path,
            "is a pool of \(Size.format(self.sizeBytes)), the configuration says \(Size.format(sizeBytes)), and a pool's size cannot be changed: "
                + "correct `size`, or, while the partner is in sync, stop this node and move the file away: it makes a new pool, which the partner fills"
        )
    }

    /// What speaks against a log of `ringBytes` for `group`, which the pool has, or has room for.
    public func logProblem(_ group: GroupID, _ ringBytes: UInt64) -> PoolError? {
        guard let known = logs[group] else {
            let needed = RegionFormat.headerBytes + ringBytes
            guard needed > freeBytes else { return nil }
            return PoolError(
                .noSpace, path: path,
                "has \(freeBytes) bytes left, and the log of \(group), which it does not have yet, needs \(needed)")
        }
        guard known != ringBytes else { return nil }
        return PoolError(
            .invalidValue, path: path,
            "the log of \(group) has \(known) bytes, the configuration says \(ringBytes); a log's size cannot be changed"
        )
    }
}

extension Pool {
    /// The pool at `path`, or `nil` if nothing is there. Throws what ``open(path:expecting:persistence:readOnly:access:)`` would, but for
    /// `inUse`.
    public static func look(
        path: String, expecting: (cluster: String, node: NodeID), persistence: PersistenceRequest
    ) throws(PoolError) -> PoolContents? {
        guard try isPresent(path) else { return nil }
        let descriptor = try Descriptor.open(path, O_RDONLY | O_NONBLOCK)
        let superblock = try admit(descriptor, path, expecting)
        let mapping = try Mapping.map(
            descriptor, length: Int(superblock.sizeBytes), request: persistence, path: path, isReadOnly: true)
        let (directory, _) = try directory(mapping, superblock)
        guard faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 else { throw .system(path, "open for writing") }
        return PoolContents(
            path: path, sizeBytes: superblock.sizeBytes,
            logs: Dictionary(uniqueKeysWithValues: directory.entries.map { ($0.group, $0.ringBytes) }),
            freeBytes: superblock.sizeBytes - directory.free)
    }

    /// False if nothing is at `path`, so that a pool can be made there.
    private static func isPresent(_ path: String) throws(PoolError) -> Bool {
        var about = stat()
        if stat(path, &about) == 0 { return true }
        guard errno == ENOENT else { throw .system(path, "stat") }
        guard lstat(path, &about) == 0 else { return false }
        var target = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(path, &target, target.count)
        guard count >= 0 else { throw .system(path, "readlink") }
        throw PoolError(
            .notAPool, path: path,
            "is a symbolic link to \(String(decoding: target.prefix(count), as: UTF8.self)), where nothing is: mount what that is on, or, "
                + "for a new pool, remove the link")
    }
}
