// One log in one pool: opened, judged, appended to, read, trimmed. What is promised of it, and when, is said by whoever holds it.
//
// Invariants:
//  - a corrupt log is refused, and nothing in its pool is changed (S5);
//  - readers and trims take turns, so no space is reused that is being read (S6); producers wait for neither.

internal import LogModel
internal import PersistentMemory
internal import Synchronization
internal import WriteLog

/// Safe from any number of threads.
final class LogStore: Sendable {
    static let identity = (cluster: "twinlog-library", node: NodeID("log"))
    static let group = GroupID("log")
    private static let volume = VolumeID(name: "log")
    /// Of the pool, before the ring: its own structure and the region's.
    private static let overheadBytes: UInt64 = 24 << 10
    private static let smallestPoolBytes: UInt64 = 128 << 10
    private static let pageBytes: UInt64 = 4096

    let pool: Pool
    let log: WriteLog
    let recovery: LogRecovery
    /// The end of the last append that is known to be promised; stands in the records that follow (S5).
    private let promised: Atomic<UInt64>
    /// The end of the last watermark.
    private let marked: Atomic<UInt64>
    /// Held over one record's copy, and while space is given back.
    private let reading = Mutex(())

    private init(_ pool: Pool, _ log: WriteLog, _ recovery: LogRecovery) {
        self.pool = pool
        self.log = log
        self.recovery = recovery
        promised = Atomic(log.published.rawValue)
        marked = Atomic(log.published.rawValue)
    }

    // MARK: Opening; blocks

    /// A pool with a region for a log of `capacityBytes`, which nobody has formatted yet.
    static func createPool(
        path: String, capacityBytes: UInt64, persistence: PersistenceRequest
    ) throws(TwinLogError) -> (Pool, Region) {
        guard capacityBytes > 0, capacityBytes <= LSN.maximum.rawValue else {
            throw TwinLogError(.invalidValue, "\(path): a log of \(capacityBytes) bytes is not possible")
        }
        let ringBytes = max((capacityBytes + pageBytes - 1) / pageBytes * pageBytes, 16 * pageBytes)
        return try translating { () throws(PoolError) in
            let pool = try Pool.create(
                path: path, sizeBytes: max(ringBytes + overheadBytes, smallestPoolBytes),
                identity: PoolIdentity(uuid: .random(), cluster: identity.cluster, node: identity.node),
                persistence: persistence)
            return (pool, try pool.allocateRegion(group: group, ringBytes: ringBytes))
        }
    }

    static func openPool(path: String, persistence: PersistenceRequest) throws(TwinLogError) -> (Pool, Region) {
        let pool = try translating { () throws(PoolError) in
            try Pool.open(path: path, expecting: identity, persistence: persistence)
        }
        guard let region = pool.region(of: group) else {
            throw TwinLogError(.notThisPool, "\(path): this pool was made and never got its log: remove it")
        }
        return (pool, region)
    }

    static func create(
        path: String, capacityBytes: UInt64, persistence: PersistenceRequest
    ) throws(TwinLogError) -> LogStore {
        let (pool, region) = try createPool(path: path, capacityBytes: capacityBytes, persistence: persistence)
        try translating { () throws(PoolError) in
            try region.format(role: .owner, logUUID: .random(), incarnation: Incarnation(1), start: .zero)
        }
        let log = try translating { () throws(WriteLogError) in try WriteLog(region: region) }
        return LogStore(pool, log, LogRecovery(records: 0, hadTornTail: false))
    }

    /// Goes on with the log that `region` holds. Throws `corrupt`, `memoryFailed`, `notThisPool`.
    static func resume(_ pool: Pool, _ region: Region) throws(TwinLogError) -> LogStore {
        let (scan, records) = try judge(pool, region)
        return try resume(pool, scan, records)
    }

    /// The same, of a log that is judged.
    static func resume(_ pool: Pool, _ scan: LogScan, _ records: UInt64) throws(TwinLogError) -> LogStore {
        let log = try translating { () throws(WriteLogError) in try WriteLog(resuming: scan) }
        return LogStore(pool, log, LogRecovery(records: records, hadTornTail: scan.verdict == .torn))
    }

    /// The scan of all of the log, ended and not corrupt, and the data writes that it passed.
    static func judge(_ pool: Pool, _ region: Region) throws(TwinLogError) -> (LogScan, records: UInt64) {
        guard var scan = LogScan(region: region) else {
            throw TwinLogError(.notThisPool, "\(pool.path): this pool was made and never got its log: remove it")
        }
        var records: UInt64 = 0
        while let write = scan.next() {
            if write.records.contains(where: { $0.kind == .data }) { records += 1 }
        }
        if let fault = scan.memoryFault { throw TwinLogError(.memoryFailed, fault.description) }
        guard scan.verdict != .corrupt else {
            throw TwinLogError(
                .corrupt,
                "\(pool.path): damaged at position \(scan.firstBadLSN ?? scan.endLSN), below \(scan.acknowledgedLSN) that was promised; "
                    + "nothing was changed: `twinlog-recover heal` brings it back from a mirror's pool, `dump` brings out what is whole"
            )
        }
        return (scan, records)
    }

    /// Ends the use of the pool. A store through what is left of it traps.
    func close() { pool.close() }

    // MARK: Appending

    var persistence: LogPersistence { LogPersistence(pool.persistence) }

