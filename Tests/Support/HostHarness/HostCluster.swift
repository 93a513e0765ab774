// Two nodes and three members of etcd, each on a host of its own, and a host of clients. The rails have a key. The medium is a file that both
// nodes reach, under a recorder and with no lock that reaches from one host to the other; the fence is an agent that ends all that runs on
// a host, as a switch of its power would. Clients reach the nodes over TCP, from their own host and from the nodes': also an owner that is
// cut off from everybody else has clients, and must not serve them (S17).

package import ClusterHarness
package import EtcdSupport
internal import Coordination
internal import Foundation
internal import Glibc
package import LogModel
internal import MediumRecording
package import NBDClient
package import NIOCore
internal import Synchronization
internal import TestSupport

package final class HostCluster: Sendable {
    package static let members = ["etcd0", "etcd1", "etcd2"]
    package static let clients = "clients"

    package let network: HostNetwork
    package let servers: EtcdServers
    package let cluster: LocalCluster
    private let recording: MediumRecording
    let freezers: [String: Freezer]
    private let folder: Folder
    private let faults = Mutex(NetworkFaults())

    /// Starts etcd. The nodes are started by `start`, and wait for it.
    /// `rails`: each over a network of its own; etcd and the clients are on the first one.
    package init(leaseMillis: Int, logBytes: UInt64 = 16 << 20, rails: Int = 1) throws {
        folder = try Folder()
        let network = try HostNetwork(hosts: LocalCluster.nodes + Self.members + [Self.clients], networks: rails)
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
        options.nbdPorts = (try LocalCluster.freePort(), try LocalCluster.freePort())
        options.nbdHosts = (network.address(of: "alpha"), network.address(of: "beta"))
        // Clients without TLS; the rails have the key all the same.
        options.security = "{psk-file: psk, insecure: true}"
        options.fence = "{type: command, run: [\(try Self.makeAgent(network, in: folder))], timeout: 20s}"
        let endpoints = servers.endpoints.map { "'\($0)'" }.joined(separator: ", ")
        options.coordinator = "{type: etcd, endpoints: [\(endpoints)]}"
        cluster = try LocalCluster(
            folder: "/dev/shm/twinlog-test-\(UUID128.random())", binaries: builtBinaries(), options: options)
        freezers = try Freezer.make(for: LocalCluster.nodes, prefix: network.namespace(""))
        recording = try MediumRecording(of: cluster.mediumPath(), bytes: options.volumeBytes)
        try SecretFile.create(cluster.folder + "/psk")
    }

    deinit {
        cluster.remove()
        freezers.values.forEach { $0.remove() }
    }

    package func start(_ node: String) throws {
        let number = LocalCluster.nodes.firstIndex(of: node)! + 1
        try cluster.start(node, through: network.launcher(of: node) + recording.launcher(host: number))
        guard let process = cluster.processID(of: node) else { return }
        try freezers[node]?.add(process)
    }

    /// What stands before a program's words so that the medium's recorder sees what it does.
    package var recordedLauncher: [String] { recording.launcher() }

    /// Both nodes, until they mirror.
    package func start() async throws {
        for node in LocalCluster.nodes { try start(node) }
        try await cluster.waitUntilMirrored(seconds: 60)
    }

    /// Copies what the nodes and the members logged, all of it, and the nodes' events.
    package func keepLogs(in kept: String) throws {
        try FileManager.default.createDirectory(atPath: kept, withIntermediateDirectories: true)
        for (place, suffixes) in [
            (cluster.folder, [".log"]), (cluster.folder + "/run", [".events", ".events.1"]), (folder.path, [".log"]),
        ] {
            for name in listing(of: place) where suffixes.contains(where: name.hasSuffix) {
                try put(try contents(of: "\(place)/\(name)"), into: "\(kept)/\(name)")
            }
        }
    }

    /// The last lines that the nodes and the members logged.
    package func logs() -> String { cluster.logs() + "\n" + servers.logs() }

    /// A client on a host, whose connection is reset when it drops it: what it had not sent by then is never sent.
    package func open(
        _ export: String, at address: Endpoint, from host: String, on group: any EventLoopGroup
    ) async throws -> NBDClient {
        guard case .tcp(let address) = address else { throw HarnessError("\(address) is not on the network") }
        let socket = try await network.connect(from: host, to: address, timeoutMillis: 1000)
        return try await NBDClient.open(socket: socket, export: export, on: group, timeout: .seconds(1))
    }

    /// Reads the volume with libnbd's `nbdcopy`, and checks each block, while others write.
    package func checkWithForeignClient(_ history: History) throws {
        guard let owner = cluster.owner() else { throw HarnessError("nobody owns the group") }
        let floors = (0..<history.blockCount).map { history.floor($0) }
        let copy = folder.file("copy")
        let words = ["nbdcopy", cluster.nbdURI(of: owner), copy]
        let finished = try ClusterHarness.run(network.launcher(of: Self.clients) + words)
        guard finished.code == 0 else { throw HarnessError("nbdcopy of \(owner)'s export: \(finished.output)") }
        let bytes = try contents(of: copy)
        for (block, floor) in floors.enumerated() {
            let range = block * Stamp.blockBytes..<(block + 1) * Stamp.blockBytes
            history.check(block, bytes[range], floor: floor, from: "nbdcopy's copy of \(owner)'s export")
        }
    }

    /// Throws unless all that was ever written to the medium was written by one owner after the other, in the order of the claims at etcd, and is
    /// what the medium holds. All writes must have been destaged. Returns how often the medium was written to, and by how many owners.
    package func auditMedium() throws -> (writes: Int, turns: Int) {
        let audit = MediumAudit(of: try recording.recorded(), claims: try claims())
        let unrecorded = try recording.unrecordedBlocks()
        guard audit.violations.isEmpty, unrecorded.isEmpty, audit.writes > 0 else {
            throw HarnessError(
                "the medium's recorder: \(audit.writes) writes, \(audit.violations), blocks written past it: \(unrecorded.prefix(20))"
            )
        }
        return (audit.writes, audit.turns.count)
    }

    private func claims() throws -> [RecordedClaim] {
        let key = "/twinlog/\(LocalCluster.name)/groups/g0"
        return try servers.history(of: key).compactMap { value in
            let record = try GroupRecord(encoded: value, place: key)
            return record.ownerProcess.map { RecordedClaim(epoch: record.epoch.rawValue, process: $0.pid) }
        }
    }

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
