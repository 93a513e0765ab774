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
    let shapes = try VolumeShape.chosen(options)
    var results = Results(scenario: "volume")
    try withPeers(in: folder) { peers in
        for bothWays in [false, true] {
            let shapes = shapes.filter { $0.bothWays == bothWays }
            guard !shapes.isEmpty else { continue }
            try withCluster("\(folder)/cluster", polling, crossed: bothWays) { cluster in
                try VolumeComparison(options: options, contenders: cluster + peers).measure(shapes, &results)
            }
        }
    }
    return results
}

/// Calls `body` with those that this machine has, whose files are in the new `folder`.
private func withPeers(in folder: String, _ body: ([VolumeContender]) throws -> Void) throws {
    try Remains.with(
        { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true) },
        remove: { removeFolder(folder) }
    ) {
        let installed = NBDPeer.installed(folder)
        try Remains.with({ installed }, remove: { for peer in $0 { peer.stop() } }) { peers in
            try body(peers.map { try $0.start() })
        }
    }
}

struct VolumeComparison {
    let options: CommonOptions
    /// The first is compared to the others.
    let contenders: [VolumeContender]

    func measure(_ shapes: [VolumeShape], _ results: inout Results) throws {
        for (reads, operation) in [(0, "write"), (100, "read")] {
            for shape in shapes {
                for size in try options.sizes() {
                    let rows = try measure(operation, reads: reads, size, shape)
                    results.rows += rows
                    for peer in rows.dropFirst() {
                        results.compare(rows[0], to: peer)
                        results.compareLatency(rows[0], to: peer)
                    }
                }
            }
        }
    }

    /// In turn, each repeat beginning with another of them.
    private func measure(_ operation: String, reads: Int, _ size: Int, _ shape: VolumeShape) throws -> [Row] {
        let drivers = try contenders.map { contender in
            try (0..<shape.connections).map { index in
                let export = contender.exports[index % contender.exports.count]
                return try VolumeDriver(
                    client: VolumeDriver.connect(to: export.address, export: export.name), size: size,
                    depth: shape.depth, reads: reads, sequential: false, seed: UInt64(index + 1))
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
                contenders[index].name, operation: operation, memory: "/dev/shm", sizeBytes: size,
                threads: shape.connections, depth: shape.depth, repeats: repeats[index],
                latency: Latency(histograms[index]))
        }
    }

    private func run(_ drivers: [VolumeDriver], _ contender: VolumeContender) throws -> (Repeat, LatencyHistogram) {
        let before = try ProcessorTime.nanos(of: contender.processes)
        var (measured, histogram) = try VolumeDriver.run(drivers, seconds: options.secondsPerRepeat)
        measured.processorNanos = ProcessorTime.used(before, try ProcessorTime.nanos(of: contender.processes))
        return (measured, histogram)
    }
}

/// Calls `body` with a mirrored cluster as a client sees it. `crossed`: first as two groups, each node being the owner of one and the mirror
/// of the other; then as one of the two.
private func withCluster(
    _ folder: String, _ polling: PollingOption, crossed: Bool, _ body: ([VolumeContender]) throws -> Void
) throws {
    do {
        var options = LocalClusterOptions()
        options.logBytes = 128 << 20
        options.volumeBytes = VolumeContender.volumeBytes
        options.poll = polling.mode
        options.crossed = crossed
        try Remains.with(
            { try LocalCluster(folder: folder, binaries: builtBinaries(), options: options) }, remove: { $0.remove() }
        ) { nodes in
            for node in LocalCluster.nodes { try Remains.undisturbed { try nodes.start(node) } }
            try body(contenders(nodes, crossed: crossed))
        }
    } catch let error as HarnessError {
        throw PerfError(error.message)
    }
}

private func contenders(_ nodes: LocalCluster, crossed: Bool) throws -> [VolumeContender] {
    let owner = try nodes.waitForOwner(of: "g0")
    let export = VolumeExport(address: nodes.nbdAddress(of: owner), name: "vol0")
    let parts = [
        "owner": nodes.processID(of: owner), "mirror": nodes.processID(of: LocalCluster.partner(of: owner)),
    ]
    let one = VolumeContender(name: "twinlog", exports: [export], processes: parts.compactMapValues(\.self))
    guard crossed else { return [one] }
    let other = VolumeExport(address: nodes.nbdAddress(of: try nodes.waitForOwner(of: "g1")), name: "vol1")
    let both = LocalCluster.nodes.map { ($0, nodes.processID(of: $0)) }
    return [
        VolumeContender(
            name: "twinlog both ways", exports: [export, other],
            processes: Dictionary(uniqueKeysWithValues: both).compactMapValues(\.self)),
        one,
    ]
}

private func removeFolder(_ folder: String) {
    do {
        try FileManager.default.removeItem(atPath: folder)
    } catch {
        StandardError.line("\(folder) could not be removed: \(error)")
    }
}

extension LocalCluster {
    fileprivate static func partner(of node: String) -> String { nodes.first { $0 != node } ?? node }

    fileprivate func waitForOwner(of group: String) throws -> String {
        let began = monotonicNanos()
        while state(of: group)?.state != "mirrored" {
            guard monotonicNanos() - began < 60_000_000_000 else {
                throw PerfError("the nodes do not mirror \(group) after a minute\n\(logs())")
            }
            usleep(10_000)
        }
        guard let owner = owner(of: group) else { throw PerfError("nobody owns \(group)") }
        return owner
    }
}
