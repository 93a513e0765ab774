// compare volume: a cluster of this build, two nodes and one medium on a memory file system, as a client of its export sees it; and beside
// it servers of NBD that keep one copy, in a file of the same file system. All of them share this machine's processors with their client.

import AdminProtocol
import ArgumentParser
import ClusterHarness
import Foundation
import HostProcess
import LogModel
import NBDClient

func compareVolume(_ options: CommonOptions, _ polling: PollingOption) throws -> Results {
    let folder = options.pool ?? "/dev/shm/twinlog-perf-\(getpid())"
    guard !FileManager.default.fileExists(atPath: folder) else { throw PerfError("\(folder) exists already") }
    do {
        var cluster = LocalClusterOptions()
        cluster.logBytes = 128 << 20
        cluster.volumeBytes = VolumeComparison.volumeBytes
        cluster.poll = polling.mode
        let nodes = try LocalCluster(folder: folder, binaries: builtBinaries(), options: cluster)
        defer { nodes.remove() }
        for node in LocalCluster.nodes { try nodes.start(node) }
        let owner = try nodes.waitForOwner()
        var contenders = [
            VolumeContender(
                name: "twinlog", address: nodes.nbdAddress(of: owner), export: "vol0",
                processes: [
                    "owner": nodes.processID(of: owner), "mirror": nodes.processID(of: LocalCluster.partner(of: owner)),
                ]
                .compactMapValues(\.self))
        ]
        let peers = NBDPeer.installed(folder)
        defer { for peer in peers { peer.stop() } }
        contenders += try peers.map { try $0.start() }
        return try VolumeComparison(options: options, contenders: contenders).measure()
    } catch let error as HarnessError {
        throw PerfError(error.message)
    }
}

struct VolumeContender {
    var name: String
    var address: Endpoint
    var export: String
    /// By their part.
    var processes: [String: Int32]
}

struct VolumeComparison {
    static let volumeBytes: UInt64 = 256 << 20

    let options: CommonOptions
    let contenders: [VolumeContender]

    func measure() throws -> Results {
        var results = Results(scenario: "volume")
        for (reads, operation) in [(0, "write"), (100, "read")] {
            for depth in options.depths(default: [1, 32]) {
                // Several connections at depth 1 measure the scheduler.
                for threads in try options.threadCounts(default: depth == 1 ? "1" : "1,4") {
                    for size in try options.sizes() {
                        let rows = try measure(operation, reads: reads, size, depth: depth, connections: threads)
                        results.rows += rows
                        for peer in rows.dropFirst() {
                            results.compare(rows[0], to: peer)
                            results.compareLatency(rows[0], to: peer)
                        }
                    }
                }
            }
        }
        return results
    }

    /// In turn, each repeat beginning with another of them.
    private func measure(
        _ operation: String, reads: Int, _ size: Int, depth: Int, connections: Int
    ) throws -> [Row] {
        let drivers = try contenders.map { contender in
            try (0..<connections).map { index in
                try VolumeDriver(
                    client: VolumeDriver.connect(to: contender.address, export: contender.export), size: size,
                    depth: depth, reads: reads, sequential: false,
                    seed: UInt64(index + 1))
            }
        }
        defer { for driver in drivers.joined() { driver.client.drop() } }
        var repeats = [[Repeat]](repeating: [], count: contenders.count)
        var histograms = contenders.map { _ in makeHistogram() }
        for turn in 0..<options.repeats {
            for step in contenders.indices {
                let which = (step + turn) % contenders.count
                let (measured, histogram) = try run(drivers[which], contenders[which])
                repeats[which].append(measured)
                histograms[which].merge(histogram)
            }
        }
        return contenders.indices.map { index in
            Row(
                "\(contenders[index].name) \(operation)", memory: "/dev/shm", sizeBytes: size, threads: connections,
                depth: depth, repeats: repeats[index], latency: Latency(histograms[index]))
        }
    }

    private func run(_ drivers: [VolumeDriver], _ contender: VolumeContender) throws -> (Repeat, LatencyHistogram) {
        let before = try ProcessorTime.nanos(of: contender.processes)
        var (measured, histogram) = try VolumeDriver.run(drivers, seconds: options.secondsPerRepeat)
        measured.processorNanos = ProcessorTime.used(before, try ProcessorTime.nanos(of: contender.processes))
        return (measured, histogram)
    }
}

/// A server of others, with one copy in a file.
final class NBDPeer {
    private let name: String
    /// `nil` if it is not in PATH.
    private let program: String?
    private let arguments: [String]
    private let socket: String
    private let file: String
    private let process = Process()

    private init(_ name: String, _ folder: String, _ arguments: (_ socket: String, _ file: String) -> [String]) {
        self.name = name
        program = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(name)" }
            .first(where: FileManager.default.isExecutableFile(atPath:))
        socket = "\(folder)/\(name).sock"
        file = "\(folder)/\(name).img"
        self.arguments = arguments(socket, file)
    }

    /// Those that this machine has; says which it lacks.
    static func installed(_ folder: String) -> [NBDPeer] {
        let all = [
            NBDPeer("nbdkit", folder) { ["--foreground", "--unix", $0, "file", $1] },
            NBDPeer("qemu-nbd", folder) {
                ["--socket", $0, "--format=raw", "--persistent", "--shared=16", "--cache=writeback", $1]
            },
        ]
        return all.filter { peer in
            if peer.program != nil { return true }
            StandardError.line("\(peer.name) is not installed: no peer")
            return false
        }
    }

    func start() throws -> VolumeContender {
        guard FileManager.default.createFile(atPath: file, contents: nil),
            truncate(file, off_t(VolumeComparison.volumeBytes)) == 0
        else { throw PerfError("\(file) cannot be made") }
        guard let program else { throw PerfError("\(name) is not installed") }
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let began = monotonicNanos()
        while !FileManager.default.fileExists(atPath: socket) {
            guard process.isRunning, monotonicNanos() - began < 30_000_000_000 else {
                throw PerfError("\(program) does not listen on \(socket)")
            }
            usleep(10_000)
        }
        return VolumeContender(
            name: name, address: .unix(path: socket), export: "", processes: ["server": process.processIdentifier])
    }

    func stop() {
        guard process.isRunning else { return }
        process.terminate()
        process.waitUntilExit()
    }
}

extension LocalCluster {
    fileprivate static func partner(of node: String) -> String { nodes.first { $0 != node } ?? node }

    fileprivate func waitForOwner() throws -> String {
        let began = monotonicNanos()
        while state()?.state != "mirrored" {
            guard monotonicNanos() - began < 60_000_000_000 else {
                throw PerfError("the nodes do not mirror after a minute\n\(logs())")
            }
            usleep(10_000)
        }
        guard let owner = owner() else { throw PerfError("nobody owns the group") }
        return owner
    }
}
