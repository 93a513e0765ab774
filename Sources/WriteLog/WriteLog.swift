// The owner's log of one group: appends from any number of threads, positions that anyone can read, and space that
// comes back when the node says so. The work is done in CLogCore; see tl_log.h for its invariants.

import CLogCore
public import LogModel
public import PersistentMemory
import Synchronization

/// Safe from any number of threads. Positions: reclaim limit <= head, and
/// reclaim limit <= durable <= published <= tail <= reclaim limit + ring size.
public final class WriteLog: Sendable {
    public let region: Region
    public let incarnation: Incarnation
    /// Sendable: the C core's log synchronizes its users; it is destroyed with this object.
    nonisolated(unsafe) package let log: OpaquePointer
    /// Sendable: an unchanging description of memory that the region keeps mapped.
    nonisolated(unsafe) let ring: tl_ring
    private let durablePosition: Atomic<UInt64>
    /// Why ``persist()`` failed, for ever (see there).
    private let persisting = Mutex<WriteLogError?>(nil)
    private let needsSync: Bool

    /// Opens the log of a region that was just formatted for its owner: it holds no record of its incarnation (S4).
    public convenience init(region: Region) throws(WriteLogError) {
        guard let identity = region.identity, let ring = region.ring, identity.role == .owner,
            region.head == identity.startLSN, !Self.hasRecord(ring, at: identity.startLSN)
        else {
            throw WriteLogError(
                .notAnEmptyOwnersRegion, "the region of group \(region.group) was not just formatted for its owner")
        }
        try self.init(region, head: identity.startLSN, start: identity.startLSN)
    }

    /// The log of a region whose records lie in `[head, start)`.
    init(_ region: Region, head: LSN, start: LSN) throws(WriteLogError) {
        guard let identity = region.identity, let ring = region.ring else {
            preconditionFailure("the region was never formatted")
        }
        var created: OpaquePointer?
        let persist = region.mapping.persist
        guard tl_log_resume(&created, persist, [ring], head.rawValue, start.rawValue) == 0, let created else {
            throw WriteLogError(.outOfMemory, "no memory for the log of group \(region.group)")
        }
        self.region = region
        self.ring = ring
        log = created
        incarnation = identity.incarnation
        durablePosition = Atomic(start.rawValue)
        needsSync = region.persistence == .msync
    }

    deinit { tl_log_destroy(log) }

    private static func hasRecord(_ ring: tl_ring, at start: LSN) -> Bool {
        var ring = ring
        var record = tl_record()
        return tl_record_read_header(&ring, start.rawValue, start.rawValue + ring.size, &record) == TL_VALID
    }

    // MARK: Appending

    /// Stores one write, all or none (S7), with one drain, and publishes it. On persistent memory it is durable here
    /// when this returns `appended`; in msync mode after ``persist()``. Preconditions: not empty; the range does not overflow; nobody
    /// changes the bytes meanwhile, which are read more than once; `acknowledged` is the end of a write, at most ``published``.
    public func append(volume: VolumeID, offset: UInt64, _ payload: Payload, acknowledged: LSN) -> AppendOutcome {
        let length = payload.length
        precondition(length > 0 && !offset.addingReportingOverflow(length).overflow)
        // Not looked up in release builds: producers touch nothing but the tail.
        assert(acknowledged <= published)
        if case .data(let bytes) = payload {
            let placed = tl_log_append_data(
                log, bytes.baseAddress, length, offset, acknowledged.rawValue, volume.rawValue)
            guard placed.end == 0 else {
                return appended(placed.start, placed.end, payload.kind, offset, length, acknowledged)
            }
            return placed.start == UInt64(TL_LOG_FULL.rawValue) ? .full : .tooLarge
        }
        var write = tl_write()
        write.length = length
        write.offset = offset
        write.acknowledged = acknowledged.rawValue
        write.volume = volume.rawValue
        write.kind = payload.kind
        if case .writeZeroes(_, keepSpace: true) = payload { write.flags = UInt8(TL_FLAG_KEEP_SPACE) }
        var reservation = tl_reservation()
        switch tl_log_append(log, &write, &reservation) {
        case TL_LOG_DONE:
            return appended(reservation.start, reservation.end, write.kind, offset, length, acknowledged)
        case TL_LOG_FULL: return .full
        default: return .tooLarge
        }
    }

