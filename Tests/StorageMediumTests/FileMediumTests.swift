// A file as a medium: creation, sizes, the exclusive lock, and what its calls leave in the file.

import Glibc
import LogModel
import StorageMedium
import TestSupport
import Testing

struct FileMediumTests {
    let folder: Folder
    let path: String
    let sizeBytes: UInt64 = 64 * 1024

    init() throws {
        folder = try Folder(in: "/tmp")
        path = folder.file("m")
    }

    func open(createIfMissing: Bool = true) throws -> FileMedium {
        try FileMedium.open(path: path, sizeBytes: sizeBytes, createIfMissing: createIfMissing)
    }

    // MARK: Extents

    @Test("Holes and data of a file are told from the start of a range on, at most so many")
    func extentsOfAFile() throws {
        let medium = try open()
        try [UInt8](repeating: 1, count: 8192).withUnsafeBytes { try medium.write([$0], at: 16384) }
        func told(_ offset: UInt64, _ length: UInt64, limit: Int = 10) throws -> [String] {
            try medium.extents(of: ByteRange(offset: offset, length: length), limit: limit).map {
                "\($0.isHole ? "hole" : "data") \($0.range)"
            }
        }
        #expect(try told(0, sizeBytes) == ["hole [0, 16384)", "data [16384, 24576)", "hole [24576, 65536)"])
        #expect(try told(0, sizeBytes, limit: 2) == ["hole [0, 16384)", "data [16384, 24576)"])
        #expect(try told(17000, 100) == ["data [17000, 17100)"])
        #expect(try told(24575, 2) == ["data [24575, 24576)", "hole [24576, 24577)"])
        #expect(throws: MediumError.self) { try told(sizeBytes, 1) }
        try medium.prefetch(ByteRange(offset: 0, length: sizeBytes))
        #expect(throws: MediumError.self) { try medium.prefetch(ByteRange(offset: 1, length: sizeBytes)) }
    }

    // MARK: Creation and opening

    @Test func aMissingFileIsCreatedPrivateSparseAndOfItsSize() throws {
        let medium = try open()
        #expect(medium.sizeBytes == sizeBytes)
        var about = stat()
        try #require(stat(path, &about) == 0)
        #expect(about.st_size == Int(sizeBytes))
        #expect(about.st_mode & 0o777 == 0o600)
        // No more than a block, which holds attributes.
        #expect(about.st_blocks * 512 <= 4096)
        #expect(folder.names == ["m"])
        #expect(try medium.bytes(at: 0, count: Int(sizeBytes)).allSatisfy { $0 == 0 })
    }

    @Test func aMissingFileIsAnErrorUnlessItMayBeCreated() throws {
        let error = try #require(throws: MediumError.self) { _ = try open(createIfMissing: false) }
        #expect(error.code == .missing)
        #expect(error.errno == ENOENT)
        #expect(error.message.contains(path))
        #expect(folder.names == [])
    }

    /// A process was killed while it created the file. The next one often has the same pid, in a container always.
    @Test func whatAKilledCreationLeftBehindIsNotInTheWay() throws {
        try put("half", into: "\(path).new-\(getpid())")
        #expect(try open().sizeBytes == sizeBytes)
    }

