// What becomes of an open pool at rest: its name may be taken away or given to another file, and its head may be overwritten. Neither
// touches what is mapped, and both would be found at the next start, when it is too late.

import Glibc
import LogModel
import Synchronization

extension Pool {
    /// Why the pool could not be opened again under its path; `nil` if it could, as far as its name tells, or if that cannot be seen now.
    /// Blocks.
    public func nameProblem() -> String? {
        var mine = stat()
        guard state.withLock({ fstat($0.raw, &mine) }) == 0 else { return nil }
        var named = stat()
        if stat(path, &named) == 0 {
            guard named.st_dev != mine.st_dev || named.st_ino != mine.st_ino else { return nil }
            return
                "\(path) is another file now; the pool in use \(mine.st_nlink == 0 ? "was removed" : "has another name")"
        }
        guard errno == ENOENT || errno == ENOTDIR else { return nil }
        return mine.st_nlink == 0
            ? "\(path) was removed: the pool has no name any more"
            : "\(path) is gone: the pool was renamed"
    }

    /// Compares superblocks, directory and the slots of every region with what memory knows of them, and writes anew what differs, durably.
    /// Answers where, in bytes of the file. What has failed is left alone: stores do not reach it (S26). Blocks.
    public func restoreHead() throws(PoolError) -> [UInt64] {
        precondition(!isReadOnly)
        let (head, regions) = try state.withLock { state throws(PoolError) -> ([UInt64], [Region]) in
            // A closed pool may have another writer.
            guard state.raw >= 0 else { return ([], []) }
            let pages =
                PoolFormat.superblockOffsets.map { ($0, superblock.encoded()) }
                + PoolFormat.directoryOffsets.map { ($0, state.directory.encoded()) }
            return (try mapping.restore(pages), state.regions)
        }
        var restored = head
        for region in regions { restored += try region.restoreSlots() }
        return restored
    }
}

extension Mapping {
    /// Stores each block that is not what stands in its place, and answers where.
    func restore(_ wanted: [(offset: UInt64, block: ByteBlock)]) throws(PoolError) -> [UInt64] {
        var restored: [UInt64] = []
        for (offset, block) in wanted where !holds(block, at: offset) {
            guard faults(in: offset..<offset + UInt64(block.bytes.count)).isEmpty else { continue }
            try store(block, at: offset)
            restored.append(offset)
        }
        return restored
    }
}

extension Region {
    /// As ``Pool/restoreHead()``, of this region's slots. Of the two heads the older one is what a crash falls back on: it is not known here.
    func restoreSlots() throws(PoolError) -> [UInt64] {
        try withSlots { (slots) throws(PoolError) in try mapping.restore(slots) }
    }
}
