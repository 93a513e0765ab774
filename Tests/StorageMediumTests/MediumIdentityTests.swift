// What is known of a medium beside its path: its identity, what it must not be, and what it must not become.

import CHostSupport
import Glibc
import LogModel
import StorageMedium
import TestSupport
import Testing

struct MediumIdentityTests {
    let folder: Folder
    let sizeBytes: UInt64 = 64 * 1024

    init() throws { folder = try Folder(in: "/tmp") }

    private func create(_ name: String) throws -> FileMedium {
        try FileMedium.open(path: folder.file(name), sizeBytes: sizeBytes, createIfMissing: true)
    }

    private func open(_ name: String) throws -> FileMedium {
        try FileMedium.open(path: folder.file(name), sizeBytes: sizeBytes, createIfMissing: false)
    }

    private func refusal(_ body: () throws -> Void) throws -> MediumError {
        try #require(throws: MediumError.self) { try body() }
    }

    /// A file of the right size that TwinLog did not make.
    private func foreign(_ name: String, beginning: [UInt8] = []) throws -> String {
        let path = folder.file(name)
        try put("", into: path)
        let descriptor = Glibc.open(path, O_WRONLY)
        defer { close(descriptor) }
        try #require(ftruncate(descriptor, off_t(sizeBytes)) == 0)
        try #require(pwrite(descriptor, beginning, beginning.count, 0) == beginning.count)
        return path
    }

    private func identity(_ name: String) throws -> UUID128 {
        guard case .known(let identity) = try open(name).readIdentity() else {
            throw MediumError(.otherMedium, "\(name) has no identity")
        }
        return identity
    }

    @Test("S18, A9: a medium that is created has an identity of its own, and keeps it")
    func identities() throws {
        _ = try create("vol0")
        _ = try create("vol1")
        let first = try identity("vol0")
        #expect(try identity("vol0") == first)
        #expect(try identity("vol1") != first)
        #expect(throws: MediumError.self) { try open("vol0").adopt(.random()) }
        #expect(try identity("vol0") == first)
    }

    @Test("S18, O9: another volume's medium is refused, and the volumes are named")
    func exchanged() throws {
        _ = try create("vol0")
        _ = try create("vol1")
        let (mine, its) = (try identity("vol0"), try identity("vol1"))
        let volumes = [mine: "vol0", its: "vol1"]
        let expected = MediumExpectation(volume: "vol0", identity: mine, volumes: volumes)
        #expect(try open("vol0").admit(expected) == mine)
        let error = try refusal { _ = try open("vol1").admit(expected) }
        #expect(error.code == .otherMedium)
        #expect(error.message == "\(folder.file("vol1")): is vol1's medium (id \(its)), not vol0's (id \(mine))")
        // Nor is it taken for a volume whose own medium nobody knows yet.
        let unknown = MediumExpectation(volume: "vol2", identity: nil, volumes: volumes)
        #expect(try refusal { _ = try open("vol1").admit(unknown) }.code == .otherMedium)
        // One that belongs to nobody here is another medium all the same.
        let stranger = MediumExpectation(volume: "vol0", identity: .random(), volumes: [:])
        #expect(try refusal { _ = try open("vol1").admit(stranger) }.message.contains("is another medium (id \(its))"))
    }

    @Test("S18, A9: a file without an identity is taken in once, and never where another is known")
    func adoption() throws {
        _ = try foreign("old")
        let expected = MediumExpectation(volume: "vol0", identity: nil)
        let adopted = try #require(try open("old").admit(expected))
        #expect(try identity("old") == adopted)
        #expect(try open("old").admit(expected) == adopted)

        let path = try foreign("copy")
        let known = MediumExpectation(volume: "vol0", identity: adopted)
        let error = try refusal { _ = try open("copy").admit(known) }
        #expect(error.code == .otherMedium)
        #expect(error.message.contains("\(path): has no identity, vol0's medium has \(adopted)"))
        #expect(error.message.contains("setfattr -n user.twinlog.medium -v \(adopted)"))
        #expect(try open("copy").readIdentity() == .none)
    }

    @Test("S21: an attribute that is no identity is refused")
    func malformed() throws {
        let texts = ["", "0123", String(repeating: "z", count: 32), String(repeating: "1", count: 33)]
        for (index, text) in texts.enumerated() {
            let descriptor = Glibc.open(try foreign("m\(index)"), O_RDWR)
            defer { close(descriptor) }
            let result = tl_host_create_attribute(descriptor, FileMedium.identityAttribute, text, text.utf8.count)
            try #require(result == 0)
            #expect(try refusal { _ = try open("m\(index)") }.code == .otherMedium, "\(text)")
        }
    }

    @Test("O19: a pool is no medium, unless it is a volume's own bytes that look like one")
    func pool() throws {
        let path = try foreign("p", beginning: Array("TWINLOG\0".utf8))
        let before = try contents(of: path)
        let error = try refusal { _ = try open("p") }
        #expect(error.code == .notAMedium)
        #expect(error.message == "\(path): is a pool, not a medium")
        #expect(try contents(of: path) == before)

        let medium = try create("vol0")
        try medium.write([Array("TWINLOG\0".utf8)], at: 0)
        #expect(try open("vol0").bytes(at: 0, count: 7) == Array("TWINLOG".utf8))
    }

    @Test("O19: a pool is named as one whatever its size")
    func smallPool() throws {
        try put("TWINLOG", into: folder.file("p"))
        #expect(try refusal { _ = try open("p") }.code == .wrongSize, "without the NUL it is not a pool's magic")
        let path = try foreign("q", beginning: Array("TWINLOG\0".utf8))
        try #require(truncate(path, 4096) == 0)
        #expect(try refusal { _ = try open("q") }.code == .notAMedium)
    }