    /// A takeover tries again ten times a second and reports what is new: the same reason must read the same.
    @Test func aFileThatCannotBeCreatedIsNamedAsItIsConfigured() throws {
        let missing = folder.file("not-mounted/m")
        let messages = try (0..<2).map { _ in
            try #require(throws: MediumError.self) {
                _ = try FileMedium.open(path: missing, sizeBytes: sizeBytes, createIfMissing: true)
            }.message
        }
        #expect(messages[0] == messages[1])
        #expect(messages[0].hasPrefix("\(missing): "))
        #expect(folder.names == [])
    }

    @Test func whatExistsIsKept() throws {
        try open().write([[1, 2, 3]], at: 5)
        #expect(try open().bytes(at: 4, count: 5) == [0, 1, 2, 3, 0])
    }

    @Test func aFileOfAnotherSizeIsRefusedAndKept() throws {
        try put("precious", into: path)
        let error = try #require(throws: MediumError.self) { _ = try open() }
        #expect(error.code == .wrongSize)
        #expect(error.message.contains(path) && error.message.contains("8 bytes") && error.message.contains("65536"))
        #expect(try contents(of: path) == Array("precious".utf8))
    }

    @Test func whatIsNoFileIsRefused() throws {
        for (place, code) in [
            (folder.path, MediumError.Code.notAMedium), ("/dev/null", .notAMedium), (folder.file("no/such"), .open),
        ] {
            let error = try #require(throws: MediumError.self) {
                _ = try FileMedium.open(path: place, sizeBytes: sizeBytes, createIfMissing: true)
            }
            #expect(error.code == code)
            #expect(error.message.contains(place))
        }
    }

    @Test func manyOpenersOfAMissingFileFindOneFile() async throws {
        let (path, sizeBytes) = (path, sizeBytes)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<32 {
                group.addTask {
                    let medium = try FileMedium.open(path: path, sizeBytes: sizeBytes, createIfMissing: true)
                    try medium.write([[UInt8(index) + 1]], at: UInt64(index))
                }
            }
            try await group.waitForAll()
        }
        #expect(try contents(of: path).prefix(32) == ArraySlice((1...32).map(UInt8.init)))
        #expect(folder.names == ["m"])
    }

    // MARK: The lock

    @Test func aSecondOpenerOfTheSameProcessIsLockedOut() throws {  // S18
        let first = try open()
        try first.lock()
        try first.lock()
        let second = try open()
        let error = try #require(throws: MediumError.self) { try second.lock() }
        #expect(error.code == .locked)
        #expect(error.message.contains(path))
        try first.unlock()
        try second.lock()
        #expect(throws: MediumError.self) { try first.lock() }
    }

    @Test func theLockEndsWithItsMedium() throws {  // S18
        var first: FileMedium? = try open()
        try first?.lock()
        let second = try open()
        #expect(throws: MediumError.self) { try second.lock() }
        first = nil
        try second.lock()
    }

    /// Closing one description must not let go of another's lock, as POSIX record locks do.
    @Test func closingAnotherDescriptionKeepsTheLock() throws {  // S18
        let holder = try open()
        try holder.lock()
        _ = try open()
        let other = try open()
        #expect(throws: MediumError.self) { try other.lock() }
    }

    @Test func anotherProcessIsLockedOut() async throws {  // S18
        let medium = try open()
        try medium.lock()
        await #expect(processExitsWith: .success) { [path = path as String, sizeBytes = sizeBytes as UInt64] in
            let other = try FileMedium.open(path: path, sizeBytes: sizeBytes, createIfMissing: false)
            let error = try #require(throws: MediumError.self) { try other.lock() }
            #expect(error.code == .locked)
        }
    }

    @Test func aKilledProcessHoldsTheLockToItsEndAndNotBeyond() async throws {  // S18
        let medium = try open()
        let marker = folder.file("pid")
        async let child = #expect(processExitsWith: .signal(SIGKILL)) {
            [path = path as String, sizeBytes = sizeBytes as UInt64, marker = marker as String] in
            alarm(60)
            let mine = try FileMedium.open(path: path, sizeBytes: sizeBytes, createIfMissing: false)
            try mine.lock()
            try put(String(getpid()), into: marker + ".new")
            rename(marker + ".new", marker)
            while true { pause() }
        }
        #expect(try await eventually { access(marker, F_OK) == 0 })
        let error = #expect(throws: MediumError.self) { try medium.lock() }
        #expect(error?.code == .locked)
        let pid = try #require(pid_t(String(decoding: contents(of: marker), as: UTF8.self)))
        #expect(kill(pid, SIGKILL) == 0)
        _ = await child
        try medium.lock()
    }

    // MARK: Reading and writing

    @Test func buffersLandOneAfterAnother() throws {
        let medium = try open()
        try medium.write([[1, 2], [], [3], [], [4, 5, 6], []], at: 1000)
        #expect(try contents(of: path)[999..<1007] == [0, 1, 2, 3, 4, 5, 6, 0])
        try medium.write([], at: 1000)
        try medium.write([[]], at: sizeBytes)
        #expect(try contents(of: path)[999..<1007] == [0, 1, 2, 3, 4, 5, 6, 0])
    }

    /// One system call takes 1024 buffers.
    @Test(arguments: [1023, 1024, 1025, 2048, 3001]) func anyNumberOfBuffersIsWritten(count: Int) throws {
        var random = SplitMix64(seed: UInt64(count))
        let medium = try open()
        let parts = (0..<count).map { _ in random.bytes(Int.random(in: 0...16, using: &random)) }
        try medium.write(parts, at: 77)
        let whole = Array(parts.joined())
        #expect(try contents(of: path)[77..<77 + whole.count] == whole[...])
        #expect(try contents(of: path)[(77 + whole.count)...].allSatisfy { $0 == 0 })
    }

    @Test func whatIsReadIsWhatWasWritten() throws {
        var random = SplitMix64(seed: 3)
        let medium = try open()
        var model = [UInt8](repeating: 0, count: Int(sizeBytes))
        for _ in 0..<300 {
            let offset = Int.random(in: 0..<model.count, using: &random)
            let length = min(Int.random(in: 1...9000, using: &random), model.count - offset)
            if Bool.random(using: &random) {
                let bytes = random.bytes(length)
                try medium.write([Array(bytes[..<(length / 3)]), Array(bytes[(length / 3)...])], at: UInt64(offset))
                model.replaceSubrange(offset..<offset + length, with: bytes)
            } else {
                try medium.zero(
                    ByteRange(offset: UInt64(offset), length: UInt64(length)),
                    releasingSpace: Bool.random(using: &random))
                model.replaceSubrange(offset..<offset + length, with: repeatElement(0, count: length))
            }
        }
        try medium.flush()
        #expect(try contents(of: path) == model)
        #expect(try medium.bytes(at: 0, count: model.count) == model)
    }

    /// tmpfs cannot zero a range by itself, other file systems can.
    @Test(arguments: ["/tmp", "/dev/shm"], [true, false]) func aZeroedRangeReadsAsZeros(parent: String, releasing: Bool)
        throws
    {
        let folder = try Folder(in: parent)
        let path = folder.file("m")
        let medium = try FileMedium.open(path: path, sizeBytes: 3 << 20, createIfMissing: true)
        try medium.write([[UInt8](repeating: 7, count: 3 << 20)], at: 0)
        try medium.zero(ByteRange(offset: 1001, length: 2 << 20), releasingSpace: releasing)
        try medium.zero(ByteRange(offset: 5, length: 0), releasingSpace: releasing)
        let bytes = try contents(of: path)
        #expect(bytes.count == 3 << 20)
        #expect(bytes[..<1001].allSatisfy { $0 == 7 })
        #expect(bytes[1001..<1001 + 2 << 20].allSatisfy { $0 == 0 })
        #expect(bytes[(1001 + 2 << 20)...].allSatisfy { $0 == 7 })
    }

    @Test func aDiscardReleasesSpace() throws {
        let medium = try open()
        try medium.write([[UInt8](repeating: 7, count: Int(sizeBytes))], at: 0)
        try medium.flush()
        var full = stat()
        try #require(stat(path, &full) == 0)
        try medium.zero(ByteRange(offset: 0, length: sizeBytes), releasingSpace: true)
        var empty = stat()
        try #require(stat(path, &empty) == 0)
        #expect(empty.st_blocks < full.st_blocks)
        #expect(empty.st_size == full.st_size)
    }

    @Test func aRangeOutsideIsRefusedAndNothingIsStored() throws {
        let medium = try open()
        let outside: [(UInt64, Int)] = [
            (sizeBytes, 1), (sizeBytes - 1, 2), (.max, 1), (.max - 1, 16), (1 << 63, 1), (sizeBytes + 1, 0),
        ]
        for (offset, count) in outside {
            let bytes = [UInt8](repeating: 9, count: count)
            let calls: [() throws -> Void] = [
                { try medium.write([bytes], at: offset) },
                { _ = try medium.bytes(at: offset, count: count) },
            ]
            for call in calls {
                let error = try #require(throws: MediumError.self) { try call() }
                #expect(error.code == .outOfRange)
                #expect(error.message.contains(path))
            }
        }
        let zero = #expect(throws: MediumError.self) {
            try medium.zero(ByteRange(offset: 1, length: sizeBytes), releasingSpace: false)
        }
        #expect(zero?.code == .outOfRange)
        #expect(try contents(of: path).allSatisfy { $0 == 0 })
        #expect(try contents(of: path).count == Int(sizeBytes))
    }

    @Test func aWriteThatTheSystemRefusesIsAnErrorWithItsNumber() async throws {
        _ = try open()
        await #expect(processExitsWith: .success) { [path = path as String, sizeBytes = sizeBytes as UInt64] in
            signal(SIGXFSZ, SIG_IGN)
            let medium = try FileMedium.open(path: path, sizeBytes: sizeBytes, createIfMissing: false)
            var limit = rlimit(rlim_cur: 4096, rlim_max: 4096)
            try #require(setrlimit(__rlimit_resource_t(1), &limit) == 0)  // RLIMIT_FSIZE
            let error = try #require(throws: MediumError.self) {
                try medium.write([[UInt8](repeating: 5, count: 8192)], at: 0)
            }
            #expect(error.code == .write)
            #expect(error.errno == EFBIG)
            #expect(error.message.contains(path))
        }
    }
}
