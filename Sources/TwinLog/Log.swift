// A log of one's own: records of bytes in a pool file, durable when `append` returns, found again after a crash.

internal import LogModel
internal import PersistentMemory
internal import WriteLog

/// A crash-safe log in one file. Any number of tasks and threads append at once, without locks between them; each record keeps its
/// position for ever. Space comes back by ``trim(to:)`` only.
///
/// Safe from any number of threads. One opener at a time: the file is locked until ``close()``, or until the log is gone.
public final class Log: Sendable {
    private let store: LogStore
    private let users = UseCount()
    private let waiters = AppendWaiters()
    /// In msync mode.
    private let thread: BlockingThread?
    private let persist: GroupPersist?
    private let idle: IdleWatermark

    private init(_ store: LogStore) {
        self.store = store
        let waiters = waiters, users = users
        let thread = store.persistence == .msync ? BlockingThread() : nil
        self.thread = thread
        let persist = thread.map { thread in
            GroupPersist(store, on: thread) { result in
                switch result {
                case .success(let durable):
                    store.promise(upTo: durable)
                    waiters.reached(durable)
                case .failure(let error): waiters.failForEver(error)
                }
            }
        }
        self.persist = persist
        idle = IdleWatermark(store, users) { persist?.ask() }
    }

    // MARK: Opening

    /// Makes the file, fully allocated, with a log of `capacityBytes` (at least 64 KiB, in units of 4 KiB); of that, 4 KiB are kept for the
    /// log itself, and every record takes 64 bytes beside its own. Mode 0600. Throws `invalidValue`, `inUse` or `system`, also where
    /// the file exists; a crash may leave a file that ``open(path:)`` refuses as `notThisPool`.
    public static func create(path: String, capacityBytes: UInt64) async throws(TwinLogError) -> Log {
        try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            Log(try LogStore.create(path: path, capacityBytes: capacityBytes, persistence: .auto))
        }
    }

    /// Opens the log that a process left, however it ended, and reads all of it: every record whose append returned is there, and what
    /// else was whole; nothing that this does not find comes back later. Also takes over the log of a ``LogMirror``, which never is a mirror
    /// again. Throws `corrupt` with nothing changed, `memoryFailed`, `inUse`, `notThisPool` or `system`.
    public static func open(path: String) async throws(TwinLogError) -> Log {
        try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            let (pool, region) = try LogStore.openPool(path: path, persistence: .auto)
            try LogStore.takeOver(pool, region)
            return Log(try LogStore.resume(pool, region))
        }
    }

    /// What the opening found.
    public var recovery: LogRecovery { store.recovery }
    /// What a record survives.
    public var persistence: LogPersistence { store.persistence }

    // MARK: Using it

    /// The most bytes of one record: about a quarter of the log, at most 16 MiB.
    public var maximumRecordBytes: Int { store.log.maximumWriteBytes }
    /// Where the oldest record that is not trimmed begins.
    public var head: LogPosition { LogPosition(store.log.head) }
    /// The end of the last record that is durable.
    public var end: LogPosition { LogPosition(store.log.durable) }

    /// Appends one record, all or none, and answers its position; durable when it returns, with every record below it. Throws
    /// `invalidValue` for an empty or too long record, `full` until a ``trim(to:)``, `closed`, `memoryFailed`, `system`; `cancelled` only
    /// where it has to wait, and then the record may be there all the same.
    public func append(_ bytes: [UInt8]) async throws(TwinLogError) -> LogPosition {
        let place = try users.use { () throws(TwinLogError) in try store.append(bytes) }
        let durable = try store.durable
        if durable >= place.end {
            store.promise(upTo: durable)
            if !waiters.isEmpty { waiters.reached(durable) }
        } else {
            // Made durable by others' calls too, or held up by an append below that is not stored yet.
            try await waiters.wait(for: place.end) { [store, persist] in
                if let persist { persist.ask() } else { waiters.reached(store.log.durable) }
            }
        }
        return LogPosition(place.start)
    }

    /// The records from `position` on, by default from the head, up to the end that the log has now: in order, each verified and
    /// copied. Ends with `invalidValue` where no record begins at `position` or it was trimmed meanwhile, `corrupt` at a damaged one.
    public func read(from position: LogPosition? = nil) -> some AsyncSequence<LogRecord, TwinLogError> & Sendable {
        let end = store.log.durable
        return RecordSequence(
            next: { [store] from throws(TwinLogError) in try store.record(at: from, upTo: end) },
            start: position?.lsn ?? store.log.head)
    }

    /// Gives up every record below `position`, durably; their space may be used again. A position at or below the head changes nothing.
    /// Throws `invalidValue` where no record begins and the log does not end, `closed`, `system`.
    public func trim(to position: LogPosition) async throws(TwinLogError) {
        guard let thread else { return try trimNow(to: position) }
        try await thread.run { [self] () throws(TwinLogError) in try trimNow(to: position) }
    }

    private func trimNow(to position: LogPosition) throws(TwinLogError) {
        try users.use { () throws(TwinLogError) in
            try store.moveHead(to: position.lsn, end: store.log.durable)
            store.reclaim(upTo: store.log.head)
        }
    }

    /// Waits for appends that are under way, and lets go of the file. Everything after it throws `closed`; a second call does nothing.
    public func close() async {
        guard await users.close() else { return }
        idle.stop()
        let store = store, waiters = waiters
        let finish: @Sendable () -> Void = {
            // What cannot be made durable was promised to nobody: its append throws.
            switch Result(catching: { () throws(TwinLogError) in try store.finish() }) {
            case .success(let durable): waiters.reached(durable)
            case .failure(let error): waiters.failForEver(error)
            }
            store.close()
        }
        guard let thread else { return finish() }
        await withCheckedContinuation { continuation in
            thread.begin {
                finish()
                continuation.resume()
            }
        }
    }
}
