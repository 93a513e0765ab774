// Going on with a log whose records stay: nobody destages them, so the next opening keeps its incarnation and appends behind what it
// found. In place of a new incarnation, which would make every record invalid (S4), three steps come before the first append:
//
//   1. what was found whole is stored anew where nobody is known to have made it durable, and noted as acknowledged (S5);
//   2. every header that was issued at or above the end is erased, durably: none of them can come back behind a hole that the next
//      appends fill (S4);
//   3. the log opens at the end, with the space below the head free and no other (S6).
//
// A crash in any of them leaves the same records to the next opening (S10).

import CLogCore
import LogModel
import PersistentMemory

extension WriteLog {
    /// What is read and stored at once.
    private static let pieceBytes = 64 << 10

    /// Opens the log behind what `scan` found, whose records it keeps. Blocks. Preconditions: the scan has ended, and not corrupt;
    /// nobody else stores to the region. Throws `notAnEmptyOwnersRegion` if the region is not its owner's.
    public convenience init(resuming scan: LogScan) throws(WriteLogError) {
        precondition(scan.verdict == .clean || scan.verdict == .torn, "a log is judged before it goes on")
        guard scan.identity.role == .owner else {
            throw WriteLogError(.notAnEmptyOwnersRegion, "the region of group \(scan.region.group) is not its owner's")
        }
        do throws(PoolError) {
            try Self.settle(scan.region, from: max(scan.headLSN, scan.acknowledgedLSN), to: scan.endLSN)
            try Self.erase(scan.region, from: scan.endLSN)
        } catch {
            throw WriteLogError(.notPersisted, error.description)
        }
        try self.init(scan.region, head: scan.headLSN, start: scan.endLSN)
    }

    /// An earlier process may have stored these records and ended before their drain.
    private static func settle(_ region: Region, from: LSN, to end: LSN) throws(PoolError) {
        var piece = [UInt8](repeating: 0, count: pieceBytes)
        var next = from
        while next < end {
            let count = Int(min(UInt64(pieceBytes), end - next))
            piece.withUnsafeMutableBytes { bytes in
                let part = UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
                region.readRing(from: next, into: part)
                region.store(UnsafeRawBufferPointer(part), at: next)
            }
            next = next + UInt64(count)
        }
        try region.drain()
        try region.setHead(region.head, acknowledged: end)
    }

    /// Looks at nothing that the records up to `end` hold: a payload may look like anything.
    private static func erase(_ region: Region, from end: LSN) throws(PoolError) {
        guard let ring = region.ring else { return }
        let line = [UInt8](repeating: 0, count: Int(LSN.alignment))
        let behind = region.head.rawValue + ring.size
        var record = tl_record()
        for lsn in stride(from: end.rawValue, to: behind, by: Int(LSN.alignment))
        where tl_record_header_at_place([ring], lsn % ring.size, &record) && record.lsn >= end.rawValue {
            line.withUnsafeBytes { region.store($0, at: LSN(lsn)) }
        }
        try region.drain()
    }
}
