// From the log to the medium, as DestageMachine says. Batches of acknowledged writes are verified, coalesced so that the
// newest wins (S9), written in order of offset, flushed; then ownership is checked again, and only then the head moves (S8).
// What waits for company (DestageMachine) is looked at again by a timer, so that an idle log is on the medium soon.

internal import ClusterProtocol
internal import Coordination
internal import LogModel
internal import PersistentMemory
internal import Recovery
internal import StorageMedium
internal import WriteLog

final class Destager {
    private static let retryPause: Nanos = 1_000_000_000
    /// Bounds the work where memory loses again what was healed.
    private static let healPause: Nanos = 100_000_000

    private let owned: OwnedLog
    private let healer: Healer
    private(set) var problem: String?
    private var mediumWatch = MediumWatch()
    private var isTimerSet = false
    /// What the mirror is asked for to prove that it reaches these media.
    var mediumProof = MediumProof()

    init(_ owned: OwnedLog, _ healer: Healer) {
        self.owned = owned
        self.healer = healer
    }

    /// Begins the next batch, if there is one and none is under way.
    func kick(allWritesAcknowledged: Bool) {
        let now = owned.runtime.now
        let batch = owned.destage.nextBatch(
            acknowledged: owned.acknowledged, allWritesAcknowledged: allWritesAcknowledged,
            isValid: owned.mayDestage, isPressed: isSpaceShort, now: now)
        if let batch { run(batch) } else { setTimer(now) }
    }

    /// The medium yields to clients until half of the log is in use.
    private var isSpaceShort: Bool { owned.log.tail - owned.log.reclaimLimit >= owned.log.ringBytes / 2 }

    private func setTimer(_ now: Nanos) {
        guard !isTimerSet, let due = owned.destage.waitsUntil, due > now else { return }
        isTimerSet = true
        owned.runtime.execute(after: due - now) { [weak self] in
            guard let self else { return }
            isTimerSet = false
            owned.schedulePump()
        }
    }

    private func run(_ batch: Range<LSN>) {
        let log = owned.log
        let media = owned.media
        let healings = healer.stores
        mediumProof.batchBegan()
        let began = owned.runtime.now
        owned.runtime.run(.destage) { () -> DestageOutcome in
            DestageBatch.run(log: log, from: batch.lowerBound, to: batch.upperBound, media: media)
        } _: { result in
            if case .success(.written(let traces)) = result {
                self.owned.stages.record(.destage, from: began, to: self.owned.runtime.now)
                self.mediumProof.batchEnded(traces)
            } else {
                self.mediumProof.batchFailed()
            }
            switch result {
            case .success(.written) where self.healer.stores != healings: self.writeAnew()
            case .success(.written(let traces)): self.batchWritten(traces)
            case .success(.damaged(let range)): self.healBatch(range)
            case .success(.mediumFailed(let error)) where error.code == .fenced:
                self.owned.destage.giveUp(until: self.owned.runtime.now + Self.retryPause)
                if !self.owned.isRevoked { self.owned.listener.mediumTaken(error.message) }
            case .success(.mediumFailed(let error)):
                self.mediumWatch.failed(error.message, isFull: error.isFull, now: self.owned.runtime.now)
                self.retry(error.message)
            case .success(.failed(let reason)): self.failed(reason)
            case .failure(let error): self.failed("\(error)")
            }
        }
    }

    private func batchWritten(_ traces: [VolumeID: WrittenTrace]) {
        mediumWatch.cleared()
        let places = traces.values.reduce(0) { $0 + $1.ranges.count }
        guard let head = owned.destage.written(places: places, isValid: owned.mayDestage, now: owned.runtime.now)
        else { return }
        let log = owned.log
        let acknowledged = owned.acknowledgedWriteEnd
        owned.runOnMemory {
            try log.setHead(head, acknowledged: acknowledged)
        } _: { result in
            if case .failure(let error) = result { return self.failed("\(error)") }
            self.owned.destage.headMoved()
            guard !self.owned.isRevoked else { return }
            self.problem = nil
            self.owned.forgetWhatNobodyReads()
            self.owned.onPump()
        }
    }

    /// What keeps batches from the medium at `now`, `nil` if nothing does. Asked on every tick. `isLogFull`: writers wait for space.
    func mediumTrouble(isLogFull: Bool, _ now: Nanos) -> MediumTrouble? {
        let call = owned.mediumCalls.current
        mediumWatch.observe(call: call?.number, now: now)
        return mediumWatch.trouble(callText: call?.text, isLogFull: isLogFull, now: now)
    }

    /// The batch was kept from the medium by something else.
    private func failed(_ reason: String) {
        mediumWatch.cleared()
        retry(reason)
    }

    /// A record was healed while the batch was under way: the medium may have its damaged bytes, and the mirror must not trim before it
    /// has the good ones (S5).
    private func writeAnew() {
        mediumWatch.cleared()
        owned.destage.giveUp(until: owned.runtime.now + Self.healPause)
        owned.schedulePump()
    }

    /// The batch is done anew with the healed record, which verifies it.
    private func healBatch(_ damaged: DamagedRange) {
        healer.heal(damaged) { [self] outcome in
            switch outcome {
            case .healed: owned.destage.giveUp(until: owned.runtime.now + Self.healPause)
            case .interrupted(let reason), .lost(let reason): failed(reason)
            }
            owned.schedulePump()
        }
    }

    /// Tried again for as long as it takes; reported when the reason changes.
    private func retry(_ reason: String) {
        owned.destage.giveUp(until: owned.runtime.now + Self.retryPause)
        guard !owned.isRevoked, problem != reason else { return }
        problem = reason
        owned.report(
            .destageFailed, "a batch did not reach the medium and will be written anew from the log: \(reason)")
    }
}
