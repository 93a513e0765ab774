// From the log to the medium, as DestageMachine says. Batches of acknowledged writes are verified, coalesced so that the
// newest wins (S9), written in order of offset, flushed; then ownership is checked again, and only then the head moves (S8).

internal import ClusterProtocol
internal import Coordination
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
    static let destageRetry: Nanos = 1_000_000_000
    /// Bounds the work if the mirror's copy turns out to be damaged too.
    static let healRetry: Nanos = 100_000_000

    func kickDestage() {
        let batch = destage.nextBatch(
            acknowledged: acknowledged, allWritesAcknowledged: issued.isEmpty,
            isValid: !isRevoked && authority.isValid(), now: BootClock.now)
        guard let batch else { return }
        let log = log
        let media = media
        threads.destage.runIfActive(eventLoop: eventLoop) { () -> DestageOutcome in
            DestageBatch.run(log: log, from: batch.lowerBound, to: batch.upperBound, media: media)
        }.assumeIsolated().whenComplete { result in
            switch result {
            case .success(.written): self.batchWritten()
            case .success(.damaged(let record)): self.heal(record)
            case .success(.mediumFailed(let reason)):
                self.mediumWatch.failed(reason, now: BootClock.now)
                self.retryDestage(reason)
            case .success(.failed(let reason)): self.destageFailed(reason)
            case .failure(let error): self.destageFailed("\(error)")
            }
        }
    }

    private func batchWritten() {
        mediumWatch.cleared()
        guard let head = destage.written(isValid: !isRevoked && authority.isValid()) else { return }
        let log = log
        let acknowledged = acknowledgedWriteEnd
        threads.memory.runIfActive(eventLoop: eventLoop) { try log.setHead(head, acknowledged: acknowledged) }
            .assumeIsolated().whenComplete { result in
                if case .failure(let error) = result { return self.destageFailed("\(error)") }
                self.destage.headMoved()
                guard !self.isRevoked else { return }
                self.destageProblem = nil
                self.forgetWhatNobodyReads()
                self.pump()
            }
    }

    /// What keeps batches from the medium at `now`, `nil` if nothing does. Asked on every tick.
    func mediumTrouble(_ now: Nanos) -> MediumTrouble? {
        let call = mediumCalls.current
        mediumWatch.observe(call: call?.number, now: now)
        return mediumWatch.trouble(callText: call?.text, isLogFull: isServing && !requests.isEmpty, now: now)
    }

    /// The batch was kept from the medium by something else.
    private func destageFailed(_ reason: String) {
        mediumWatch.cleared()
        retryDestage(reason)
    }

    /// Tried again for as long as it takes; reported when the reason changes.
    private func retryDestage(_ reason: String) {
        destage.giveUp(until: BootClock.now + Self.destageRetry)
        guard !isRevoked, destageProblem != reason else { return }
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
                destage.giveUp(until: BootClock.now + Self.healRetry)
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
}