    // MARK: A look

    @Test("C3: a look finds what an opening would, takes no lock, and changes nothing")
    func look() throws {
        let path = folder.file("vol0")
        #expect(try refusal { _ = try FileMedium.look(path: path, sizeBytes: sizeBytes) }.code == .missing)
        let owner = try create("vol0")
        let before = try contents(of: path)
        let seen = try FileMedium.look(path: path, sizeBytes: sizeBytes)
        #expect(try seen.stranger(besides: nil, user: "vol0") == nil)
        try owner.lock(for: "vol0")
        #expect(try seen.stranger(besides: nil, user: "vol0") == nil)
        #expect(try seen.stranger(besides: nil, user: "vol1")?.contains("for vol0: two names of one file") == true)
        #expect(throws: MediumError.self) { try seen.write([[1]], at: 0) }
        #expect(try contents(of: path) == before)
        #expect(try refusal { _ = try FileMedium.look(path: path, sizeBytes: sizeBytes - 512) }.code == .wrongSize)
        #expect(
            try refusal { _ = try FileMedium.look(path: folder.path, sizeBytes: sizeBytes) }.code == .notAMedium)
    }

    // MARK: Names and locks

    @Test("O8: a second name of one file is told by who holds the first")
    func twoNames() throws {
        let first = try create("vol0")
        try #require(link(folder.file("vol0"), folder.file("vol1")) == 0)
        try #require(symlink(folder.file("vol0"), folder.file("vol2")) == 0)
        try first.lock(for: "volume vol0 of g0")
        for name in ["vol1", "vol2"] {
            let second = try open(name)
            #expect(second.file == first.file)
            let error = try refusal { try second.lock(for: "volume \(name) of g1") }
            #expect(error.code == .locked)
            #expect(error.message.contains("this process itself") && error.message.contains("volume vol0 of g0"))
        }
        // Those that could not have the lock do not end it when they go.
        #expect(try refusal { try open("vol1").lock() }.message.contains("volume vol0 of g0"))
    }

    @Test("O8: another process that holds the lock is named")
    func otherProcess() async throws {
        _ = try create("vol0")
        let file = try #require(FileIdentity(path: folder.file("vol0")))
        let medium = try open("vol0")
        try medium.lock()
        await #expect(processExitsWith: .success) {
            [path = folder.file("vol0") as String, sizeBytes = sizeBytes as UInt64, parent = getpid() as Int32] in
            let other = try FileMedium.open(path: path, sizeBytes: sizeBytes, createIfMissing: false)
            let error = try #require(throws: MediumError.self) { try other.lock() }
            #expect(error.message.contains("process \(parent) ("))
            #expect(FileHolder.holds(parent, other.file, locking: true) == true)
            let seen = try FileMedium.look(path: path, sizeBytes: sizeBytes)
            #expect(try seen.stranger(besides: parent, user: "vol0") == nil)
            #expect(try seen.stranger(besides: 1, user: "vol0")?.contains("process \(parent) (") == true)
        }
        try medium.unlock()
        #expect(FileHolder.holds(getpid(), file, locking: true) == false)
        #expect(FileHolder.holds(getpid(), file, locking: false) == true)
    }

    // MARK: A medium that is cut (O21)

    @Test("O21: no call of a medium that was cut succeeds, gives zeros for what was lost, or makes it longer again")
    func cut() throws {
        let medium = try create("vol0")
        let path = folder.file("vol0")
        try medium.write([[UInt8](repeating: 7, count: Int(sizeBytes))], at: 0)
        try #require(truncate(path, 4096) == 0)
        let calls: [(String, () throws -> Void)] = [
            ("read of what is left", { _ = try medium.bytes(at: 0, count: 512) }),
            ("read over the end", { _ = try medium.bytes(at: 3584, count: 1024) }),
            ("read beyond", { _ = try medium.bytes(at: 8192, count: 512) }),
            ("write beyond", { try medium.write([[UInt8](repeating: 1, count: 4096)], at: sizeBytes - 4096) }),
            ("zero", { try medium.zero(ByteRange(offset: 0, length: sizeBytes), releasingSpace: true) }),
            ("flush", { try medium.flush() }),
        ]
        for (what, call) in calls {
            let error = try refusal(call)
            #expect(error.code == .wrongSize, "\(what): \(error)")
            #expect(error.message.contains("4096") && error.message.contains("\(sizeBytes)"), "\(what): \(error)")
        }
        #expect(try contents(of: path) == [UInt8](repeating: 7, count: 4096))
        // What was lost does not come back with the size.
        try #require(truncate(path, off_t(sizeBytes)) == 0)
        #expect(try refusal { _ = try medium.bytes(at: 0, count: 512) }.code == .wrongSize)
        #expect(try open("vol0").bytes(at: 0, count: 1) == [7])
    }

    @Test("O21: a medium that is too long is refused until it has its size again")
    func longer() throws {
        let medium = try create("vol0")
        try #require(truncate(folder.file("vol0"), off_t(2 * sizeBytes)) == 0)
        #expect(try refusal { try medium.write([[1]], at: 0) }.code == .wrongSize)
        try #require(truncate(folder.file("vol0"), off_t(sizeBytes)) == 0)
        try medium.write([[1]], at: 0)
        #expect(try medium.bytes(at: 0, count: 1) == [1])
    }
}
