// The nodes of a cluster as two users with a common group, and what a node finds before it starts.

import AdminProtocol
import ClusterHarness
import Foundation
import Glibc
import LogModel
import NBDClient
import NIOCore
import Testing

/// Two users and the group that they share; no data base of users needs to know them.
private enum Users {
    static let ofNode: [String: UInt32] = ["alpha": 31001, "beta": 31002]
    static let stranger: UInt32 = 31003
    static let group: UInt32 = 31099

    static func becoming(_ user: UInt32, isMember: Bool = true) -> [String] {
        ["/usr/bin/setpriv", "--reuid=\(user)", "--regid=\(user)"]
            + [isMember ? "--groups=\(group)" : "--clear-groups"]
    }

    /// Becomes a program that sees no other user's processes.
    static let hiding = [
        "/usr/bin/unshare", "--mount", "/bin/sh", "-c", "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"", "sh",
    ]
    static let canHide: Bool = {
        let words = hiding + ["true"]
        let result = Result { try run("bash", "-c", words.map { "'\($0)'" }.joined(separator: " ")) }
        if case .success(let finished) = result { return finished.code == 0 }
        return false
    }()

    /// `nil` if processes of theirs can be started here.
    static let whyNot: String? = {
        guard geteuid() == 0 else { return "only root can become two other users" }
        let words = becoming(stranger) + ["test", "-x", builtBinaries() + "/twinlogd"]
        let result = Result { try run("bash", "-c", words.map { "'\($0)'" }.joined(separator: " ")) }
        guard case .success(let finished) = result, finished.code == 0 else {
            return "other users cannot reach \(builtBinaries())"
        }
        return nil
    }()
}

extension LocalCluster {
    /// Everything that the nodes make is the group's.
    fileprivate func shareWithTheGroup() throws {
        let shared = "mode: 0660, group: \(Users.group)"
        var text = try String(contentsOfFile: configurationPath, encoding: .utf8)
        text = text.replacing("path: run/coordinator}", with: "path: run/coordinator, \(shared)}")
        for node in Self.nodes {
            text = text.replacing("admin: run/\(node).sock", with: "admin: {path: run/\(node).sock, \(shared)}")
            text = text.replacing("nbd: unix:run/\(node).nbd", with: "nbd: {listen: 'unix:run/\(node).nbd', \(shared)}")
        }
        text = text.replacing("img, size:", with: "img, \(shared), size:")
        try text.write(toFile: configurationPath, atomically: true, encoding: .utf8)
        guard chown(folder + "/run", 0, Users.group) == 0, chmod(folder + "/run", 0o2770) == 0 else {
            throw HarnessError("\(folder)/run: errno \(errno)")
        }
    }

