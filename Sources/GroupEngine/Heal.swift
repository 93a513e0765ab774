// Records of the owner's log that fail their checks are fetched from the mirror, which has them at the same positions, stored anew
// here and drained (S5, S26). Whoever finds one asks here: the destager, a read, a catch-up. One range is healed at a time.

internal import ClusterProtocol
internal import LogModel
internal import PersistentMemory
internal import RemoteMemory
internal import WriteLog

enum HealOutcome {
    /// Every record of the range passes its checks here.
    case healed
    /// The mirror that may have it cannot be asked now.
    case interrupted(String)
    /// No copy that can be reached passes its checks.
    case lost(String)
}

/// What is being fetched from the mirror. An answer counts only if it answers the READ that is due: those of an attempt
/// that was given up may still arrive.
struct Healing {
    typealias Done = (HealOutcome) -> Void

    let range: DamagedRange
    /// The range's end is no boundary of records.
    let endsInRecord: Bool
    /// Not answered yet, in order.
    var reads: [WorkRequestID] = []
    var bytes: [UInt8] = []
    var done: [Done]
}

/// The healings of one log.
struct Healer {
    /// At most so much is fetched at once: whole records, and what is behind them is found damaged again.
    static let maximumBytes = Scrub.maximumPartBytes

    var current: Healing?
    var waiting: [(range: DamagedRange, done: Healing.Done)] = []
    /// Where records are damaged, so that each is reported once.
    var reported: Set<LSN> = []
}

extension OwnerLog {
    /// Heals what fails its checks in `damaged`, or the beginning of it if it is long. `done` is called once, perhaps at once.
    func heal(_ damaged: DamagedRange, _ done: @escaping Healing.Done) {
        guard healer.current == nil else {
            if healer.current?.range.from == damaged.from {
                healer.current?.done.append(done)
            } else {
                healer.waiting.append((damaged, done))
            }
            return
        }
        reportDamage(damaged)
        let end = min(damaged.to, damaged.from + Healer.maximumBytes)
        guard let mirror, mirror.isKept || mirror.session.durable >= end else {
            // One that counts holds it, and is on its way back.
            let isComing = mirror == nil && authority.rule().needsMirror
            let reason = "the log is damaged at LSN \(damaged.from) and there is no mirror to heal it from"
            return done(isComing ? .interrupted(reason) : .lost(reason))
        }
        do throws(RemoteMemoryError) {
            healer.current = Healing(
                range: DamagedRange(from: damaged.from, to: end), endsInRecord: end < damaged.to,
                reads: try postReads(of: damaged.from..<end, from: mirror), done: [done])
        } catch {
            // What was asked for already is answered, and belongs to nothing then.
            done(.interrupted("the mirror could not be asked for LSN \(damaged.from): \(error)"))
        }
    }

    private func reportDamage(_ damaged: DamagedRange) {
        let head = destage.head
        healer.reported = healer.reported.filter { $0 >= head }
        guard healer.reported.insert(damaged.from).inserted else { return }
        authority.report(
            Report(
                "record-damaged", "the log is damaged at LSN \(damaged.from), \(damaged.to - damaged.from) bytes of it")
        )
    }

    /// A READ came back; the last one decides.
    func healed(by read: WorkRequestID, with bytes: [UInt8]) {
        guard healer.current?.reads.first == read else { return }
        healer.current?.reads.removeFirst()
        healer.current?.bytes += bytes
        guard let healing = healer.current, healing.reads.isEmpty else { return }
        let from = healing.range.from
        // Healed by the scrub and destaged meanwhile: its space may hold other records by now.
        guard destage.head <= from else { return finishHealing(.interrupted("LSN \(from) is on the medium meanwhile")) }
        guard storeGood(healing) else {
            return finishHealing(.lost("the log is damaged at LSN \(from), and the mirror's copy of it too"))
        }
        // Whoever finds the same damage meanwhile waits with the others.
        drainHealed { [self] failure in
            if let failure {
                return finishHealing(.lost("the healed bytes at LSN \(from) could not be made durable: \(failure)"))
            }
            authority.report(Report("record-healed", "the log at LSN \(from) is healed from the mirror"))
            healer.reported.remove(from)
            finishHealing(.healed)
        }
    }

    /// The rail has ended: nothing that was asked of the mirror is answered any more.
    func interruptHealing() {
        // What is stored already is on its way to being durable.
        guard let healing = healer.current, !healing.reads.isEmpty else { return }
        finishHealing(.interrupted("the rail ended while LSN \(healing.range.from) was healed from the mirror"))
    }

    private func finishHealing(_ outcome: HealOutcome) {
        guard let healing = healer.current else { return }
        healer.current = nil
        for done in healing.done { done(outcome) }
        let waiting = healer.waiting
        healer.waiting = []
        for next in waiting { heal(next.range, next.done) }
    }

    /// Stores the mirror's records of the range that pass their checks; answers whether all that fails here is good again.
    private func storeGood(_ fetched: Healing) -> Bool {
        fetched.bytes.withUnsafeBytes { bytes in
            let from = fetched.range.from
            guard
                var comparison = PartComparison(
                    log.region, from: from, other: bytes, endsInRecord: fetched.endsInRecord)
            else { return false }
            var isGood = true
            while let difference = comparison.next() {
                switch difference.kind {
                case .damagedThere: continue
                case .undecidable: isGood = false
                case .damagedHere:
                    let range = Int(difference.range.lowerBound - from)..<Int(difference.range.upperBound - from)
                    log.region.store(UnsafeRawBufferPointer(rebasing: bytes[range]), at: difference.range.lowerBound)
                }
            }
            return isGood && comparison.position > from
        }
    }
}
