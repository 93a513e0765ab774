// The sections `coordinator` with etcd, and `fence` with commands: read as they are meant, refused with line and key.

import ClusterConfiguration
import Foundation
import LogModel
import Testing

struct CoordinatorSectionTests {
    private static let file = "{type: file, path: run/coordinator}"

    private func configuration(coordinator: String) throws -> ClusterConfiguration {
        try ClusterConfiguration.parse(
            example.replacing(Self.file, with: coordinator), file: "cluster.yaml", baseDirectory: "/base")
    }

    private func etcd(_ coordinator: String) throws -> ClusterConfiguration.Etcd {
        var found: ClusterConfiguration.Etcd?
        if case .etcd(let etcd) = try configuration(coordinator: coordinator).coordinator { found = etcd }
        return try #require(found)
    }

    @Test("etcd: endpoints in order, files beside the configuration, a prefix of the cluster's own")
    func everyKey() throws {
        let plain = try etcd("{type: etcd, endpoints: ['http://127.0.0.1:2379']}")
        #expect(plain.endpoints.map(\.description) == ["http://127.0.0.1:2379"] && plain.prefix == "/twinlog/demo")
        #expect(plain.caPath == nil && plain.certificatePath == nil && plain.keyPath == nil && plain.login == nil)
        let full = try etcd(
            "{type: etcd, endpoints: ['https://a:2379', 'https://[fd00::2]:2379'], prefix: /storage/one, ca: ca.pem, "
                + "certificate: node.pem, key: /etc/node.key, user: twinlog, password-file: etcd.password}")
        #expect(full.endpoints.map(\.description) == ["https://a:2379", "https://[fd00::2]:2379"])
        #expect(full.prefix == "/storage/one" && full.caPath == "/base/ca.pem")
        #expect(full.certificatePath == "/base/node.pem" && full.keyPath == "/etc/node.key")
        #expect(full.login?.user == "twinlog" && full.login?.passwordPath == "/base/etcd.password")
    }

    static let wrong: [(String, key: String, reason: String)] = [
        ("", "coordinator", "'endpoints' is missing"),
        ("endpoints: []", "coordinator.endpoints", "at least one"),
        ("endpoints: ['127.0.0.1:2379']", "coordinator.endpoints[0]", "is not http://HOST:PORT"),
        ("endpoints: ['http://127.0.0.1']", "coordinator.endpoints[0]", "is not http://HOST:PORT"),
        ("endpoints: ['http://u@127.0.0.1:1']", "coordinator.endpoints[0]", "is not http://HOST:PORT"),
        ("endpoints: ['http://127.0.0.1:1/v3']", "coordinator.endpoints[0]", "is not http://HOST:PORT"),
        ("endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:1']", "coordinator.endpoints[1]", "given twice"),
        ("endpoints: ['http://127.0.0.1:1'], prefix: twinlog", "coordinator.prefix", "is not a prefix"),
        ("endpoints: ['http://127.0.0.1:1'], prefix: /twinlog/", "coordinator.prefix", "is not a prefix"),
        ("endpoints: ['http://127.0.0.1:1'], prefix: '/twin log'", "coordinator.prefix", "is not a prefix"),
        ("endpoints: ['http://127.0.0.1:1'], path: run/coordinator", "coordinator.path", "is not a key"),
        ("endpoints: ['http://127.0.0.1:1'], ca: ca.pem", "coordinator.ca", "no endpoint has it"),
        ("endpoints: ['https://a:1'], certificate: a.pem", "coordinator.certificate", "needs 'key'"),
        ("endpoints: ['https://a:1'], key: a.key", "coordinator.key", "needs 'certificate'"),
        ("endpoints: ['https://a:1'], user: twinlog", "coordinator.user", "needs 'password-file'"),
        ("endpoints: ['https://a:1'], password-file: f", "coordinator.password-file", "needs 'user'"),
        (
            "endpoints: ['https://a:1', 'http://b:1'], user: twinlog, password-file: f", "coordinator.password-file",
            "would let everybody on the way read the password"
        ),
        ("endpoints: ['http://b:1']", "coordinator.endpoints", "read the cluster's secret"),
    ]

