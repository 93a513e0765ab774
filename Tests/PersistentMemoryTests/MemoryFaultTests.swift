import Glibc
import LogModel
import PersistentMemory
import Testing

/// S26: a fault of a pool's memory costs what was there, and not the process. A page that its file does not have any more
/// raises the same signal as one with an uncorrectable error.
struct MemoryFaultTests {
    private let path = "/dev/shm/twinlog-fault-\(UUID128.random())"
    private let pool: Pool
    private let region: Region
    private static let ring: UInt64 = 64 * 1024

    init() throws {
        pool = try Pool.create(
            path: path, sizeBytes: 256 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .auto)
        region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: Self.ring)
        try region.format(role: .mirror, logUUID: .zero, incarnation: Incarnation(1), start: .zero)
        [UInt8](repeating: 7, count: Int(Self.ring)).withUnsafeBytes { region.store($0, at: .zero) }
        try region.drain()
    }

    private func read(_ lsn: UInt64) -> UInt8 {
        var byte: UInt8 = 0
        withUnsafeMutableBytes(of: &byte) { region.readRing(from: LSN(lsn), into: $0) }
        return byte
    }

    /// The file ends in the middle of the ring.
    private func cut(at lsn: UInt64) throws { try #require(truncate(path, off_t(region.ringOffset + lsn)) == 0) }

    @Test("what has failed reads as zeros and is attributed; the rest is as it was")
    func attributed() throws {
        defer { unlink(path) }
        #expect(region.memoryFault == nil)
        try cut(at: 32 * 1024)
        #expect(region.memoryFault == nil, "nobody has met it yet")
        #expect(read(40 * 1024 + 5) == 0)
        let fault = try #require(region.memoryFault)
        #expect(fault.path == path && fault.firstLSN == LSN(40 * 1024))
        let page = region.ringOffset + 40 * 1024
        #expect(fault.fileOffsets == page..<page + 4096)
        #expect(read(32 * 1024 - 1) == 7 && read(0) == 7)
        #expect(fault.description.contains(path) && fault.description.contains("LSN 40960"), "\(fault)")
    }

    @Test("a store that meets it is survived too, and every fault counts")
    func stores() throws {
        defer { unlink(path) }
        try cut(at: 32 * 1024)
        [UInt8](repeating: 9, count: 16 * 1024).withUnsafeBytes { region.store($0, at: LSN(28 * 1024)) }
        try region.drain()
        let start = region.ringOffset
        #expect(region.memoryFault?.fileOffsets == start + 32 * 1024..<start + 44 * 1024)
        // More than are told apart.
        for page in stride(from: 32 * 1024, to: 64 * 1024, by: 4096) { _ = read(UInt64(page)) }
        #expect(region.memoryFault?.fileOffsets == start + 32 * 1024..<start + 64 * 1024)
    }

    @Test("a position is told above the head, in the lap that the log is in")
    func laps() throws {
        defer { unlink(path) }
        try region.setHead(LSN(Self.ring * 3 + 48 * 1024), acknowledged: .zero)
        try cut(at: 32 * 1024)
        _ = read(36 * 1024)
        #expect(region.memoryFault?.firstLSN == LSN(Self.ring * 4 + 36 * 1024))
    }

    @Test("another pool's faults are not this one's, and its number is free when it is gone")
    func others() throws {
        defer { unlink(path) }
        for _ in 0..<300 {
            let other = try MemoryFaultTests()
            defer { unlink(other.path) }
            try other.cut(at: 0)
            #expect(other.read(100) == 0)
            #expect(other.region.memoryFault != nil && region.memoryFault == nil)
        }
    }

    @Test("any other fault still ends the process")
    func unwatched() async {
        unlink(path)
        await #expect(processExitsWith: .signal(SIGBUS)) {
            // With a pool open, so that the signal is taken over.
            let rig = try MemoryFaultTests()
            try rig.cut(at: 0)
            _ = rig.read(0)
            unlink(rig.path)
            let path = "/dev/shm/twinlog-fault-\(UUID128.random())"
            let file = open(path, O_RDWR | O_CREAT, 0o600)
            unlink(path)
            let map = mmap(nil, 4096, PROT_READ, MAP_SHARED, file, 0)
            print(map?.load(as: UInt8.self) ?? 0)
        }
    }
}
