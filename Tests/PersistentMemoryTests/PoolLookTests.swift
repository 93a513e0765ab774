// A pool that is looked at without being opened.

import Glibc
import LogModel
import TestSupport
import Testing

@testable import PersistentMemory

struct PoolLookTests {
    private let folder: Folder
    private var path: String { folder.file("pool") }
    init() throws { folder = try Folder(in: memoryFolder) }

    private func look(_ node: String = "alpha") throws -> PoolContents? {
        try Pool.look(path: path, expecting: ("demo", NodeID(node)), persistence: .auto)
    }

    @Test("O18: a look tells size and logs, while the pool is open, and changes nothing")
    func contents() throws {
        #expect(try look() == nil)
        #expect(folder.names == [])
        let pool = try makePool(path)
        _ = try pool.allocateRegion(group: GroupID("g0"), ringBytes: mebibyte)
        let before = try TestSupport.contents(of: path)
        let found = try #require(try look())
        #expect(found.sizeBytes == 2 * mebibyte && found.logs == [GroupID("g0"): mebibyte])
        #expect(try TestSupport.contents(of: path) == before)
        #expect(throws: PoolError.self) { try look("beta") }
        pool.close()
    }

    @Test(
        "O18: another size than the configuration's is told with both, and what to do", arguments: [1, 4] as [UInt64])
    func size(_ mebibytes: UInt64) throws {
        try makePool(path).close()
        let found = try #require(try look())
        #expect(found.sizeProblem(2 * mebibyte) == nil)
        let problem = try #require(found.sizeProblem(mebibytes * mebibyte))
        #expect(problem.description.contains("\(path): is a pool of 2MiB, the configuration says \(mebibytes)MiB"))
        #expect(problem.message.contains("correct `size`") && problem.message.contains("move the file away"))
    }

    @Test("a log that has another size, or no room, is told before the pool is opened")
    func logs() throws {
        let pool = try makePool(path)
        _ = try pool.allocateRegion(group: GroupID("g0"), ringBytes: mebibyte)
        pool.close()
        let found = try #require(try look())
        #expect(found.logProblem(GroupID("g0"), mebibyte) == nil)
        #expect(found.logProblem(GroupID("g0"), 2 * mebibyte)?.message.contains("size cannot be changed") == true)
        // What is left of 2 MiB: less two regions' slots and 16 KiB.
        let room = mebibyte - 2 * RegionFormat.headerBytes - PoolFormat.firstRegionOffset
        #expect(found.logProblem(GroupID("g1"), room) == nil)
        #expect(found.logProblem(GroupID("g1"), room + 4096)?.code == .noSpace)
    }

    @Test("O18: a symbolic link that leads nowhere is said to be one, and not written through")
    func danglingLink() throws {
        try #require(symlink("nowhere/pool", path) == 0)
        let error = try #require(throws: PoolError.self) { try look() }
        #expect(error.message.contains("is a symbolic link to nowhere/pool, where nothing is"))
        #expect(folder.names == ["pool"])
    }
}
