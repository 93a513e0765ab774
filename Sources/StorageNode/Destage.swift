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
                self.overlay.destaged(to: end)
                self.pump()
            }
    }

    private func destageFailed(_ reason: String) {
        isDestaging = false
        destageRetryAt = .now() + Self.destageRetry
        authority.report(Report("destage-failed", "a batch did not reach the medium and will be written anew from the log: \(reason)"))
    }

    /// Bytes fail their checksum on this side: they come from the mirror, which has them durably (S26).
    private func heal(_ damaged: DamagedRange) {
        authority.report(
            Report("record-damaged", "the log is damaged at LSN \(damaged.from); asking the mirror for \(damaged.to - damaged.from) bytes"))
        guard let mirror, mirror.session.durable >= damaged.to else {
            return destageFailed("the log is damaged at LSN \(damaged.from) and there is no mirror to heal it from")
        }
        healing = (damaged, [])
        do throws(RemoteMemoryError) {
            var lsn = damaged.from
            while lsn < damaged.to {
                let offset = lsn.rawValue % log.ringBytes
                let length = min(damaged.to - lsn, log.ringBytes - offset, MirrorSession.maximumShipBytes)
                try mirror.queuePair.postRead(key: mirror.key, offset: offset, length: Int(length))
                lsn = lsn + length
            }
        } catch {
            healing = nil
            destageFailed("the mirror could not be asked for LSN \(damaged.from): \(error)")
        }
    }

    /// A READ that ``heal(_:)`` posted came back. The batch is done anew, which verifies what was healed.
    func healed(with bytes: [UInt8]) {
        guard let (damaged, earlier) = healing else { return }
        let all = earlier + bytes
        healing = (damaged, all)
        guard UInt64(all.count) >= damaged.to - damaged.from else { return }
        healing = nil
        all.withUnsafeBytes { log.region.store($0, at: damaged.from) }
        do {
            try log.region.drain()
            authority.report(Report("record-healed", "the log at LSN \(damaged.from) is healed from the mirror"))
            isDestaging = false
            destageRetryAt = .now() + Self.healRetry
        } catch {
            destageFailed("the healed bytes at LSN \(damaged.from) could not be made durable: \(error)")
        }
        schedulePump()
    }

    func finishDrainIfDone() {
        guard !isDestaging else { return }
        let head = log.head
        let done = drains.filter { $0.to <= head }
        drains.removeAll { $0.to <= head }
        for drain in done { drain.done() }
    }
}
