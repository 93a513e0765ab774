// Raw looks at media, a shell, and a flag between threads.

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

/// What a shell command prints; `nil` if it fails.
func shell(_ command: String) -> String? {
    guard let pipe = popen(command + " 2>/dev/null", "r") else { return nil }
    var line = [CChar](repeating: 0, count: 256)
    let isLine = fgets(&line, 256, pipe) != nil
    guard pclose(pipe) == 0 else { return nil }
    return isLine
        ? String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map(UInt8.init(bitPattern:)), as: UTF8.self) : ""
}

final class Flag: Sendable {
    private let value = Mutex(false)
    var isSet: Bool { value.withLock { $0 } }
    func set() { value.withLock { $0 = true } }
}
