// An open pool whose name or head somebody takes away.

import Glibc
import LogModel
import TestSupport
import Testing

@testable import PersistentMemory

struct PoolWatchTests {
    private let folder: Folder
    private var path: String { folder.file("pool") }
    init() throws { folder = try Folder(in: memoryFolder) }

    @Test("O17: a name that is taken away, moved or given to another file is noticed, and so is its return")
    func names() throws {
        let pool = try makePool(path)
        #expect(pool.nameProblem() == nil)
        try #require(rename(path, folder.file("moved")) == 0)
        #expect(pool.nameProblem()?.contains("is gone: the pool was renamed") == true)
        try makePool(path).close()
        #expect(pool.nameProblem()?.contains("is another file now; the pool in use has another name") == true)
        try #require(rename(folder.file("moved"), path) == 0)
        #expect(pool.nameProblem() == nil)
        // A second name is no harm.
        try #require(link(path, folder.file("second")) == 0)
        #expect(pool.nameProblem() == nil)
        try #require(unlink(folder.file("second")) == 0 && unlink(path) == 0)
        #expect(pool.nameProblem()?.contains("was removed: the pool has no name any more") == true)
        pool.close()
        #expect(pool.nameProblem() == nil, "of a closed pool nothing is said")
    }

    @Test("O17: noise over superblocks, directory and slots is written over from memory, durably")
    func noise() throws {
        let pool = try makePool(path)
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
        try region.countStart()
        try region.format(role: .owner, logUUID: UUID128(high: 7, low: 7), incarnation: Incarnation(3), start: .zero)
        try region.setHead(LSN(4096), acknowledged: LSN(4096))
        #expect(try pool.restoreHead() == [])
        let before = try contents(of: path)
        let slots = RegionFormat.identityOffsets + RegionFormat.standingOffsets
        let places = PoolFormat.superblockOffsets + PoolFormat.directoryOffsets + slots.map { region.offset + $0 }
        for place in places { try write([UInt8](repeating: 0xA5, count: 64), to: path, at: Int(place)) }
        #expect(try Set(pool.restoreHead()) == Set(places))
        #expect(try contents(of: path) == before)
        // Both heads: the newer one comes back, the older one is not known any more.
        for place in RegionFormat.headOffsets {
            try write([UInt8](repeating: 0xA5, count: 64), to: path, at: Int(region.offset + place))
        }
        #expect(try pool.restoreHead().count == 1)
        #expect(try pool.restoreHead() == [])
        pool.close()
        let again = try Pool.open(path: path, expecting: ("demo", NodeID("alpha")), persistence: .auto)
        #expect(again.region(of: GroupID("g0"))?.head == LSN(4096))
        again.close()
    }

    @Test("S4: a head of an earlier beginning of the same incarnation is no noise")
    func earlierBeginning() throws {
        let pool = try makePool(path)
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
        for start in [LSN.zero, LSN(8192)] {
            try region.format(
                role: .mirror, logUUID: UUID128(high: 7, low: 7), incarnation: Incarnation(3), start: start)
            #expect(try pool.restoreHead() == [])
            try region.setHead(region.head + 4096, acknowledged: LSN(4096))
            #expect(try pool.restoreHead() == [])
        }
        pool.close()
    }

    @Test("O17: a pool that was closed is not written to, whatever becomes of it")
    func closed() throws {
        let pool = try makePool(path)
        pool.close()
        try write([UInt8](repeating: 0xA5, count: 64), to: path)
        let noisy = try contents(of: path)
        #expect(try pool.restoreHead() == [])
        #expect(try contents(of: path) == noisy)
    }
}
