// A region becomes an owner's mirror log. What it held of another incarnation has been recovered by whoever published
// since (S19); a log with records is archived beside the pool all the same, the two newest are kept.

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
    }

    /// Makes the region ready for the owner that asks. `known` is what this process saw become durable of the incarnation; without it,
    /// or where the record does not count what is here, the owner ships everything above the head, which compares it (S14). Blocks.
    static func prepare(
        _ region: Region, for request: AttachRequest, generation: UInt64, known: LSN?, pool: Pool
    ) throws -> Prepared {
        // Only an accepted request is of a counted start; a generation above the counted one belongs to what is begun anew.
        try region.note(RegionStanding(generation: generation, isConfirmed: true, epoch: request.epoch))
        if let identity = region.identity, identity.role == .mirror, identity.logUUID == request.logUUID,
            identity.incarnation == request.incarnation
        {
            try region.advanceHead(to: request.head)
            let head = region.head
            let durable = request.counts ? max(known ?? head, head) : head
            return Prepared(head: head, durable: durable, kept: KeptRecords(region: region, from: durable))
        }
        try archiveIfNotEmpty(region, pool: pool)
        try region.format(
            role: .mirror, logUUID: request.logUUID, incarnation: request.incarnation, start: request.head)
        return Prepared(head: region.head, durable: region.head, kept: nil)
    }

    /// A mirror's records are also the owner's.
    private static func archiveIfNotEmpty(_ region: Region, pool: Pool) throws {
        if region.identity?.role == .owner { _ = try archive(region, pool: pool) }
    }

    /// Writes the region's records at their places of the ring into a sparse file beside the pool, if there are any; answers
    /// where the log ended. Blocks.
    static func archive(_ region: Region, pool: Pool) throws -> LSN {
        guard var scan = LogScan(region: region), let identity = region.identity else { return .zero }
        while scan.next() != nil {}
        guard scan.recordCount > 0 else { return scan.endLSN }
        let path = "\(pool.path).archive-\(region.group)-\(identity.incarnation)"
        let temporary = path + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw ArchiveError(path: temporary, number: errno) }
        defer { close(descriptor) }
        var place = off_t(scan.headLSN.rawValue % region.ringBytes)
        try region.withRingBytes(from: scan.headLSN, count: scan.endLSN - scan.headLSN) {
            (bytes) throws(ArchiveError) in
            var done = 0
            while done < bytes.count {
                let count = pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, place + off_t(done))
                guard count > 0 else { throw ArchiveError(path: temporary, number: errno) }
                done += count
            }
            place = 0
        }
        guard fsync(descriptor) == 0, rename(temporary, path) == 0 else {
            throw ArchiveError(path: path, number: errno)
        }
        prune(region.group, incarnation: identity.incarnation, pool: pool)
        return scan.endLSN
    }

    private static func prune(_ group: GroupID, incarnation: Incarnation, pool: Pool) {
        let folder = pool.path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let file = pool.path.split(separator: "/").last.map(String.init) ?? pool.path
        guard let stream = opendir(folder.isEmpty ? "/" : folder) else { return }
        defer { closedir(stream) }
        var found: [UInt64] = []
        let prefix = "\(file).archive-\(group)-"
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasPrefix(prefix), let number = UInt64(name.dropFirst(prefix.count)) { found.append(number) }
        }
        for old in found.sorted().dropLast(keptArchives) { unlink("\(pool.path).archive-\(group)-\(old)") }
    }
}

struct ArchiveError: Error, CustomStringConvertible {
    var path: String
    var number: CInt
    var description: String { "\(path): the old log cannot be archived: \(String(cString: strerror(number)))" }
}
