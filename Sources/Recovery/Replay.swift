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
    /// Writes everything in `region`'s log to `media` and flushes them. `nil` if the region holds no log. A corrupt log
    /// throws before anything of it is written. Blocks.
    /// `progress` is called now and then with the bytes of the log that are done and that there are.
    public static func run(
        _ region: Region, onto media: [VolumeID: any Medium], dryRun: Bool = false,
        progress: (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }
    ) throws(ReplayError) -> ReplayOutcome? {
        guard var judge = LogScan(region: region) else { return nil }
        let verdict = judge.finish()
        guard verdict != .corrupt else {
            throw ReplayError(
                .corrupt,
                "the log of \(region.group) is corrupt at LSN \(judge.firstBadLSN ?? judge.endLSN), below the acknowledged LSN "
                    + "\(judge.acknowledgedLSN): heal it from the other copy, see `twinlog-recover compare` and `heal`")
        }
        guard let scan = LogScan(region: region) else { return nil }
        let total = judge.endLSN - judge.headLSN
        var batch = MediumBatch(media: media)
        var payloadBytes: UInt64 = 0
        for write in scan {
            for record in write.records {
                try batch.add(record)
                payloadBytes += UInt64(record.payload.count)
            }
            progress(write.end - judge.headLSN, total)
        }
        if !dryRun {
            try onMedium { () throws(MediumError) in
                try batch.write()
                try batch.flush()
            }
        }
        return ReplayOutcome(
            headLSN: judge.headLSN, endLSN: judge.endLSN, acknowledgedLSN: judge.acknowledgedLSN,
            writes: judge.writeCount,
            records: judge.recordCount, payloadBytes: payloadBytes, verdict: verdict)
    }

    private static func onMedium(_ body: () throws(MediumError) -> Void) throws(ReplayError) {
        do throws(MediumError) {
            try body()
        } catch {
            throw ReplayError(.medium, error.message)
        }
    }
}
