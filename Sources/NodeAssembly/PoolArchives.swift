// Logs that were set aside, as files beside the pool. The two newest of a group are kept, and all that may hold more than was recovered.

package import GroupEngine
internal import Glibc
package import LogModel
package import PersistentMemory

package struct PoolArchives: LogArchives {
    static let keptArchives = 2
    let pool: Pool

    package init(beside pool: Pool) { self.pool = pool }

    package func archive(_ region: Region, upTo end: LSN, isPrunable: Bool) throws(ArchiveError) -> String {
        guard let identity = region.identity else { throw ArchiveError("the region of \(region.group) has no log") }
        let archives = Archives(of: region.group, beside: pool.path)
        let path = archives.path(identity.incarnation) + (isPrunable ? "" : ".holds-more")
        func write() throws(PoolError) {
            try region.archive(
                to: path, of: pool.identity, upTo: end, archivedAt: UInt64(max(0, time(nil))),
                access: pool.access)
        }
        do throws(PoolError) {
            do throws(PoolError) {
                try write()
            } catch {
                guard error.code == .noSpace, archives.prune(keeping: 1) else { throw error }
                try write()
            }
        } catch {
            throw ArchiveError(error, path: path, neededBytes: end - region.head)
        }
        archives.prune(keeping: Self.keptArchives)
        return path
    }
}

/// The archives of a group beside a pool: `POOL.archive-GROUP-INCARNATION`. Those with another ending are never pruned.
private struct Archives {
    let group: GroupID
    let poolPath: String

    init(of group: GroupID, beside poolPath: String) {
        self.group = group
        self.poolPath = poolPath
    }

    func path(_ incarnation: Incarnation) -> String { "\(poolPath).archive-\(group)-\(incarnation)" }

    /// Removes all but the newest `count`; answers whether there were any. Housekeeping: one that stays harms nobody.
    @discardableResult func prune(keeping count: Int) -> Bool {
        let old = incarnations().sorted().dropLast(count)
        for incarnation in old { unlink(path(Incarnation(incarnation))) }
        return !old.isEmpty
    }

    private func incarnations() -> [UInt64] {
        let folder = poolPath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let isAbsolute = poolPath.hasPrefix("/")
        guard let stream = opendir(folder.isEmpty ? (isAbsolute ? "/" : ".") : folder) else { return [] }
        defer { closedir(stream) }
        let prefix = "\(poolPath.split(separator: "/").last ?? "").archive-\(group)-"
        var found: [UInt64] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasPrefix(prefix), let number = UInt64(name.dropFirst(prefix.count)) { found.append(number) }
        }
        return found
    }
}

extension ArchiveError {
    fileprivate init(_ error: PoolError, path: String, neededBytes: UInt64) {
        var description = "the old log cannot be archived: \(error)"
        if error.code == .noSpace {
            var about = statvfs()
            let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
            let free = statvfs(folder, &about) == 0 ? "\(UInt64(about.f_bavail) * UInt64(about.f_frsize))" : "unknown"
            description +=
                "; it needs up to \(neededBytes) bytes, free are \(free): make room there, the owner asks again by itself"
        }
        self.init(description)
    }
}
