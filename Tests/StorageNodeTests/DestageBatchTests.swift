import Glibc
import LogModel
import PersistentMemory
import StorageMedium
import Synchronization
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

/// What one batch of the destager does to the medium.
struct DestageBatchTests {
    private final class NotedMedium: Medium {
        let sizeBytes: UInt64 = 1 << 20
        let calls = Mutex<[String]>([])
        private let failsToFlush: Bool
        private let onWrite: @Sendable () -> Void

        init(failsToFlush: Bool = false, onWrite: @escaping @Sendable () -> Void = {}) {
            self.failsToFlush = failsToFlush
            self.onWrite = onWrite
        }

        private func note(_ call: String) { calls.withLock { $0.append(call) } }
        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) { note("read") }
        func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
            onWrite()
            note("write \(buffers.map { "\($0.count) x \($0.first ?? 0)" }.joined(separator: ", ")) at \(offset)")
        }
        func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) { note("zero \(range)") }
        func startWriteback(_ range: ByteRange) { note("write-back \(range.offset) to \(range.end)") }
        func flush() throws(MediumError) {
            note("flush")
            if failsToFlush { throw MediumError(.flush, "the test said so") }
        }
    }

    private let log: WriteLog
    private let vol0 = VolumeID(name: "vol0")

    init() throws {
        let path = "/dev/shm/twinlog-batch-\(UUID128.random())"
        let pool = try Pool.create(
            path: path, sizeBytes: 512 * 1024,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .auto)
        unlink(path)
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 128 * 1024)
        try region.format(role: .owner, logUUID: .zero, incarnation: Incarnation(1), start: .zero)
        log = try WriteLog(region: region)
        for (byte, offset) in [(1, 4096), (2, 0), (3, 4096)] as [(UInt8, UInt64)] {
            [UInt8](repeating: byte, count: 4096).withUnsafeBytes {
                _ = log.append(volume: vol0, offset: offset, .data($0), acknowledged: .zero)
            }
        }
    }

    /// The calls of the medium are watched, as in production.
    private func run(_ medium: NotedMedium) -> DestageOutcome {
        let watched = WatchedMedium(medium, path: "vol0.img", calls: MediumCalls())
        return DestageBatch.run(log: log, from: .zero, to: log.published, media: [vol0: watched])
    }

    @Test("S8, S9: the newest of each byte is written, in order of place, and then the medium is flushed")
    func writesThenFlushes() {
        let medium = NotedMedium()
        guard case .written = run(medium) else {
            Issue.record("it was not written")
            return
        }
        #expect(medium.calls.withLock { $0 } == ["write 4096 x 2, 4096 x 3 at 0", "flush"])
    }

    @Test("what is scattered begins to be written back before the rest is written")
    func startsWriteback() {
        for index in 0..<520 as Range<UInt64> {
            let outcome = [UInt8(4)].withUnsafeBytes {
                log.append(volume: vol0, offset: 16384 + 512 * index, .data($0), acknowledged: .zero)
            }
            guard case .appended = outcome else {
                Issue.record("the log is too small")
                return
            }
        }
        let medium = NotedMedium()
        guard case .written = run(medium) else {
            Issue.record("it was not written")
            return
        }
        let calls = medium.calls.withLock { $0 }
        let writebacks = calls.enumerated().filter { $0.element.hasPrefix("write-back") }
        // The first run is that of the three writes before.
        #expect(
            writebacks.map(\.element) == [
                "write-back 0 to \(16384 + 512 * 254 + 1)",
                "write-back \(16384 + 512 * 255) to \(16384 + 512 * 510 + 1)",
            ])
        #expect(writebacks.map(\.offset) == [256, 513])
        #expect(calls.last == "flush")
    }

    @Test("S8: what is not flushed is not written")
    func failedFlush() {
        guard case .mediumFailed(let error) = run(NotedMedium(failsToFlush: true)) else {
            Issue.record("it was written")
            return
        }
        #expect(error.message.contains("the test said so"))
    }

    @Test("S26: a batch with a damaged record names it, and nothing of the batch reaches the medium")
    func damaged() {
        let medium = NotedMedium()
        let second = LSN(4160)
        [UInt8(9)].withUnsafeBytes { log.region.store($0, at: second + 100) }
        guard case .damaged(let range) = run(medium) else {
            Issue.record("it was taken for good")
            return
        }
        #expect(range.from == second && range.to == LSN(8320))
        #expect(medium.calls.withLock { $0 } == [])
    }

    @Test("S5: a record that rots between the check of its batch and its write is found before the head may pass it")
    func rotsUnderTheBatch() {
        let region = log.region
        let second = LSN(4160)
        let medium = NotedMedium(onWrite: { [UInt8(9)].withUnsafeBytes { region.store($0, at: second + 100) } })
        guard case .damaged(let range) = run(medium) else {
            Issue.record("it was taken for good")
            return
        }
        #expect(range.from == second && range.to == LSN(8320))
    }
}
