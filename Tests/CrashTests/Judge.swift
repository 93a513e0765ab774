// Recovers what a crash left, with the code that does it in production, and holds it against what was issued.

import CLogCore
import Foundation
import LogModel
import PersistentMemory
import Recovery
import StorageMedium
import WriteLog

/// A volume in memory.
// @unchecked: one thread.
final class MemoryMedium: Medium, @unchecked Sendable {
    private(set) var bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var sizeBytes: UInt64 { UInt64(bytes.count) }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        bytes.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)...])) }
    }

    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        var at = Int(offset)
        for buffer in buffers {
            bytes.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[at...]).copyMemory(from: buffer) }
            at += buffer.count
        }
    }

    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        bytes.withUnsafeMutableBytes { _ = memset($0.baseAddress! + Int(range.offset), 0, Int(range.length)) }
    }

    func flush() throws(MediumError) {}
}

/// Array's own comparison goes element by element in debug builds.
func areEqual(_ one: [UInt8], _ other: [UInt8]) -> Bool {
    one.count == other.count && memcmp(one, other, one.count) == 0
}

/// Something is wrong with what was recovered.
struct Fault: Error {
    var text: String
    init(_ text: String) { self.text = text }
}

/// What a recovered log is.
struct Found {
    /// `nil` if the region was never formatted.
    var life: Life?
    var end = LSN.zero
    var verdict = LogScan.Verdict.clean
}

struct Judge {
    let ledger: Ledger
    let path: String

    /// Opens the pool, scans and judges its log, and holds all of it against the ledger.
    func recover(_ promise: Promise, recorder: OpaquePointer, isa: tl_isa? = nil) throws -> (Pool, Region, Found) {
        let pool: Pool
        do throws(PoolError) {
            pool = try Pool.open(
                path: path, expecting: (poolIdentity.cluster, poolIdentity.node), persistence: .volatile,
                readOnly: false, recorder: recorder, isa: isa)
        } catch {
            throw Fault("the pool does not open: \(error)")
        }
        guard let region = pool.region(of: group) else { throw Fault("the region is gone") }
        return (pool, region, try inspect(region, promise))
    }

    func inspect(_ region: Region, _ promise: Promise) throws -> Found {
        guard let identity = region.identity else {
            if promise.incarnation != nil { throw Fault("the region has no identity any more") }
            return Found()
        }
        let life = try life(identity, promise)
        let isPromised = identity.incarnation == promise.incarnation
        let head = region.head
        guard life.heads.contains(head) else { throw Fault("a head at \(head) that it was never told") }
        if isPromised && head < promise.head { throw Fault("the head fell back to \(head) from \(promise.head)") }
        guard var scan = LogScan(region: region) else { throw Fault("there is no log") }
        try compare(&scan, life, region)
        guard scan.acknowledgedLSN <= life.mostAcknowledged else {
            throw Fault("acknowledged \(scan.acknowledgedLSN), which never was")
        }
        if isPromised && scan.endLSN < promise.acknowledged {
            throw Fault("acknowledged up to \(promise.acknowledged), and the log ends at \(scan.endLSN)")
        }
        guard let verdict = scan.verdict, verdict != .corrupt else {
            throw Fault("judged corrupt at \(scan.firstBadLSN ?? .zero)")
        }
        // Where all that was issued is there, nothing behind it may pass for more: not an earlier lap, nor incarnation.
        if scan.endLSN == life.end && verdict != .clean {
            throw Fault("all that was issued is there, and it is judged \(verdict) at \(scan.firstBadLSN ?? .zero)")
        }
        return Found(life: life, end: scan.endLSN, verdict: verdict)
    }

    private func life(_ identity: RegionIdentity, _ promise: Promise) throws -> Life {
        guard let life = ledger.life(of: identity.incarnation) else {
            throw Fault("incarnation \(identity.incarnation) never was")
        }
        if let promised = promise.incarnation, identity.incarnation < promised {
            throw Fault("incarnation \(identity.incarnation) is back, after \(promised)")
        }
        var expected = life.identity
        expected.isReplayed = identity.isReplayed
        guard identity == expected else { throw Fault("an identity \(identity), not \(expected)") }
        if promise.isReplayed && identity.incarnation == promise.incarnation && !identity.isReplayed {
            throw Fault("it is not marked as replayed any more")
        }
        return life
    }

    /// Writes come one after another as they were issued, with every byte that was stored for them.
    private func compare(_ scan: inout LogScan, _ life: Life, _ region: Region) throws {
        let head = scan.headLSN
        var index = life.firstWrite(from: head)
        while let write = scan.next() {
            guard index < life.writes.count, write.start == life.writes[index].start,
                write.end == life.writes[index].end
            else { throw Fault("a write [\(write.start), \(write.end)) that was never issued") }
            index += 1
        }
        guard scan.endLSN <= life.end || scan.endLSN == head else {
            throw Fault("the log ends at \(scan.endLSN), behind all that was issued")
        }
        try compareBytes(from: head, to: scan.endLSN, life, region)
    }

    private func compareBytes(from: LSN, to: LSN, _ life: Life, _ region: Region) throws {
        let start = life.identity.startLSN
        let range = Int(from - start)..<Int(to - start)
        guard range.upperBound <= life.log.count || range.isEmpty else { throw Fault("more than was stored") }
        let base = UnsafeRawPointer(region.ringBase)
        let isEqual = life.log.withUnsafeBytes { log in
            life.records.withUnsafeBufferPointer { records in
                var index = life.firstRecord(from: range.lowerBound)
                while index < records.count, records[index].lowerBound < range.upperBound {
                    let record = records[index]
                    let place = (start.rawValue + UInt64(record.lowerBound)) % region.ringBytes
                    if memcmp(log.baseAddress! + record.lowerBound, base + Int(place), record.count) != 0 {
                        return false
                    }
                    index += 1
                }
                return true
            }
        }
        if !isEqual { throw Fault("a write has other bytes than were stored") }
    }

    /// Replays all of it onto a medium that holds what is below the head, twice (S10).
    func replay(_ region: Region, _ found: Found) throws {
        guard let life = found.life else { return }
        let medium = MemoryMedium(life.medium(through: region.head)), wanted = life.medium(through: found.end)
        for time in ["", " for the second time"] {
            do throws(ReplayError) {
                guard let outcome = try Replay.run(region, onto: [volume: medium]) else {
                    throw ReplayError(.corrupt, "there is no log to replay")
                }
                guard outcome.endLSN == found.end else {
                    throw ReplayError(.corrupt, "replayed up to \(outcome.endLSN), not \(found.end)")
                }
            } catch {
                throw Fault("replaying\(time): \(error)")
            }
            guard areEqual(medium.bytes, wanted) else { throw Fault("replayed\(time), the medium is another") }
        }
    }
}
