// A part of a log whose ring anybody may have written, held against bytes that a peer sent for it, and healed from them as
// destage and scrub do.

import Glibc
import LogModel
import PersistentMemory
import WriteLog

func fuzzPart(_ bytes: UnsafeRawBufferPointer) {
    var input = FuzzInput(bytes)
    let endsInRecord = input.number(UInt8.self) & 1 != 0
    let skippedLines = UInt64(input.number(UInt16.self)), lines = UInt64(input.number(UInt16.self))
    // Half of the rest damages the one copy, half the other.
    var here = FuzzInput(UnsafeRawBufferPointer(rebasing: input.rest.prefix(input.rest.count / 2)))
    var there = FuzzInput(UnsafeRawBufferPointer(rebasing: input.rest.dropFirst(input.rest.count / 2)))
    let path = PoolImage.path("part")
    defer { unlink(path) }
    PoolImage.write(PoolImage.damaged(PoolImage.owner, by: &here), to: path)
    guard let pool = try? Pool.open(path: path, expecting: nil, persistence: .volatile) else { return }
    defer { pool.close() }
    // Only what has a role is ever compared.
    guard let region = pool.region(of: PoolImage.group), let copy = LogCopy(region: region),
        region.ringBytes == PoolImage.ringBytes
    else { return }
    let ring = PoolImage.damaged(PoolImage.mirror, by: &there)[PoolImage.ringOffset...].prefix(Int(PoolImage.ringBytes))
    let from = LSN(region.head.rawValue & (UInt64.max >> 8) & ~(LSN.alignment - 1)) + skippedLines * LSN.alignment
    let place = Int(from.rawValue % PoolImage.ringBytes),
        count = Int(lines % (PoolImage.ringBytes / LSN.alignment + 1) * LSN.alignment)
    let turned = [UInt8](ring.dropFirst(place) + ring.prefix(place))
    turned.withUnsafeBytes { turned in
        let other = UnsafeRawBufferPointer(rebasing: turned[..<count])
        let healed = heal(region, copy, from, other, endsInRecord)
        let again = differences(region, from, other, endsInRecord)
        precondition(healed.isDisjoint(with: again), "what was healed differs still")
    }
}

/// Stores the records that are damaged here and good there; answers these differences.
private func heal(
    _ region: Region, _ copy: LogCopy, _ from: LSN, _ other: UnsafeRawBufferPointer, _ endsInRecord: Bool
) -> Set<PartComparison.Difference> {
    let damaged = differences(region, from, other, endsInRecord).filter { $0.kind == .damagedHere }
    for difference in damaged {
        let (start, end) = (difference.range.lowerBound, difference.range.upperBound)
        precondition(copy.find(at: start, below: start + region.ringBytes) != .record(end: end))
        region.store(UnsafeRawBufferPointer(rebasing: other[Int(start - from)..<Int(end - from)]), at: start)
        precondition(copy.find(at: start, below: end) == .record(end: end), "what was good there is good here")
    }
    return Set(damaged)
}

/// In order, apart from each other, inside of the part, and all of it is looked at.
private func differences(
    _ region: Region, _ from: LSN, _ other: UnsafeRawBufferPointer, _ endsInRecord: Bool
) -> [PartComparison.Difference] {
    guard var comparison = PartComparison(region, from: from, other: other, endsInRecord: endsInRecord) else {
        return []
    }
    let end = from + UInt64(other.count)
    var found: [PartComparison.Difference] = [], position = from
    while let difference = comparison.next() {
        let range = difference.range
        precondition(position <= range.lowerBound && range.lowerBound < range.upperBound && range.upperBound <= end)
        precondition(comparison.position == range.upperBound)
        position = range.upperBound
        found.append(difference)
    }
    precondition(comparison.position <= end)
    precondition(
        comparison.position == end || endsInRecord && end - comparison.position < PartComparison.maximumRecordBytes,
        "a part was left out")
    return found
}
