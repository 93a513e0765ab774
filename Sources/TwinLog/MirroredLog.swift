// A log of one's own in two processes: an append returns when the record is durable in both.

internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import Synchronization
internal import WriteLog

/// A ``Log`` whose every record is durable in a second process, a ``LogMirror``, before its append returns.
///
/// There is no coordinator. While the mirror is away nothing is promised: appends wait for it up to `patience`, and then throw `partnerLost`
/// or, where it refuses this log, `partnerRefused`. It is dialed again all the while, and sent what it lacks when it is back. This process never goes on alone,
/// and the mirror never takes over by itself: you decide that, see ``LogMirror``, and make sure that the log's earlier process is gone.
///
/// Safe from any number of threads. One opener at a time, as of ``Log``.
public final class MirroredLog: Sendable {
    private let store: LogStore
    private let users = UseCount()
    private let shared: MirrorPump.Shared
    private let thread: BlockingThread
    private let persist: GroupPersist?
    private let idle: IdleWatermark
    private let kick: Kick

    private init(_ store: LogStore, _ partner: LogPartner, _ patience: Duration?) {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let thread = BlockingThread(), shared = MirrorPump.Shared()
        let kick = Kick(eventLoop) {
            MirrorPump(
                store, partner, patience: patience.map(TimeAmount.init), thread: thread, shared: shared,
                eventLoop: eventLoop)
        }
        let persist =
            store.persistence == .msync
            ? GroupPersist(store, on: thread) { result in
                if case .failure(let error) = result { shared.appends.failForEver(error) }
                kick.pump()
            } : nil
        self.store = store
        self.thread = thread
        self.shared = shared
        self.kick = kick
        self.persist = persist
        idle = IdleWatermark(store, users) {
            persist?.ask()
            kick.pump()
        }
    }

    deinit { kick.stop {} }

    // MARK: Opening

