// Two nodes and three members of etcd, each on a host of its own. The rails have a key; the medium is a file that both nodes reach; the fence is an
// agent that ends all that runs on a host, as a switch of its power would. Clients reach the nodes over Unix sockets, past the
// network: also an owner that is cut off from everybody else has clients, and must not serve them (S17).

package import ClusterHarness
package import EtcdSupport
internal import Coordination
internal import Glibc
internal import LogModel
internal import Synchronization
internal import TestSupport

package final class HostCluster: Sendable {
    package static let members = ["etcd0", "etcd1", "etcd2"]

    package let network: HostNetwork
    package let servers: EtcdServers
    package let cluster: LocalCluster
    private let folder: Folder
    private let faults = Mutex(NetworkFaults())

    /// Starts etcd. The nodes are started by `start`, and wait for it.
    /// `rails`: each over a network of its own; etcd is on the first one.
    package init(leaseMillis: Int, logBytes: UInt64 = 16 << 20, rails: Int = 1) throws {
        folder = try Folder()
        let network = try HostNetwork(hosts: LocalCluster.nodes + Self.members, networks: rails)
        self.network = network
        servers = try EtcdServers(
            at: Self.members.map { .init(host: network.address(of: $0), launcher: network.launcher(of: $0)) },
            in: folder.path)
        var options = LocalClusterOptions()
        options.logBytes = logBytes
        options.leaseMillis = leaseMillis
        options.mirrorHosts = LocalCluster.nodes.map { node in
            network.networks.map { network.address(of: node, at: $0) }
        }
        options.security = "{psk-file: psk}"
        options.fence = "{type: command, run: [\(try Self.makeAgent(network, in: folder))], timeout: 20s}"
        let endpoints = servers.endpoints.map { "'\($0)'" }.joined(separator: ", ")
        options.coordinator = "{type: etcd, endpoints: [\(endpoints)]}"
        cluster = try LocalCluster(
            folder: "/dev/shm/twinlog-test-\(UUID128.random())", binaries: builtBinaries(), options: options)
        try SecretFile.create(cluster.folder + "/psk")
    }

    deinit { cluster.remove() }

    package func start(_ node: String) throws { try cluster.start(node, through: network.launcher(of: node)) }

    /// Both nodes, until they mirror.
    package func start() async throws {
        for node in LocalCluster.nodes { try start(node) }
        try await cluster.waitUntilMirrored(seconds: 60)
    }

    /// The last lines that the nodes and the members logged.
    package func logs() -> String { cluster.logs() + "\n" + servers.logs() }

    func change(_ change: (inout NetworkFaults) -> Void) throws {
        try faults.withLock { faults in
            change(&faults)
            try network.setFaults(faults)
        }
    }

    /// Whether the agent has turned the host off, which stays so until `turnOn`.
    func isOff(_ node: String) -> Bool { folder.names.contains("\(node).off") }

    func turnOn(_ node: String) throws {
        guard unlink(folder.file("\(node).off")) == 0 else { throw HarnessError("\(node) cannot be turned on") }
    }

    /// FenceAgentAPI: options on standard input; `off` and `status` (2: off).
    private static func makeAgent(_ network: HostNetwork, in folder: Folder) throws -> String {
        let agent = folder.file("fence_namespace")
        try put(
            """
            #!/bin/sh
            PATH=$PATH:/usr/sbin:/sbin
            while IFS== read -r key value; do
                case "$key" in action) action=$value ;; nodename) node=$value ;; esac
            done
            case "$action" in
            off)
                touch "\(folder.path)/$node.off"
                \(HostNetwork.ending(network.namespace("$node")))
                ;;
            status)
                pids=$(ip netns pids "\(network.namespace("$node"))") || exit 1
                [ -n "$pids" ] || [ ! -e "\(folder.path)/$node.off" ] || exit 2
                ;;
            *) exit 1 ;;
            esac

            """, into: agent)
        guard chmod(agent, 0o700) == 0 else { throw HarnessError("\(agent) cannot be made executable") }
        return agent
    }
}
