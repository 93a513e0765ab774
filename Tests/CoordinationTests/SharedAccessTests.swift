// A coordinator's directory that several users share by a group. Only root can give files to a group that it is not in.

import Coordination
import Glibc
import LogModel
import TestSupport
import Testing

@Suite(.enabled(if: geteuid() == 0, "only root may give files to any group"))
struct SharedAccessTests {
    private static let group: UInt32 = 31099
    private static let stranger: UInt32 = 31098
    private let folder: Folder
    private var path: String { folder.file("shared") }
    private let access = FileAccess(mode: 0o660, group: group)

    init() throws { folder = try Folder() }

    private func about(_ path: String) throws -> (mode: UInt32, user: UInt32, group: UInt32) {
        var about = stat()
        try #require(stat(path, &about) == 0)
        return (about.st_mode & 0o7777, about.st_uid, about.st_gid)
    }

    private func removeShared() {
        for name in listing(of: path) { unlink("\(path)/\(name)") }
        rmdir(path)
    }

    @Test("O6: what the nodes keep at the coordinator is open to the group, and to nobody else")
    func files() throws {
        defer { removeShared() }
        let coordinator = try FileCoordinator(directory: path, access: access)
        #expect(try about(path) == (0o2770, geteuid(), Self.group))
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        let process = try ProcessIdentity.current(node: NodeID("alpha"))
        for counter in 1...2 as ClosedRange<UInt64> {
            try coordinator.announce(Presence(process: process, counter: counter, pool: .zero, problems: nil))
        }
        _ = try coordinator.clusterSecret()
        #expect(listing(of: path) == [fileName(1), "presence.alpha", "secret"])
        for name in listing(of: path) {
            #expect(try about("\(path)/\(name)") == (0o660, geteuid(), Self.group), "\(name)")
        }
    }

    @Test("O6, S22: a secret is never everybody's, though records may be")
    func secret() throws {
        defer { removeShared() }
        let open = FileAccess(mode: 0o664, group: Self.group)
        let coordinator = try FileCoordinator(directory: path, access: open)
        _ = try coordinator.clusterSecret()
        #expect(try about("\(path)/secret").mode == 0o660)
        #expect(try about(path).mode == 0o2775)
    }

    @Test("O6, D4: only the group that is named may write to the directory, whoever made it")
    func permissions() throws {
        defer { removeShared() }
        let shared = try FileCoordinator(directory: path, access: access)
        try shared.checkPermissions()
        try #require(chown(path, 31001, Self.group) == 0)
        try shared.checkPermissions()
        // The same directory, for a node whose configuration names no group.
        let alone = FileCoordinator(existing: path)
        let stranger = try #require(throws: CoordinationError.self) { try alone.checkPermissions() }
        #expect(stranger.message.contains("belongs to user 31001"))
        try #require(chown(path, 0, Self.stranger) == 0)
        let other = try #require(throws: CoordinationError.self) { try shared.checkPermissions() }
        #expect(other.message.contains("`chgrp \(Self.group)` it"), "\(other)")
        try #require(chown(path, 0, Self.group) == 0 && chmod(path, 0o2777) == 0)
        #expect(throws: CoordinationError.self) { try shared.checkPermissions() }
    }

    @Test("O6, S22: a secret that the group shares is believed by its members' nodes alone")
    func sharedSecret() throws {
        let file = folder.file("psk")
        let made = try SecretFile.create(file, access: access)
        try #require(chown(file, 31001, Self.group) == 0)
        #expect(try SecretFile.read(file, trusting: Self.group) == made)
        for group in [nil, Self.stranger] {
            let error = try #require(throws: SecretError.self) { try SecretFile.read(file, trusting: group) }
            #expect(error.code == .untrusted)
        }
        try #require(chmod(file, 0o664) == 0)
        #expect(throws: SecretError.self) { try SecretFile.read(file, trusting: Self.group) }
    }

    @Test("a coordinator that is only looked at makes no directory") func existing() {
        let coordinator = FileCoordinator(existing: path, access: access)
        #expect(throws: CoordinationError.self) { try coordinator.checkPermissions() }
        #expect(throws: CoordinationError.self) { try coordinator.read(GroupID("g0")) }
        #expect(listing(of: folder.path) == [])
    }
}
