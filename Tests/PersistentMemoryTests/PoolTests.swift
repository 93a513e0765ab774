// Pools: creation, opening, every refusal (S20, S21), locking, and what heals.

import Glibc
import LogModel
import PersistentMemory
import TestSupport
import Testing

struct PoolTests {
    let folder: Folder
    let path: String

    init() throws {
        folder = try Folder(in: memoryFolder)
        path = folder.file("a.pool")
    }

    @Test func aPoolIsPrivateAndFullyAllocated() throws {  // S22, S26
        try makePool(path).close()
        var about = stat()
        try #require(stat(path, &about) == 0)
        #expect(about.st_mode & 0o777 == 0o600)
        #expect(UInt64(about.st_blocks) * 512 >= 2 * mebibyte)
        #expect(folder.names == ["a.pool"])
    }

    @Test func whatWasCreatedIsFoundAgain() throws {
        let group = GroupID("g0"), other = GroupID("g1")
        do {
            let pool = try makePool(path)
            let first = try pool.allocateRegion(group: group, ringBytes: 64 * 1024)
            _ = try pool.allocateRegion(group: other, ringBytes: 128 * 1024)
            #expect(first.identity == nil)
            try first.format(
                role: .owner, logUUID: UUID128(high: 7, low: 8), incarnation: Incarnation(3), start: LSN(640))
            #expect(first.head == LSN(640))
            try first.setHead(LSN(1280), acknowledged: LSN(1920))
            pool.close()
        }
        let pool = try Pool.open(path: path, expecting: ("demo", NodeID("alpha")), persistence: .auto)
        #expect(pool.identity == alpha)
        #expect(pool.persistence == persistenceHere)
        #expect(pool.sizeBytes == 2 * mebibyte)
        #expect(pool.regions.map(\.group) == [group, other])
        #expect(pool.regions.map(\.ringBytes) == [64 * 1024, 128 * 1024])
        let region = try #require(pool.region(of: group))
        let identity = RegionIdentity(
            role: .owner, logUUID: UUID128(high: 7, low: 8), incarnation: Incarnation(3), startLSN: LSN(640))
        #expect(region.identity == identity)
        #expect(region.head == LSN(1280))
        #expect(region.acknowledged == LSN(1920))
        #expect(pool.region(of: other)?.identity == nil)
    }

    @Test(.disabled(if: isSanitized, "a sanitizer has page faults of its own"))
    func aPrefaultedPoolMeetsNoPageFaults() throws {
        let ringBytes: UInt64 = 4 << 20
        do {
            let pool = try makePool(path, sizeBytes: 5 << 20)
            _ = try pool.allocateRegion(group: GroupID("g0"), ringBytes: ringBytes)
        }
        let pool = try Pool.open(path: path, expecting: nil, persistence: .auto)
        let region = try #require(pool.region(of: GroupID("g0")))
        try pool.prefault()
        let page = [UInt8](repeating: 7, count: 4096)
        func faults() -> Int {
            var usage = rusage()
            getrusage(1, &usage)  // RUSAGE_THREAD: others run beside it
            return usage.ru_minflt
        }
        let before = faults()
        for start in stride(from: 0, to: ringBytes, by: 4096) {
            page.withUnsafeBytes { region.store($0, at: LSN(start)) }
        }
        #expect(faults() - before < 64, "of 1024 pages")
        try region.drain()
    }

    @Test func creationNeverReplacesAFile() throws {
        try write([1, 2, 3], to: path)
        let error = try #require(throws: PoolError.self) { try makePool(path) }
        #expect(error.code == .system)
        #expect(try contents(of: path) == [1, 2, 3])
    }

    @Test func anAbandonedCreationIsTakenOver() throws {
        try write([UInt8](repeating: 9, count: 5000), to: path + ".creating")
        let pool = try makePool(path)
        #expect(pool.regions.isEmpty)
        #expect(folder.names == ["a.pool"])
    }

    @Test func aPoolIsCompleteBeforeItHasItsName() throws {
        // The name is taken, though nothing is there, so that naming is where creation fails; what it had made by then
        // is read through a descriptor, which outlives it.
        try #require(symlink(folder.file("nothing"), path) == 0)
        try write([], to: path + ".creating")
        let made = open(path + ".creating", O_RDONLY)
        try #require(made >= 0)
        defer { close(made) }
        #expect(throws: PoolError.self) { try makePool(path) }
        #expect(folder.names == ["a.pool"])
        try write(contents(of: "/proc/self/fd/\(made)"), to: folder.file("seen"))
        let seen = try Pool.open(path: folder.file("seen"), expecting: ("demo", NodeID("alpha")), persistence: .auto)
        #expect(seen.identity == alpha)
    }

