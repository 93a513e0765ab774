// The mirror log's side of a session: the region that an owner writes with one-sided verbs. Offsets 0 ..< ring bytes are
// the ring; the word right behind it is the head, written by ATOMIC WRITE. Lives on the node's event loop.
//
// Keeps S11: a completion is answered only after the drain. What is stored over a trimmed place, or behind a gap, is
// stored only when the head that allows it is durable.

internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import RemoteMemory

final class MirrorTarget: RegionTarget {
    let region: Region
    private let eventLoop: any EventLoop
    private let threads: NIOThreadPool
    /// Everything below was stored by the owner, in order.
    private var stored: LSN
    /// Everything below is durable here.
    private(set) var durable: LSN
    private var head: LSN
    private var headToPersist: LSN?
    /// Nothing is durable here any more: what one `msync` could not write, the next would not say (S11).
    private var persistFailure: String?
    /// What the owner has announced to store anew, because it is damaged here.
    private var repairing: Range<LSN>?
    /// Told when `durable` moves.
    var onProgress: (() -> Void)?

    /// `durable` is where the owner begins to ship.
    init(region: Region, durable: LSN, head: LSN, eventLoop: any EventLoop, threads: NIOThreadPool) {
        self.region = region
        stored = durable
        self.durable = durable
        self.head = head
        self.eventLoop = eventLoop
        self.threads = threads
    }

    static func lengthBytes(ring: UInt64) -> UInt64 { ring + 8 }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError) {
        let ring = region.ringBytes
        guard offset < ring, UInt64(bytes.count) <= ring - offset, offset % LSN.alignment == 0 else {
            throw RemoteMemoryError(.access, "a WRITE of \(bytes.count) bytes at \(offset) is not inside of the ring")
        }
        if let repair = repairing, offset == repair.lowerBound.rawValue % ring,
            UInt64(bytes.count) <= repair.upperBound - repair.lowerBound
        {
            region.store(bytes, at: repair.lowerBound)
            let next = repair.lowerBound + UInt64(bytes.count)
            repairing = next < repair.upperBound ? next..<repair.upperBound : nil
            return
        }
        // The owner ships in order; a gap is announced by a head.
        guard offset == stored.rawValue % ring else {
            throw RemoteMemoryError(.access, "a WRITE at \(offset) does not follow LSN \(stored)")
        }
        let end = stored + UInt64(bytes.count)
        guard end <= head + ring else {
            throw RemoteMemoryError(.access, "a WRITE at LSN \(stored) would overwrite records that are not trimmed")
        }
        if end > region.head + ring { try persistHead() }
        region.store(bytes, at: stored)
        stored = end
    }

    /// Without it a WRITE below what is stored is an error: it would come from an owner that is a lap ahead of its mirror.
    func expectRepair(of range: Range<LSN>) {
        let isHere = range.lowerBound >= head && range.upperBound <= stored
        let isAligned = range.lowerBound.rawValue % LSN.alignment == 0 && range.upperBound.rawValue % LSN.alignment == 0
        repairing = isHere && isAligned ? range : nil
    }

    func atomicWrite(_ value: UInt64, at offset: UInt64) throws(RemoteMemoryError) {
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
        }
        if let repair = repairing, repair.lowerBound < head { repairing = nil }
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

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError) {
        let ring = region.ringBytes
        guard offset < ring, UInt64(buffer.count) <= ring - offset else {
            throw RemoteMemoryError(.access, "a READ of \(buffer.count) bytes at \(offset) is not inside of the ring")
        }
        region.readRing(from: LSN(offset), into: buffer)
    }

    func persist(_ done: @escaping (RemoteMemoryError?) -> Void) {
        let reached = stored
        let head = headToPersist
        headToPersist = nil
        guard region.persistence == .msync else {
            return finish(Self.persist(region, head: head), reached, done)
        }
        let region = region
        let result = threads.runIfActive(eventLoop: eventLoop) { Self.persist(region, head: head) }
        result.assumeIsolated().whenComplete { outcome in
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
