// Places and limits of the pool file: see docs/FORMATS.md, "The pool file".

import LogModel

enum PoolFormat {
    static let version: UInt32 = 1
    static let pageBytes = 4096
    static let superblockOffsets: [UInt64] = [0, 4096]
    static let directoryOffsets: [UInt64] = [8192, 12288]
    static let firstRegionOffset: UInt64 = 16384
    static let maximumRegions = PoolLimits.maximumLogs
    /// The format's own bound; the configuration asks for more.
    static let minimumRingBytes: UInt64 = 64 * 1024
    /// Of superblocks, directories and slots: nobody counts so far. What is read may have it; what follows it is not written (S21).
    static let maximumSequence: UInt64 = 1 << 62
    /// A file offset is signed; this leaves room for every sum of two sizes.
    static let maximumPoolBytes: UInt64 = 1 << 62
}
