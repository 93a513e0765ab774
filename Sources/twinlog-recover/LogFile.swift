// A file that holds logs: a pool, or the archive of one log that was set aside. Both are looked into the same way.

import LogModel
import PersistentMemory

struct LogFile {
    let path: String
    /// Whose pool it is, or was.
    let identity: PoolIdentity
    let sizeBytes: UInt64
    let persistence: Persistence
    let regions: [Region]
    /// `nil` for a pool.
    let archive: ArchiveHeader?
    /// Holds the pool's lock until it is closed.
    private let pool: Pool?

    /// Opens it beside other readers, never beside a node; not a byte of it changes.
    static func open(_ path: String) throws(Failure) -> LogFile {
        do throws(PoolError) {
            if try Archive.isArchive(path) { return LogFile(try Archive.open(path: path)) }
        } catch {
            throw Failure(error)
        }
        return LogFile(try openPool(path))
    }

    init(_ pool: Pool) {
        path = pool.path
        identity = pool.identity
        sizeBytes = pool.sizeBytes
        persistence = pool.persistence
        regions = pool.regions
        archive = nil
        self.pool = pool
    }

    private init(_ archive: Archive) {
        path = archive.path
        identity = archive.header.pool
        sizeBytes = archive.sizeBytes
        persistence = archive.region.persistence
        regions = [archive.region]
        self.archive = archive.header
        pool = nil
    }

    func close() { pool?.close() }

    /// The regions that are asked for: all, or one group's.
    func regions(of group: String?) throws(Failure) -> [Region] {
        guard let group else { return regions }
        return [try region(of: group)]
    }

    func region(of group: GroupID) -> Region? { regions.first { $0.group == group } }

    func region(of group: String) throws(Failure) -> Region {
        if let region = region(of: GroupID(group)) { return region }
        let names = regions.map(\.group.rawValue).joined(separator: ", ")
        throw Failure(
            .usage,
            "\(path): has no log of group '\(group)'; "
                + (names.isEmpty ? "it has none at all" : "it has those of \(names)"))
    }

    /// In a sentence's beginning.
    var title: String {
        let what = archive.map { "archive of group \($0.group)'s log of epoch \($0.log.incarnation), from the pool" }
        return "\(path): \(what ?? "pool") of node \(identity.node), cluster \(identity.cluster)"
    }
}
