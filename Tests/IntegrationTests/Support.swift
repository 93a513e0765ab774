// What the tests with real processes share: a cluster that is removed when the test ends, and programs run to their end.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import HostHarness
import LogModel
import NBDClient
import NIOCore
import NIOPosix
import Testing

/// Every test here starts processes that need the processor's time: one after another.
@Suite(.serialized, .timeLimit(.minutes(10)))
enum Cluster {}

let eventLoops = MultiThreadedEventLoopGroup.singleton

extension LocalClusterOptions {
    /// A node that only has to wait for the processor is not taken for dead. Who stops a node takes `LocalClusterOptions()`, whose
    /// silence is short.
    static let patient: Self = {
        var options = Self()
        options.silenceMillis = 3000
        options.leaseMillis = 3000
        return options
    }()
}

/// Starts both nodes, waits until they mirror, runs `body`, removes everything.
func withCluster(
    _ options: LocalClusterOptions = .patient, in parent: String = "/dev/shm", started: Bool = true,
    _ body: (LocalCluster) async throws -> Void
) async throws {
    let cluster = try LocalCluster(
        folder: "\(parent)/twinlog-test-\(UUID128.random())", binaries: builtBinaries(), options: options)
    defer { cluster.remove() }
    if started {
        for node in LocalCluster.nodes { try cluster.start(node) }
        try await cluster.waitUntilMirrored()
    }
    do {
        try await body(cluster)
    } catch {
        Issue.record("\(error)\n\(cluster.logs())")
    }
}

extension LocalCluster {
    func record(of group: String = "g0") throws -> GroupRecord? {
        try FileCoordinator(directory: folder + "/run/coordinator").read(GroupID(group))
    }

    /// The owner, and its partner.
    func roles(of group: String = "g0") throws -> (owner: String, mirror: String) {
        let owner = try #require(self.owner(of: group))
        return (owner, Self.partner(of: owner))
    }

    static func partner(of node: String) -> String { node == "alpha" ? "beta" : "alpha" }

    func connect(to node: String, volume: String = "vol0") async throws -> NBDClient {
        try await NBDClient.connect(to: nbdAddress(of: node), export: volume, on: eventLoops)
    }

    /// Ask the owner to destage everything to the medium.
    func drain(_ group: String = "g0") throws {
        let owner = try roles(of: group).owner
        let answer = try ask(owner, .drain(group: group), timeoutMillis: 60_000)
        guard case .done = answer else { throw HarnessError("drain of \(group) by \(owner): \(answer)") }
    }

    /// The node grows and writes no file beyond `byte` any more; its logs are mapped.
    func keep(_ node: String, fromTheMediumBeyond byte: Int) throws {
        let process = try #require(processID(of: node))
        try succeed("prlimit", "--pid", "\(process)", "--fsize=\(byte):")
    }

    /// SIGSTOP, and waits until the kernel says that the process is stopped.
    func freeze(_ node: String) async throws {
        let process = try #require(processID(of: node))
        signal(node, SIGSTOP)
        try await wait("stopped: \(node)") {
            let status = try String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
            return status[status.lastIndex(of: ")")!...].dropFirst(2).first == "T"
        }
    }
}

extension LocalCluster {
    /// Runs twinlog-recover on a node's pool.
    func recover(_ command: String, _ node: String, _ more: String...) throws -> Finished {
        let words = [builtBinaries() + "/twinlog-recover", command, "\(folder)/run/\(node).pool"] + more
        return try run("bash", "-c", words.map { "'\($0)'" }.joined(separator: " "))
    }

    /// What `command --json` says of the pool's one group.
    func recoverJSON(_ command: String, _ node: String) throws -> [String: Any] {
        let text = try recover(command, node, "--json").output
        let document = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        return try #require((document["groups"] as? [[String: Any]])?.first)
    }

    /// The data records of a node's log.
    func dataRecords(_ node: String) throws -> [[String: Any]] {
        try #require(try recoverJSON("dump", node)["records"] as? [[String: Any]])
            .filter { $0["kind"] as? String == "data" }
    }

