// From the log to the medium. Batches of acknowledged writes are verified, coalesced so that the newest wins (S9),
// written in order of offset, flushed; then ownership is checked again, and only then the head moves (S8). A batch that
// fails anywhere is done anew from the log.

internal import ClusterProtocol
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import Recovery
internal import StorageMedium
internal import WriteLog

extension OwnerLog {
    /// Enough for the medium to be used well, little enough to keep the space coming back.
    static var destageBatchBytes: UInt64 { 16 << 20 }
    static var destageRetry: TimeAmount { .seconds(1) }

    func kickDestage() {
        guard !isDestaging, !isRevoked, authority.isValid(), NIODeadline.now() >= destageRetryAt else { return }
        let from = log.head
        guard
            let end = overlayBatchEnd(from: from)
        else { return }
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
    private func overlayBatchEnd(from: LSN) -> LSN? {
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

    /// A record fails its checksum on this side: its bytes come from the mirror, which has it durably (S26).
    private func heal(_ record: DamagedRecord) {
        authority.report(
            Report("record-damaged", "the record at LSN \(record.lsn) fails its checksum; asking the mirror for it"))
        guard let mirror, mirror.session.durable >= record.lsn + record.totalBytes else {
            return destageFailed("the record at LSN \(record.lsn) is damaged and there is no mirror to heal it from")
        }
        healing = Healing(record: record, bytes: [])
        do throws(RemoteMemoryErrorAlias) {
            var lsn = record.lsn
            let end = record.lsn + record.totalBytes
            while lsn < end {
                let offset = lsn.rawValue % log.ringBytes
                let length = min(end - lsn, log.ringBytes - offset, MirrorSession.maximumShipBytes)
                try mirror.queuePair.postRead(key: mirror.key, offset: offset, length: Int(length))
                lsn = lsn + length
            }
        } catch {
            destageFailed("the mirror could not be asked for LSN \(record.lsn): \(error)")
        }
    }

    /// A READ that ``heal(_:)`` posted came back.
    func healed(with bytes: [UInt8]) {
        guard var healing else { return }
        healing.bytes += bytes
        guard UInt64(healing.bytes.count) >= healing.record.totalBytes else {
            self.healing = healing
            return
        }
        self.healing = nil
        isDestaging = false
        if log.repair(at: healing.record.lsn, with: healing.bytes) {
            authority.report(Report("record-healed", "the record at LSN \(healing.record.lsn) is healed from the mirror"))
        } else {
            destageFailed("the mirror's copy of the record at LSN \(healing.record.lsn) is damaged too")
        }
        pump()
    }

    func finishDrainIfDone() {
        guard let end = drainTo, log.head >= end, !isDestaging else { return }
        drainTo = nil
        let done = onDrained
        onDrained = nil
        done?()
    }
}
