// From the log to the medium, as DestageMachine says. Batches of acknowledged writes are verified, coalesced so that the
// newest wins (S9), written in order of offset, flushed; then ownership is checked again, and only then the head moves (S8).

internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import PersistentMemory
internal import StorageMedium
internal import WriteLog

extension OwnerLog {
    static let destageRetry: Nanos = 1_000_000_000
    /// Bounds the work where memory loses again what was healed.
    static let healRetry: Nanos = 100_000_000

    func kickDestage() {
        let batch = destage.nextBatch(
            acknowledged: acknowledged, allWritesAcknowledged: issued.isEmpty,
            isValid: !isRevoked && authority.isValid(), now: runtime.now)
        guard let batch else { return }
        let log = log
        let media = media
        mediumProof.batchBegan()
        runtime.run(.destage) { () -> DestageOutcome in
            DestageBatch.run(log: log, from: batch.lowerBound, to: batch.upperBound, media: media)
        } _: { result in
            if case .success(.written(let traces)) = result {
                self.mediumProof.batchEnded(traces)
            } else {
                self.mediumProof.batchFailed()
            }
            switch result {
            case .success(.written): self.batchWritten()
            case .success(.damaged(let range)): self.healBatch(range)
            case .success(.mediumFailed(let error)):
                self.mediumWatch.failed(error.message, isFull: error.isFull, now: self.runtime.now)
                self.retryDestage(error.message)
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
        runtime.run(.memory) {
            try log.setHead(head, acknowledged: acknowledged)
        } _: { result in
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

    /// The batch is done anew with the healed record, which verifies it.
    private func healBatch(_ damaged: DamagedRange) {
        heal(damaged) { [self] outcome in
            switch outcome {
            case .healed: destage.giveUp(until: runtime.now + Self.healRetry)
            case .interrupted(let reason), .lost(let reason): destageFailed(reason)
            }
            schedulePump()
        }
    }

    /// Tried again for as long as it takes; reported when the reason changes.
    private func retryDestage(_ reason: String) {
        destage.giveUp(until: runtime.now + Self.destageRetry)
        guard !isRevoked, destageProblem != reason else { return }
        destageProblem = reason
        authority.report(
            Report(
                "destage-failed", "a batch did not reach the medium and will be written anew from the log: \(reason)"))
    }
}
