// Pools of the group's other nodes, which are marked beside the one that is replayed: what is not marked could be replayed
// later, over what is written to the medium from now on.

import LogModel
import PersistentMemory
import WriteLog

struct OtherPool {
    let pool: Pool
    let region: Region

    /// Opens each for writing, so that no node can start with it. Throws unless each holds another node's copy of the log, and none
    /// that is newer than what is replayed.
    static func open(
        _ paths: [String], beside file: LogFile, _ region: Region
    ) throws(Failure) -> [OtherPool] {
        var opened: [OtherPool] = []
        for path in paths {
            for earlier in [file.path] + opened.map(\.pool.path) { try checkDistinct(earlier, path) }
            let pool = try openPool(path, writing: true)
            let other = try LogFile(pool).region(of: region.group.rawValue)
            if let problem = problem(pool, other, beside: file, region) {
                throw Failure(.refused, "\(path): \(problem); nothing was written")
            }
            opened.append(OtherPool(pool: pool, region: other))
        }
        return opened
    }

    private static func problem(_ pool: Pool, _ other: Region, beside file: LogFile, _ region: Region) -> String? {
        guard pool.identity.cluster == file.identity.cluster else {
            return "belongs to cluster \(pool.identity.cluster), \(file.path) to \(file.identity.cluster)"
        }
        guard pool.identity.node != file.identity.node else {
            return "is of node \(pool.identity.node), as \(file.path) is; name the pool of the group's other node"
        }
        // One that was never used has nothing to be replayed.
        guard let log = other.identity, log.role != .empty, let replayed = region.identity else { return nil }
        guard log.logUUID == replayed.logUUID else { return "holds another log of group \(region.group)" }
        guard log.incarnation <= replayed.incarnation else {
            return
                "its log was opened in epoch \(log.incarnation), that of \(file.path) in epoch \(replayed.incarnation): it is newer, replay it instead"
        }
        guard log.incarnation == replayed.incarnation, var scan = LogScan(region: other),
            var own = LogScan(region: region)
        else { return nil }
        (_, _) = (scan.finish(), own.finish())
        guard scan.acknowledgedLSN <= own.endLSN else {
            return
                "it knows LSN \(scan.acknowledgedLSN) to be acknowledged, and the log of \(file.path) ends at \(own.endLSN): replay it instead, "
                + "or heal the one from the other first"
        }
        return nil
    }

    /// Durably; one that was never used, or is marked already, is left as it is.
    func mark() throws(PoolError) {
        guard let log = region.identity, log.role != .empty, !log.isReplayed else { return }
        try region.markReplayed()
    }
}
