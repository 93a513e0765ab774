// takeover: from the SIGKILL of a group's owner under load to the first write that its partner acknowledges. Two nodes of this
// build, a process each, one medium. The floor is what a takeover cannot do without: the bytes that stood in the partner's
// mirror log, written one after another to a file beside the medium and flushed. Detection, fencing and the claim are the rest: what is
// asked of a takeover, the row `bound`, is a tenth of a second and the floor's bytes at 0.8 of its rate.

import AdminProtocol
import ArgumentParser
import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import NIOPosix

struct TakeoverCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "takeover",
        abstract: "Kills the owner of a group under load, and measures until its partner acknowledges a write.")
    @OptionGroup var options: CommonOptions
    @Option(help: "Bytes of the group's log.") var log: String?
    @Option(help: "Kill when the partner's log holds so many bytes; the log is twice as large.") var undestaged: String?
    @Option(help: "Where the medium's file is made, for a slower one than the pool's.") var medium: String?

    func validate() throws {
        guard options.threads == nil else {
            throw ValidationError("--threads: the load is one connection; see --depth")
        }
        guard try options.depths().count == 1 else { throw ValidationError("--depth: one for all kills") }
        _ = try logBytes()
        _ = try mediumFolder()
    }

    private func undestagedBytes() throws -> UInt64? {
        guard let undestaged else { return nil }
        guard let bytes = Size.parse(undestaged), bytes % 4096 == 0, (2 << 20...512 << 20).contains(bytes) else {
            throw ValidationError("--undestaged: '\(undestaged)' is not a size from 2MiB to 512MiB in steps of 4KiB")
        }
        guard log == nil else { throw ValidationError("--log: with --undestaged it is twice that") }
        return bytes
    }

    private func logBytes() throws -> UInt64 {
        if let bytes = try undestagedBytes() { return 2 * bytes }
        let log = log ?? "64MiB"
        guard let bytes = Size.parse(log), bytes % 4096 == 0, (4 << 20...1 << 30).contains(bytes) else {
            throw ValidationError("--log: '\(log)' is not a size from 4MiB to 1GiB in steps of 4KiB")
        }
        return bytes
    }

    /// Its real path: the nodes take a relative one for one of their folder.
    private func mediumFolder() throws -> String? {
        guard let medium else { return nil }
        let path = realpath(medium, nil)
        defer { free(path) }
        // It is a folder if it has an entry for itself.
        guard let folder = path.map({ String(cString: $0) }), access(folder + "/.", W_OK | X_OK) == 0 else {
            let reason = String(cString: strerror(errno))
            throw ValidationError("--medium: '\(medium)' is not a folder where files can be made: \(reason)")
        }
        return folder
    }

    func run() throws {
        try options.checkOutputs()
        let folder = options.pool ?? "/dev/shm/twinlog-perf-\(getpid())"
        guard !FileManager.default.fileExists(atPath: folder) else { throw PerfError("\(folder) exists already") }
        var results = Results(scenario: "takeover")
        for size in try options.sizes(default: "64KiB") {
            let rows = try measure(size, folder)
            results.rows += rows
            for floor in rows.dropFirst() { results.compare(rows[0], to: floor) }
        }
        try results.report(options)
    }

    private func measure(_ size: Int, _ folder: String) throws -> [Row] {
        let mediumFolder = try mediumFolder()
        var cluster = LocalClusterOptions()
        cluster.logBytes = try logBytes()
        cluster.volumeBytes = max(256 << 20, 4 * cluster.logBytes)
        let file = mediumFolder.map { "\($0)/twinlog-perf-\(getpid()).medium" }
        if let file { cluster.media["vol0"] = file }
        defer { if let file { unlink(file) } }
        var kills = Kills(
            size: size, depth: try options.depths()[0], nanos: UInt64(options.secondsPerRepeat * 1e9),
            undestaged: try undestagedBytes() ?? 0, floor: (mediumFolder ?? folder) + "/twinlog-perf-\(getpid()).floor")
        do {
            let nodes = try LocalCluster(folder: folder, binaries: builtBinaries(), options: cluster)
            defer { nodes.remove() }
            for node in LocalCluster.nodes { try nodes.start(node) }
            for _ in 0..<options.repeats { try kills.kill(nodes) }
        } catch let error as HarnessError {
            throw PerfError(error.message)
        }
        func row(_ name: String, _ nanos: [UInt64]) -> Row {
            var histogram = makeHistogram()
            for nanos in nanos { histogram.note(nanos) }
            var row = Row(
                name, memory: kills.memory, sizeBytes: size, depth: kills.depth,
                repeats: nanos.map { Repeat(operations: 1, seconds: Double($0) / 1e9) }, latency: Latency(histogram))
            row.undestagedBytes = kills.undestagedBytes
            return row
        }
        return [
            row("twinlog", kills.takeovers), row("write+flush", kills.floors),
            row("bound", kills.floors.map { 100_000_000 + $0 * 5 / 4 }),
        ]
    }
}

