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
final class Healer {
    /// At most so much is fetched at once: whole records, and what is behind them is found damaged again. A record and room for the cut.
    static let maximumBytes: UInt64 = 2 * PartComparison.maximumRecordBytes

    private let owned: OwnedLog
    private let shipper: Shipper
    private var log: WriteLog { owned.log }
    var current: Healing?
    private var waiting: [(range: DamagedRange, done: Healing.Done)] = []
    /// Where records are damaged, so that each is reported once.
    private var reported: Set<LSN> = []
    /// How often damage was stored over: a batch that was written meanwhile may have read the damage.
    private(set) var stores: UInt64 = 0

    init(_ owned: OwnedLog, _ shipper: Shipper) {
        self.owned = owned
        self.shipper = shipper
    }

    /// Heals what fails its checks in `damaged`, or the beginning of it if it is long. `done` is called once, perhaps at once.
    func heal(_ damaged: DamagedRange, _ done: @escaping Healing.Done) {
        guard isStillDamaged(damaged) else { return done(.healed) }
        guard current == nil else {
            if current?.range.from == damaged.from {
                current?.done.append(done)
            } else {
                waiting.append((damaged, done))
            }
            return
        }
        reportDamage(damaged)
        let lap = owned.endOfLap(from: damaged.from)
        let end = min(damaged.to, damaged.from + Self.maximumBytes, lap)
        guard let mirror = shipper.mirror, mirror.isKept || mirror.session.durable >= end else {
            // One that counts holds it, and is on its way back.
            let isComing = shipper.mirror == nil && owned.authority.rule.needsMirror
            let reason = "the log is damaged at LSN \(damaged.from) and there is no mirror to heal it from"
            return done(isComing ? .interrupted(reason) : .lost(reason))
        }
        do throws(RemoteMemoryError) {
            current = Healing(
                range: DamagedRange(from: damaged.from, to: end), endsInRecord: end < min(damaged.to, lap),
                reads: try shipper.postReads(of: damaged.from..<end, from: mirror), done: [done])
        } catch {
            // What was asked for already is answered, and belongs to nothing then.
            done(.interrupted("the mirror could not be asked for LSN \(damaged.from): \(error)"))
        }
    }

    /// What a thread or an earlier turn found may have been healed, or destaged, since.
    private func isStillDamaged(_ damaged: DamagedRange) -> Bool {
        guard owned.destage.head <= damaged.from else { return false }
        if case .damaged = log.check(at: damaged.from) { return true }
        return false
    }

    private func reportDamage(_ damaged: DamagedRange) {
        let head = owned.destage.head
        reported = reported.filter { $0 >= head }
        guard reported.insert(damaged.from).inserted else { return }
        owned.report(
            .recordDamaged, "the log is damaged at LSN \(damaged.from), \(damaged.to - damaged.from) bytes of it")
    }

    /// A READ came back; the last one decides.
    func healed(by read: WorkRequestID, with bytes: [UInt8]) {
        guard current?.reads.first == read else { return }
        current?.reads.removeFirst()
        current?.bytes += bytes
        guard let healing = current, healing.reads.isEmpty else { return }
        let from = healing.range.from
        // Healed by the scrub and destaged meanwhile: its space may hold other records by now.
        guard owned.destage.head <= from else { return finish(.interrupted("LSN \(from) is on the medium meanwhile")) }
        guard storeGood(healing) else {
            return finish(.lost("the log is damaged at LSN \(from), and the mirror's copy of it too"))
        }
        // Whoever finds the same damage meanwhile waits with the others.
        drain { [self] failure in
            if let failure {
                return finish(.lost("the healed bytes at LSN \(from) could not be made durable: \(failure)"))
            }
            owned.report(.recordHealed, "the log at LSN \(from) is healed from the mirror")
            reported.remove(from)
            finish(.healed)
        }
    }

    /// Stores good bytes over damage. Durable after ``drain(_:)``.
    func store(_ good: UnsafeRawBufferPointer, at lsn: LSN) {
        stores += 1
        log.region.store(good, at: lsn)
    }

    /// The rail has ended: nothing that was asked of the mirror is answered any more.
    func interrupt() {
        // What is stored already is on its way to being durable.
        guard let healing = current, !healing.reads.isEmpty else { return }
        finish(.interrupted("the rail ended while LSN \(healing.range.from) was healed from the mirror"))
    }

    private func finish(_ outcome: HealOutcome) {
        guard let healing = current else { return }
        current = nil
        for done in healing.done { done(outcome) }
        let ready = waiting
        waiting = []
        for next in ready { heal(next.range, next.done) }
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
                    store(UnsafeRawBufferPointer(rebasing: bytes[range]), at: difference.range.lowerBound)
                }
            }
            return isGood && comparison.position > from
        }
    }

    /// Makes stored bytes durable: at once where a drain does it, on a thread where it takes an `msync`.
    func drain(_ done: @escaping (String?) -> Void) {
        let region = log.region
        guard region.persistence == .msync else {
            do throws(PoolError) {
                try region.drain()
                return done(region.memoryFault?.description)
            } catch {
                return done(error.description)
            }
        }
        owned.runOnMemory {
            try region.drain()
        } _: { result in
            guard case .failure(let error) = result else { return done(region.memoryFault?.description) }
            self.owned.persistFailure = self.owned.persistFailure ?? "the log could not be made durable: \(error)"
            done("\(error)")
        }
    }
}