    @Test func aPoolThatACrashLeftWithBothNamesIsNotMadeAnew() throws {
        try makePool(path).close()
        try #require(link(path, path + ".creating") == 0)
        try #require(rename(path, folder.file("kept")) == 0)
        let before = try contents(of: folder.file("kept"))
        try makePool(path).close()
        #expect(folder.names == ["a.pool", "kept"])
        #expect(try contents(of: folder.file("kept")) == before)
    }

    @Test func aSequenceThatCannotBeCountedOnIsNoSequence() throws {  // S21
        do {
            let pool = try makePool(path)
            let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
            try region.format(role: .owner, logUUID: .zero, incarnation: Incarnation(3), start: .zero)
        }
        // The directory's, then an identity's; both copies, with checksums that agree.
        for (places, count, check) in [([8192, 12288], 4096, 8), ([16384, 20480], 64, 56)] {
            let sound = try contents(of: path)
            for place in places {
                var block = Array(sound[place..<place + count])
                let sequence = check == 8 ? 16 : 8
                block.replaceSubrange(sequence..<sequence + 8, with: repeatElement(0xFF, count: 8))
                block.replaceSubrange(check..<check + 4, with: [0, 0, 0, 0])
                let crc = bitwiseCRC32C(block)
                block.replaceSubrange(check..<check + 4, with: withUnsafeBytes(of: crc.littleEndian, Array.init))
                try write(block, to: path, at: place)
            }
            let error = #expect(throws: PoolError.self) {
                try Pool.open(path: path, expecting: nil, persistence: .auto)
            }
            #expect(error?.code == .corrupt)
            try write(sound, to: path)
        }
    }

    @Test func aPoolThatDoesNotFitLeavesNothing() throws {
        let error = try #require(throws: PoolError.self) {
            try makePool(path, sizeBytes: 1 << 50)
        }
        #expect(error.code == .noSpace)
        #expect(folder.names.isEmpty)
    }

    @Test func sizesAndNamesThatCannotBeAreRefused() throws {
        for size in [0, 4096, 2 * mebibyte + 1, UInt64.max] {
            let error = try #require(throws: PoolError.self) { try makePool(path, sizeBytes: size) }
            #expect(error.code == .invalidValue)
        }
        let unnamed = PoolIdentity(uuid: .zero, cluster: "", node: NodeID("alpha"))
        let error = try #require(throws: PoolError.self) {
            try Pool.create(path: path, sizeBytes: mebibyte, identity: unnamed, persistence: .volatile)
        }
        #expect(error.code == .invalidValue)
    }

    // MARK: Refusals

    @Test func whatIsNoPoolIsRefused() throws {
        for count in [0, 5, 5000, 16384, 200_000] {
            let path = folder.file("garbage-\(count)")
            var generator = SplitMix64(seed: UInt64(count))
            try write((0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }, to: path)
            #expect(try refusal(of: path).code == .notAPool)
        }
        let error = try #require(throws: PoolError.self) {
            try Pool.open(path: folder.path, expecting: nil, persistence: .auto, readOnly: true)
        }
        #expect(error.code == .notAPool)
        let missing = try #require(throws: PoolError.self) {
            try Pool.open(path: folder.file("missing"), expecting: nil, persistence: .auto)
        }
        #expect(missing.code == .system)
    }

    @Test func aTruncatedPoolIsRefused() throws {
        try makePool(path).close()
        for size in [2 * mebibyte - 4096, 16384, 9000, 100] {
            try #require(truncate(path, off_t(size)) == 0)
            #expect(try refusal(of: path).code == .truncated)
        }
    }

    @Test func aPoolThatGrewIsRefused() throws {
        try makePool(path).close()
        try #require(truncate(path, off_t(3 * mebibyte)) == 0)
        #expect(try refusal(of: path).code == .corrupt)
    }

    @Test func aForeignPoolIsRefused() throws {  // S20
        try makePool(path).close()
        let error = try refusal(of: path, node: "beta")
        #expect(error.code == .foreign)
        #expect(error.message.contains("node alpha of cluster demo"))
        #expect(try refusal(of: path, cluster: "other").code == .foreign)
    }

    @Test func aNewerFormatIsRefusedByName() throws {  // S21
        try makePool(path).close()
        let before = try contents(of: path)
        // One whole copy says so (an upgrade that was cut), or both are not whole by this version's rules.
        for copies in [[0], [4096], [0, 4096]] {
            for offset in copies {
                try write([2], to: path, at: offset + 8)
                if copies.count == 1 {
                    try write(crc32c(ofPageAt: offset, without: offset + 12), to: path, at: offset + 12)
                }
            }
            let error = try refusal(of: path)
            #expect(error.code == .newerFormat)
            #expect(error.message.contains("format 2"))
            try write(before, to: path)
        }
    }

    @Test func aRottenVersionIsNotANewerFormat() throws {  // S5: its twin is whole
        try makePool(path).close()
        let before = try contents(of: path)
        for offset in [8, 11, 4096 + 8, 4096 + 11] {
            try write([before[offset] ^ 0x40], to: path, at: offset)
            try Pool.open(path: path, expecting: nil, persistence: .auto).close()
            #expect(try contents(of: path) == before, "healed from its twin")
        }
    }

    /// Bit by bit, so that it owes nothing to the tables under test; as the four bytes that are stored.
    private func crc32c(ofPageAt page: Int, without field: Int) throws -> [UInt8] {
        var bytes = try contents(of: path)
        bytes.replaceSubrange(field..<field + 4, with: [0, 0, 0, 0])
        var crc = ~UInt32(0)
        for byte in bytes[page..<page + 4096] {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
        }
        return withUnsafeBytes(of: (~crc).littleEndian, Array.init)
    }

    @Test func damageToBothCopiesIsCorruption() throws {
        try makePool(path).close()
        let sound = try contents(of: path)
        for (a, b) in [(100, 4096 + 100), (8192 + 20, 12288 + 20)] {
            try write([sound[a] ^ 1], to: path, at: a)
            try write([sound[b] ^ 1], to: path, at: b)
            #expect(try refusal(of: path).code == .corrupt)
            try write(sound, to: path)
        }
    }

    @Test func anyDamageToOneCopyIsHealedByItsTwin() throws {
        do {
            let pool = try makePool(path)
            let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
            try region.format(role: .mirror, logUUID: alpha.uuid, incarnation: Incarnation(1), start: .zero)
            pool.close()
        }
        let sound = try contents(of: path)
        var generator = SplitMix64(seed: 11)
        for page in 0..<6 {  // two superblocks, two directories, two pages of slots
            for _ in 0..<(inGuest ? 2 : 16) {
                let used = page < 2 ? 176 : page < 4 ? 160 : 64
                let place = page * 4096 + Int.random(in: 0..<used, using: &generator)
                let bit = UInt8(1) << UInt8.random(in: 0..<8, using: &generator)
                if page < 2 && (8..<12).contains(place % 4096) { continue }  // the version: refused, see above
                try write([sound[place] ^ bit], to: path, at: place)
                let before = try contents(of: path)
                try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: true).close()
                #expect(try contents(of: path) == before, "a reader heals nothing")
                let pool = try Pool.open(path: path, expecting: ("demo", NodeID("alpha")), persistence: .auto)
                #expect(pool.region(of: GroupID("g0"))?.identity?.role == .mirror)
                pool.close()
                #expect(try contents(of: path) == sound)
            }
        }
    }

    @Test func aDirectoryOfAnotherPoolIsNoCopy() throws {  // S20
        let folder = try Folder(in: memoryFolder)
        for (name, groups) in [("mine", ["g0"]), ("other", ["g1", "g2"])] {
            let pool = try Pool.create(
                path: folder.file(name), sizeBytes: 512 << 10,
                identity: PoolIdentity(uuid: .random(), cluster: "demo", node: NodeID("alpha")), persistence: .auto)
            for group in groups { _ = try pool.allocateRegion(group: GroupID(group), ringBytes: 64 << 10) }
        }
        // Newer by its number, whole by its checksum.
        let page = Array(try contents(of: folder.file("other"))[8192..<12288])
        try write(page, to: folder.file("mine"), at: 8192)
        let pool = try Pool.open(path: folder.file("mine"), expecting: nil, persistence: .auto)
        #expect(pool.regions.map(\.group) == [GroupID("g0")])
    }

    @Test func aGarbageDirectoryIsRefusedWhateverItClaims() throws {  // S21
        let pool = try makePool(path)
        _ = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
        _ = try pool.allocateRegion(group: GroupID("g1"), ringBytes: 64 * 1024)
        pool.close()
        let sound = try contents(of: path)
        let hostile: [(Int, [UInt8])] = [
            (12, [33, 0, 0, 0]), (12, [255, 255, 255, 255]),  // count
            (64 + 64, [UInt8](repeating: 255, count: 8)), (64 + 64, [0, 0, 0, 0, 0, 0, 0, 0]),  // offset
            (64 + 72, [UInt8](repeating: 255, count: 8)), (64 + 72, [0, 0, 0, 0, 0, 0, 0, 0]),  // ring
            (64 + 72, [1]), (64 + 72 + 2, [32]), (64, [0]), (64, [0x2F]), (160, Array("g0".utf8)),
            (160 + 64, [0, 64]),  // the second region on top of the first
        ]
        for (place, bytes) in hostile {
            for copy in [8192, 12288] {
                try write(bytes, to: path, at: copy + place)
                var page = Array(try contents(of: path)[copy..<copy + 4096])
                page.replaceSubrange(8..<12, with: [0, 0, 0, 0])
                let crc = bitwiseCRC32C(page)
                try write(withUnsafeBytes(of: crc.littleEndian) { Array($0) }, to: path, at: copy + 8)
            }
            #expect(try refusal(of: path).code == .corrupt, "\(place) \(bytes)")
            try write(sound, to: path)
        }
    }

    // MARK: Locking

    @Test func aSecondOpenerInThisProcessIsRefused() throws {
        let pool = try makePool(path)
        #expect(try refusal(of: path).code == .inUse)
        let reader = try #require(throws: PoolError.self) {
            try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: true)
        }
        #expect(reader.code == .inUse)
        pool.close()
        let first = try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: true)
        let second = try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: true)
        #expect(try refusal(of: path).code == .inUse)
        first.close()
        second.close()
        try Pool.open(path: path, expecting: nil, persistence: .auto).close()
    }

    @Test func aSecondOpenerInAnotherProcessIsRefused() throws {
        try makePool(path).close()
        // The other process: takes the lock the way any opener does (fcntl F_OFD_SETLK = 37), says so, waits for its end.
        let script = """
            import fcntl, struct, sys, os
            f = os.open(sys.argv[1], os.O_RDWR)
            fcntl.fcntl(f, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))
            print('held', flush=True)
            sys.stdin.read()
            """
        let other = try ChildProcess("/usr/bin/python3", ["-c", script, path])
        #expect(other.readLine() == "held")
        #expect(try refusal(of: path).code == .inUse)
        other.end()
        try Pool.open(path: path, expecting: nil, persistence: .auto).close()
    }

    // MARK: Regions

    @Test func theDirectoryIsBounded() throws {
        let pool = try makePool(path, sizeBytes: 4 * mebibyte)
        for index in 0..<32 { _ = try pool.allocateRegion(group: GroupID("g\(index)"), ringBytes: 64 * 1024) }
        let full = try #require(throws: PoolError.self) {
            try pool.allocateRegion(group: GroupID("one-more"), ringBytes: 64 * 1024)
        }
        #expect(full.code == .directoryFull)
    }

    @Test func regionsThatCannotBeAreRefused() throws {
        let pool = try makePool(path)
        _ = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
        let before = try contents(of: path)
        let cases: [(String, UInt64, PoolError.Code)] = [
            ("g0", 64 * 1024, .regionExists), ("g1", 2 * mebibyte, .noSpace), ("g1", 1 << 62, .noSpace),
            ("g1", UInt64.max - 4095, .invalidValue), ("g1", 4096, .invalidValue), ("g1", 65537, .invalidValue),
            ("../g", 64 * 1024, .invalidValue),
        ]
        for (group, ringBytes, code) in cases {
            let error = try #require(throws: PoolError.self) {
                try pool.allocateRegion(group: GroupID(group), ringBytes: ringBytes)
            }
            #expect(error.code == code)
        }
        #expect(try contents(of: path) == before)
    }

    // MARK: Persistence

    @Test func persistenceIsSaidAsItIs() throws {
        let folder = try Folder(in: "/dev/shm")
        func create(_ path: String, _ request: PersistenceRequest) throws -> Persistence {
            try Pool.create(path: path, sizeBytes: mebibyte, identity: alpha, persistence: request).persistence
        }
        #expect(try create(folder.file("auto"), .auto) == .volatile)
        #expect(try create(folder.file("volatile"), .volatile) == .volatile)
        for request in [PersistenceRequest.pmem, .msync] {
            let error = try #require(throws: PoolError.self) { try create(folder.file("refused"), request) }
            #expect(error.code == .noPersistence)
        }
        #expect(folder.names == ["auto", "volatile"])
    }

    @Test func anOrdinaryFileIsMsync() throws {
        let disk = try Folder(in: "/tmp")
        let path = disk.file("d.pool")
        let pool = try Pool.create(path: path, sizeBytes: mebibyte, identity: alpha, persistence: .auto)
        guard pool.persistence == .msync else {
            return print("skipped: /tmp is on \(pool.persistence) memory here, not on a disk")
        }
        let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
        try region.format(role: .mirror, logUUID: alpha.uuid, incarnation: Incarnation(1), start: .zero)
        [UInt8](repeating: 5, count: 128).withUnsafeBytes { region.store($0, at: .zero) }
        try region.drain()
        pool.close()
        let again = try Pool.open(path: path, expecting: nil, persistence: .msync)
        #expect(again.persistence == .msync)
        #expect(try contents(of: path)[Int(region.ringOffset)..<Int(region.ringOffset) + 128].allSatisfy { $0 == 5 })
    }
}