    /// Makes the log, as ``Log/create(path:capacityBytes:)`` does, and returns when it is mirrored. `mirror`: HOST:PORT of the loopback
    /// interface, where a ``LogMirror`` of the same capacity listens that is empty. `secret`: the mirror's. `patience`: how
    /// long appends wait for a mirror that is away; `nil` for ever. Throws what that does, `partnerLost` and `partnerRefused`.
    public static func create(
        path: String, capacityBytes: UInt64, mirror: String, secret: [UInt8], patience: Duration? = .seconds(10)
    ) async throws(TwinLogError) -> MirroredLog {
        let partner = try LogPartner(address: mirror, secret: secret)
        let store = try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            try LogStore.create(path: path, capacityBytes: capacityBytes, persistence: .auto)
        }
        return try await begin(store, partner, patience)
    }

    /// Opens the log that a process left, asks the mirror for records that it has beyond those here, and returns when both hold all of them.
    /// Also takes over the pool of a ``LogMirror``, with another one to mirror it. Throws what ``Log/open(path:)`` does,
    /// `partnerLost` and `partnerRefused`.
    public static func open(
        path: String, mirror: String, secret: [UInt8], patience: Duration? = .seconds(10)
    ) async throws(TwinLogError) -> MirroredLog {
        let partner = try LogPartner(address: mirror, secret: secret)
        let (pool, region, scan) = try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            let (pool, region) = try LogStore.openPool(path: path, persistence: .auto)
            try LogStore.takeOver(pool, region)
            return (pool, region, try LogStore.judge(pool, region).0.endLSN)
        }
        do throws(TwinLogError) {
            try await MissingRecords.fetch(for: region, of: pool, end: scan, from: partner, patience: patience)
        } catch {
            pool.close()
            throw error
        }
        let store = try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            try LogStore.resume(pool, region)
        }
        return try await begin(store, partner, patience)
    }

    private static func begin(
        _ store: LogStore, _ partner: LogPartner, _ patience: Duration?
    ) async throws(TwinLogError) -> MirroredLog {
        let log = MirroredLog(store, partner, patience)
        do throws(TwinLogError) {
            try await log.wait(for: store.log.published)
        } catch {
            await log.close()
            throw error
        }
        return log
    }

    /// What the opening found.
    public var recovery: LogRecovery { store.recovery }
    /// What a record survives in this process' pool; the mirror says its own.
    public var persistence: LogPersistence { store.persistence }

    // MARK: Using it

    /// Whether the mirror is there and lacks nothing but what is on its way.
    public var isMirrored: Bool { shared.isMirrored }
    /// The most bytes of one record: about a quarter of the log, at most 16 MiB.
    public var maximumRecordBytes: Int { store.log.maximumWriteBytes }
    /// Where the oldest record that is not trimmed begins.
    public var head: LogPosition { LogPosition(store.log.head) }
    /// The end of what is durable in both processes.
    public var end: LogPosition { LogPosition(store.promisedEnd) }

    /// Appends one record, all or none, and answers its position; durable in both processes when it returns, with every record below it.
    /// Throws as ``Log/append(_:)``; after `partnerLost`, `partnerRefused`, `cancelled` and `closed` the record may be in this log, and reach the mirror
    /// later.
    public func append(_ bytes: [UInt8]) async throws(TwinLogError) -> LogPosition {
        if let refusal = shared.refusal { throw refusal }
        let place = try users.use { () throws(TwinLogError) in try store.append(bytes) }
        try await wait(for: place.end)
        return LogPosition(place.start)
    }

    private func wait(for end: LSN) async throws(TwinLogError) {
        try await shared.appends.wait(for: end) { [persist, kick] in
            persist?.ask()
            kick.pump()
        }
    }

    /// The records from `position` on, by default from the head, up to the ``end`` that the log has now. Errors as of ``Log/read(from:)``.
    public func read(from position: LogPosition? = nil) -> some AsyncSequence<LogRecord, TwinLogError> & Sendable {
        let end = store.promisedEnd
        return RecordSequence(
            next: { [store] from throws(TwinLogError) in try store.record(at: from, upTo: end) },
            start: position?.lsn ?? store.log.head)
    }

    /// Gives up every record below `position`, durably in both processes; their space may be used again. Throws as ``Log/trim(to:)``, and
    /// `partnerLost` or `partnerRefused` where only the mirror has not heard of it yet.
    public func trim(to position: LogPosition) async throws(TwinLogError) {
        try await thread.run { [self] () throws(TwinLogError) in
            try users.use { () throws(TwinLogError) in
                try store.moveHead(to: position.lsn, end: store.promisedEnd)
            }
        }
        if let refusal = shared.refusal { throw refusal }
        try await shared.trims.wait(for: position.lsn) { [kick] in kick.pump() }
    }

    /// Lets go of the mirror and the file. Appends under way throw `closed`; everything after it does, too. A second call does nothing.
    public func close() async {
        guard await users.close() else { return }
        idle.stop()
        await withCheckedContinuation { continuation in kick.stop { continuation.resume() } }
        let closed = TwinLogError(.closed, "the log is closed; an append that was under way may be in it")
        shared.appends.failForEver(closed)
        shared.trims.failForEver(closed)
        let store = store
        await withCheckedContinuation { continuation in
            thread.begin {
                store.close()
                continuation.resume()
            }
        }
    }
}

/// Wakes the pump, once for all who ask before it runs. Safe from any number of threads.
private final class Kick: Sendable {
    private let eventLoop: any EventLoop
    private let pumps: NIOLoopBoundBox<MirrorPump?>
    private let isAsked = Atomic(false)

    init(_ eventLoop: any EventLoop, _ make: @escaping @Sendable () -> MirrorPump) {
        self.eventLoop = eventLoop
        pumps = NIOLoopBoundBox.makeEmptyBox(valueType: MirrorPump.self, eventLoop: eventLoop)
        eventLoop.execute { [pumps] in
            let pump = make()
            pumps.value = pump
            pump.start()
        }
    }

    func pump() {
        guard !isAsked.exchange(true, ordering: .acquiringAndReleasing) else { return }
        eventLoop.execute { [self] in
            isAsked.store(false, ordering: .sequentiallyConsistent)
            pumps.value?.pump()
        }
    }

    /// Calls `stopped` when nothing is shipped any more.
    func stop(_ stopped: @escaping @Sendable () -> Void) {
        eventLoop.execute { [pumps] in
            pumps.value?.stop()
            pumps.value = nil
            stopped()
        }
    }
}
