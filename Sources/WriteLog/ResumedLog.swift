// Going on with a log whose records stay: nobody destages them, so the next opening keeps its incarnation and appends behind what it
// found. In place of a new incarnation, which would make every record invalid (S4), three steps come before the first append:
//
//   1. what was found whole is stored anew where nobody is known to have made it durable, and noted as acknowledged (S5);
//   2. the checksum of every header that may have been begun above the end is erased, durably: what a crash left of one could be completed
//      by the words of a new header that are the same, and come back (S4);
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

    /// Of the free space, all of it: nobody knows how far appends had begun. A word is stored whole, so a line is as it was or has no checksum;
    /// only then the rest goes of what names its own place, and would be taken for a sign of a record.
    private static func erase(_ region: Region, from end: LSN) throws(PoolError) {
        let free = end..<region.head + region.ringBytes
        try rewrite(region, free) { line, _ in
            guard line[0] != 0 else { return false }
            line[0] = 0
            return true
        }
        try rewrite(region, free) { line, lsn in
            guard line[1] == lsn.rawValue.littleEndian else { return false }
            for word in 0..<line.count { line[word] = 0 }
            return true
        }
    }

    /// Stores the lines anew that `change` changes, durably. A line is 8 words; the first is a header's checksums, the second its LSN.
    private static func rewrite(
        _ region: Region, _ range: Range<LSN>, _ change: (UnsafeMutableBufferPointer<UInt64>, LSN) -> Bool
    ) throws(PoolError) {
        let wordsInLine = Int(LSN.alignment) / 8
        var words = [UInt64](repeating: 0, count: pieceBytes / 8)
        var next = range.lowerBound
        while next < range.upperBound {
            let count = Int(min(UInt64(pieceBytes), range.upperBound - next))
            words.withUnsafeMutableBufferPointer { words in
                let piece = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(words)[..<count])
                region.readRing(from: next, into: piece)
                var isChanged = false
                for line in 0..<count / Int(LSN.alignment) {
                    let own = UnsafeMutableBufferPointer(rebasing: words[line * wordsInLine..<(line + 1) * wordsInLine])
                    if change(own, next + UInt64(line) * LSN.alignment) { isChanged = true }
                }
                if isChanged { region.store(UnsafeRawBufferPointer(piece), at: next) }
            }
            next = next + UInt64(count)
        }
        try region.drain()
    }
}
