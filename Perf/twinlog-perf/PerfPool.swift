// Memory to measure on: a pool that has no name any more when it is used, so that nothing is left behind.

import Glibc
import LogModel
import PersistentMemory
import WriteLog

/// Far more than a processor's caches; small enough to be there on any machine.
let perfRingBytes: UInt64 = 128 << 20

final class PerfPool: Sendable {
    let pool: Pool
    /// One region per name, in order, all of its pages touched.
    let regions: [Region]
    var memory: String { pool.persistence.rawValue }

    init(path: String?, purpose: String, groups: [String], ringBytes: UInt64 = perfRingBytes) throws(PerfError) {
        let path = path ?? "/dev/shm/twinlog-perf-\(getpid())-\(purpose).pool"
        do throws(PoolError) {
            let bytes = UInt64(groups.count) * (ringBytes + (1 << 20)) + (1 << 20)
            pool = try Remains.undisturbed { () throws(PoolError) in
                let pool = try Pool.create(
                    path: path, sizeBytes: bytes,
                    identity: PoolIdentity(uuid: .random(), cluster: "perf", node: NodeID("perf")),
                    persistence: .auto)
                unlink(path)
                return pool
            }
            var regions: [Region] = []
            for group in groups { regions.append(try pool.allocateRegion(group: GroupID(group), ringBytes: ringBytes)) }
            self.regions = regions
            for region in regions { try Self.touch(region) }
        } catch {
            throw PerfError("no memory to measure on: \(error)")
        }
    }

    /// The first store to a page costs a page fault, which is not what is measured.
    private static func touch(_ region: Region) throws(PoolError) {
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        for start in stride(from: 0, to: region.ringBytes, by: zeros.count) {
            zeros.withUnsafeBytes {
                region.store(
                    UnsafeRawBufferPointer(rebasing: $0[..<min($0.count, Int(region.ringBytes - start))]),
                    at: LSN(start))
            }
        }
        try region.drain()
    }

    /// A fresh log in a region.
    static func openLog(_ region: Region) throws(PerfError) -> WriteLog {
        do {
            try region.format(
                role: .owner, logUUID: .random(),
                incarnation: Incarnation((region.identity?.incarnation.rawValue ?? 0) + 1),
                start: .zero)
            return try WriteLog(region: region)
        } catch {
            throw PerfError("the log cannot be opened: \(error)")
        }
    }
}
