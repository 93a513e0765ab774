// Folders of their own, raw looks at files, and waiting for a condition.

import Glibc
import LogModel
import StorageMedium
import Synchronization
import Testing

/// Removed with everything in it when it goes.
final class Folder: Sendable {
    let path: String

    init(in parent: String = "/tmp") throws {
        path = "\(parent)/twinlog-medium-\(UUID128.random())"
        try #require(mkdir(path, 0o700) == 0)
    }

    deinit {
        for name in names { unlink(file(name)) }
        rmdir(path)
    }

    var names: [String] {
        guard let folder = opendir(path) else { return [] }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }
}

/// What the file holds, past every library under test.
func contents(of path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    var about = stat()
    try #require(fstat(fileno(file), &about) == 0)
    var bytes = [UInt8](repeating: 0, count: Int(about.st_size))
    let count = bytes.count
    let got = bytes.withUnsafeMutableBytes { fread($0.baseAddress, 1, count, file) }
    try #require(got == count)
    return bytes
}

func put(_ text: String, into path: String) throws {
    let file = try #require(fopen(path, "w"))
    defer { fclose(file) }
    try #require(fputs(text, file) >= 0)
}

/// Waits until `condition` holds; false after `seconds`. It suspends instead of blocking: the test runner's threads are few.
func eventually(seconds: Int = 30, _ condition: () throws -> Bool) async throws -> Bool {
    for _ in 0..<seconds * 500 {
        if try condition() { return true }
        try await Task.sleep(for: .milliseconds(2))
    }
    return try condition()
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }
}

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
