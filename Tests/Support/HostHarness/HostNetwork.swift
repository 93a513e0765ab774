// Hosts that share nothing but a network and this machine's file systems: network namespaces whose links end at a bridge in a namespace of
// its own, the switch. Faults of the network are made at the switch, so that nothing of a test runs on a host. Each host has a
// machine-id and a boot of its own: to a node, the other one is a process that it can neither see nor kill (S18).

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
    /// Of the namespaces' names.
    private let prefix = "twinlog-\(UInt32.random(in: .min ... .max))-"
    private let identities: Folder

    package init(hosts: [String]) throws {
        precondition(hosts.count < 250 && !hosts.contains("switch"))
        self.hosts = hosts
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
        try succeed("ip", "-n", own, "link", "add", "bridge", "type", "bridge")
        try succeed("ip", "-n", own, "link", "set", "bridge", "up")
    }

    private func make(_ host: String) throws {
        let own = namespace(host)
        let port = port(of: host)
        try succeed("ip", "netns", "add", own)
        try succeed(
            "ip", "-n", namespace("switch"), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own)
        try succeed("ip", "-n", namespace("switch"), "link", "set", port, "master", "bridge", "up")
        try succeed("ip", "-n", own, "addr", "add", "\(address(of: host))/24", "dev", "eth0")
        for device in ["eth0", "lo"] { try succeed("ip", "-n", own, "link", "set", device, "up") }
        // 32 hexadecimal digits, as in machine-id(5).
        let number = String(hosts.firstIndex(of: host)! + 1)
        try put(String(repeating: "0", count: 32 - number.count) + number + "\n", into: identities.file(host))
    }

    private func remove(_ host: String) throws {
        // A network that could not be made whole is removed, too.
        guard FileManager.default.fileExists(atPath: "/run/netns/\(namespace(host))") else { return }
        try succeed("ip", "netns", "del", namespace(host))
    }

    package func namespace(_ host: String) -> String { prefix + host }
    /// The host's port at the switch; a device's name has at most 15 bytes.
    private func port(of host: String) -> String { "port\(hosts.firstIndex(of: host)!)" }
    package func address(of host: String) -> String { "10.231.0.\(hosts.firstIndex(of: host)! + 1)" }

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

    package func setLink(of host: String, isUp: Bool) throws {
        try succeed("ip", "-n", namespace("switch"), "link", "set", port(of: host), isUp ? "up" : "down")
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
        "ip saddr \(address(of: path.from)) ip daddr \(address(of: path.to))"
    }
}

/// One direction between two hosts.
package struct NetworkPath: Hashable, Comparable, Sendable {
    package var from: String
    package var to: String

    package init(from: String, to: String) {
        self.from = from
        self.to = to
    }

    package static func both(_ one: String, _ other: String) -> [NetworkPath] {
        [NetworkPath(from: one, to: other), NetworkPath(from: other, to: one)]
    }

    package static func < (one: Self, other: Self) -> Bool { (one.from, one.to) < (other.from, other.to) }
}

/// What the switch does to packets that it would forward.
package struct NetworkFaults: Equatable, Sendable {
    package var dropped: Set<NetworkPath> = []
    /// Of the packets, at random.
    package var lossPercent: [NetworkPath: Int] = [:]
    package init() {}
}
