// The mirror log's side of a session: the region that an owner writes with one-sided verbs. Offsets 0 ..< ring bytes are
// the ring; the word right behind it is the head, written by ATOMIC WRITE. Lives in the engine's one place.
//
// Keeps S11: a completion is answered only after the drain. What is stored over a trimmed place, or behind a gap, is
// stored only when the head that allows it is durable. A record that is good here is never replaced by another (S5). The same bytes
// are stored again all the same: what an earlier process stored may never have been drained.

package import LogModel
package import PersistentMemory
package import RemoteMemory
package import WriteLog

package final class MirrorTarget: RegionTarget {
    let region: Region
    private let runtime: any Runtime
    /// Everything below was stored by the owner, in order.
    private var stored: LSN
    /// Everything below is durable here.
    package private(set) var durable: LSN
    private var head: LSN
    private var headToPersist: LSN?
    /// Nothing is durable here any more: what one `msync` could not write, the next would not say (S11).
    private var persistFailure: String?
    /// What the owner has announced to store anew, because it is damaged here.
    private var repairing: Repair?
    /// What the region held when this owner attached, until all of it is passed.
    private var kept: KeptRecords?
    /// Told when `durable` moves.
    var onProgress: (() -> Void)?
    /// Told of the good record that the owner sent other bytes for.
    package var onConflict: ((LSN) -> Void)?

    private struct Repair {
        var left: Range<LSN>
        var present: KeptRecords
    }

    /// Of a region that holds no records yet.
    package convenience init(region: Region, runtime: any Runtime) {
        self.init(region: region, durable: region.head, head: region.head, runtime: runtime)
    }

    /// `durable` is where the owner begins to ship, and `kept` what the region holds from there on.
    package init(
        region: Region, durable: LSN, head: LSN, kept: KeptRecords? = nil, runtime: any Runtime
    ) {
        self.kept = kept
        self.region = region
        stored = durable
        self.durable = durable
        self.head = head
        self.runtime = runtime
    }

    package static func lengthBytes(ring: UInt64) -> UInt64 { ring + 8 }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError) {
        let ring = region.ringBytes
        guard offset < ring, UInt64(bytes.count) <= ring - offset, offset % LSN.alignment == 0 else {
            throw RemoteMemoryError(.access, "a WRITE of \(bytes.count) bytes at \(offset) is not inside of the ring")
        }
        if let repair = repairing, offset == repair.left.lowerBound.rawValue % ring,
            UInt64(bytes.count) <= repair.left.upperBound - repair.left.lowerBound
        {
            return try store(bytes, as: repair)
        }
        // The owner ships in order; a gap is announced by a head.
        guard offset == stored.rawValue % ring else {
            throw RemoteMemoryError(.access, "a WRITE at \(offset) does not follow LSN \(stored)")
        }
        let end = stored + UInt64(bytes.count)
        guard end <= head + ring else {
            throw RemoteMemoryError(.access, "a WRITE at LSN \(stored) would overwrite records that are not trimmed")
        }
        try refuse(bytes, at: stored, where: kept)
        if end > region.head + ring { try persistHead() }
        region.store(bytes, at: stored)
        stored = end
        kept?.didStore(upTo: end)
        if let kept, end >= kept.end { self.kept = nil }
    }

    /// Throws if `bytes` would replace one of `records`.
    private func refuse(
        _ bytes: UnsafeRawBufferPointer, at lsn: LSN, where records: KeptRecords?
    ) throws(RemoteMemoryError) {
        guard let conflict = records?.conflict(with: bytes, at: lsn) else { return }
        onConflict?(conflict)
        throw RemoteMemoryError(.access, "a WRITE at LSN \(lsn) would replace the good record at LSN \(conflict)")
    }

    private func store(_ bytes: UnsafeRawBufferPointer, as repair: Repair) throws(RemoteMemoryError) {
        let next = repair.left.lowerBound + UInt64(bytes.count)
        try refuse(bytes, at: repair.left.lowerBound, where: repair.present)
        region.store(bytes, at: repair.left.lowerBound)
        var rest = repair
        rest.left = next..<repair.left.upperBound
        rest.present.didStore(upTo: next)
        repairing = rest.left.isEmpty ? nil : rest
    }

    /// Without it a WRITE below what is stored is an error: it would come from an owner that is a lap ahead of its mirror.
    func expectRepair(of range: Range<LSN>) {
        let isHere = range.lowerBound >= head && range.upperBound <= stored
        let isAligned = range.lowerBound.rawValue % LSN.alignment == 0 && range.upperBound.rawValue % LSN.alignment == 0
        repairing =
            isHere && isAligned
            ? KeptRecords(region: region, in: range).map { Repair(left: range, present: $0) } : nil
    }

    package func atomicWrite(_ value: UInt64, at offset: UInt64) throws(RemoteMemoryError) {
        let head = LSN(value)
        guard offset == region.ringBytes, head.isPlaceOfRecord, head >= self.head else {
            throw RemoteMemoryError(.access, "an ATOMIC WRITE of \(value) at \(offset) is not a head update")
        }
        self.head = head
        headToPersist = head
        if head > stored {
            // What is stored next lies behind a gap. Were it durable before the head, a crash would leave promised records
            // behind a hole, which is corruption (S5). Once in a catch-up.
            try persistHead()
            stored = head
            kept?.skip(to: head)
        }
        if let repair = repairing, repair.left.lowerBound < head { repairing = nil }
    }

    /// At once; in msync mode it waits for the disk.
    private func persistHead() throws(RemoteMemoryError) {
        do throws(PoolError) {
            try region.advanceHead(to: head)
        } catch {
            throw RemoteMemoryError(.remoteOperation, error.description)
        }
        headToPersist = nil
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError) {
        let ring = region.ringBytes
        guard offset < ring, UInt64(buffer.count) <= ring - offset else {
            throw RemoteMemoryError(.access, "a READ of \(buffer.count) bytes at \(offset) is not inside of the ring")
        }
        region.readRing(from: LSN(offset), into: buffer)
    }

    package func persist(_ done: @escaping (RemoteMemoryError?) -> Void) {
        let reached = stored
        let head = headToPersist
        headToPersist = nil
        guard region.persistence == .msync else {
            return finish(Self.persist(region, head: head), reached, done)
        }
        let region = region
        runtime.run(.memory) {
            Self.persist(region, head: head)
        } _: { outcome in
            switch outcome {
            case .success(let failure): self.finish(failure, reached, done)
            case .failure(let error): self.finish("\(error)", reached, done)
            }
        }
    }

    private func finish(_ failure: String?, _ reached: LSN, _ done: (RemoteMemoryError?) -> Void) {
        persistFailure = persistFailure ?? failure
        if let persistFailure { return done(RemoteMemoryError(.remoteOperation, persistFailure)) }
        durable = max(durable, reached)
        done(nil)
        onProgress?()
    }

    /// `nil`, or what failed.
    private static func persist(_ region: Region, head: LSN?) -> String? {
        do {
            try region.drain()
            if let head { try region.advanceHead(to: head) }
            // What met failed memory is not in the file (S11, S26).
            return region.memoryFault?.description
        } catch {
            return "\(error)"
        }
    }
}