/// One after another, with the nodes in sync in between.
private struct Kills {
    let size: Int
    let depth: Int
    /// How long the load runs before a kill, at least.
    let nanos: UInt64
    /// What the partner's log holds by then, at least.
    let undestaged: UInt64
    /// The floor's file.
    let floor: String
    /// What the partner's log held, kill by kill.
    private(set) var undestagedBytes: [UInt64] = []
    private(set) var takeovers: [UInt64] = []
    private(set) var floors: [UInt64] = []
    private(set) var memory = "unknown"
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private static let limitNanos: UInt64 = 60_000_000_000

    init(size: Int, depth: Int, nanos: UInt64, undestaged: UInt64, floor: String) {
        self.size = size
        self.depth = depth
        self.nanos = nanos
        self.undestaged = undestaged
        self.floor = floor
    }

    mutating func kill(_ cluster: LocalCluster) throws {
        try Self.wait("the nodes do not mirror", cluster) { cluster.state()?.state == "mirrored" }
        guard let owner = cluster.owner(), let partner = LocalCluster.nodes.first(where: { $0 != owner }),
            case .status(let status) = try cluster.ask(owner, .status)
        else { throw PerfError("nobody owns the group") }
        memory = status.persistence
        let client = try connect(to: cluster.nbdAddress(of: owner))
        let driver = try VolumeDriver(
            client: client, size: size, depth: depth, reads: 0, sequential: false, seed: UInt64(takeovers.count))
        // It is cut by the kill.
        let load = driver.run(nanos: nanos + Self.limitNanos)
        usleep(UInt32(nanos / 1000))
        try Self.wait("the partner's log does not hold \(Size.format(undestaged)): a --medium may be too fast", cluster)
        {
            cluster.group(at: partner)?.status.log.usedBytes ?? 0 >= undestaged
        }
        let began = monotonicNanos()
        cluster.kill(owner)
        let resident = cluster.group(at: partner)?.status.log.usedBytes ?? 0
        try writeOnce(to: cluster.nbdAddress(of: partner), began)
        takeovers.append(monotonicNanos() - began)
        _ = try? load.wait()  // fails, as it must: its server is dead
        client.drop()
        undestagedBytes.append(resident)
        floors.append(try writeAndFlush(resident, floor))
        try cluster.start(owner)
    }

    private func connect(to address: Endpoint) throws -> NBDClient {
        let promise = group.next().makePromise(of: NBDClient.self)
        let group = group
        promise.completeWithTask { try await NBDClient.connect(to: address, export: "vol0", on: group) }
        return try promise.futureResult.wait()
    }

    /// Refused until the partner owns the group.
    private func writeOnce(to address: Endpoint, _ began: UInt64) throws {
        let payload = ByteBuffer(repeating: 7, count: size)
        while true {
            do {
                let client = try connect(to: address)
                defer { client.drop() }
                _ = try client.submit(.write(offset: 0, payload: payload, fua: false)).wait()
                return
            } catch {
                guard monotonicNanos() - began < Self.limitNanos else {
                    throw PerfError("no write is acknowledged a minute after the owner was killed: \(error)")
                }
                usleep(1000)
            }
        }
    }

    private func writeAndFlush(_ bytes: UInt64, _ path: String) throws -> UInt64 {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw PerfError("\(path): \(String(cString: strerror(errno)))") }
        defer {
            close(descriptor)
            unlink(path)
        }
        let piece = [UInt8](repeating: 7, count: 1 << 20)
        let began = monotonicNanos()
        var left = Int(bytes)
        while left > 0 {
            let count = write(descriptor, piece, min(left, piece.count))
            guard count > 0 else { throw PerfError("\(path): \(String(cString: strerror(errno)))") }
            left -= count
        }
        guard fdatasync(descriptor) == 0 else { throw PerfError("\(path): \(String(cString: strerror(errno)))") }
        return max(1, monotonicNanos() - began)
    }

    private static func wait(_ what: String, _ cluster: LocalCluster, _ condition: () -> Bool) throws {
        let began = monotonicNanos()
        while !condition() {
            guard monotonicNanos() - began < limitNanos else {
                throw PerfError("\(what) after a minute\n\(cluster.logs())")
            }
            usleep(10_000)
        }
    }
}