    /// What a log holds may or may not have reached the medium when the servers died: make it the worst case. Where either
    /// log may be the one that is replayed, what only one of them holds was never acknowledged and is not on its way to
    /// the medium: `other` names the second log that must hold a record too. Answers how many records there are.
    func spoilMedium(whatIsInTheLogOf node: String, andOf other: String? = nil) throws -> Int {
        let inBoth = try other.map { try Set(dataRecords($0).map { try #require($0["lsn"] as? UInt64) }) }
        let records = try dataRecords(node).filter { record in
            guard let inBoth else { return true }
            return inBoth.contains(try #require(record["lsn"] as? UInt64))
        }
        let medium = try FileHandle(forWritingTo: URL(fileURLWithPath: mediumPath()))
        for record in records {
            try medium.seek(toOffset: try #require(record["offset"] as? UInt64))
            try medium.write(contentsOf: Data(repeating: 0xBD, count: try #require(record["length"] as? Int)))
        }
        try medium.close()
        return records.count
    }
}

/// Writes and reads by several connections while `body` does its worst; then nothing may be lost.
func withHistory(
    _ cluster: LocalCluster, blocks: Int = 2048, connections: Int = 3, depth: Int = 8, seed: UInt64,
    volume: String = "vol0", _ body: (History) async throws -> Void
) async throws -> History {
    let history = History(blockCount: blocks)
    let writers = (0..<connections).map { index in
        HistoryWriter(
            history: history, index: index, of: connections,
            addresses: LocalCluster.nodes.map { cluster.nbdAddress(of: $0) }, export: volume, on: eventLoops,
            depth: depth, seed: seed)
    }
    try await run(writers) { try await body(history) }
    return history
}

/// The same over TCP, by four connections that each have a name and give up what is not answered (S24). Two are on the host of clients and
/// go to whichever node serves. One is on each node's own host, which no fault of the network cuts off from that node, and asks that node
/// alone: it is answered as soon as that node serves, and by a node that should not.
func withHistory(
    _ hosts: HostCluster, seed: UInt64, _ body: (History) async throws -> Void
) async throws -> History {
    let history = History(blockCount: 2048)
    let nodes = LocalCluster.nodes
    let places = [(HostCluster.clients, nodes), (HostCluster.clients, nodes)] + nodes.map { ($0, [$0]) }
    let writers = places.enumerated().map { index, place in
        HistoryWriter(
            history: history, index: index, of: places.count,
            addresses: place.1.map { hosts.cluster.nbdAddress(of: $0) }, depth: 8, seed: seed,
            patience: .milliseconds(1500)
        ) { address in
            try await hosts.open("vol0@writer\(index)", at: address, from: place.0, on: eventLoops)
        }
    }
    try await run(writers) { try await body(history) }
    return history
}

private func run(_ writers: [HistoryWriter], during body: () async throws -> Void) async throws {
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        for writer in writers { tasks.addTask { await writer.run() } }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        for writer in writers { writer.stop() }
        try await tasks.waitForAll()
        try result.get()
    }
}

/// Every block through the owner, from the medium after a drain, and what its recorder has seen.
func verify(_ history: History, _ hosts: HostCluster) async throws {
    let owner = try hosts.cluster.roles().owner
    let address = hosts.cluster.nbdAddress(of: owner)
    let client = try await hosts.open("vol0", at: address, from: HostCluster.clients, on: eventLoops)
    try await history.verify(through: client, of: address)
    await client.disconnect()
    try hosts.cluster.drain()
    try history.verify(medium: hosts.cluster.mediumPath())
    guard history.violations.isEmpty, history.acknowledgedWrites > 0 else {
        throw HarnessError("of \(history.acknowledgedWrites) acknowledged writes: \(history.violations)")
    }
    let audit = try hosts.auditMedium()
    print("\(audit.writes) writes of the medium by \(audit.turns) owners, one after the other")
}

/// Every block through the owner, then from the medium after a drain. `medium`: the file that it is, if that is none of the cluster's.
func verify(
    _ history: History, _ cluster: LocalCluster, group: String = "g0", volume: String = "vol0", medium: String? = nil
) async throws {
    let owner = try cluster.roles(of: group).owner
    try await history.verify(through: cluster.nbdAddress(of: owner), export: volume, on: eventLoops)
    try cluster.drain(group)
    try history.verify(medium: medium ?? cluster.mediumPath(volume))
    #expect(history.violations == [])
    #expect(history.acknowledgedWrites > 0)
}

func twinlog(_ cluster: LocalCluster, _ arguments: String...) throws -> Finished {
    let shell = ([builtBinaries() + "/twinlog", "--config", cluster.configurationPath] + arguments)
        .map { "'\($0)'" }.joined(separator: " ")
    return try run("bash", "-c", shell)
}
