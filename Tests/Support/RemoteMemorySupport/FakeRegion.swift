// Memory that tells stored from durable, and persists when the test lets it (S11).

package import RemoteMemory

/// Bound to the event loop of the queue pairs that reach it.
package final class FakeRegion: RegionTarget {
    package var bytes: [UInt8]
    package private(set) var durable: [UInt8]
    package private(set) var readCount = 0
    package var holdsPersists = false
    package var persistError: RemoteMemoryError?
    /// Persists that have begun and not ended.
    package private(set) var held: [() -> Void] = []
    /// Called with the bytes that all WRITEs have stored, after each of them.
    package var onWritten: (Int) -> Void = { _ in }
    private var writtenBytes = 0

    package init(_ count: Int) {
        bytes = [UInt8](repeating: 0, count: count)
        durable = bytes
    }

    package func write(_ source: UnsafeRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError) {
        bytes.replaceSubrange(Int(offset)..<Int(offset) + source.count, with: source)
        writtenBytes += source.count
        onWritten(writtenBytes)
    }

    package func atomicWrite(_ value: UInt64, at offset: UInt64) throws(RemoteMemoryError) {
        for index in 0..<8 { bytes[Int(offset) + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(RemoteMemoryError) {
        readCount += 1
        buffer.copyBytes(from: bytes[Int(offset)..<Int(offset) + buffer.count])
    }

    /// What is durable afterwards is what was stored when it began.
    package func persist(_ done: @escaping (RemoteMemoryError?) -> Void) {
        let image = bytes
        let finish = { [self] in
            if persistError == nil { durable = image }
            done(persistError)
        }
        if holdsPersists { held.append(finish) } else { finish() }
    }

    package func finishPersists() {
        holdsPersists = false
        let finishing = held
        held = []
        for finish in finishing { finish() }
    }
}
