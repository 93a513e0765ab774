// Two keys of a configuration that lead to one file, by names that differ.

import ClusterConfiguration
import Foundation
import LogModel
import Testing

struct FileNamesTests {
    /// A folder with `vol0.img` in it, and other names of that: a symlink, a hard link, a linked folder.
    private final class Folder {
        let path: String

        init() throws {
            path = "/dev/shm/twinlog-names-\(UUID128.random())"
            let files = FileManager.default
            try files.createDirectory(atPath: path + "/x", withIntermediateDirectories: true)
            try Data([1]).write(to: URL(fileURLWithPath: path + "/vol0.img"))
            try files.createSymbolicLink(atPath: path + "/soft.img", withDestinationPath: "vol0.img")
            try files.linkItem(atPath: path + "/vol0.img", toPath: path + "/hard.img")
            try files.createSymbolicLink(atPath: path + "/linked", withDestinationPath: ".")
        }

        deinit {
            do { try FileManager.default.removeItem(atPath: path) } catch { print("\(path) stays: \(error)") }
        }
    }

    private func text(
        volumes: [String], alphaPool: String = "alpha.pool", betaPool: String = "beta.pool", admin: String = "beta.sock"
    ) -> String {
        let entries = volumes.enumerated().map { "vol\($0): {medium: \($1), size: 1MiB}" }.joined(separator: ", ")
        return """
            cluster: demo
            coordinator: {type: file, path: coordinator}
            nodes:
              alpha: {mirror: ["127.0.0.1:7101"], nbd: "unix:alpha.nbd", admin: alpha.sock, pool: {path: \(alphaPool), size: 32MiB}}
              beta: {mirror: ["127.0.0.1:7102"], nbd: "unix:beta.nbd", admin: \(admin), pool: {path: \(betaPool), size: 32MiB}}
            groups:
              g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {\(entries)}}
            """
    }

    private func refusal(_ text: String, in folder: String) throws -> ConfigurationError {
        try #require(throws: ConfigurationError.self) {
            _ = try ClusterConfiguration.parse(text, file: "cluster.yaml", baseDirectory: folder)
        }
    }

    @Test(
        "O8: two volumes on one file are refused by the file, with both names and both keys",
        arguments: ["./vol0.img", "x/../vol0.img", "soft.img", "hard.img", "linked/vol0.img", "no/../vol0.img"])
    func media(name: String) throws {
        let folder = try Folder()
        let error = try refusal(text(volumes: ["vol0.img", name]), in: folder.path)
        #expect(error.key == "groups.g0.volumes.vol1.medium" && error.line == 7)
        #expect(
            error.reason
                == "\(folder.path)/\(name) is the same file as \(folder.path)/vol0.img of groups.g0.volumes.vol0.medium already"
        )
    }

    @Test("O8: names of files that do not exist yet are compared by where they lead")
    func notThereYet() throws {
        let folder = try Folder()
        for (one, other) in [
            ("new.img", "x/../new.img"), ("linked/new.img", "./new.img"), ("y/new.img", "y/./new.img"),
        ] {
            #expect(try refusal(text(volumes: [one, other]), in: folder.path).reason.contains("is the same file as"))
        }
    }

    @Test("O8: pools, sockets and media are held against each other")
    func kinds() throws {
        let folder = try Folder()
        let pools = try refusal(text(volumes: ["vol0.img"], betaPool: "./alpha.pool"), in: folder.path)
        #expect(pools.key == "nodes.beta.pool.path" && pools.reason.contains("of nodes.alpha.pool.path"))
        let mixed = try refusal(text(volumes: ["vol0.img"], betaPool: "hard.img"), in: folder.path)
        #expect(mixed.key == "groups.g0.volumes.vol0.medium" && mixed.reason.contains("of nodes.beta.pool.path"))
        let socket = try refusal(text(volumes: ["vol0.img"], admin: "x/../alpha.nbd"), in: folder.path)
        #expect(socket.key == "nodes.beta.admin" && socket.reason.contains("of nodes.alpha.nbd"))
        let coordinator = try refusal(text(volumes: ["linked/coordinator"]), in: folder.path)
        #expect(coordinator.reason.contains("of coordinator.path"))
    }

    @Test func filesThatDifferMayBeNamedAlike() throws {
        let folder = try Folder()
        let good = text(volumes: ["vol0.img", "x/vol0.img", "linked/x/other.img"])
        _ = try ClusterConfiguration.parse(good, file: "cluster.yaml", baseDirectory: folder.path)
    }
}
