// Bytes from and to anywhere on a unit of blocks. What does not begin or end with a block is read, changed and written back: the one writer
// of a medium is one thread at a time, and the bytes beside are written as they were.

/// Buffers one after another, or zeros.
public struct ByteGather {
    private enum Source {
        case buffers([UnsafeRawBufferPointer])
        case zeros
    }

    private let source: Source
    public let count: UInt64

    public init(_ buffers: [UnsafeRawBufferPointer]) {
        source = .buffers(buffers)
        count = buffers.reduce(0) { $0 + UInt64($1.count) }
    }

    public init(zeros count: UInt64) {
        source = .zeros
        self.count = count
    }

    /// The bytes from `start` on, as many as fit into `space`. Precondition: there are so many.
    func copy(from start: UInt64, into space: UnsafeMutableRawBufferPointer) {
        guard case .buffers(let buffers) = source else {
            space.initializeMemory(as: UInt8.self, repeating: 0)
            return
        }
        var skip = start
        var rest = space
        for buffer in buffers {
            guard !rest.isEmpty else { return }
            guard skip < buffer.count else {
                skip -= UInt64(buffer.count)
                continue
            }
            let piece = buffer.dropFirst(Int(skip)).prefix(rest.count)
            rest.copyMemory(from: UnsafeRawBufferPointer(rebasing: piece))
            rest = UnsafeMutableRawBufferPointer(rebasing: rest.dropFirst(piece.count))
            skip = 0
        }
        precondition(rest.isEmpty, "a gather has what is copied from it")
    }
}

extension LogicalUnit {
    /// Whole blocks around `count` bytes at `offset`, one transfer's at most; how many of the bytes are in them.
    private func piece(_ offset: UInt64, _ count: UInt64) -> (firstBlock: UInt64, skip: Int, taken: Int, bytes: Int) {
        let skip = offset % blockBytes
        let taken = min(count, UInt64(transferBytes) - skip)
        let blocks = (skip + taken + blockBytes - 1) / blockBytes
        return (offset / blockBytes, Int(skip), Int(taken), Int(blocks * blockBytes))
    }

    /// Precondition: the range is inside of the unit.
    public func readBytes(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SCSIError) {
        var done = 0
        while done < buffer.count {
            let piece = piece(offset + UInt64(done), UInt64(buffer.count - done))
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + piece.taken])
            if piece.bytes == piece.taken {
                try read(into: target, fromBlock: piece.firstBlock)
            } else {
                let space = UnsafeMutableRawBufferPointer.allocate(byteCount: piece.bytes, alignment: 64)
                defer { space.deallocate() }
                try read(into: space, fromBlock: piece.firstBlock)
                target.copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: space[piece.skip..<piece.skip + piece.taken]))
            }
            done += piece.taken
        }
    }

    /// Precondition: the range is inside of the unit.
    public func writeBytes(_ bytes: ByteGather, at offset: UInt64) throws(SCSIError) {
        let most = Int(min(UInt64(transferBytes), bytes.count + 2 * blockBytes))
        let space = UnsafeMutableRawBufferPointer.allocate(byteCount: most, alignment: 64)
        defer { space.deallocate() }
        var done: UInt64 = 0
        while done < bytes.count {
            let piece = piece(offset + done, bytes.count - done)
            let blocks = UnsafeMutableRawBufferPointer(rebasing: space[..<piece.bytes])
            try readEdges(of: blocks, piece.firstBlock, skip: piece.skip, taken: piece.taken)
            bytes.copy(
                from: done,
                into: UnsafeMutableRawBufferPointer(rebasing: blocks[piece.skip..<piece.skip + piece.taken]))
            try write(UnsafeRawBufferPointer(blocks), toBlock: piece.firstBlock)
            done += UInt64(piece.taken)
        }
    }

    /// The first and the last block as they are, where they are written in part.
    private func readEdges(
        of blocks: UnsafeMutableRawBufferPointer, _ firstBlock: UInt64, skip: Int, taken: Int
    ) throws(SCSIError) {
        let size = Int(blockBytes)
        if skip > 0 {
            try read(into: UnsafeMutableRawBufferPointer(rebasing: blocks[..<size]), fromBlock: firstBlock)
        }
        let last = blocks.count - size
        if skip + taken < blocks.count, skip == 0 || last > 0 {
            try read(
                into: UnsafeMutableRawBufferPointer(rebasing: blocks[last...]),
                fromBlock: firstBlock + UInt64(last / size))
        }
    }
}
