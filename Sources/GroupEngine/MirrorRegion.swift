// A region becomes an owner's mirror log, or its own log is set aside. What it held of another incarnation has been recovered by
// whoever published since (S19); it is archived beside the pool all the same.
//
// Invariants:
//  - a log that may hold more than was recovered is archived before its region is begun anew, and that archive is kept until an
//    operator removes it; of the others the two newest are;
//  - a region is begun anew only when its archive is durable.

internal import ClusterProtocol
internal import LogModel
internal import PersistentMemory
internal import WriteLog

enum MirrorRegion {
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
        _ region: Region, for request: AttachRequest, generation: UInt64, known: LSN?, archives: any LogArchives
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
        let report = try setAside(region, for: request, archives)
        try region.format(
            role: .mirror, logUUID: request.logUUID, incarnation: request.incarnation, start: request.head)
        return Prepared(head: region.head, durable: region.head, report: report)
    }

    /// Archives what the new owner may lack. Its own records beyond the start are on no medium and were, perhaps, acknowledged.
    private static func setAside(
        _ region: Region, for request: AttachRequest, _ archives: any LogArchives
    ) throws -> Report? {
        guard let log = RestingLog(region) else { return nil }
        // Peers that do not tell where they began have their head at that place or above it.
        let start = request.start == .zero ? request.head : request.start
        // An owner's log goes on beyond what was acknowledged; a mirror's records are the owner's too.
        let isMirror = log.identity.role == .mirror
        let holdsMore = log.acknowledged > start || (isMirror && log.end > start)
        guard holdsMore || !isMirror else { return nil }
        let path = try archives.archive(region, upTo: log.endInRing, isPrunable: !holdsMore)
        guard holdsMore else { return nil }
        return Report(
            .logHeldMore,
            "the log here, of epoch \(log.identity.incarnation), goes on to LSN \(log.end) and knows LSN \(log.acknowledged) to be "
                + "acknowledged, but \(request.from) began epoch \(request.incarnation) at LSN \(start): what lies between may be on no medium. It is "
                + "kept as \(path): look into it with `twinlog-recover dump`, bring it out with `twinlog-recover replay --salvage`"
        )
    }

    /// Archives the region's log, if it holds any records; answers where they ended. Blocks.
    static func archive(_ region: Region, _ archives: any LogArchives) throws(ArchiveError) -> LSN {
        guard let log = RestingLog(region) else { return region.head }
        _ = try archives.archive(region, upTo: log.endInRing, isPrunable: true)
        return log.endInRing
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
