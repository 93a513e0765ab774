// A region becomes an owner's mirror log, or its own log is set aside. What it held of another incarnation has been recovered by
// whoever published since (S19); it is archived beside the pool all the same.
//
// Invariants:
//  - a log that may hold more than was recovered is archived before its region is begun anew, and that archive is kept until an
//    operator removes it; of the others the two newest are;
//  - a region is begun anew only when its archive is durable.

internal import ClusterProtocol
internal import Glibc
internal import LogModel
internal import PersistentMemory
internal import WriteLog

enum MirrorRegion {
    static let keptArchives = 2

    /// What an owner finds.
    struct Prepared: Sendable {
        var head: LSN
        /// Where the owner begins to ship.
        var durable: LSN
        /// The records of this incarnation from there on; `nil` if there were none to keep.
        var kept: KeptRecords?
        /// What people should know of the log that was here before.
        var report: Report?
    }

    /// Makes the region ready for the owner that asks. `known` is what this process saw become durable of the incarnation; without it,
    /// or where the record does not count what is here, the owner ships everything above the head, which compares it (S14). Blocks.
    /// Throws ``ArchiveError`` or `PoolError`.
    static func prepare(
        _ region: Region, for request: AttachRequest, generation: UInt64, known: LSN?, pool: Pool
    ) throws -> Prepared {
        // Only an accepted request is of a counted start; a generation above the counted one belongs to what is begun anew.
        try region.note(RegionStanding(generation: generation, counted: generation, epoch: request.epoch))
        if let identity = region.identity, identity.role == .mirror, identity.logUUID == request.logUUID,
            identity.incarnation == request.incarnation
        {
            try region.advanceHead(to: request.head)
            let head = region.head
            let durable = request.counts ? max(known ?? head, head) : head
            return Prepared(head: head, durable: durable, kept: KeptRecords(region: region, from: durable))
        }
        let report = try setAside(region, for: request, pool: pool)
        try region.format(
            role: .mirror, logUUID: request.logUUID, incarnation: request.incarnation, start: request.head)
        return Prepared(head: region.head, durable: region.head, report: report)
    }

    /// Archives what the new owner may lack. Its own records beyond the start are on no medium and were, perhaps, acknowledged.
    private static func setAside(
        _ region: Region, for request: AttachRequest, pool: Pool
    ) throws -> Report? {
        guard let log = RestingLog(region) else { return nil }
        // Peers that do not tell where they began have their head at that place or above it.
        let start = request.start == .zero ? request.head : request.start
        // An owner's log goes on beyond what was acknowledged; a mirror's records are the owner's too.
        let isMirror = log.identity.role == .mirror
        let holdsMore = log.acknowledged > start || (isMirror && log.end > start)
        guard holdsMore || !isMirror else { return nil }
        let path = try archive(region, log, pool: pool, isPrunable: !holdsMore)
        guard holdsMore else { return nil }
        return Report(
            "log-held-more",
            "the log here, of epoch \(log.identity.incarnation), goes on to LSN \(log.end) and knows LSN \(log.acknowledged) to be "
                + "acknowledged, but \(request.from) began epoch \(request.incarnation) at LSN \(start): what lies between may be on no medium. It is "
                + "kept as \(path): look into it with `twinlog-recover dump`, bring it out with `twinlog-recover replay --salvage`"
        )
    }

    /// Writes the region's log into an archive beside the pool, if it holds any records; answers where they ended. Blocks.
    static func archive(_ region: Region, pool: Pool) throws(ArchiveError) -> LSN {
        guard let log = RestingLog(region) else { return region.head }
        _ = try archive(region, log, pool: pool, isPrunable: true)
        return log.endInRing
    }

    /// Answers the archive's path.
    private static func archive(
        _ region: Region, _ log: RestingLog, pool: Pool, isPrunable: Bool
    ) throws(ArchiveError) -> String {
        let archives = Archives(of: region.group, beside: pool.path)
        let path = archives.path(log.identity.incarnation) + (isPrunable ? "" : ".holds-more")
        func write() throws(PoolError) {
            try region.archive(
                to: path, of: pool.identity, upTo: log.endInRing,
                archivedAt: UInt64(max(0, time(nil))), access: pool.access)
        }
        do throws(PoolError) {
            do throws(PoolError) {
                try write()
            } catch {
                guard error.code == .noSpace, archives.prune(keeping: 1) else { throw error }
                try write()
            }
        } catch {
            throw ArchiveError(error, path: path, neededBytes: log.endInRing - region.head)
        }
        archives.prune(keeping: keptArchives)
        return path
    }
}

/// A log that nobody writes, with records or signs of them: up to where it is worth keeping, damage or not.
private struct RestingLog {
    let identity: RegionIdentity
    let acknowledged: LSN
    /// Where the furthest record ends that validates anywhere, or what is known to be acknowledged.
    let end: LSN
    /// The same, at most a ring's size above the head: one that has lost its newest head holds records beyond.
    let endInRing: LSN

    /// `nil` if nothing is there.
    init?(_ region: Region) {
        guard var scan = LogScan(region: region), let copy = LogCopy(region: region) else { return nil }
        _ = scan.finish()
        identity = scan.identity
        acknowledged = scan.acknowledgedLSN
        end = max(scan.endLSN, copy.lastEnd(from: region.head) ?? .zero, acknowledged.alignedUp)
        endInRing = min(end, region.head + region.ringBytes)
        guard end > region.head else { return nil }
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

/// A log could not be archived, so its region was not touched.
struct ArchiveError: Error, CustomStringConvertible {
    var description: String

    init(_ error: PoolError, path: String, neededBytes: UInt64) {
        description = "the old log cannot be archived: \(error)"
        guard error.code == .noSpace else { return }
        var about = statvfs()
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        let free = statvfs(folder, &about) == 0 ? "\(UInt64(about.f_bavail) * UInt64(about.f_frsize))" : "unknown"
        description +=
            "; it needs up to \(neededBytes) bytes, free are \(free): make room there, the owner asks again by itself"
    }
}
