// Folders of their own, raw looks at files, and waiting for a condition.

import Glibc
import LogModel
import StorageMedium
import Synchronization
import Testing

extension Medium {
    func write(_ parts: [[UInt8]], at offset: UInt64) throws {
        let copies = parts.map { part in
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: part.count, alignment: 8)
            copy.copyBytes(from: part)
            return copy
        }
        defer { copies.forEach { $0.deallocate() } }
        try write(copies.map { UnsafeRawBufferPointer($0) }, at: offset)
    }

    func bytes(at offset: UInt64, count: Int) throws -> [UInt8] {
        let space = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
        defer { space.deallocate() }
        try read(into: space, at: offset)
        return Array(space)
    }
}

final class Flag: Sendable {
    private let value = Mutex(false)
    var isSet: Bool { value.withLock { $0 } }
    func set() { value.withLock { $0 = true } }
}
