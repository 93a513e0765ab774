// What a mirror does with a log that asks for it: whether its region can be that log's copy, and what of it the log need not send.

internal import ClusterProtocol
internal import LogModel
internal import PersistentMemory
internal import WriteLog

/// A region that is ready for the log that asked. Its numbers are as of a cluster's mirror (GroupEngine/MirrorRegion.swift).
struct MirrorCopy: Sendable {
    var head: LSN
    /// Where the log begins to ship.
    var durable: LSN
    var kept: KeptRecords?
    var contents: MirrorContents

    /// Why a log is not taken, for its own process.
    struct Refusal: Error {
        var code: AttachRefusal
        var reason: String
    }

    /// `known` is what this process saw become durable of the same log. Blocks. Every refusal comes before the first store.
    static func prepare(
        _ region: Region, of pool: Pool, for request: AttachRequest, known: LSN?
    ) throws(Refusal) -> MirrorCopy {
        try admit(request, to: region, pool)
        let isKept = region.identity != nil
        do throws(PoolError) {
            try region.note(RegionStanding(epoch: request.epoch))
            if isKept {
                try region.advanceHead(to: request.head)
            } else {
                try region.format(
                    role: .mirror, logUUID: request.logUUID, incarnation: request.incarnation, start: request.head)
            }
        } catch {
            throw Refusal(code: .damaged, reason: error.description)
        }
        let head = region.head
        let durable = max(known ?? head, head)
        guard var scan = LogScan(region: region) else { preconditionFailure("the region was formatted") }
        _ = scan.finish()
        let contents = MirrorContents(
            pool: pool.identity.uuid, isKept: isKept, acknowledged: scan.acknowledgedLSN, end: scan.endLSN)
        // What an earlier process stored may never have been drained: without `known` all of it is sent, and compared.
        return MirrorCopy(
            head: head, durable: durable, kept: isKept ? KeptRecords(region: region, from: durable) : nil,
            contents: contents)
    }

    private static func admit(_ request: AttachRequest, to region: Region, _ pool: Pool) throws(Refusal) {
        guard request.group == LogStore.group, request.ringBytes == region.ringBytes, request.head.isPlaceOfRecord,
            request.logUUID != .zero, request.incarnation > .none
        else {
            throw Refusal(
                code: .differentConfiguration,
                reason:
                    "\(pool.path): the log here has \(region.ringBytes) bytes, the one that asks \(request.ringBytes)")
        }
        if let fault = region.memoryFault { throw Refusal(code: .damaged, reason: fault.description) }
        guard request.epoch >= region.standing.epoch else {
            throw Refusal(code: .staleEpoch, reason: "\(pool.path): the log that asks was taken over meanwhile")
        }
        guard let identity = region.identity else { return }
        guard identity.role == .mirror, identity.logUUID == request.logUUID, identity.incarnation == request.incarnation
        else {
            throw Refusal(
                code: .holdsMore, reason: "\(pool.path): here is another log, or this one taken over: use a new pool")
        }
        guard request.head >= region.head, request.end >= region.head else {
            throw Refusal(
                code: .holdsMore,
                reason: "\(pool.path): the log here begins at \(region.head), beyond what the one that asks has")
        }
    }
}
