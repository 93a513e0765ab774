// Regions: incarnations, heads, the ring from the mirror's side.

import LogModel
import PersistentMemory
import TestSupport
import Testing

struct RegionTests {
    let folder: Folder
    let path: String
    let pool: Pool
    let region: Region
    let log = UUID128(high: 0xAB, low: 0xCD)

    init() throws {
        folder = try Folder(in: memoryFolder)
        path = folder.file("a.pool")
        pool = try makePool(path)
        region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
    }

    func reopened() throws -> Region {
        pool.close()
        let again = try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: true)
        defer { again.close() }
        return try #require(again.region(of: GroupID("g0")))
    }

    @Test func aHeadOfAnotherIncarnationDoesNotCount() throws {  // S4
        try region.format(role: .owner, logUUID: log, incarnation: Incarnation(1), start: .zero)
        for head in 1...5 { try region.setHead(LSN(UInt64(head) * 64), acknowledged: .zero) }
        try region.format(role: .mirror, logUUID: log, incarnation: Incarnation(2), start: LSN(128))
        #expect(region.head == LSN(128))
        let again = try reopened()
        #expect(again.head == LSN(128))
        #expect(again.identity?.role == .mirror)
        #expect(again.identity?.incarnation == Incarnation(2))
    }

    @Test func aMirrorThatComesBackInTheSameIncarnationStartsWhereItIsTold() throws {
        try region.format(role: .mirror, logUUID: log, incarnation: Incarnation(4), start: LSN(64))
        try region.setHead(LSN(640), acknowledged: LSN(640))
        try region.format(role: .mirror, logUUID: log, incarnation: Incarnation(4), start: LSN(6400))
        #expect(region.head == LSN(6400))
        try region.setHead(LSN(6464), acknowledged: LSN(6464))
        let again = try reopened()
        #expect(again.head == LSN(6464))
        #expect(again.acknowledged == LSN(6464))
    }

    @Test func nothingIsWrittenThatCouldNotBeReadBack() throws {  // S21
        let last = Incarnation(1 << 62)
        try region.format(role: .owner, logUUID: log, incarnation: last, start: .zero)
        let error = try #require(throws: PoolError.self) {
            try region.format(role: .owner, logUUID: log, incarnation: Incarnation((1 << 62) + 1), start: .zero)
        }
        #expect(error.code == .invalidValue && error.path == path)
        #expect(region.identity?.incarnation == last)
        #expect(try reopened().identity?.incarnation == last)
    }

    @Test func twoThreadsThatKnowAHeadEachAdvanceItToTheHigher() async throws {
        try region.format(role: .mirror, logUUID: log, incarnation: Incarnation(1), start: .zero)
        let region = region
        for round in 1...200 as ClosedRange<UInt64> {
            let heads = [LSN(round * 128 - 64), LSN(round * 128)]
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                for head in heads { tasks.addTask { try region.advanceHead(to: head) } }
                try await tasks.waitForAll()
            }
            #expect(region.head == heads[1] && region.acknowledged == heads[1])
            try region.advanceHead(to: heads[0])
            #expect(region.head == heads[1])
        }
        #expect(try reopened().head == LSN(200 * 128))
    }

    @Test func headsNeverGoBackAndStandOnUnits() throws {
        try region.format(role: .owner, logUUID: log, incarnation: Incarnation(1), start: .zero)
        try region.setHead(LSN(640), acknowledged: LSN(1000))
        for head in [LSN(576), LSN(641), LSN(1 << 63)] {
            let error = try #require(throws: PoolError.self) { try region.setHead(head, acknowledged: .zero) }
            #expect(error.code == .invalidValue)
        }
        try region.setHead(LSN(704), acknowledged: LSN(3))
        #expect(region.acknowledged == LSN(1000))
        #expect(try reopened().head == LSN(704))
    }

    @Test func oneRottenSlotNeverBringsAnOlderIncarnationBack() throws {  // S5
        try region.format(role: .owner, logUUID: log, incarnation: Incarnation(1), start: .zero)
        try region.format(role: .owner, logUUID: log, incarnation: Incarnation(2), start: LSN(64))
        pool.close()
        let sound = try contents(of: path)
        for slot in [0, 4096] {
            let place = Int(region.offset) + slot + 20
            try write([sound[place] ^ 4], to: path, at: place)
            let again = try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: true)
            #expect(again.regions[0].identity?.incarnation == Incarnation(2))
            again.close()
            try write(sound, to: path)
        }
    }

    @Test func twoDamagedIdentitySlotsAreCorruption() throws {
        try region.format(role: .owner, logUUID: log, incarnation: Incarnation(1), start: .zero)
        pool.close()
        for slot in [0, 4096] { try write([0xFF], to: path, at: Int(region.offset) + slot + 33) }
        let error = try refusal(of: path)
        #expect(error.code == .corrupt)
        #expect(error.offset == region.offset)
    }

    @Test func aRottenHeadSlotFallsBackToItsTwin() throws {
        try region.format(role: .owner, logUUID: log, incarnation: Incarnation(1), start: .zero)
        for head in 1...4 { try region.setHead(LSN(UInt64(head) * 64), acknowledged: .zero) }
        pool.close()
        // The fourth head went to the second slot.
        try write([0xFF], to: path, at: Int(region.offset) + 4608 + 16)
        let again = try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: true)
        #expect(again.regions[0].head == LSN(192))
    }

    @Test func afterAReopeningTheOlderHeadSlotIsWrittenFirst() throws {
        try region.format(role: .mirror, logUUID: log, incarnation: Incarnation(1), start: .zero)
        for head in 1...2 { try region.setHead(LSN(UInt64(head) * 64), acknowledged: .zero) }
        pool.close()
        let again = try Pool.open(path: path, expecting: nil, persistence: .auto)
        try again.regions[0].setHead(LSN(192), acknowledged: .zero)
        again.close()
        // The third head went to the first slot: without it the second is there, whole.
        try write([0xFF], to: path, at: Int(region.offset) + 512 + 16)
        #expect(try reopened().head == LSN(128))
    }

    @Test func markingReplayedIsDurableAndKeepsTheHead() throws {
        try region.format(role: .owner, logUUID: log, incarnation: Incarnation(9), start: .zero)
        try region.setHead(LSN(64), acknowledged: LSN(64))
        try region.markReplayed()
        let again = try reopened()
        #expect(again.identity?.isReplayed == true)
        #expect(again.head == LSN(64))
    }

    @Test(arguments: [(0, 100), (64, 64), (65_000, 3000), (13, 65_536), (65_535, 2), (130, 1)])
    func storesWrapAndReadBack(_ start: Int, _ count: Int) throws {
        try region.format(role: .mirror, logUUID: log, incarnation: Incarnation(1), start: .zero)
        var generator = SplitMix64(seed: UInt64(start + count))
        let bytes = (0..<count).map { _ in UInt8.random(in: 1...255, using: &generator) }
        let lsn = LSN(UInt64(start) + 5 * region.ringBytes)
        bytes.withUnsafeBytes { region.store($0, at: lsn) }
        try region.drain()
        var back = [UInt8](repeating: 0, count: count)
        back.withUnsafeMutableBytes { region.readRing(from: lsn, into: $0) }
        #expect(back == bytes)
        // Nothing else of the file changed: the ring holds exactly these bytes.
        let ring = try contents(of: path)[Int(region.ringOffset)..<Int(region.ringOffset + region.ringBytes)]
        #expect(ring.count(where: { $0 != 0 }) == count)
        #expect(try contents(of: path).dropFirst(Int(region.ringOffset + region.ringBytes)).allSatisfy { $0 == 0 })
    }
}
