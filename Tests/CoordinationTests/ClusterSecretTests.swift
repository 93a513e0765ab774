// The cluster's secret on disk: made once, whole, for its owner's eyes, and not believed where others could have had it (S22).

import Coordination
import Glibc
import LogModel
import TestSupport
import Testing

struct ClusterSecretTests {
    private func mode(_ path: String) throws -> mode_t {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return status.st_mode & 0o777
    }

    @Test("S22: the first node that asks makes the secret, mode 0600, and every later one reads it")
    func madeOnce() throws {
        let folder = try Folder()
        let secret = try FileCoordinator(directory: folder.path).clusterSecret()
        #expect(try FileCoordinator(directory: folder.path).clusterSecret() == secret)
        #expect(folder.names == ["secret"])
        #expect(try mode(folder.file("secret")) == 0o600)
        #expect(String(decoding: try contents(of: folder.file("secret")), as: UTF8.self) == secret.hexadecimal + "\n")
    }

    @Test("nodes that start at once agree on one secret")
    func atOnce() async throws {
        let folder = try Folder()
        let secrets = await withTaskGroup(of: Result<ClusterSecret, any Error>.self) { group in
            for _ in 0..<16 {
                group.addTask { Result { try FileCoordinator(directory: folder.path).clusterSecret() } }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(try Set(secrets.map { try $0.get() }).count == 1)
        #expect(folder.names == ["secret"])
    }

    @Test(
        "S22: a secret that others may read or write is refused, with its path and what helps",
        arguments: [0o640, 0o604, 0o620, 0o602, 0o666, 0o610] as [mode_t])
    func openToOthers(_ mode: mode_t) throws {
        let folder = try Folder()
        let path = folder.file("psk")
        try SecretFile.create(path)
        #expect(chmod(path, mode) == 0)
        let error = try #require(throws: SecretError.self) { try SecretFile.read(path) }
        #expect(error.code == .untrusted)
        #expect(error.message.contains(path) && error.message.contains("chmod 600"))
    }

    @Test("S22: a secret of another user is refused", .enabled(if: geteuid() == 0, "only root can give a file away"))
    func ofAnotherUser() throws {
        let folder = try Folder()
        let path = folder.file("psk")
        try SecretFile.create(path)
        #expect(chown(path, 65534, 65534) == 0)
        #expect(throws: SecretError.self) { try SecretFile.read(path) }
    }

    @Test(
        "S21: what is no secret is refused, not stretched or cut",
        arguments: [
            "", "\n", String(repeating: "a", count: 63) + "\n", String(repeating: "a", count: 65) + "\n",
            String(repeating: "a", count: 64) + "\n\n", String(repeating: "g", count: 64) + "\n",
            String(repeating: "a", count: 10_000),
        ]) func noSecret(_ text: String) throws
    {
        let folder = try Folder()
        let path = folder.file("psk")
        try put(text, into: path)
        #expect(chmod(path, 0o600) == 0)
        let error = try #require(throws: SecretError.self) { try SecretFile.read(path) }
        #expect(error.code == .untrusted && error.message.contains(path))
        #expect(text.isEmpty || text == "\n" || !error.message.contains(text.prefix(20)), "nothing of it is shown")
    }

    @Test("a FIFO, a directory and nothing at all are no secrets, and hold nobody up")
    func noFile() throws {
        let folder = try Folder()
        try #require(mkfifo(folder.file("fifo"), 0o600) == 0)
        #expect(throws: SecretError.self) { try SecretFile.read(folder.file("fifo")) }
        #expect(throws: SecretError.self) { try SecretFile.read(folder.path) }
        let error = try #require(throws: SecretError.self) { try SecretFile.read(folder.file("missing")) }
        #expect(error.code == .missing && error.message.contains("init-keys"))
    }

    @Test("a secret is never made over something that is there")
    func notOverwritten() throws {
        let folder = try Folder()
        let path = folder.file("psk")
        let secret = try SecretFile.create(path)
        let error = try #require(throws: SecretError.self) { try SecretFile.create(path) }
        #expect(error.code == .exists)
        #expect(try SecretFile.read(path) == secret)
        #expect(folder.names == ["psk"])
    }
}
