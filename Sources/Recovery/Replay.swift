// From a log that nobody writes to the medium: all of it, in order, verified (S16, S26). Cut at any instruction and run
// again, it gives the same medium (S10), because it only ever writes what the log says and moves nothing.
//
// The whole log is coalesced before anything is written, so that the medium never goes back to a byte's older value: a
// partner whose log begins later may have to finish a replay that was cut, and could not repair that (S9). What is held
// are places in the log, no payloads; the overlay of an owner that has destaged nothing is as large.

public import LogModel
public import PersistentMemory
public import StorageMedium
public import WriteLog

public struct ReplayOutcome: Hashable, Sendable {
    public var headLSN: LSN
    /// Where the log ended: the end of its last whole write.
    public var endLSN: LSN
    public var acknowledgedLSN: LSN
    public var writes: UInt64
    public var records: UInt64
    public var payloadBytes: UInt64
    public var verdict: LogScan.Verdict
}

public enum Replay {
    /// Writes everything in `region`'s log to `media` and flushes them; only looks with `dryRun`. `nil` if the region holds no log.
    /// A corrupt log, or one with a record that no medium is for, throws before anything of it is written. Blocks. `progress` is
    /// called now and then with the bytes of the log that are done and that there are.
    public static func run(
        _ region: Region, onto media: [VolumeID: any Medium], dryRun: Bool = false,
        progress: (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }
    ) throws(ReplayError) -> ReplayOutcome? {
        var batch = MediumBatch(media: media)
        let faultBefore = region.memoryFault
        guard let (outcome, count) = try judge(region, batch) else { return nil }
        guard !dryRun, let scan = LogScan(region: region) else { return outcome }
        var done = outcome.headLSN, added: UInt64 = 0
        for write in scan {
            for record in write.records {
                try batch.add(record)
                added += 1
            }
            done = write.end
            progress(done - outcome.headLSN, outcome.endLSN - outcome.headLSN)
        }
        // Memory can rot between two looks: what was judged whole must be what is replayed (S26).
        guard done == outcome.endLSN, added == count else {
            throw ReplayError(
                .corrupt,
                "the log of \(region.group) changed under the replay: good up to LSN \(outcome.endLSN) before, to \(done) now"
            )
        }
        try onMedium { () throws(MediumError) in
            try batch.write()
            try batch.flush()
        }
        // What failed meanwhile read as zeros, and is on the medium as such: another copy must be replayed over it.
        if let fault = region.memoryFault, fault != faultBefore {
            throw ReplayError(
                .corrupt,
                "\(fault), while the log of \(region.group) was replayed: zeros may be on the medium in the place of what was there. "
                    + "If the group was mirrored, replay the other node's pool, which holds everything that was acknowledged"
            )
        }
        return outcome
    }

    /// Reads all of the log without writing: its end, whether every record can go to its medium, and how many there are, pads
    /// left out.
    private static func judge(
        _ region: Region, _ batch: MediumBatch
    ) throws(ReplayError) -> (ReplayOutcome, UInt64)? {
        guard var scan = LogScan(region: region) else { return nil }
        var payloadBytes: UInt64 = 0, count: UInt64 = 0
        var problem: ReplayError?
        while let write = scan.next() {
            for record in write.records where problem == nil {
                count += 1
                payloadBytes += UInt64(record.payload.count)
                do throws(ReplayError) { _ = try batch.medium(for: record) } catch { problem = error }
            }
        }
        let verdict = scan.finish()
        if let fault = scan.memoryFault {
            throw ReplayError(
                .corrupt,
                "\(fault): the log of \(region.group) cannot be read to its end, only to LSN \(scan.endLSN). If the group "
                    + "was mirrored, the other node's pool holds everything that was acknowledged: use that one")
        }
        guard verdict != .corrupt else {
            throw ReplayError(
                .corrupt,
                "the log of \(region.group) is corrupt at LSN \(scan.firstBadLSN ?? scan.endLSN), below the acknowledged LSN "
                    + "\(scan.acknowledgedLSN): heal it from the other copy, see `twinlog-recover compare` and `heal`")
        }
        if let problem { throw problem }
        let outcome = ReplayOutcome(
            headLSN: scan.headLSN, endLSN: scan.endLSN, acknowledgedLSN: scan.acknowledgedLSN, writes: scan.writeCount,
            records: scan.recordCount, payloadBytes: payloadBytes, verdict: verdict)
        return (outcome, count)
    }

    static func onMedium(_ body: () throws(MediumError) -> Void) throws(ReplayError) {
        do throws(MediumError) {
            try body()
        } catch {
            throw ReplayError(error.code == .fenced ? .mediumTaken : .medium, error.message)
        }
    }
}
