// A pool with one freshly formatted owner's region, and writes whose bytes follow from a seed.

import CLogCore
import Dispatch
import Foundation
import Glibc
import LogModel
import PersistentMemory
import Testing
import WriteLog

let volume = VolumeID(name: "vol0")
let logUUID = UUID128(high: 0x1111, low: 0x2222)

/// Where `make test-pmem` has mounted persistent memory, in its guest; elsewhere nil, and tests use the memory file system.
let pmemFolder: String? = getenv("TWINLOG_PMEM_FOLDER").map { String(cString: $0) }
/// The guest's processor is emulated, dozens of times slower: long tests do less there.
let inGuest = pmemFolder != nil

final class LogFixture {
    let folder: String
    let pool: Pool
    let region: Region
    let log: WriteLog

    init(
        ringBytes: UInt64 = 64 * 1024, start: LSN = .zero, parent: String = pmemFolder ?? "/dev/shm",
        persistence: PersistenceRequest = .auto
    ) throws {
        folder = "\(parent)/twinlog-log-\(UUID128.random())"
        try #require(mkdir(folder, 0o700) == 0)
        pool = try Pool.create(
            path: folder + "/pool", sizeBytes: ringBytes + 128 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: persistence)
        if parent == pmemFolder, persistence != .volatile { try #require(pool.persistence == .pmem) }
        region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: ringBytes)
        try region.format(role: .owner, logUUID: logUUID, incarnation: Incarnation(5), start: start)
        log = try WriteLog(region: region)
    }

    deinit {
        unlink(folder + "/pool")
        unlink(folder + "/pool.creating")
        rmdir(folder)
    }

    func append(_ bytes: [UInt8], at offset: UInt64 = 0, acknowledged: LSN = .zero) -> WriteLog.AppendOutcome {
        bytes.withUnsafeBytes { log.append(volume: volume, offset: offset, .data($0), acknowledged: acknowledged) }
    }

    /// An append that must find room.
    @discardableResult
    func appended(_ bytes: [UInt8], at offset: UInt64 = 0, acknowledged: LSN = .zero) throws -> WriteLog.Appended {
        guard case .appended(let place) = append(bytes, at: offset, acknowledged: acknowledged) else {
            throw NoRoom()
        }
        return place
    }

    /// Gives back everything below `lsn`.
    func trim(to lsn: LSN) throws {
        try log.setHead(lsn, acknowledged: lsn)
        log.setReclaimLimit(lsn)
    }

    /// Changes the ring's bytes behind the log's back.
    func tamper(_ bytes: [UInt8], at lsn: LSN) throws {
        bytes.withUnsafeBytes { region.store($0, at: lsn) }
        try region.drain()
    }

    func byte(at lsn: LSN) -> UInt8 {
        var byte: UInt8 = 0
        withUnsafeMutableBytes(of: &byte) { region.readRing(from: lsn, into: $0) }
        return byte
    }

    func flip(at lsn: LSN) throws { try tamper([byte(at: lsn) ^ 0x10], at: lsn) }

    struct NoRoom: Error {}
}

/// What a scan found, copied out.
struct Found: Equatable {
    var start: LSN
    var end: LSN
    var volume: VolumeID
    var kind: LogRecord.Kind
    var range: ByteRange
    var bytes: [UInt8]
}

struct ScanResult {
    var writes: [Found] = []
    var verdict: LogScan.Verdict = .clean
    var end = LSN.zero
    var firstBad: LSN?
    var acknowledged = LSN.zero
}

/// Scans and joins the records of each write; watermarks are left out.
func scan(_ region: Region) throws -> ScanResult {
    var scan = try #require(LogScan(region: region))
    var result = ScanResult()
    while let write = scan.next() {
        var found: Found?
        for record in write.records where record.kind != .watermark {
            if found == nil {
                found = Found(
                    start: write.start, end: write.end, volume: record.volume, kind: record.kind, range: record.range,
                    bytes: [])
            } else {
                #expect(record.kind == found?.kind && record.range.offset == found?.range.end)
                found?.range.length += record.range.length
            }
            found?.bytes += record.payload
        }
        if let found { result.writes.append(found) }
    }
    result.verdict = try #require(scan.verdict)
    result.end = scan.endLSN
    result.firstBad = scan.firstBadLSN
    result.acknowledged = scan.acknowledgedLSN
    return result
}

/// Runs `body` once on each of `count` threads of its own (a pool of threads may run one only after another), to the end.
func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    let group = DispatchGroup()
    for index in 0..<count {
        group.enter()
        Thread.detachNewThread {
            body(index)
            group.leave()
        }
    }
    group.wait()
}

/// From here on the page raises SIGBUS when it is met, as one with an uncorrectable error does: a page that its file does not have.
func failPage(_ page: UnsafeMutableRawPointer) throws {
    let empty = open("/dev/shm", 0o20200000 | O_RDWR, 0o600)  // O_TMPFILE
    try #require(empty >= 0 && UInt(bitPattern: page) % 4096 == 0)
    defer { close(empty) }
    try #require(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0) == page)
}

/// The page of the ring that holds the byte of `lsn`.
func failPage(of region: Region, at lsn: LSN) throws {
    try failPage(region.ringBase + Int(lsn.rawValue % region.ringBytes / 4096 * 4096))
}
