// The record scan over arbitrary ring bytes. The first bytes say how large the ring is, where the head is and which headers
// are to be sealed with a right checksum, since a random one never is; the rest is the ring, repeated until it is full.

import CLogCore
import Glibc

func fuzzScan(_ bytes: UnsafeRawBufferPointer) {
    var input = FuzzInput(bytes)
    let size = (UInt64(input.number(UInt8.self)) % 16 + 1) * 4096
    let seals: UInt8 = input.number()
    let head = input.number(UInt64.self) % (1 << 56) * 64
    let acknowledged: UInt64 = input.number()
    guard let memory = aligned_alloc(4096, Int(size)) else { return }
    defer { free(memory) }
    fill(UnsafeMutableRawBufferPointer(start: memory, count: Int(size)), with: input.rest)
    let ring = tl_ring(
        bytes: UnsafePointer(memory.assumingMemoryBound(to: UInt8.self)), size: size, incarnation: 5, seed: 0x1234)
    if seals & 1 != 0 { seal(memory, ring, head: head, withPayloads: seals & 2 != 0, isShifted: seals & 4 != 0) }
    checkScan(ring, head: head, acknowledged: acknowledged)
    checkSearch(ring, from: head)
}

private func fill(_ ring: UnsafeMutableRawBufferPointer, with pattern: UnsafeRawBufferPointer) {
    guard pattern.count > 0 else {
        ring.initializeMemory(as: UInt8.self, repeating: 0)
        return
    }
    for start in stride(from: 0, to: ring.count, by: pattern.count) {
        UnsafeMutableRawBufferPointer(rebasing: ring[start...]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: pattern.prefix(ring.count - start)))
    }
}

/// Makes a believable header of every line that has a kind: its place, the incarnation, and a checksum that agrees.
private func seal(
    _ memory: UnsafeMutableRawPointer, _ ring: tl_ring, head: UInt64, withPayloads: Bool, isShifted: Bool
) {
    for place in stride(from: 0, to: ring.size, by: 64) {
        let line = memory + Int(place)
        guard (1...5).contains(line.load(fromByteOffset: 52, as: UInt8.self)) else { continue }
        var lsn = head / ring.size * ring.size + place
        // Of the lap that the head's window says, or of the one behind it.
        if (lsn < head) != isShifted { lsn += ring.size }
        line.storeBytes(of: lsn, toByteOffset: 8, as: UInt64.self)
        line.storeBytes(of: ring.incarnation, toByteOffset: 24, as: UInt64.self)
        let payload = UInt64(line.load(fromByteOffset: 40, as: UInt32.self))
        if withPayloads, payload <= ring.size - place - 64 {
            line.storeBytes(of: tl_crc32c(ring.seed, line + 64, Int(payload)), toByteOffset: 4, as: UInt32.self)
        }
        line.storeBytes(of: tl_crc32c(ring.seed, line + 4, 60), as: UInt32.self)
    }
}

/// Whole writes, one after the other from the head, each record of them valid; bounded; then a verdict that fits.
private func checkScan(_ ring: tl_ring, head: UInt64, acknowledged: UInt64) {
    var scan = tl_scan_begin([ring], head, acknowledged), write = tl_scanned_write(), position = head,
        records: UInt64 = 0
    while tl_scan_next(&scan, &write) {
        precondition(write.start == position && write.end > write.start && write.end <= head + ring.size)
        var lsn = write.start
        for number in 0..<write.records {
            var record = tl_record()
            precondition(tl_record_read([ring], lsn, write.end, &record) == TL_VALID)
            precondition(record.lsn == lsn && UInt32(record.number) == number && UInt32(record.count) == write.records)
            lsn += tl_record_bytes(UInt64(record.payload_bytes))
        }
        precondition(lsn == write.end, "a write's records fill it")
        position = write.end
        records += UInt64(write.records)
        precondition(records <= ring.size / 64, "the work is bounded by the ring")
    }
    precondition(scan.position == position && scan.records == records && scan.acknowledged >= acknowledged)
    precondition(scan.first_bad >= position && scan.first_bad <= head + ring.size)
    precondition((scan.verdict == TL_VERDICT_CORRUPT) == (scan.acknowledged > scan.first_bad))
}

private func checkSearch(_ ring: tl_ring, from: UInt64) {
    let end = from + ring.size
    var lsn = from, found: UInt64 = 0
    while lsn < end {
        lsn = tl_scan_find_record([ring], lsn, end)
        guard lsn < end else { break }
        var record = tl_record()
        precondition(tl_record_read_header([ring], lsn, end, &record) == TL_VALID && record.lsn == lsn)
        lsn += tl_record_bytes(UInt64(record.payload_bytes))
        found += 1
    }
    precondition(found <= ring.size / 64 && lsn <= end)
}
