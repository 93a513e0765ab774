// Making an archive: under a temporary name until all of it is durable, so that a crash leaves a whole archive or none.

import Glibc
public import LogModel

extension Region {
    /// Writes this log's bytes of `[head, end)` to a new archive at `path`, with `access`, in the place of one that is there. What is
    /// zero takes no space. Durable when it returns, and so is its name; when it throws, nothing was left behind. Blocks.
    /// Throws `noSpace` or `system`. Preconditions: formatted; `end` is at most a ring's size above the head.
    public func archive(
        to path: String, of pool: PoolIdentity, upTo end: LSN, archivedAt seconds: UInt64,
        access: FileAccess = .ownerOnly
    ) throws(PoolError) {
        guard let identity else { preconditionFailure("the region was never formatted") }
        precondition(end >= head && end - head <= ringBytes)
        let header = ArchiveHeader(self, identity, of: pool, archivedAt: seconds)
        let temporary = path + ".new"
        let descriptor = try Descriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)
        do throws(PoolError) {
            let file = SparseFile(descriptor: descriptor, path: path)
            try file.descriptor.give(access, path: path)
            try file.resize(to: header.fileBytes)
            try file.write(header.encoded(), at: 0)
            try file.write(encodedSlots(), at: ArchiveHeader.regionOffset)
            try writeRing(upTo: end, to: file)
            try file.descriptor.sync(path: path)
            guard rename(temporary, path) == 0 else { throw .system(path, "rename") }
        } catch {
            unlink(temporary)
            throw error
        }
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        try Descriptor.open(folder, O_RDONLY | O_DIRECTORY).sync(path: folder)
    }

    private func writeRing(upTo end: LSN, to file: borrowing SparseFile) throws(PoolError) {
        let ring = ArchiveHeader.regionOffset + RegionFormat.headerBytes
        var position = head
        try withRingBytes(from: head, count: end - head) { (piece) throws(PoolError) in
            try file.write(piece, at: ring + position.rawValue % ringBytes)
            position = position + UInt64(piece.count)
        }
    }
}

/// A file in which zeros take no space.
private struct SparseFile: ~Copyable {
    let descriptor: Descriptor
    let path: String
    /// What is written, or left out, at once.
    private static let stepBytes = 4096

    func resize(to bytes: UInt64) throws(PoolError) {
        guard ftruncate(descriptor.raw, off_t(bytes)) == 0 else { throw .system(path, "truncate") }
    }

    func write(_ block: ByteBlock, at offset: UInt64) throws(PoolError) {
        let failure: PoolError? = block.bytes.withUnsafeBytes { bytes in
            do throws(PoolError) {
                try write(bytes, at: offset)
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }

    /// Precondition: what is there is zero.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(PoolError) {
        var start = 0
        while start < bytes.count {
            let isZero = isZero(bytes, start)
            var end = start
            while end < bytes.count, self.isZero(bytes, end) == isZero { end = min(end + Self.stepBytes, bytes.count) }
            if !isZero { try writeAll(bytes, start..<end, at: offset) }
            start = end
        }
    }

    private func isZero(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Bool {
        bytes[start] == 0
            && memcmp(
                bytes.baseAddress! + start, bytes.baseAddress! + start + 1,
                min(Self.stepBytes, bytes.count - start) - 1) == 0
    }

    private func writeAll(
        _ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, at offset: UInt64
    ) throws(PoolError) {
        var done = range.lowerBound
        while done < range.upperBound {
            let count = pwrite(
                descriptor.raw, bytes.baseAddress! + done, range.upperBound - done, off_t(offset) + off_t(done))
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw .system(path, "write", count == 0 ? EIO : errno) }
            done += count
        }
    }
}
