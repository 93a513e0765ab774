// From the log to the medium. Batches of acknowledged writes are verified, coalesced so that the newest wins (S9),
// written in order of offset, flushed; then ownership is checked again, and only then the head moves (S8). A batch that
// fails anywhere is done anew from the log.

internal import ClusterProtocol
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import RemoteMemory
internal import StorageMedium
internal import WriteLog

/// What is being fetched from the mirror. An answer counts only if it answers the READ that is due: those of an attempt
/// that was given up may still arrive.
struct Healing {
    let range: DamagedRange
    /// Not answered yet, in order.
    var reads: [WorkRequestID] = []
    var bytes: [UInt8] = []
}

extension OwnerLog {
    /// Enough for the medium to be used well, little enough to keep the space coming back.
    static var destageBatchBytes: UInt64 { 16 << 20 }
    static var destageRetry: TimeAmount { .seconds(1) }
    /// Bounds the work if the mirror's copy turns out to be damaged too.
    static var healRetry: TimeAmount { .milliseconds(100) }

    func kickDestage() {
        guard !isDestaging, !isRevoked, authority.isValid(), NIODeadline.now() >= destageRetryAt else { return }
        let from = log.head
        guard let end = batchEnd(from: from) else { return }
        isDestaging = true
        let log = log
        let media = media
        threads.runIfActive(eventLoop: eventLoop) { () -> DestageOutcome in
            DestageBatch.run(log: log, from: from, to: end, media: media)
        }.assumeIsolated().whenComplete { result in
            switch result {
            case .success(.written): self.batchWritten(to: end)
            case .success(.damaged(let record)): self.heal(record)
            case .success(.failed(let reason)): self.destageFailed(reason)
            case .failure(let error): self.destageFailed("\(error)")
            }
        }
    }

    /// Control records carry no range, so a log whose rest is only those may be trimmed to its acknowledged end.
    private func batchEnd(from: LSN) -> LSN? {
        if let end = overlay.batchEnd(from: from, acknowledged: acknowledged, limitBytes: Self.destageBatchBytes) {
            return end
        }
        return acknowledged > from && issued.isEmpty ? acknowledged : nil
    }

    private func batchWritten(to end: LSN) {
        // The medium has it, but only a valid owner may say so (S8).
        guard !isRevoked, authority.isValid() else {
            isDestaging = false
            return
        }
        let log = log
        let acknowledged = acknowledged
        threads.runIfActive(eventLoop: eventLoop) { try log.setHead(end, acknowledged: acknowledged) }
            .assumeIsolated().whenComplete { result in
                self.isDestaging = false
                guard !self.isRevoked else { return }
                if case .failure(let error) = result { return self.destageFailed("\(error)") }
                self.destageProblem = nil
                self.overlay.destaged(to: end)
                self.pump()
            }
    }

    /// Tried again for as long as it takes; reported when the reason changes.
    private func destageFailed(_ reason: String) {
        isDestaging = false
        destageRetryAt = .now() + Self.destageRetry
        guard destageProblem != reason else { return }
        destageProblem = reason
        authority.report(
            Report(
                "destage-failed", "a batch did not reach the medium and will be written anew from the log: \(reason)"))
    }

    /// Bytes fail their checksum on this side: they come from the mirror, which has them durably (S26).
    func heal(_ damaged: DamagedRange) {
        authority.report(
            Report(
                "record-damaged",
                "the log is damaged at LSN \(damaged.from); asking the mirror for \(damaged.to - damaged.from) bytes"))
        guard let mirror, mirror.session.durable >= damaged.to else {
            return destageFailed("the log is damaged at LSN \(damaged.from) and there is no mirror to heal it from")
        }
        do throws(RemoteMemoryError) {
            healing = Healing(range: damaged, reads: try postReads(of: damaged.from..<damaged.to, from: mirror))
        } catch {
            // What was asked for already is answered, and belongs to nothing then.
            destageFailed("the mirror could not be asked for LSN \(damaged.from): \(error)")
        }
    }

    /// A READ came back. When all that ``heal(_:)`` posted have, the batch is done anew, which verifies what was healed.
    func healed(by read: WorkRequestID, with bytes: [UInt8]) {
        guard healing?.reads.first == read else { return }
        healing?.reads.removeFirst()
        healing?.bytes += bytes
        guard let done = healing, done.reads.isEmpty else { return }
        healing = nil
        guard storeGood(done) else {
            destageFailed("the log is damaged at LSN \(done.range.from), and the mirror's copy of it too")
            return schedulePump()
        }
        drainHealed { [self] failure in
            if let failure {
                destageFailed("the healed bytes at LSN \(done.range.from) could not be made durable: \(failure)")
            } else {
                authority.report(Report("record-healed", "the log at LSN \(done.range.from) is healed from the mirror"))
                isDestaging = false
                destageRetryAt = .now() + Self.healRetry
            }
            schedulePump()
        }
    }

    /// Stores the mirror's records of the range that pass their checks; answers whether all of it does.
    private func storeGood(_ fetched: Healing) -> Bool {
        fetched.bytes.withUnsafeBytes { bytes in
            let from = fetched.range.from
            guard var comparison = PartComparison(log.region, from: from, other: bytes, endsInRecord: false) else {
                return false
            }
            var isGood = true
            while let difference = comparison.next() {
                guard difference.kind == .damagedHere else {
                    isGood = false
                    continue
                }
                let range = Int(difference.range.lowerBound - from)..<Int(difference.range.upperBound - from)
                log.region.store(UnsafeRawBufferPointer(rebasing: bytes[range]), at: difference.range.lowerBound)
            }
            return isGood
        }
    }

    func finishDrainIfDone() {
        guard !isDestaging else { return }
        let head = log.head
        let done = drains.filter { $0.to <= head }
        drains.removeAll { $0.to <= head }
        for drain in done { drain.done(nil) }
    }
}
