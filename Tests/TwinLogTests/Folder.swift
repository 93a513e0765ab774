// A folder of a test, on the memory file system or on disk.

import Foundation
import TestSupport
import Testing
import TwinLog

/// Where pools are volatile, and where they are made durable by `msync`.
enum Place: String, CaseIterable, CustomTestStringConvertible {
    case memory = "/dev/shm"
    case disk = "/var/tmp"
    var testDescription: String { rawValue }
}

func withFolder(on place: Place = .memory, _ body: (String) async throws -> Void) async throws {
    let folder = try Folder(in: place.rawValue)
    try await body(folder.path)
    // A process watches only so many mappings for memory that fails.
    let isGone = try await eventually {
        try !String(contentsOfFile: "/proc/self/maps", encoding: .utf8).contains(folder.path)
    }
    #expect(isGone, "what is closed is still mapped")
    withExtendedLifetime(folder) {}
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Every record of a sequence, as text.
func texts(_ records: some AsyncSequence<LogRecord, TwinLogError>) async throws -> [String] {
    var found: [String] = []
    for try await record in records { found.append(String(decoding: record.bytes, as: UTF8.self)) }
    return found
}

/// What `body` must throw.
func code(of body: () async throws(TwinLogError) -> Void) async -> TwinLogError.Code? {
    do throws(TwinLogError) {
        try await body()
        return nil
    } catch {
        return error.code
    }
}

/// Changes a byte of a record in its first lap, in the pool's file: behind the pool's head and the region's.
func damage(_ path: String, at position: LogPosition, offset: Int) throws {
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    try file.seek(toOffset: (16 << 10) + (8 << 10) + position.rawValue + UInt64(offset))
    try file.write(contentsOf: [0x55])
    try file.close()
}
