// A pool of a tebibyte is addressed right to its end. The file is sparse: only what is touched takes memory.

import Glibc
import LogModel
import PersistentMemory
import TestSupport
import Testing
import WriteLog

@Suite(.disabled(if: inGuest, "the guest's file system is far smaller")) struct LargePoolTests {
    @Test func aLogOfATebibyteWrapsAtItsEnd() throws {
        let path = "/dev/shm/twinlog-large-\(UUID128.random())"
        defer { unlink(path) }
        let sizeBytes: UInt64 = 1 << 40, ringBytes = sizeBytes - (128 << 10), group = GroupID("g0")
        // The last records of the first lap, the first of the second; the whole lap was trimmed before.
        let start = LSN(ringBytes - 10_048)
        var generator = SplitMix64(seed: 8)
        let payloads = (0..<6).map { _ in generator.bytes(4000) }
        do {
            let pool = try Pool.create(
                path: path, sizeBytes: sizeBytes,
                identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .auto,
                recorder: nil, isSparse: true)
            let region = try pool.allocateRegion(group: group, ringBytes: ringBytes)
            try region.format(role: .owner, logUUID: logUUID, incarnation: Incarnation(2), start: start)
            let log = try WriteLog(region: region)
            for (number, payload) in payloads.enumerated() {
                let outcome = payload.withUnsafeBytes {
                    log.append(volume: volume, offset: UInt64(number) << 12, .data($0), acknowledged: start)
                }
                guard case .appended = outcome else {
                    Issue.record("no room for write \(number): \(outcome)")
                    return
                }
            }
            #expect(log.published.rawValue > ringBytes, "the end of the ring is passed")
            pool.close()
        }
        let pool = try Pool.open(path: path, expecting: nil, persistence: .auto)
        let region = try #require(pool.region(of: group))
        #expect(region.ringBytes == ringBytes && region.head == start)
        // Write by write and not to the end: looking for what lies behind it would touch all of the ring.
        var scan = try #require(LogScan(region: region))
        for payload in payloads {
            let found = scan.next()
            let write = try #require(found)
            #expect(write.records.flatMap { Array($0.payload) } == payload)
        }
    }
}
