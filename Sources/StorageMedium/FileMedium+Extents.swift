// What of a file is holes, and reading ahead.

internal import Glibc
public import LogModel

/// Linux's, which Glibc shows to GNU sources only.
private let SEEK_DATA: CInt = 3
private let SEEK_HOLE: CInt = 4

extension FileMedium {
    /// A device, or a file system that knows no holes, is one extent.
    public func extents(of range: ByteRange, limit: Int) throws(MediumError) -> [MediumExtent] {
        try check(range.offset, range.length)
        try checkSize()
        guard !isBlockDevice else { return [MediumExtent(range: range, isHole: false)] }
        var extents: [MediumExtent] = []
        var offset = range.offset
        while offset < range.end, extents.count < limit {
            let data = try next(SEEK_DATA, from: offset) ?? range.end
            let isHole = data > offset
            let end = isHole ? data : try next(SEEK_HOLE, from: offset) ?? range.end
            let piece = ByteRange(offset: offset, length: min(end, range.end) - offset)
            extents.append(MediumExtent(range: piece, isHole: isHole))
            offset = piece.end
        }
        return extents
    }

    /// The next data or hole at or behind `offset`; `nil` if there is none.
    private func next(_ kind: CInt, from offset: UInt64) throws(MediumError) -> UInt64? {
        let found = lseek(descriptor, off_t(offset), kind)
        guard found < 0 else { return UInt64(found) }
        guard errno == ENXIO else { throw Self.failure(.read, path, "holes cannot be looked for", errno) }
        return nil
    }

    public func prefetch(_ range: ByteRange) throws(MediumError) {
        try check(range.offset, range.length)
        let result = posix_fadvise(descriptor, off_t(range.offset), off_t(range.length), POSIX_FADV_WILLNEED)
        guard result == 0 else { throw Self.failure(.read, path, "cannot be read ahead", result) }
    }
}