    @Test("S21, S22: what cannot be right is refused with its key", arguments: wrong.indices)
    func refused(_ index: Int) throws {
        let (keys, key, reason) = Self.wrong[index]
        let error = try #require(throws: ConfigurationError.self) {
            try configuration(coordinator: "{type: etcd\(keys.isEmpty ? "" : ", " + keys)}")
        }
        #expect(error.line == 2 && error.key == key && error.reason.contains(reason), "\(error)")
    }

    @Test(
        "S27: nodes with other etcds, or one with a directory, have not the same configuration; the way there may differ"
    )
    func shared() throws {
        let one = try configuration(coordinator: "{type: etcd, endpoints: ['http://127.0.0.1:1'], prefix: /a}")
        let other = try configuration(coordinator: "{type: etcd, endpoints: ['http://127.0.0.1:2'], prefix: /a}")
        #expect(one.sharedDigest == other.sharedDigest)
        let elsewhere = try configuration(coordinator: "{type: etcd, endpoints: ['http://127.0.0.1:1'], prefix: /b}")
        #expect(one.sharedDigest != elsewhere.sharedDigest)
        #expect(one.sharedDigest != (try configuration(coordinator: Self.file)).sharedDigest)
    }

    @Test("S22: a secret in a file, or a file that says that all is open, needs no https")
    func withoutEncryption() throws {
        for security in ["{psk-file: psk}", "{insecure: true}"] {
            let read = try parse(
                example.replacing(Self.file, with: "{type: etcd, endpoints: ['http://b:1']}")
                    .replacing("lease: 1s", with: "lease: 1s\nsecurity: \(security)"))
            #expect(read.fences == [.process])
        }
    }

    // MARK: Fences

    private func fences(_ fence: String) throws -> [ClusterConfiguration.Fence] {
        try parse(example.replacing("fence: {type: process}", with: "fence: \(fence)")).fences
    }

    private func command(
        in fences: [ClusterConfiguration.Fence], at index: Int
    ) -> ClusterConfiguration.FenceCommand? {
        if case .command(let command) = fences[index] { command } else { nil }
    }

    @Test("a fence is a process's end, an agent, or a list of them; a node adds what only it has")
    func fenceSection() throws {
        #expect(try fences("{type: process}") == [.process])
        let command = try #require(
            command(
                in: try fences(
                    "{type: command, run: [fence_ipmilan], options: {lanplus: 1, user: admin}, timeout: 5s}"), at: 0))
        #expect(command.run == ["fence_ipmilan"] && command.timeoutMillis == 5000)
        #expect(command.options == ["lanplus": "1", "user": "admin"])
        let list = try fences("[{type: process}, {type: command, run: [./agent, -v]}]")
        let second = try #require(self.command(in: list, at: 1))
        #expect(list.count == 2 && list[0] == .process)
        #expect(second.run == ["/base/./agent", "-v"] && second.options.isEmpty && second.timeoutMillis == 20_000)
        let read = try parse(
            example.replacing(
                "    admin: run/alpha.sock", with: "    fence: {options: {ip: 10.0.0.1}}\n    admin: run/alpha.sock"))
        #expect(read.node(NodeID("alpha"))?.fenceOptions == ["ip": "10.0.0.1"])
        #expect(read.node(NodeID("beta"))?.fenceOptions.isEmpty == true)
    }

    static let wrongFences: [(String, key: String, reason: String)] = [
        ("[]", "fence", "at least one"), ("{type: command}", "fence", "'run' is missing"),
        ("{type: command, run: []}", "fence.run", "needs a program"),
        ("{type: command, run: fence}", "fence.run", "must be a list"),
        ("{type: process, run: [a]}", "fence.run", "is not a key"),
        ("{type: command, run: [a], timeout: 0s}", "fence.timeout", "is not a time"),
        ("{type: command, run: [a], timeout: 1000s}", "fence.timeout", "to 600 s"),
        ("{type: command, run: [a], options: {action: reboot}}", "fence.options.action", "the node tells"),
        ("{type: command, run: [a], options: {a b: c}}", "fence.options.a b", "not one line"),
        ("{type: command, run: [a], options: {a: \"b\\nc\"}}", "fence.options.a", "not one line"),
        ("[{type: process}, {type: ipmi}]", "fence[1].type", "is not one of"),
    ]

    @Test("S21: a fence that cannot be right is refused with its key", arguments: wrongFences.indices)
    func refusedFence(_ index: Int) throws {
        let (fence, key, reason) = Self.wrongFences[index]
        let error = try #require(throws: ConfigurationError.self) { try fences(fence) }
        #expect(error.line == 5 && error.key == key && error.reason.contains(reason), "\(error)")
    }
}