    /// The record's place. Not durable before ``durable`` passes its end.
    func append(_ bytes: [UInt8]) throws(TwinLogError) -> WriteLog.Appended {
        guard !bytes.isEmpty, bytes.count <= log.maximumWriteBytes else {
            throw TwinLogError(
                .invalidValue,
                "\(pool.path): a record has 1 to \(log.maximumWriteBytes) bytes, a quarter of the log at most, not \(bytes.count)"
            )
        }
        let acknowledged = LSN(promised.load(ordering: .acquiring))
        let outcome = bytes.withUnsafeBytes {
            log.append(volume: Self.volume, offset: 0, .data($0), acknowledged: acknowledged)
        }
        switch outcome {
        case .appended(let place): return place
        case .full, .tooLarge:
            throw TwinLogError(.full, "\(pool.path): the log of \(log.ringBytes) bytes is full: trim it")
        case .failed: throw memoryFailure
        }
    }

    /// Everything below `end`, the end of an append, is promised. One that is not above what is known is passed over.
    func promise(upTo end: LSN) { promised.max(end.rawValue, ordering: .releasing) }

    /// Writes how far the log was promised, where no record says it yet and all of it is (S5). Answers whether it did; durable after
    /// ``persist()``.
    func mark() -> Bool {
        let end = promised.load(ordering: .acquiring)
        guard end == log.tail.rawValue, end > marked.load(ordering: .relaxed), log.head.rawValue < end,
            log.appendWatermark(acknowledged: LSN(end))
        else { return false }
        marked.store(log.tail.rawValue, ordering: .relaxed)
        return true
    }

    /// Makes everything that is published durable. Blocks in msync mode.
    func persist() throws(TwinLogError) -> LSN {
        _ = try translating { () throws(WriteLogError) in try log.persist() }
        return try durable
    }

    /// Leaves the log as an opening likes to find it. Precondition: nobody appends any more.
    func finish() throws(TwinLogError) -> LSN {
        promise(upTo: try persist())
        return mark() ? try persist() : try durable
    }

    /// The end of what is promised.
    var promisedEnd: LSN { LSN(promised.load(ordering: .acquiring)) }

    /// Everything below is durable in this pool, whose memory is sound.
    var durable: LSN {
        get throws(TwinLogError) {
            if log.region.memoryFault != nil { throw memoryFailure }
            return log.durable
        }
    }

    private var memoryFailure: TwinLogError {
        TwinLogError(.memoryFailed, log.region.memoryFault?.description ?? "\(pool.path): memory has failed")
    }

    // MARK: Reading and trimming

    /// The record at `position`, or the next one if what stands there is the log's own; `nil` if there is none that ends at or below
    /// `end`. Throws `invalidValue` where no record begins, `corrupt` where one is damaged (S26).
    func record(at position: LSN, upTo end: LSN) throws(TwinLogError) -> LogRecord? {
        try reading.withLock { _ throws(TwinLogError) in
            var position = position
            guard position.isPlaceOfRecord else { throw noPlace(position, end) }
            while position < end {
                let write = try write(at: position)
                guard write.end <= end else { return nil }
                if let bytes = write.bytes {
                    return LogRecord(position: LogPosition(position), end: LogPosition(write.end), bytes: bytes)
                }
                position = write.end
            }
            return nil
        }
    }

    /// The write that begins at `position`; without bytes for a watermark. Under ``reading``.
    private func write(at position: LSN) throws(TwinLogError) -> (end: LSN, bytes: [UInt8]?) {
        guard position >= log.head else {
            throw TwinLogError(
                .invalidValue, "\(pool.path): position \(position) is trimmed; the log begins at \(log.head)")
        }
        var records = log.records(from: position, to: log.published)
        var bytes: [UInt8]?
        while let entry = records.next() {
            guard case .record(let record) = entry else { throw noRecord(at: position) }
            if bytes == nil, !record.beginsWrite(at: position) { throw noRecord(at: position) }
            if record.kind == .data { bytes = (bytes ?? []) + record.payload }
            if record.endsWrite { return (records.position, bytes) }
        }
        throw noRecord(at: position)
    }

    private func noPlace(_ position: LSN, _ end: LSN) -> TwinLogError {
        TwinLogError(.invalidValue, "\(pool.path): position \(position) is no place in this log, which ends at \(end)")
    }

    private func noRecord(at position: LSN) -> TwinLogError {
        if let fault = log.region.memoryFault { return TwinLogError(.memoryFailed, fault.description) }
        let start = log.startOfRecord(with: position)
        guard start == nil || start == position else {
            return TwinLogError(.invalidValue, "\(pool.path): no record begins at position \(position)")
        }
        return TwinLogError(.corrupt, "\(pool.path): the record at position \(position) is damaged")
    }

    /// Why `[from, to)` must not be shipped: the first record there that fails its checks (S26). `from` may lie within a record. Blocks.
    /// Nothing of it is reclaimed meanwhile.
    func damage(from: LSN, to: LSN) -> TwinLogError? {
        guard from < to else { return nil }
        let start = log.startOfRecord(with: from) ?? from
        for case .damaged(let at, _) in log.records(from: start, to: to) {
            return TwinLogError(
                .corrupt, "\(pool.path): the record at position \(at) is damaged, and the mirror lacks it")
        }
        return nil
    }

    /// Moves the head, durably. Blocks in msync mode. Space comes back with ``reclaim(upTo:)``. Throws `invalidValue` for a position that is
    /// no record's, or beyond `end`.
    func moveHead(to position: LSN, end: LSN) throws(TwinLogError) {
        guard position.isPlaceOfRecord, position <= end else { throw noPlace(position, end) }
        try reading.withLock { _ throws(TwinLogError) in
            guard position > log.head else { return }
            if position < log.published { _ = try write(at: position) }
            try translating { () throws(PoolError) in try log.region.advanceHead(to: position) }
        }
    }

    /// Space below `position`, at most the head, may be used again.
    func reclaim(upTo position: LSN) {
        reading.withLock { _ in log.setReclaimLimit(position) }
    }
}
