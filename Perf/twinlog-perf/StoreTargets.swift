// What an append is measured against, each under one protocol: the log itself; its floor, the same bytes copied and
// checksummed in one pass, a header line, one drain, and no log at all; and the floor of any log with one tail, which
// takes its place from a counter that all threads share.

import CLogCore
import Glibc
import LogModel
import PersistentMemory
import Synchronization
import WriteLog

/// Calls `body` with a client's bytes, the same for log and floor.
func withPayload<Outcome>(
    _ size: Int, _ body: (UnsafeRawBufferPointer) throws(PerfError) -> Outcome
) -> Result<Outcome, PerfError> {
    let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
        for index in 0..<size { buffer[index] = UInt8(truncatingIfNeeded: index &* 31) }
        count = size
    }
    return bytes.withUnsafeBytes { buffer in Result { () throws(PerfError) in try body(buffer) } }
}

/// Where one thread is.
struct StoreCursor {
    /// Of the next store, for the floor.
    var place: UInt64
    var end: UInt64
    /// Stores since the last `msync`.
    var unpersisted = 0
}

protocol StoreTarget: Sendable {
    func begin(thread: Int) -> StoreCursor
    /// Stores `bytes`, durably (in msync mode, with the last of each batch).
    func store(_ bytes: UnsafeRawBufferPointer, _ cursor: inout StoreCursor) throws(PerfError)
}

/// The log; whoever finds it full makes room, as a destager would.
final class AppendTarget: StoreTarget {
    private let log: WriteLog
    private let batch: Int
    private let trimming = Mutex(())
    private let volume = VolumeID(name: "perf")

    init(_ log: WriteLog, batch: Int) {
        self.log = log
        self.batch = batch
    }

    func begin(thread: Int) -> StoreCursor { StoreCursor(place: 0, end: 0) }

    func store(_ bytes: UnsafeRawBufferPointer, _ cursor: inout StoreCursor) throws(PerfError) {
        while true {
            switch log.append(volume: volume, offset: 0, .data(bytes), acknowledged: .zero) {
            case .appended:
                guard log.region.persistence == .msync else { return }
                cursor.unpersisted += 1
                guard cursor.unpersisted == batch else { return }
                cursor.unpersisted = 0
                return try persist()
            case .full: try trim()
            case .tooLarge: throw PerfError("\(bytes.count) bytes do not fit the log")
            case .failed: throw PerfError("the pool's memory has failed")
            }
        }
    }

    private func persist() throws(PerfError) {
        do { try log.persist() } catch { throw PerfError("\(error)") }
    }

    private func trim() throws(PerfError) {
        try persist()
        let moved = try trimming.withLock { _ throws(PerfError) in
            let durable = log.durable
            guard durable > log.head else { return false }
            do { try log.setHead(durable, acknowledged: durable) } catch { throw PerfError("\(error)") }
            log.setReclaimLimit(durable)
            return true
        }
        // A slower thread has reserved and not published yet.
        if !moved { sched_yield() }
    }
}

/// The floor: each thread has a part of the memory of its own and fills it round and round; or, with a shared tail, all
/// take their places from one counter.
final class FloorTarget: StoreTarget {
    private let region: Region
    /// Sendable: memory of `region`, of which every thread stores to its own part; and an unchanging description of it.
    nonisolated(unsafe) private let base: UnsafeMutableRawPointer
    nonisolated(unsafe) private let persist: UnsafePointer<tl_persist>
    private let needsSync: Bool
    private let partBytes: UInt64
    private let recordBytes: UInt64
    private let batch: Int
    private let sharedTail: SharedTail?

    /// On cache lines of its own.
    private final class SharedTail: Sendable {
        private let before: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
        let next = Atomic<UInt64>(0)
        private let after: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
    }

    init(_ region: Region, threads: Int, size: Int, batch: Int, hasSharedTail: Bool = false) {
        sharedTail = hasSharedTail ? SharedTail() : nil
        self.region = region
        base = region.ringBase
        persist = UnsafePointer(region.mapping.persist)
        needsSync = region.persistence == .msync
        partBytes = region.ringBytes / UInt64(threads) / 4096 * 4096
        recordBytes = tl_record_bytes(UInt64(size))
        self.batch = batch
        precondition(recordBytes * UInt64(batch) <= partBytes, "a part holds at least one batch")
        precondition(!hasSharedTail || !needsSync)
    }

    func begin(thread: Int) -> StoreCursor {
        let start = UInt64(thread) * partBytes
        return StoreCursor(place: start, end: start + partBytes)
    }

    func store(_ bytes: UnsafeRawBufferPointer, _ cursor: inout StoreCursor) throws(PerfError) {
        if let sharedTail {
            let number = sharedTail.next.wrappingAdd(1, ordering: .acquiringAndReleasing).oldValue
            return storeRecord(bytes, at: number % (region.ringBytes / recordBytes) * recordBytes)
        }
        if cursor.place + recordBytes > cursor.end { cursor.place = cursor.end - partBytes }
        storeRecord(bytes, at: cursor.place)
        cursor.place += recordBytes
        guard needsSync else { return }
        cursor.unpersisted += 1
        guard cursor.unpersisted == batch else { return }
        cursor.unpersisted = 0
        let start =
            max(cursor.place, cursor.end - partBytes + UInt64(batch) * recordBytes) - UInt64(batch) * recordBytes
        do {
            try region.syncRing(from: LSN(start), to: LSN(cursor.place))
        } catch {
            throw PerfError("\(error)")
        }
    }

    private func storeRecord(_ bytes: UnsafeRawBufferPointer, at place: UInt64) {
        let header = base + Int(place)
        var record = tl_record()
        record.lsn = place
        record.payload_bytes = UInt32(bytes.count)
        record.range_bytes = UInt32(bytes.count)
        record.kind = UInt8(TL_KIND_DATA.rawValue)
        record.count = 1
        record.payload_crc = tl_stream_crc32c(persist, header + Int(TL_HEADER_BYTES), bytes.baseAddress, bytes.count, 1)
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Int(TL_HEADER_BYTES) / 8) { words in
            tl_record_words(&record, words.baseAddress)
            tl_stream_header(persist, header, words.baseAddress, 1)
        }
        tl_drain(persist)
    }
}
