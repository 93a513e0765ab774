// Where crash states are put: a pool's file on the memory file system, mapped once and edited in place, so that the
// production code can open what a crash left by its name.

import CLogCore
import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing

/// What passes the persistence seam, in order.
// @unchecked: a tl_recorder is safe from any thread.
final class Recording: @unchecked Sendable {
    let recorder: OpaquePointer

    init() throws { recorder = try #require(tl_recorder_create()) }
    deinit { tl_recorder_destroy(recorder) }

    var count: Int { tl_recorder_count(recorder) }
    subscript(index: Int) -> tl_operation { tl_recorder_operation(recorder, index) }
    func mark(_ number: Int) { tl_recorder_mark(recorder, UInt64(number)) }

    var isEmpty: Bool { count == 0 }
}

/// The bytes of a file of its own, shared with whoever opens it.
final class CrashMemory {
    let path: String
    let length: Int
    let base: UnsafeMutablePointer<UInt8>

    init(_ path: String, image: [UInt8]) throws {
        self.path = path
        length = image.count
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        try #require(posix_fallocate(descriptor, 0, off_t(image.count)) == 0)
        let mapped = mmap(nil, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        try #require(mapped != MAP_FAILED)
        base = try #require(mapped).assumingMemoryBound(to: UInt8.self)
        put(image)
    }

    deinit { munmap(base, length) }

    func put(_ image: [UInt8]) {
        image.withUnsafeBytes { _ = memcpy(base, $0.baseAddress!, length) }
    }

    func put(_ other: CrashMemory) { memcpy(base, other.base, length) }

    var contents: [UInt8] { Array(UnsafeBufferPointer(start: base, count: length)) }
}

func contents(of path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path))) }