    fileprivate func startAsItsUser(_ node: String) throws {
        try start(node, through: Users.becoming(try #require(Users.ofNode[node])))
    }

    fileprivate func twinlog(as launcher: [String], _ arguments: String...) throws -> Finished {
        let words = launcher + [builtBinaries() + "/twinlog", "--config", configurationPath] + arguments
        return try run("bash", "-c", words.map { "'\($0)'" }.joined(separator: " "))
    }

    fileprivate func owner(of path: String) throws -> (user: UInt32, group: UInt32, mode: UInt32) {
        var about = stat()
        try #require(stat(folder + "/run/" + path, &about) == 0, "\(path)")
        return (about.st_uid, about.st_gid, about.st_mode & 0o777)
    }
}

extension Cluster {
    @Suite(.serialized, .enabled(if: Users.whyNot == nil, Comment(rawValue: Users.whyNot ?? "")))
    struct TwoUsersTests {
        @Test("O6: two users with a common group run a cluster through death, takeover and return")
        func cycle() async throws {
            try await withCluster(started: false) { cluster in
                try cluster.shareWithTheGroup()
                for node in LocalCluster.nodes { try cluster.startAsItsUser(node) }
                try await cluster.waitUntilMirrored()
                #expect(try cluster.owner(of: "vol0.img") == (Users.ofNode["alpha"], Users.group, 0o660))
                #expect(try cluster.owner(of: "alpha.pool").mode == 0o600, "of what is not shared nothing changes")
                let member = Users.becoming(Users.stranger)
                #expect(try cluster.twinlog(as: member, "status").code == 0)
                #expect(try cluster.twinlog(as: Users.becoming(Users.stranger, isMember: false), "status").code == 1)

                let client = try await cluster.connect(to: "alpha")
                try await client.write(offset: 0, Stamp.block(0, stamp: 7))
                cluster.kill("alpha")
                try await cluster.wait("taken over") { cluster.group(at: "beta")?.isOwner == true }
                let after = try await cluster.connect(to: "beta")
                #expect(try await after.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 7))
                try await after.write(offset: 4096, Stamp.block(1, stamp: 8))
                try cluster.startAsItsUser("alpha")
                try await cluster.waitUntilMirrored()
                #expect(try cluster.twinlog(as: member, "handover", "g0", "--to", "alpha").code == 0)
                let back = try await cluster.connect(to: "alpha")
                #expect(try await back.read(offset: 4096, length: 4096) == Stamp.block(1, stamp: 8))
                for client in [after, back] { await client.disconnect() }
            }
        }

        @Test("O6, S17: another user's process that hangs is not fenced, and status says why and what to do")
        func foreignProcess() async throws {
            try await withCluster(LocalClusterOptions(), started: false) { cluster in
                try cluster.shareWithTheGroup()
                for node in LocalCluster.nodes { try cluster.startAsItsUser(node) }
                try await cluster.waitUntilMirrored()
                let client = try await cluster.connect(to: "alpha")
                try await client.write(offset: 0, Stamp.block(0, stamp: 9))
                try await cluster.freeze("alpha")
                try await cluster.wait("refused by name") {
                    guard let reason = cluster.group(at: "beta")?.status.reason else { return false }
                    return reason.contains("it runs as user 31001, this node as user 31002")
                        && reason.contains("`twinlog confirm-dead alpha`")
                }
                #expect(cluster.group(at: "beta")?.status.state == "fencing")
                cluster.kill("alpha")
                try await cluster.wait("taken over") { cluster.group(at: "beta")?.status.state == "degraded" }
                let after = try await cluster.connect(to: "beta")
                #expect(try await after.read(offset: 0, length: 4096) == Stamp.block(0, stamp: 9))
                await after.disconnect()
            }
        }

        @Test("O6, S18: with the capability to end it, another user's process is fenced")
        func capableFence() async throws {
            try await withCluster(LocalClusterOptions(), started: false) { cluster in
                try cluster.shareWithTheGroup()
                try cluster.startAsItsUser("alpha")
                try cluster.start(
                    "beta", through: Users.becoming(31002) + ["--inh-caps=+kill", "--ambient-caps=+kill"])
                try await cluster.waitUntilMirrored()
                try await cluster.freeze("alpha")
                try await cluster.wait("taken over") { cluster.group(at: "beta")?.status.state == "degraded" }
                #expect(!cluster.isRunning("alpha"))
            }
        }

        @Test(
            "S18: a process that /proc hides from this user is not taken for dead",
            .enabled(if: Users.canHide, "no process here can have a /proc of its own"))
        func hiddenProcess() async throws {
            try await withCluster(LocalClusterOptions(), started: false) { cluster in
                try cluster.shareWithTheGroup()
                try cluster.startAsItsUser("alpha")
                try cluster.start("beta", through: Users.hiding + Users.becoming(31002))
                try await cluster.waitUntilMirrored()
                try await cluster.freeze("alpha")
                try await cluster.wait("not confirmed") {
                    cluster.group(at: "beta")?.status.reason?.contains("is hidden from this user (hidepid)") == true
                }
                #expect(cluster.group(at: "beta")?.status.state == "fencing")
                cluster.kill("alpha")
                try await cluster.wait("taken over") { cluster.group(at: "beta")?.status.state == "degraded" }
            }
        }

        @Test("O6: what a user may not reach is found before the start, each thing by name, and nothing is changed")
        func check() async throws {
            try await withCluster(started: false) { cluster in
                try cluster.shareWithTheGroup()
                let member = Users.becoming(31001)
                let fresh = try cluster.twinlog(as: member, "check-config", "--node", "alpha")
                #expect(fresh.code == 0 && fresh.output.hasPrefix("local: alpha: no complaint"), "\(fresh)")
                #expect(try FileManager.default.contentsOfDirectory(atPath: cluster.folder + "/run") == [])
                for node in LocalCluster.nodes { try cluster.startAsItsUser(node) }
                try await cluster.waitUntilMirrored()
                let running = try cluster.twinlog(as: member, "check-config", "--node", "alpha")
                #expect(running.code == 0 && running.output == "local: alpha: no complaint\n", "\(running)")
                for node in LocalCluster.nodes { #expect(cluster.stop(node) == 0) }
                try #require(chmod(cluster.folder + "/run", 0o777) == 0)
                let stranger = Users.becoming(Users.stranger, isMember: false)
                let refused = try cluster.twinlog(as: stranger, "check-config", "--node", "alpha")
                #expect(refused.code == 1)
                let lines = refused.output.split(separator: "\n")
                for (key, reason) in [
                    ("coordinator.path", "cannot be read and written by user 31003"),
                    ("nodes.alpha.pool.path", "Permission denied"),
                    ("coordinator.group", "is not in group 31099"),
                    ("groups.g0.volumes.vol0.medium", "Permission denied"),
                ] {
                    #expect(
                        lines.contains { $0.contains(": \(key): ") && $0.contains(reason) }, "\(key): \(refused.output)"
                    )
                }
            }
        }
    }

    @Suite(.serialized) struct CheckConfigTests {
        @Test("O9: a node that runs with another configuration is named with the keys that differ")
        func difference() async throws {
            try await withCluster { cluster in
                let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
                try text.replacing("lease: 3000ms", with: "lease: 4000ms")
                    .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                let result = try twinlog(cluster, "check-config", "--node", "beta")
                #expect(result.code == 1)
                for node in LocalCluster.nodes {
                    let line =
                        ": nodes.\(node): runs with another configuration: lease is '4000ms' on disk and '3000ms' on \(node)"
                    #expect(result.output.contains(line), "\(result.output)")
                }
            }
        }

        @Test("check-config: 2 for a file that is wrong or a node that it does not have, 1 for a machine that is")
        func codes() async throws {
            try await withCluster(started: false) { cluster in
                #expect(try twinlog(cluster, "check-config", "--node", "alpha").code == 0)
                #expect(try twinlog(cluster, "check-config", "--node", "gamma").code == 2)
                try #require(FileManager.default.createFile(atPath: cluster.mediumPath(), contents: Data([1])))
                let wrong = try twinlog(cluster, "check-config", "--node", "alpha")
                #expect(wrong.code == 1 && wrong.output.contains("groups.g0.volumes.vol0.size: "), "\(wrong)")
                let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
                try (text + "colour: red\n").write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                #expect(try twinlog(cluster, "check-config", "--node", "alpha").code == 2)
            }
        }

        /// What check-config and a start say of alpha; both must refuse, in the same words.
        private func refusal(_ cluster: LocalCluster, after preparation: String = "true") throws -> String {
            let words = ["--config", cluster.configurationPath, "--node", "alpha"].joined(separator: " ")
            let check = try run("bash", "-c", "\(preparation); \(builtBinaries())/twinlog check-config \(words)")
            let start = try run("bash", "-c", "\(preparation); \(builtBinaries())/twinlogd \(words)")
            #expect(check.code == 1 && start.code == 1, "\(check) \(start)")
            let said = try #require(start.output.split(separator: "\n").last).drop { $0 != " " }.dropFirst()
            #expect(check.output.contains(said), "\(check.output)\n\(said)")
            return String(said)
        }

        @Test("O26: too few descriptors are said before a start, and at it, with both numbers")
        func descriptors() async throws {
            try await withCluster(started: false) { cluster in
                let said = try refusal(cluster, after: "ulimit -n 200")
                #expect(
                    said.contains(": nodes.alpha: ") && said.contains("descriptors") && said.contains("may have 200"))
                // The limit that a shell sets may be raised.
                try cluster.start("alpha", through: ["/bin/bash", "-c", "ulimit -Sn 200; exec \"$@\"", "sh"])
                try await cluster.wait("ready") { cluster.group(at: "alpha") != nil }
            }
        }

        @Test("O26: as many descriptors as are asked for are enough for a takeover with every client there may be")
        func takeoverWithTheLeast() async throws {
            try await withCluster(started: false) { cluster in
                let more = (1..<200).map { "\n      more\($0): {medium: run/more\($0).img, size: 64KiB}" }.joined()
                let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
                try (text.trimmingCharacters(in: .newlines) + more + "\nlimits: {connections: 20}\n")
                    .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                let said = try refusal(cluster, after: "ulimit -n 64")
                let count = try #require(said.split(separator: " ").compactMap { Int($0) }.first, "\(said)")
                for node in LocalCluster.nodes {
                    try cluster.start(node, through: ["/bin/bash", "-c", "ulimit -n \(count); exec \"$@\"", "sh"])
                }
                try await cluster.waitUntilMirrored()
                let (owner, mirror) = try cluster.roles()
                cluster.kill(owner)
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                var clients: [NBDClient] = []
                for _ in 0..<20 { clients.append(try await cluster.connect(to: mirror)) }
                try await clients[19].write(offset: 0, Stamp.block(0, stamp: 5))
                for client in clients { await client.disconnect() }
            }
        }

        @Test("O18: a pool of another size than the configuration's is refused with both, also a larger one")
        func poolSize() async throws {
            try await withCluster { cluster in
                for node in LocalCluster.nodes { #expect(cluster.stop(node) == 0) }
                let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
                for mebibytes in [24, 96] {
                    try text.replacing("alpha.pool, size: \(48 << 20)", with: "alpha.pool, size: \(mebibytes)MiB")
                        .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                    let said = try refusal(cluster)
                    #expect(said.contains(": nodes.alpha.pool.size: "))
                    #expect(said.contains("is a pool of 48MiB, the configuration says \(mebibytes)MiB"))
                }
            }
        }

        @Test("O11: an address that is taken is said in the same words before the start and at it")
        func takenAddress() async throws {
            try await withCluster(started: false) { cluster in
                let path = cluster.folder + "/run/alpha.nbd"
                try #require(FileManager.default.createFile(atPath: path, contents: nil))
                let said = try refusal(cluster)
                #expect(
                    said.hasSuffix(
                        "nodes.alpha.nbd: unix:\(path) cannot be listened on: something else than a socket is there"))
            }
        }

        @Test("a damaged pool has one next step, whoever meets it")
        func damagedPool() async throws {
            try await withCluster { cluster in
                for node in LocalCluster.nodes { #expect(cluster.stop(node) == 0) }
                let pool = cluster.folder + "/run/alpha.pool"
                try succeed(
                    "dd", "if=/dev/urandom", "of=\(pool)", "bs=4096", "seek=2", "count=2", "conv=notrunc", "status=none"
                )
                let step =
                    "no copy of the region directory is intact; leave it as it is and use the pool of the group's other node"
                #expect(try refusal(cluster).contains(step))
                #expect(try cluster.recover("scan", "alpha").output.contains(step))
            }
        }

        @Test("O18: a symbolic link that leads nowhere is no place for a pool")
        func danglingPool() async throws {
            try await withCluster(started: false) { cluster in
                try FileManager.default.createSymbolicLink(
                    atPath: cluster.folder + "/run/alpha.pool", withDestinationPath: "/nowhere")
                #expect(try refusal(cluster).contains("is a symbolic link to /nowhere, where nothing is"))
            }
        }
    }
}
