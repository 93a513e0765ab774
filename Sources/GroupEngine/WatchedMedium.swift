// A medium that tells which call a batch is in, so that one that does not return is seen from the event loop.

internal import LogModel
internal import StorageMedium
internal import Synchronization

/// The calls of one owner's batches, one at a time. Thread-safe.
final class MediumCalls: Sendable {
    struct Call: Sendable {
        var number: UInt64
        var path: String
        var what: StaticString
        var text: String { "\(path): a \(what)" }
    }

    private let state = Mutex<(count: UInt64, call: Call?)>((0, nil))

    /// The one that has not returned.
    var current: Call? { state.withLock { $0.call } }

    func during<Failure>(
        _ what: StaticString, of path: String, _ body: () throws(Failure) -> Void
    ) throws(Failure) {
        state.withLock {
            $0.count += 1
            $0.call = Call(number: $0.count, path: path, what: what)
        }
        defer { state.withLock { $0.call = nil } }
        try body()
    }
}

struct WatchedMedium: Medium {
    /// What is zeroed in one call: 6 s of a disk that is written to with 10 MiB/s because it cannot zero by itself. A discard
    /// of 4 GiB would look like a call that does not return.
    private static let zeroBytes: UInt64 = 64 << 20

    private let base: any Medium
    private let path: String
    private let calls: MediumCalls

    init(_ base: any Medium, path: String, calls: MediumCalls) {
        self.base = base
        self.path = path
        self.calls = calls
    }

    var sizeBytes: UInt64 { base.sizeBytes }

    /// Batches read nothing.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        try base.read(into: buffer, at: offset)
    }

    func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool {
        try base.readNow(into: buffer, at: offset)
    }

    func extents(of range: ByteRange, limit: Int) throws(MediumError) -> [MediumExtent] {
        try base.extents(of: range, limit: limit)
    }

    func prefetch(_ range: ByteRange) throws(MediumError) { try base.prefetch(range) }

    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        try calls.during("write", of: path) { () throws(MediumError) in try base.write(buffers, at: offset) }
    }

    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        var offset = range.offset
        repeat {
            let piece = ByteRange(offset: offset, length: min(range.end - offset, Self.zeroBytes))
            try calls.during("discard", of: path) { () throws(MediumError) in
                try base.zero(piece, releasingSpace: releasingSpace)
            }
            offset = piece.end
        } while offset < range.end
    }

    /// Waits where the device's queue is full.
    func startWriteback(_ range: ByteRange) {
        calls.during("write-back", of: path) { base.startWriteback(range) }
    }

    func flush() throws(MediumError) {
        try calls.during("flush", of: path) { () throws(MediumError) in try base.flush() }
    }
}
