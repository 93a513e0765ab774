// A file that its volume has outgrown is made longer; one that something was cut off is not.

import Glibc
import LogModel
import StorageMedium
import TestSupport
import Testing

struct MediumGrowthTests {
    let folder: Folder
    let path: String

    init() throws {
        folder = try Folder(in: "/tmp")
        path = folder.file("vol0")
    }

    private func open(_ bytes: UInt64) throws -> FileMedium {
        try FileMedium.open(path: path, sizeBytes: bytes, createIfMissing: true)
    }

    private func admit(_ bytes: UInt64) throws {
        let medium = try open(bytes)
        try medium.lock()
        _ = try medium.admit(MediumExpectation(volume: "vol0", identity: nil))
    }

    private func refused(_ bytes: UInt64) throws -> Bool {
        let error = try #require(throws: MediumError.self) { try open(bytes) }
        return error.code == .wrongSize
    }

    @Test(
        "a file that is shorter than its volume serves what it has, until it is made longer, which reads as zeros and lasts"
    )
    func grows() throws {
        try open(8192).write([[UInt8](repeating: 7, count: 8192)], at: 0)
        let medium = try open(16384)
        #expect(medium.sizeBytes == 8192)
        #expect(throws: MediumError.self) { try medium.bytes(at: 8192, count: 1) }
        try medium.grow(to: 12288)
        try medium.grow(to: 8192)
        #expect(medium.sizeBytes == 12288)
        try medium.write([[UInt8](repeating: 9, count: 1)], at: 12287)
        #expect(try medium.bytes(at: 8191, count: 4097) == [7] + [UInt8](repeating: 0, count: 4095) + [9])

        let again = try open(16384)
        #expect(again.sizeBytes == 12288)
        try again.grow(to: 16384)
        #expect(try open(16384).sizeBytes == 16384)
    }

    @Test("S18: a file that something was cut off is refused, whatever its volume has, and so is one that is longer")
    func cut() throws {
        try admit(8192)
        try #require(truncate(path, 4096) == 0)
        #expect(try refused(8192) && refused(16384))
        try #require(truncate(path, 8192) == 0)
        #expect(try open(8192).sizeBytes == 8192)
        try #require(truncate(path, 32768) == 0)
        #expect(try refused(16384))
    }

    @Test("a crash after the file was made longer and before that was noted leaves a file that is taken")
    func crashedWhileGrowing() throws {
        try admit(8192)
        try #require(truncate(path, 12288) == 0)
        #expect(try open(16384).sizeBytes == 12288)
        try admit(12288)
        #expect(shell("getfattr --only-values -n \(FileMedium.sizeAttribute) \(path)") ?? "12288" == "12288")
    }

    @Test("S18: a file whose size was never noted is as long as its volume, or refused")
    func unknownSize() throws {
        try put(String(repeating: "x", count: 8192), into: path)
        #expect(try refused(16384))
        try admit(8192)
        #expect(try open(16384).sizeBytes == 8192)
    }
}
