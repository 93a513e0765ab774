// A damaged copy of a log, healed from another, which may be damaged too.

import Glibc
import LogModel
import PersistentMemory
import Recovery
import WriteLog

func fuzzHeal(_ bytes: UnsafeRawBufferPointer) {
    // Half of an input damages the one copy, half the other.
    var first = FuzzInput(UnsafeRawBufferPointer(rebasing: bytes.prefix(bytes.count / 2)))
    var second = FuzzInput(UnsafeRawBufferPointer(rebasing: bytes.dropFirst(bytes.count / 2)))
    let (target, source) = (PoolImage.path("target"), PoolImage.path("source"))
    defer {
        unlink(target)
        unlink(source)
    }
    let sourceImage = PoolImage.damaged(PoolImage.owner, by: &second)
    PoolImage.write(PoolImage.damaged(PoolImage.mirror, by: &first), to: target)
    PoolImage.write(sourceImage, to: source)
    let before = valid(target)
    guard let outcome = heal(target, source) else { return }
    precondition(PoolImage.read(source) == sourceImage, "the source was touched")
    let (healed, after) = (PoolImage.read(target), valid(target))
    precondition(after.isSuperset(of: before), "a valid record was lost")
    precondition(
        outcome.healedRecords == UInt64(after.subtracting(before).count), "healed is what is valid now and was not")
    let again = heal(target, source)
    precondition(
        again?.healedRecords == 0 && again?.restoredHead == nil && again?.verdict == outcome.verdict,
        "a second heal of the same says otherwise: \(outcome), then \(String(describing: again))")
    precondition(PoolImage.read(target) == healed, "a second heal changed something")
}

/// `nil` if a pool is refused, or the pair is.
private func heal(_ target: String, _ source: String) -> HealOutcome? {
    do {
        let one = try Pool.open(path: target, expecting: nil, persistence: .volatile)
        defer { one.close() }
        let other = try Pool.open(path: source, expecting: nil, persistence: .volatile, readOnly: true)
        defer { other.close() }
        guard let damaged = one.region(of: PoolImage.group), let good = other.region(of: PoolImage.group) else {
            return nil
        }
        return try Heal.run(damaged, from: good)
    } catch let error as HealError {
        precondition(error.code == .notTwoCopies || error.code == .contradiction, "\(error)")
        return nil
    } catch {
        precondition(error is PoolError)
        return nil
    }
}

/// Where the records are that stand in the window from the region's first LSN on, found line by line.
private func valid(_ path: String) -> Set<LSN> {
    guard let pool = try? Pool.open(path: path, expecting: nil, persistence: .volatile, readOnly: true) else {
        return []
    }
    defer { pool.close() }
    guard let region = pool.region(of: PoolImage.group), let copy = LogCopy(region: region) else { return [] }
    var found: Set<LSN> = []
    for window in [copy.identity.startLSN, copy.identity.startLSN + region.ringBytes] {
        for line in 0..<region.ringBytes / 64 {
            let lsn = window + line * 64
            if case .record = copy.find(at: lsn, below: lsn + region.ringBytes) { found.insert(lsn) }
        }
    }
    return found
}
