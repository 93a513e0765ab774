// A mirror's pool becomes a log of its own. From then on the earlier log is of an older epoch: a mirror that has met this one refuses it
// (S12, S15).

internal import LogModel
internal import PersistentMemory

extension LogStore {
    /// Makes the region its log's own, if it was a mirror and is not corrupt; nothing else changes. Blocks. A crash leaves a mirror or a log, with the same
    /// records (S10).
    static func takeOver(_ pool: Pool, _ region: Region) throws(TwinLogError) {
        guard let identity = region.identity, identity.role == .mirror else { return }
        _ = try judge(pool, region)
        try translating { () throws(PoolError) in
            var standing = region.standing
            standing.epoch = standing.epoch.next
            try region.note(standing)
            try region.format(
                role: .owner, logUUID: identity.logUUID, incarnation: identity.incarnation, start: identity.startLSN)
        }
    }
}