    private func appended(
        _ start: UInt64, _ end: UInt64, _ kind: tl_kind, _ offset: UInt64, _ length: UInt64, _ acknowledged: LSN
    ) -> AppendOutcome {
        precondition(acknowledged.rawValue <= start)
        // One load, as long as nothing has failed anywhere.
        if tl_fault_any(), region.memoryFault != nil { return .failed }
        return .appended(
            Appended(
                start: LSN(start), end: LSN(end), kind: kind.rawValue, offset: offset, length: length,
                ringBytes: ring.size))
    }

    /// Writes a record that only says what is acknowledged, so that a tail can be judged (S5). It has space of its own;
    /// false if even that is used up. Precondition: `acknowledged` is at most ``published``.
    public func appendWatermark(acknowledged: LSN) -> Bool {
        assert(acknowledged <= published)
        var write = tl_write()
        write.kind = TL_KIND_WATERMARK
        write.acknowledged = acknowledged.rawValue
        var reservation = tl_reservation()
        return tl_log_append(log, &write, &reservation) == TL_LOG_DONE
    }

    /// The most payload of one write: what fits a quarter of the ring (at most 16 MiB) wherever it starts.
    public var maximumWriteBytes: Int {
        let most = tl_log_maximum_bytes(log)
        let headers = (most / UInt64(TL_RECORD_PAYLOAD_BYTES) + 3) * UInt64(TL_HEADER_BYTES)
        return Int((most - headers) / 4096 * 4096)
    }

    /// The most bytes of the log that a write of this payload takes, wherever it starts.
    public func reservationBytes(_ payload: Payload) -> UInt64 {
        let header = UInt64(TL_HEADER_BYTES)
        switch payload {
        case .data(let bytes):
            // A split at each full record, one at the ring's end, and a pad.
            let records = UInt64(bytes.count) / UInt64(TL_RECORD_PAYLOAD_BYTES) + 3
            return (UInt64(bytes.count) + header - 1) / header * header + records * header
        case .discard(let length), .writeZeroes(let length, _):
            return (length / Self.rangeBytes + 1) * header
        }
    }

    /// TL_RECORD_RANGE_BYTES: a larger range becomes several records of one write.
    private static let rangeBytes: UInt64 = 1 << 31

    // MARK: Positions

    /// The end of what is reserved.
    public var tail: LSN { LSN(tl_log_tail(log)) }
    /// Everything below it is in the ring, stored and drained, and may be read.
    public var published: LSN { LSN(tl_log_published(log)) }
    /// Everything below it survives what this pool's persistence survives, as long as ``Region/memoryFault`` is `nil`.
    public var durable: LSN { needsSync ? LSN(durablePosition.load(ordering: .acquiring)) : published }
    /// Where un-destaged records begin, durably.
    public var head: LSN { region.head }
    /// Space below it may be used again.
    public var reclaimLimit: LSN { LSN(tl_log_reclaim(log)) }
    public var ringBytes: UInt64 { ring.size }

    /// In msync mode, makes everything that is published durable, in one go for all writers, and returns the new
    /// durable position. Blocks; call it on a thread that may. Elsewhere it returns at once. One that failed is never tried again,
    /// but fails for good: the kernel may have marked as clean what it could not write, and would now say that it is durable.
    @discardableResult
    public func persist() throws(WriteLogError) -> LSN {
        guard needsSync else { return published }
        return try persisting.withLock { failure throws(WriteLogError) in
            if let failure { throw failure }
            let from = durable, to = published
            do throws(PoolError) {
                try region.syncRing(from: from, to: to)
            } catch {
                let error = WriteLogError(.notPersisted, error.description)
                failure = error
                throw error
            }
            // Memory in the place of what has failed is synced to nowhere.
            if let fault = region.memoryFault {
                let error = WriteLogError(.notPersisted, fault.description)
                failure = error
                throw error
            }
            durablePosition.store(to.rawValue, ordering: .releasing)
            return to
        }
    }

    /// Moves the durable head; does not by itself give space back. Precondition: at most ``durable``, a write boundary.
    public func setHead(_ lsn: LSN, acknowledged: LSN) throws(WriteLogError) {
        precondition(lsn <= durable)
        do throws(PoolError) {
            try region.setHead(lsn, acknowledged: acknowledged)
        } catch {
            throw WriteLogError(.notPersisted, error.description)
        }
    }

    /// Allows the space below `lsn` to be used again: the least of the own durable head, the mirror's durable head and
    /// what reads and shipments still refer to (S6). Never moves back. Precondition: at most the durable head.
    public func setReclaimLimit(_ lsn: LSN) {
        precondition(lsn <= head)
        tl_log_set_reclaim(log, lsn.rawValue)
    }
}
