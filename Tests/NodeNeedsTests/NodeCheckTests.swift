// What `check-config --node` finds, on folders of its own; nothing there is changed by looking.

import ClusterConfiguration
import ClusterHarness
import Coordination
import Foundation
import Glibc
import LogModel
import NodeNeeds
import PersistentMemory
import RecordSupport
import TestSupport
import Testing

private final class Site {
    let folder: String
    private let ports = Result { try (LocalCluster.freePort(), LocalCluster.freePort()) }

    init() throws {
        folder = "/dev/shm/twinlog-needs-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder + "/run", withIntermediateDirectories: true)
    }

    deinit {
        do { try FileManager.default.removeItem(atPath: folder) } catch { print("\(folder) stays: \(error)") }
    }

    /// The lines that the tests name are those of this text.
    func configuration(_ replacements: (String, String)...) throws -> ClusterConfiguration {
        let (alpha, beta) = try ports.get()
        let text = """
            cluster: demo
            coordinator: {type: file, path: run/coordinator}
            limits: {memory: 128MiB, connections: 16}
            nodes:
              alpha:
                mirror: ["127.0.0.1:\(alpha)"]
                nbd: unix:run/alpha.nbd
                admin: run/alpha.sock
                pool: {path: run/alpha.pool, size: 16MiB}
              beta: {mirror: ["127.0.0.1:\(beta)"], nbd: "unix:run/beta.nbd", admin: run/beta.sock, pool: {path: run/beta.pool, size: 16MiB}}
            groups:
              g0:
                home: alpha
                mirror: beta
                log: 4MiB
                volumes:
                  vol0: {medium: run/vol0.img, size: 64KiB}
            """
        return try ClusterConfiguration.parse(
            replacements.reduce(text) { $0.replacing($1.0, with: $1.1) }, file: "c.yaml", baseDirectory: folder)
    }

    func check(_ configuration: ClusterConfiguration, descriptors: UInt64 = 4096, memory: UInt64 = 1 << 40) -> NodeCheck
    {
        NodeCheck(
            configuration, node: configuration.nodes[0], descriptorLimit: descriptors, memoryBytes: memory)
    }

    func path(_ name: String) -> String { "\(folder)/run/\(name)" }

    /// Names, sizes, modes and times of all files.
    func everything() throws -> [String] {
        try FileManager.default.subpathsOfDirectory(atPath: folder).sorted().map { name in
            let about = try FileManager.default.attributesOfItem(atPath: "\(folder)/\(name)")
            return "\(name) \(about[.size] ?? "") \(about[.posixPermissions] ?? "") \(about[.modificationDate] ?? "")"
        }
    }
}

struct NodeCheckTests {
    private let site: Site
    init() throws { site = try Site() }

    private func keys(_ check: NodeCheck) -> [String] { check.problems.map(\.key) }

    @Test("a node that was never started finds all that it needs, and nothing is made by looking")
    func fresh() throws {
        let before = try site.everything()
        let check = site.check(try site.configuration())
        #expect(check.problems == [])
        #expect(check.remarks.count == 1 && check.remarks[0].hasPrefix("beta could not be asked: "))
        #expect(try site.everything() == before)
    }

