// Reads that wait for no device: what is in memory is read, anything else is left to a read that may wait.

import Glibc
import LogModel
import StorageMedium
import TestSupport
import Testing

private func fileSystem(of path: String) -> String? { shell("stat --file-system --format=%T \(path)") }

/// ext4 (which has the number of its predecessors) and xfs say what is cached; others are not asked.
private let tellsWhatIsCached = ["ext2/ext3", "xfs"].contains(fileSystem(of: "/tmp"))

struct ReadNowTests {
    private let sizeBytes: UInt64 = 64 * 1024

    private func medium(in folder: Folder) throws -> FileMedium {
        let medium = try FileMedium.open(path: folder.file("m"), sizeBytes: sizeBytes, createIfMissing: true)
        try medium.write([[UInt8](repeating: 7, count: Int(sizeBytes))], at: 0)
        try medium.flush()
        return medium
    }

    /// `nil` where it would wait.
    private func now(_ medium: FileMedium, _ offset: UInt64, _ count: Int) throws -> [UInt8]? {
        let space = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
        defer { space.deallocate() }
        return try medium.readNow(into: space, at: offset) ? Array(space) : nil
    }

    private func readsNow(_ medium: FileMedium, _ offset: UInt64, _ count: Int) throws(MediumError) -> Bool {
        let space = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
        defer { space.deallocate() }
        return try medium.readNow(into: space, at: offset)
    }

    private func dropCache(of path: String) throws {
        let descriptor = open(path, O_RDONLY)
        defer { close(descriptor) }
        try #require(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0)
    }

    @Test("A file in memory is read at once")
    func inMemory() throws {
        try #require(fileSystem(of: "/dev/shm") == "tmpfs")
        let folder = try Folder(in: "/dev/shm")
        let medium = try medium(in: folder)
        #expect(try now(medium, 100, 5) == [7, 7, 7, 7, 7])
    }

    @Test(
        "A file on a disk is read at once if all of the range is cached",
        .enabled(if: tellsWhatIsCached, "/tmp is neither ext4 nor xfs"))
    func onADisk() throws {
        let folder = try Folder(in: "/tmp")
        let medium = try medium(in: folder)
        let whole = [UInt8](repeating: 7, count: Int(sizeBytes))
        #expect(try now(medium, 0, whole.count) == whole)
        // Reading it may be begun by that: it is asked for once.
        try dropCache(of: folder.file("m"))
        #expect(try now(medium, 0, whole.count) == nil)
        #expect(try medium.bytes(at: 0, count: whole.count) == whole)
        #expect(try now(medium, 0, whole.count) == whole)
    }

    @Test("No time of access is kept, which would wait for the journal")
    func leavesNoTime() throws {
        let folder = try Folder(in: "/tmp")
        let medium = try medium(in: folder)
        func accessed() throws -> timespec {
            var about = stat()
            try #require(stat(folder.file("m"), &about) == 0)
            return about.st_atim
        }
        let before = try accessed()
        _ = try now(medium, 0, 100)
        let after = try accessed()
        #expect(before.tv_sec == after.tv_sec && before.tv_nsec == after.tv_nsec)
    }

    @Test(
        "a read outside of the medium, and one of a file that was cut, give no bytes", arguments: ["/tmp", "/dev/shm"])
    func errors(in parent: String) throws {
        let folder = try Folder(in: parent)
        let medium = try medium(in: folder)
        let outside = #expect(throws: MediumError.self) { try now(medium, sizeBytes - 1, 2) }
        #expect(outside?.code == .outOfRange)
        try #require(truncate(folder.file("m"), 4096) == 0)
        // Where it is asked at all, it says what is wrong; behind the end that is left to a read that may wait.
        do throws(MediumError) {
            let isRead = try readsNow(medium, 0, 4096)
            #expect(!isRead)
        } catch {
            #expect(error.code == .wrongSize)
        }
        #expect(try now(medium, 8192, 4096) == nil)
    }
}
