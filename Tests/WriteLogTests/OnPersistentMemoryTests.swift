// What only true persistent memory can show: runs in the guest of `make test-pmem`, which says where the memory is and
// which boot this is. The first boot leaves a pool behind, the second, with another persistence domain, reads it.

import CLogCore
import Glibc
import LogModel
import PersistentMemory
import TestSupport
import Testing
import WriteLog

private let boot = getenv("TWINLOG_PMEM_BOOT").flatMap { Int(String(cString: $0)) } ?? 1

@Suite(.serialized, .enabled(if: pmemFolder != nil, "no persistent memory; `make test-pmem` has it"))
struct OnPersistentMemoryTests {
    static let keptWrites = 200
    let folder = pmemFolder ?? ""
    var keptPath: String { "\(folder)/kept.pool" }

    private static func lines(of path: String) throws -> [String] {
        let file = try #require(fopen(path, "r"))
        defer { fclose(file) }
        var lines: [String] = []
        var line = [CChar](repeating: 0, count: 4096)
        while fgets(&line, 4096, file) != nil {
            let bytes = line.prefix { $0 != 0 && $0 != 10 }.map(UInt8.init(bitPattern:))
            lines.append(String(decoding: bytes, as: UTF8.self))
        }
        return lines
    }

    /// `VmFlags` of each mapping of the open file; "sf" says that page faults are synchronous (MAP_SYNC).
    private func mappingFlags(of descriptor: Int32) throws -> [Set<Substring>] {
        var about = stat()
        try #require(fstat(descriptor, &about) == 0)
        let device = [about.st_dev >> 8 & 0xFFF, about.st_dev & 0xFF].map { part in
            let digits = String(part, radix: 16)
            return digits.count < 2 ? "0" + digits : digits
        }.joined(separator: ":")
        var isWanted = false
        var found: [Set<Substring>] = []
        for line in try Self.lines(of: "/proc/self/smaps") {
            let words = line.split(separator: " ")
            if words.count >= 5, words[0].contains("-") {
                isWanted = words[3] == device && words[4] == "\(about.st_ino)"
            }
            if isWanted, line.hasPrefix("VmFlags:") { found.append(Set(words.dropFirst())) }
        }
        return found
    }

    private static func bytes(_ number: Int) -> [UInt8] {
        var generator = SplitMix64(seed: UInt64(number))
        return generator.bytes(number * 37 % 3000 + 1)
    }

    @Test func nothingForcesIt() {
        for name in ["PMEM_IS_PMEM_FORCE", "PMEM_NO_FLUSH", "PMEM_MMAP_HINT"] { #expect(getenv(name) == nil) }
    }

    @Test func poolsAreOnPersistentMemoryMappedSynchronously() throws {
        let fixture = try LogFixture(ringBytes: 1 << 20)
        #expect(fixture.pool.persistence == .pmem)
        let asked = try LogFixture(persistence: .pmem)
        #expect(asked.pool.persistence == .pmem)
        // The same memory, told to promise nothing.
        #expect(try LogFixture(persistence: .volatile).pool.persistence == .volatile)

        let descriptor = open(fixture.folder + "/pool", O_RDONLY | O_CLOEXEC)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let flags = try mappingFlags(of: descriptor)
        #expect(flags.count == 1 && flags.allSatisfy { $0.contains("sf") }, "\(flags)")
        var isDax = false
        var base: UnsafeMutableRawPointer?
        #expect(tl_file_map(descriptor, 65536, false, &base, &isDax) == 0 && isDax)
        munmap(base, 65536)
    }

    /// A fence alone where the caches are inside the persistence domain, write-backs anywhere else.
    @Test func thePersistenceDomainIsRespected() throws {
        let domain = try #require(Self.lines(of: "/sys/bus/nd/devices/region0/persistence_domain").first)
        let fixture = try LogFixture()
        let mode = withExtendedLifetime(fixture) { fixture.region.mapping.persist.pointee.mode }
        switch boot {
        case 1: #expect(domain == "memory_controller" && mode == TL_PERSIST_LINES)
        default: #expect(domain == "cpu_cache" && mode == TL_PERSIST_FENCE)
        }
    }

    @Test func whatIsDurableIsThereAfterTheNextBoot() throws {
        boot == 1 ? try leaveBehind() : try find()
    }

    private func leaveBehind() throws {
        unlink(keptPath)
        let pool = try Pool.create(
            path: keptPath, sizeBytes: 4 << 20,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .pmem)
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 1 << 20)
        try region.format(role: .owner, logUUID: logUUID, incarnation: Incarnation(5), start: .zero)
        let log = try WriteLog(region: region)
        for number in 0..<Self.keptWrites {
            let outcome = Self.bytes(number).withUnsafeBytes {
                log.append(volume: volume, offset: UInt64(number) << 16, .data($0), acknowledged: log.durable)
            }
            guard case .appended(let place) = outcome, log.durable == place.end else {
                Issue.record("write \(number) is not durable: \(outcome)")
                return
            }
        }
    }

    private func find() throws {
        let pool = try Pool.open(path: keptPath, expecting: ("demo", NodeID("alpha")), persistence: .pmem)
        let region = try #require(pool.region(of: GroupID("g0")))
        let found = try scan(region)
        #expect(found.writes.map(\.bytes) == (0..<Self.keptWrites).map(Self.bytes))
        #expect(found.verdict == .clean)
    }
}
