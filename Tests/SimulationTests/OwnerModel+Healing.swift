// What fails its checks in an owner's log is fetched from the mirror. The production's CatchUp decides what is checked before it is shipped;
// this is the counterpart of the hands that StorageNode's CatchUp and Heal lend it.

import ClusterProtocol
import LogModel
import SimulationSupport

/// What is being fetched from the mirror.
struct Healing {
    enum Outcome {
        case healed
        /// The mirror that may have it cannot be asked now.
        case interrupted
        /// No copy that can be reached passes its checks.
        case lost
    }
    typealias Done = (Outcome) -> Void

    let record: Record
    let read: UInt64
    var done: [Done]
}

extension OwnerModel {
    func firstDamage(in range: Range<LSN>) -> Record? {
        process.node.region?.records(in: range).first { $0.rottenAt != nil }
    }

    func continueCatchUp() {
        guard let shipped = mirror?.session.shipped else { return }
        switch mirror?.catchUp?.next(head: head, shipped: shipped) {
        case .none, .wait: return
        case .done: mirror?.catchUp = nil
        case .check(let from): check(from: from)
        }
    }

    private func check(from: LSN) {
        guard let end = mirror?.catchUp?.end else { return }
        let attachment = attachments
        process.later(world.random.between(20, 2000) * microsecond) { [self] in
            guard attachment == attachments, mirror?.catchUp != nil else { return }
            let part = checkedPart(from..<end)
            let damaged = firstDamage(in: from..<part)
            switch mirror?.catchUp?.didCheck(upTo: damaged?.lsn ?? part, isDamaged: damaged != nil, head: head) {
            case .none, .goOn: break
            case .heal: if let damaged { healForCatchUp(damaged) }
            case .stop: stopCatchUp()
            }
            schedulePump()
        }
    }

    /// Whole records of `range`, so many bytes of them as production checks at once.
    private func checkedPart(_ range: Range<LSN>) -> LSN {
        let records = process.node.region?.records(in: range) ?? []
        return records.first { $0.end >= range.lowerBound + Self.batchBytes && $0.end < range.upperBound }?.end
            ?? range.upperBound
    }

    private func healForCatchUp(_ damaged: Record) {
        let attachment = attachments
        heal(damaged) { [self] outcome in
            guard attachment == attachments, mirror?.catchUp != nil else { return }
            var isHealed = false
            if case .healed = outcome { isHealed = true }
            mirror?.catchUp?.didHeal(at: isHealed ? damaged.lsn : nil)
            if case .lost = outcome { stopCatchUp() }
            schedulePump()
        }
    }

    /// Nothing from the damage on reaches the mirror: what it holds there may be good, and what is here is not.
    private func stopCatchUp() {
        world.oracle.said(damageAt: process)
        dialsAgain = process.clock + second
        process.handle(.attachRefused(.notReady, "the catch-up stops"))
    }

    // MARK: Healing

    func heal(_ damaged: Record, _ done: @escaping Healing.Done) {
        guard healing == nil else {
            if healing?.record.lsn == damaged.lsn {
                healing?.done.append(done)
            } else {
                waitingHealings.append((damaged, done))
            }
            return
        }
        world.note("\(process.name): the log is damaged at LSN \(damaged.lsn)")
        guard let mirror, mirror.isKept || mirror.session.durable >= damaged.end else {
            let isComing = mirror == nil && process.machine.acknowledgementRule.needsMirror
            if !isComing { world.oracle.said(damageAt: process) }
            return done(isComing ? .interrupted : .lost)
        }
        let id = mirror.rail.nextPost()
        healing = Healing(record: damaged, read: id, done: [done])
        mirror.rail.send(.read(key: mirror.key, damaged.lsn..<damaged.end, id: id), from: process)
    }

    func healed(by read: UInt64, with records: [Record]) {
        guard let healing, healing.read == read else { return }
        // On the medium meanwhile: its space may hold other records by now.
        guard head <= healing.record.lsn else { return finishHealing(.interrupted) }
        process.node.region?.heal(from: records)
        let isHealed = firstDamage(in: healing.record.lsn..<healing.record.end) == nil
        if isHealed { world.coverage.recordsHealed += 1 } else { world.oracle.said(damageAt: process) }
        finishHealing(isHealed ? .healed : .lost)
    }

    func interruptHealing() { if healing != nil { finishHealing(.interrupted) } }

    private func finishHealing(_ outcome: Healing.Outcome) {
        guard let finished = healing else { return }
        healing = nil
        for done in finished.done { done(outcome) }
        let waiting = waitingHealings
        waitingHealings = []
        for next in waiting { heal(next.record, next.done) }
    }
}
