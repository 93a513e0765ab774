// A pool whose file anybody may have written: opening it, looking at all that it says, opening it for writing, and writing.

import Glibc
import LogModel
import PersistentMemory
import Recovery
import WriteLog

func fuzzPool(_ bytes: UnsafeRawBufferPointer) {
    var input = FuzzInput(bytes)
    // The file may also be shorter or longer than it says.
    let size: UInt8 = input.number()
    var image = PoolImage.damaged(PoolImage.owner, by: &input)
    if size & 0x80 != 0 { image.removeLast(min(image.count, Int(size & 0x7F) * 1021)) }
    if size & 0xC0 == 0x40 { image += [UInt8](repeating: 0, count: Int(size & 0x3F)) }
    let path = PoolImage.path("pool")
    defer { unlink(path) }
    PoolImage.write(image, to: path)
    let looked = look(path)
    precondition(PoolImage.read(path) == image, "a look changed the pool")
    guard let pool = open(path, readOnly: false) else {
        precondition(looked == nil, "what can be read can be opened for writing")
        return
    }
    pool.close()
    precondition(look(path) == looked, "healing torn copies changed what the pool says")
    write(path, looked ?? [])
}

private let lastLSN = LSN(1 << 62)

/// What is written into a pool that could be opened is there when it is opened again.
private func write(_ path: String, _ looked: [Seen]) {
    guard let pool = open(path, readOnly: false) else { preconditionFailure("what was opened once opens again") }
    var expected: [Seen] = []
    for (region, seen) in zip(pool.regions, looked) {
        let next = min(seen.head + LSN.alignment, lastLSN)
        do throws(PoolError) {
            if seen.identity != nil { try region.setHead(next, acknowledged: seen.acknowledged) }
            try region.format(
                role: .mirror, logUUID: UUID128(high: 3, low: 4), incarnation: Incarnation(9), start: LSN(64))
            try region.setHead(next, acknowledged: next)
            expected.append(Seen(identity: region.identity, head: next, acknowledged: next))
        } catch {
            precondition(error.code == .corrupt && error.message.contains("beyond"), "\(error)")
            return pool.close()
        }
    }
    let allocated = allocate(in: pool)
    pool.close()
    let written = look(path)?.map { Seen(identity: $0.identity, head: $0.head, acknowledged: $0.acknowledged) }
    precondition(written?.prefix(expected.count).elementsEqual(expected) ?? false, "what was written is not there")
    precondition(written?.count == expected.count + (allocated ? 1 : 0))
}

private func allocate(in pool: Pool) -> Bool {
    do throws(PoolError) {
        _ = try pool.allocateRegion(group: GroupID("g9"), ringBytes: PoolImage.ringBytes)
        return true
    } catch {
        precondition([.noSpace, .regionExists, .directoryFull, .corrupt].contains(error.code), "\(error)")
        return false
    }
}

private func open(_ path: String, readOnly: Bool) -> Pool? {
    do throws(PoolError) {
        return try Pool.open(path: path, expecting: nil, persistence: .volatile, readOnly: readOnly)
    } catch {
        precondition(error.path == path && !error.message.isEmpty, "an error names the file and the reason")
        return nil
    }
}

private struct Seen: Equatable {
    var identity: RegionIdentity?
    var head: LSN
    var acknowledged: LSN
    var end: LSN?
    var verdict: LogScan.Verdict?
    var payload: UInt64 = 0
}

/// Everything that a tool can ask of a pool; `nil` if it is refused.
private func look(_ path: String) -> [Seen]? {
    guard let pool = open(path, readOnly: true) else { return nil }
    defer { pool.close() }
    return pool.regions.map { region in
        var seen = Seen(identity: region.identity, head: region.head, acknowledged: region.acknowledged)
        guard var scan = LogScan(region: region) else { return seen }
        var records: UInt64 = 0
        while let write = scan.next() {
            for record in write.records {
                records += 1
                // Every byte that is delivered is inside of the ring.
                seen.payload &+= record.payload.reduce(UInt64(record.range.length)) { $0 &+ UInt64($1) }
            }
        }
        precondition(records <= region.ringBytes / 64)
        seen.end = scan.endLSN
        seen.verdict = scan.verdict
        return seen
    }
}
