// One batch of the destager, on a thread of its own: read, verify, coalesce, write, flush, verify.

internal import LogModel
internal import PersistentMemory
internal import Recovery
internal import StorageMedium
internal import WriteLog

/// Bytes of the log that fail their checks; the mirror has them (S26).
struct DamagedRange: Sendable {
    var from: LSN
    var to: LSN
}

enum DestageOutcome: Sendable {
    /// On the medium, and flushed (S8).
    case written([VolumeID: WrittenTrace])
    case damaged(DamagedRange)
    case mediumFailed(MediumError)
    /// The medium is not to blame.
    case failed(String)
}

extension WriteLog {
    fileprivate func firstDamage(from: LSN, to: LSN) -> DamagedRange? {
        for entry in records(from: from, to: to) {
            if case .damaged(let from, let to) = entry { return DamagedRange(from: from, to: to) }
        }
        return nil
    }
}

enum DestageBatch {
    /// Blocks. `[from, to)` is acknowledged and not reclaimed until the outcome is known.
    static func run(log: WriteLog, from: LSN, to: LSN, media: [VolumeID: any Medium]) -> DestageOutcome {
        let faultBefore = log.region.memoryFault?.description
        var batch = MediumBatch(media: media)
        for entry in log.records(from: from, to: to) {
            switch entry {
            case .damaged(let from, let to): return .damaged(DamagedRange(from: from, to: to))
            case .record(let record):
                do throws(ReplayError) {
                    try batch.add(record)
                } catch {
                    return .failed(error.message)
                }
            }
        }
        do throws(MediumError) {
            try batch.write()
            try batch.flush()
            // Memory that failed after its records were verified reads as zeros: they may be on the medium now (S26). The
            // log keeps them; the batch is done anew.
            let fault = log.region.memoryFault?.description
            if let fault, fault != faultBefore { return .failed(fault) }
            // What passes its checks now, and was not healed meanwhile, was whole when it was written (S5).
            if let rotten = log.firstDamage(from: from, to: to) { return .damaged(rotten) }
            return .written(batch.traces)
        } catch {
            return .mediumFailed(error)
        }
    }
}