    @Test("all that is missing is said at once, in the order of the file, with line and key")
    func nothingThere() throws {
        let gone = try site.configuration(("run/", "gone/"))
        let check = site.check(gone, descriptors: 100, memory: 64 << 20)
        #expect(
            keys(check) == [
                "coordinator.path", "limits.memory", "nodes.alpha", "nodes.alpha.nbd", "nodes.alpha.admin",
                "nodes.alpha.pool.path", "groups.g0.volumes.vol0.medium",
            ])
        #expect(check.problems.map(\.line) == [2, 3, 5, 7, 8, 9, 17])
        #expect(check.problems.allSatisfy { $0.line < 4 || $0.line == 5 || $0.reason.contains("does not exist") })
        #expect(check.problems[0].description.hasPrefix("c.yaml:2: coordinator.path: the folder "))
    }

    @Test("S27: certificates and keys that cannot be used are found before a start, each with its key and line")
    func certificates() throws {
        let authority = try TestAuthority()
        let files = try authority.issue("alpha", names: ["DNS:alpha"])
        let lines =
            "limits: {memory: 128MiB, connections: 16}\nsecurity: {ca: \(authority.authorities), certificate: \(files.certificate), key: \(files.key)}"
        let configured = try site.configuration(("limits: {memory: 128MiB, connections: 16}", lines))
        #expect(site.check(configured).problems == [])
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: files.key)
        let open = site.check(configured)
        #expect(keys(open) == ["security.key"] && open.problems[0].line == 4)
        #expect(open.problems[0].reason.contains("others may read this key"))
        try FileManager.default.removeItem(atPath: authority.authorities)
        #expect(keys(site.check(configured)) == ["security.ca"])
    }

    @Test("O26: descriptors are counted before a takeover needs them, and both numbers are said")
    func descriptors() throws {
        let volumes = (0..<1500).map { "      v\($0): {medium: run/v\($0).img, size: 64KiB}" }.joined(separator: "\n")
        let many = try site.configuration(("      vol0: {medium: run/vol0.img, size: 64KiB}", volumes))
        let need = DescriptorNeed(many, node: many.nodes[0])
        #expect(need.count > 1516)
        #expect(need.problem(limit: need.count) == nil)
        let problem = try #require(need.problem(limit: need.count - 1))
        #expect(problem.contains("\(need.count) descriptors") && problem.contains("may have \(need.count - 1)"))
        #expect(
            DescriptorNeed(many, node: many.nodes[1]).count == need.count, "the mirror owns all of it after a takeover")
    }

    @Test("O26: a logical unit takes seven descriptors, a group eight for each address of the node that has the most")
    func descriptorsOfUnitsAndRails() throws {
        func need(_ configuration: ClusterConfiguration) -> UInt64 {
            DescriptorNeed(configuration, node: configuration.nodes[0]).count
        }
        let plain = need(try site.configuration())
        let unit = ("run/vol0.img", "iscsi://127.0.0.1/iqn.2026-11.com.example:disk/1")
        #expect(need(try site.configuration(unit)) == plain + 6)
        let second = ("beta: {mirror: [", "beta: {mirror: [\"127.0.0.2:7001\", ")
        #expect(need(try site.configuration(second)) == plain + 8, "the mirror's second address counts for the owner")
    }

    @Test("O18: a pool of another size, of another node, or that is none, is told with its key")
    func pools() throws {
        func make(_ node: String, _ mebibytes: UInt64) throws {
            try Pool.create(
                path: site.path("alpha.pool"), sizeBytes: mebibytes << 20,
                identity: PoolIdentity(uuid: .random(), cluster: "demo", node: NodeID(node)), persistence: .auto
            ).close()
        }
        let configuration = try site.configuration()
        for size in [8, 32] as [UInt64] {
            try make("alpha", size)
            let problem = try #require(site.check(configuration).problems.first)
            #expect(problem.key == "nodes.alpha.pool.size" && problem.line == 9)
            #expect(problem.reason.contains("is a pool of \(size)MiB, the configuration says 16MiB"))
            try FileManager.default.removeItem(atPath: site.path("alpha.pool"))
        }
        try make("beta", 16)
        #expect(site.check(configuration).problems.first?.reason.contains("belongs to node beta") == true)
        try FileManager.default.removeItem(atPath: site.path("alpha.pool"))
        try FileManager.default.createSymbolicLink(atPath: site.path("alpha.pool"), withDestinationPath: "/nowhere")
        let link = try #require(site.check(configuration).problems.first)
        #expect(link.key == "nodes.alpha.pool.path" && link.reason.contains("a symbolic link to /nowhere"))
    }

    @Test("a new pool needs room that its file system has not") func room() throws {
        let check = site.check(
            try site.configuration(("run/alpha.pool, size: 16MiB", "run/alpha.pool, size: 1048576GiB")))
        #expect(keys(check) == ["nodes.alpha.pool.size"])
        #expect(check.problems[0].reason.contains("needs 1125899906842624 bytes; its file system has "))
    }

    @Test("S18: a medium is looked at as a start would: size, kind, identity") func media() throws {
        let configuration = try site.configuration()
        let medium = site.path("vol0.img")
        try Data(repeating: 0, count: 4096).write(to: URL(fileURLWithPath: medium))
        let size = try #require(site.check(configuration).problems.first)
        #expect(size.key == "groups.g0.volumes.vol0.size" && size.reason.contains("is 4096 bytes"))
        try FileManager.default.removeItem(atPath: medium)
        try FileManager.default.createDirectory(atPath: medium, withIntermediateDirectories: false)
        #expect(keys(site.check(configuration)) == ["groups.g0.volumes.vol0.medium"])
        try FileManager.default.removeItem(atPath: medium)
        // A group that was written to does not get an empty file.
        let coordinator = try FileCoordinator(directory: site.path("coordinator"))
        var record = GroupRecord(
            version: 1, group: GroupID("g0"), logUUID: UUID128(high: 1, low: 2), owner: NodeID("alpha"),
            epoch: Epoch(1),
            phase: .published, holders: [NodeID("alpha")], ownerProcess: nil, pools: ["alpha": UUID128(high: 3, low: 1)]
        )
        record.media = ["vol0": UUID128(high: 9, low: 9)]
        #expect(try coordinator.swap(expecting: 0, to: record) == .won)
        let missing = try #require(site.check(configuration).problems.first)
        #expect(missing.key == "groups.g0.volumes.vol0.medium" && missing.reason.contains("mount what it is on"))
        try Data(repeating: 0, count: 64 << 10).write(to: URL(fileURLWithPath: medium))
        #expect(site.check(configuration).problems.first?.reason.contains("has no identity") == true)
    }

    @Test("D4, S22: a coordinator or a secret that others may write is told as a start would") func permissions() throws
    {
        let configuration = try site.configuration()
        let coordinator = try FileCoordinator(directory: site.path("coordinator"))
        _ = try coordinator.clusterSecret()
        #expect(site.check(configuration).problems == [])
        try #require(chmod(coordinator.secretPath, 0o644) == 0)
        #expect(site.check(configuration).problems.first?.reason.contains("others may read or write") == true)
        try #require(chmod(coordinator.secretPath, 0o600) == 0 && chmod(coordinator.directory, 0o777) == 0)
        let open = try #require(site.check(configuration).problems.first)
        #expect(open.key == "coordinator.path" && open.reason.contains("chmod go-w"))
        let named = try site.configuration(("limits:", "security: {psk-file: run/none}\nlimits:"))
        #expect(keys(site.check(named)).contains("security.psk-file"))
    }

    @Test("an etcd that does not answer, a key that others may read, and an agent that is not there are told")
    func etcdAndAgents() throws {
        let port = try LocalCluster.freePort()
        func etcd(_ more: String = "", scheme: String = "http") throws -> ClusterConfiguration {
            try site.configuration(
                (
                    "{type: file, path: run/coordinator}",
                    "{type: etcd, endpoints: ['\(scheme)://127.0.0.1:\(port)']\(more)}"
                ),
                ("limits:", "fence: {type: command, run: [fence_nowhere]}\nlimits:"))
        }
        let check = site.check(try etcd())
        #expect(keys(check) == ["coordinator", "fence"])
        #expect(check.problems[0].line == 2 && check.problems[0].reason.contains("http://127.0.0.1:\(port)"))
        #expect(check.problems[1].line == 3 && check.problems[1].reason.contains("fence_nowhere is not in PATH"))
        let key = site.path("node.key")
        try Data("key".utf8).write(to: URL(fileURLWithPath: key))
        try #require(chmod(key, 0o644) == 0)
        let open = site.check(try etcd(", certificate: run/node.pem, key: run/node.key", scheme: "https"))
        #expect(open.problems.first?.reason.contains("\(key): others may read") == true)
    }

    @Test("an address that is taken, or not of this machine, and a socket's place that holds something else")
    func places() throws {
        let configuration = try site.configuration()
        let address = configuration.nodes[0].mirror[0]
        let port = try #require(UInt16(address.split(separator: ":").last ?? ""))
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr.s_addr = inet_addr("127.0.0.1")
        let bound = withUnsafePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(bound == 0 && listen(listener, 1) == 0)
        try Data().write(to: URL(fileURLWithPath: site.path("alpha.nbd")))
        let check = site.check(configuration)
        #expect(keys(check) == ["nodes.alpha.mirror", "nodes.alpha.nbd"])
        #expect(check.problems[0].reason == "\(address) cannot be listened on: another process listens there")
        #expect(check.problems[1].reason.hasSuffix("something else than a socket is there"))
    }
}
