// Two hosts that share a network and a medium, as network namespaces of this machine: etcd beside them, rails between them with a key, and a fence
// agent that ends all that runs on a host (S16, S18).

import AdminProtocol
import ClusterHarness
import Coordination
import CoordinationEtcd
import EtcdSupport
import Foundation
import Glibc
import LogModel
import TestSupport
import Testing

/// Two namespaces on a bridge. Ended, with all that runs there, when it goes.
private final class TwoHosts: Sendable {
    static let canBeMade = geteuid() == 0 && (try? TwoHosts()) != nil

    /// Of the namespaces, followed by the name of the node; a device's name has at most 15 bytes.
    let prefix: String
    private let network: String

    init() throws {
        let number = UInt8.random(in: 1...254)
        prefix = "tl\(UInt16.random(in: .min ... .max))-"
        network = "10.231.\(number)"
        try succeed("ip", "link", "add", bridge, "type", "bridge")
        try succeed("ip", "addr", "add", "\(address)/24", "dev", bridge)
        try succeed("ip", "link", "set", bridge, "up")
        for node in LocalCluster.nodes { try make(node) }
    }

    deinit {
        for node in LocalCluster.nodes {
            _ = try? run(
                "bash", "-c", "ip netns pids \(prefix)\(node) | xargs -r kill -9; ip netns del \(prefix)\(node)")
        }
        _ = try? run("ip", "link", "del", bridge)
    }

    private var bridge: String { prefix + "br" }
    private func device(_ node: String) -> String { prefix + node.prefix(1) }

    private func make(_ node: String) throws {
        let host = prefix + node
        try succeed("ip", "netns", "add", host)
        try succeed("ip", "link", "add", device(node), "type", "veth", "peer", "name", "eth0", "netns", host)
        try succeed("ip", "link", "set", device(node), "master", bridge, "up")
        try succeed("ip", "-n", host, "addr", "add", "\(address(of: node))/24", "dev", "eth0")
        for name in ["eth0", "lo"] { try succeed("ip", "-n", host, "link", "set", name, "up") }
    }

    /// Of neither host, and reached by both.
    var address: String { network + ".254" }
    func address(of node: String) -> String { network + (node == "alpha" ? ".1" : ".2") }

    func setLink(of node: String, _ state: String) throws { try succeed("ip", "link", "set", device(node), state) }

    func launcher(_ node: String) -> [String] { ["/usr/bin/env", "ip", "netns", "exec", prefix + node] }

    /// An agent that turns a host off: ends all that runs there.
    func makeAgent(in folder: Folder) throws -> String {
        let agent = folder.file("fence_namespace")
        try put(
            """
            #!/bin/sh
            while IFS== read -r key value; do
                case "$key" in action) action=$value ;; nodename) host=\(prefix)$value ;; esac
            done
            case "$action" in
            off) ip netns pids "$host" | xargs -r kill -9; while [ -n "$(ip netns pids "$host")" ]; do sleep 0.01; done ;;
            status) [ -n "$(ip netns pids "$host")" ] || exit 2 ;;
            *) exit 1 ;;
            esac

            """, into: agent)
        try #require(chmod(agent, 0o700) == 0)
        return agent
    }
}

extension Cluster {
    @Suite(
        .serialized, .enabled(if: EtcdServers.isInstalled, "/usr/bin/etcd is missing: Debian's etcd-server"),
        .enabled(if: TwoHosts.canBeMade, "network namespaces take root and `ip netns`"))
    struct TwoHostsTests {
        @Test("S16, S18: a host whose link goes down is turned off and taken over from, and mirrors when it is back")
        func linkDown() async throws {
            let folder = try Folder()
            let hosts = try TwoHosts()
            let servers = try EtcdServers(members: 3, in: folder.path, at: hosts.address)
            let coordinator = EtcdCoordinator(servers.settings())
            #expect(try await eventually(seconds: 60) { (try? coordinator.presences(of: [])) != nil })
            var options = LocalClusterOptions()
            options.leaseMillis = 3000
            options.mirrorHosts = (hosts.address(of: "alpha"), hosts.address(of: "beta"))
            options.security = "{psk-file: psk}"
            options.fence = "{type: command, run: [\(try hosts.makeAgent(in: folder))], timeout: 20s}"
            let places = servers.endpoints.map { "'\($0)'" }.joined(separator: ", ")
            options.coordinator = "{type: etcd, endpoints: [\(places)]}"
            try await withCluster(options, started: false) { cluster in
                try SecretFile.create(cluster.folder + "/psk")
                for node in LocalCluster.nodes { try cluster.start(node, through: hosts.launcher(node)) }
                try await cluster.waitUntilMirrored(seconds: 60)
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 3) { history in
                    try await cluster.wait("written") { history.acknowledgedWrites > 200 }
                    try hosts.setLink(of: owner, "down")
                    try await cluster.wait("taken over", seconds: 60) { cluster.owner() == mirror }
                    #expect(!cluster.isRunning(owner))
                    let before = history.acknowledgedWrites
                    try await cluster.wait("served") { history.acknowledgedWrites > before }
                    cluster.kill(owner)
                    try hosts.setLink(of: owner, "up")
                    try cluster.start(owner, through: hosts.launcher(owner))
                    try await cluster.waitUntilMirrored(seconds: 60)
                }
                try await verify(history, cluster)
            }
            withExtendedLifetime((servers, hosts)) {}
        }
    }
}
