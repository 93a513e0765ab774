// Hosts that share nothing but a network, or several, and this machine's file systems: network namespaces with a link to each network, which is a
// bridge in a namespace of its own, the switch. Faults of the network are made at the switch, so that nothing of a test runs on a
// host. Each host has a machine-id and a boot of its own: to a node, the other one is a process that it can neither see nor kill (S18).

internal import ClusterHarness
internal import Foundation
internal import Glibc
internal import TestSupport

/// Everything of it is removed, and all that runs on its hosts is ended, when it goes.
package final class HostNetwork: Sendable {
    /// Why this machine can have none; `nil` if it can.
    package static let obstacle: String? = {
        guard geteuid() == 0 else { return "network namespaces take root" }
        do {
            _ = try HostNetwork(hosts: ["probe"])
            return nil
        } catch {
            return "no network of namespaces can be made: \(error)"
        }
    }()

    package let hosts: [String]
    package let networks: Range<Int>
    /// Of the namespaces' names.
    private let prefix = "twinlog-\(UInt32.random(in: .min ... .max))-"
    private let identities: Folder

    package init(hosts: [String], networks: Int = 1) throws {
        precondition(hosts.count < 250 && !hosts.contains("switch") && networks < 10)
        self.hosts = hosts
        self.networks = 0..<networks
        identities = try Folder()
        try makeSwitch()
        for host in hosts { try make(host) }
        try setFaults(NetworkFaults())
    }

    deinit {
        for host in hosts {
            report { try endProcesses(on: host) }
            report { try remove(host) }
        }
        report { try remove("switch") }
    }

    private func report(_ step: () throws -> Void) {
        do { try step() } catch { print("a network of namespaces could not be removed: \(error)") }
    }

    private func makeSwitch() throws {
        let own = namespace("switch")
        try succeed("ip", "netns", "add", own)
        for network in networks {
            try succeed("ip", "-n", own, "link", "add", bridge(of: network), "type", "bridge")
            try succeed("ip", "-n", own, "link", "set", bridge(of: network), "up")
        }
    }

    private func bridge(of network: Int) -> String { "bridge\(network)" }

    private func make(_ host: String) throws {
        let own = namespace(host)
        try succeed("ip", "netns", "add", own)
        try succeed("ip", "-n", own, "link", "set", "lo", "up")
        for network in networks { try link(host, to: network) }
        // 32 hexadecimal digits, as in machine-id(5).
        let number = String(hosts.firstIndex(of: host)! + 1)
        try put(String(repeating: "0", count: 32 - number.count) + number + "\n", into: identities.file(host))
    }

    private func link(_ host: String, to network: Int) throws {
        let own = namespace(host)
        let device = "eth\(network)"
        let port = port(of: host, at: network)
        try succeed(
            "ip", "-n", namespace("switch"), "link", "add", port, "type", "veth", "peer", "name", device, "netns", own)
        try succeed("ip", "-n", namespace("switch"), "link", "set", port, "master", bridge(of: network), "up")
        try succeed("ip", "-n", own, "addr", "add", "\(address(of: host, at: network))/24", "dev", device)
        try succeed("ip", "-n", own, "link", "set", device, "up")
    }

    private func remove(_ host: String) throws {
        // A network that could not be made whole is removed, too.
        guard FileManager.default.fileExists(atPath: "/run/netns/\(namespace(host))") else { return }
        try succeed("ip", "netns", "del", namespace(host))
    }

    package func namespace(_ host: String) -> String { prefix + host }
    /// The host's port at the switch; a device's name has at most 15 bytes.
    private func port(of host: String, at network: Int) -> String { "port\(hosts.firstIndex(of: host)!)at\(network)" }
    package func address(of host: String, at network: Int = 0) -> String {
        "10.231.\(network).\(hosts.firstIndex(of: host)! + 1)"
    }

    /// What stands before a program's words to start it on the host. The program is the process that is started.
    package func launcher(of host: String) -> [String] {
        [
            "/usr/bin/env", "ip", "netns", "exec", namespace(host),
            "sh", "-c", Self.entering, identities.file(host),
        ]
    }

    private static let entering = """
        mount --bind "$0" /etc/machine-id && mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"
        """

    package func endProcesses(on host: String) throws {
        try succeed("bash", "-c", Self.ending(namespace(host)))
    }

    /// A script's words that end all that runs in a namespace, and return when nothing does.
    static func ending(_ namespace: String) -> String {
        """
        [ -e "/run/netns/\(namespace)" ] || exit 0
        while pids=$(ip netns pids "\(namespace)") || exit 1; [ -n "$pids" ]; do kill -9 $pids 2>/dev/null; sleep 0.01; done
        """
    }

    // MARK: Faults

    /// Of the host's links to all networks.
    package func setLink(of host: String, isUp: Bool) throws {
        for network in networks {
            let port = port(of: host, at: network)
            try succeed("ip", "-n", namespace("switch"), "link", "set", port, isUp ? "up" : "down")
        }
    }

    /// So much of what is sent to the host over one network arrives in a second; the rest waits at the switch. `nil`: everything.
    package func limit(_ host: String, at network: Int, kilobitsPerSecond: Int?) throws {
        let device = port(of: host, at: network)
        if let kilobitsPerSecond {
            try succeed(
                "tc", "-n", namespace("switch"), "qdisc", "replace", "dev", device, "root", "handle", "1:", "tbf",
                "rate",
                "\(kilobitsPerSecond)kbit", "burst", "16kb", "limit", "8mb")
        } else {
            try succeed("tc", "-n", namespace("switch"), "qdisc", "replace", "dev", device, "root", "pfifo_fast")
        }
    }

    /// In place of those before, in one step.
    package func setFaults(_ faults: NetworkFaults) throws {
        var rules = [
            "add table bridge faults",
            "add chain bridge faults forward { type filter hook forward priority 0; policy accept; }",
            "flush chain bridge faults forward",
        ]
        for path in faults.dropped.sorted() {
            rules.append("add rule bridge faults forward \(match(path)) drop")
        }
        for (path, percent) in faults.lossPercent.sorted(by: { $0.key < $1.key }) {
            rules.append("add rule bridge faults forward \(match(path)) numgen random mod 100 < \(percent) drop")
        }
        let file = identities.file("rules")
        try put(rules.joined(separator: "\n") + "\n", into: file)
        try succeed("ip", "netns", "exec", namespace("switch"), "nft", "-f", file)
    }

    private func match(_ path: NetworkPath) -> String {
        "ip saddr \(address(of: path.from, at: path.network)) ip daddr \(address(of: path.to, at: path.network))"
    }
}

/// One direction between two hosts, over one network.
package struct NetworkPath: Hashable, Comparable, Sendable {
    package var from: String
    package var to: String
    package var network: Int

    package init(from: String, to: String, over network: Int = 0) {
        self.from = from
        self.to = to
        self.network = network
    }

    package static func both(_ one: String, _ other: String, over network: Int = 0) -> [NetworkPath] {
        [NetworkPath(from: one, to: other, over: network), NetworkPath(from: other, to: one, over: network)]
    }

    package static func < (one: Self, other: Self) -> Bool {
        (one.from, one.to, one.network) < (other.from, other.to, other.network)
    }
}

/// What the switch does to packets that it would forward.
package struct NetworkFaults: Equatable, Sendable {
    package var dropped: Set<NetworkPath> = []
    /// Of the packets, at random.
    package var lossPercent: [NetworkPath: Int] = [:]
    package init() {}
}
