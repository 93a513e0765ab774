// takeover: from the SIGKILL of a group's owner under load to the first write that its partner acknowledges. Two nodes of this
// build, a process each, one medium. The floor is what a takeover cannot do without: the bytes that stood in the partner's
// mirror log, written one after another to a file beside the medium and flushed. Detection, fencing and the claim are the rest: what is
// asked of a takeover, the row `bound`, is a tenth of a second and the floor's bytes at 0.8 of its rate.

import AdminProtocol
import ArgumentParser
import ClusterHarness
import Foundation
import HostProcess
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
            do {
                let rows = try measure(size, folder)
                results.rows += rows
                for floor in rows.dropFirst() { results.compare(rows[0], to: floor) }
            } catch {
                StandardError.line(
                    "twinlog-perf: --size \(Size.format(UInt64(size))) is not measured: \(reason(error))")
            }
        }
        guard !results.rows.isEmpty else { throw PerfError("no takeover could be measured") }
        try results.report(options)
    }

    /// Of those kills that could be measured; none if none could.
    private func measure(_ size: Int, _ folder: String) throws -> [Row] {
        let mediumFolder = try mediumFolder()
        var cluster = LocalClusterOptions()
        cluster.logBytes = try logBytes()
        cluster.volumeBytes = max(256 << 20, 4 * cluster.logBytes)
        let file = mediumFolder.map { "\($0)/twinlog-perf-\(getpid()).medium" }
        if let file { cluster.media["vol0"] = file }
        var kills = Kills(
            size: size, depth: try options.depths()[0], nanos: UInt64(options.secondsPerRepeat * 1e9),
            undestaged: try undestagedBytes() ?? 0, floor: (mediumFolder ?? folder) + "/twinlog-perf-\(getpid()).floor")
        do {
            try Remains.with(
                { if let file { try makeFile(file, bytes: cluster.volumeBytes) } },
                remove: { if let file { unlink(file) } }
            ) {
                try Remains.with(
                    { try LocalCluster(folder: folder, binaries: builtBinaries(), options: cluster) },
                    remove: { $0.remove() }
                ) { nodes in
                    for number in 1...options.repeats { kills.kill(nodes, number, of: options.repeats) }
                }
            }
        } catch let error as HarnessError {
            throw PerfError(error.message)
        }
        return kills.takeovers.isEmpty ? [] : rows(kills)
    }

    private func rows(_ kills: Kills) -> [Row] {
        func row(_ name: String, _ nanos: [UInt64]) -> Row {
            var histogram = makeHistogram()
            for nanos in nanos { histogram.note(nanos) }
            var row = Row(
                name, memory: kills.memory, sizeBytes: kills.size, depth: kills.depth,
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

/// A new file of zeros.
private func makeFile(_ path: String, bytes: UInt64) throws {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw PerfError("\(path): cannot be made: \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    guard ftruncate(descriptor, off_t(bytes)) == 0 else {
        let reason = String(cString: strerror(errno))
        unlink(path)
        throw PerfError("\(path): cannot be made: \(reason)")
    }
}

private func reason(_ error: any Error) -> String { (error as? any ProgramError)?.message ?? "\(error)" }

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

    /// One that fails is told on standard error, and the nodes begin anew.
    mutating func kill(_ cluster: LocalCluster, _ number: Int, of count: Int) {
        do {
            try kill(cluster)
        } catch {
            for node in LocalCluster.nodes { Remains.undisturbed { cluster.kill(node) } }
            StandardError.line("twinlog-perf: kill \(number) of \(count) is not measured: \(reason(error))")
        }
    }

    private mutating func kill(_ cluster: LocalCluster) throws {
        for node in LocalCluster.nodes where !cluster.isRunning(node) {
            try Remains.undisturbed { try cluster.start(node) }
        }
        var found: String?
        // Without an owner, a state is what the nodes remember.
        try wait("the nodes do not mirror", cluster) {
            found = cluster.owner()
            return found != nil && cluster.state()?.state == "mirrored"
        }
        guard let owner = found, let partner = LocalCluster.nodes.first(where: { $0 != owner }),
            case .status(let status) = try cluster.ask(owner, .status)
        else { throw PerfError("nobody owns the group") }
        memory = status.persistence
        let (takeover, resident) = try takeOver(cluster, from: owner, to: partner)
        Remains.undisturbed { cluster.kill(owner) }
        let floor = try writeAndFlush(resident)
        takeovers.append(takeover)
        undestagedBytes.append(resident)
        floors.append(floor)
    }

    /// Answers how long it took, and what the partner's log held just before. The dead owner is not waited for.
    private func takeOver(
        _ cluster: LocalCluster, from owner: String, to partner: String
    ) throws -> (nanos: UInt64, resident: UInt64) {
        let client = try connect(to: cluster.nbdAddress(of: owner))
        defer { client.drop() }
        let driver = try VolumeDriver(
            client: client, size: size, depth: depth, reads: 0, sequential: false, seed: UInt64(takeovers.count))
        let load = driver.run(nanos: nanos + Self.limitNanos)
        defer {
            client.drop()
            _ = try? load.wait()  // fails, as it must: its connection is cut
        }
        usleep(UInt32(nanos / 1000))
        var resident: UInt64 = 0
        try wait("the partner's log does not hold \(Size.format(undestaged)): a --medium may be too fast", cluster) {
            resident = try usedBytes(cluster, partner)
            return resident >= undestaged
        }
        let began = monotonicNanos()
        cluster.signal(owner, SIGKILL)
        try writeOnce(to: cluster.nbdAddress(of: partner), began)
        return (monotonicNanos() - began, resident)
    }

    private func usedBytes(_ cluster: LocalCluster, _ node: String) throws -> UInt64 {
        do {
            let answer = try cluster.ask(node, .status, timeoutMillis: 2000)
            if case .status(let status) = answer, let used = status.groups.first?.status.log.usedBytes { return used }
        } catch {
            throw PerfError("\(node) does not say what its log holds: \(error)")
        }
        throw PerfError("\(node) does not say what its log holds")
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
                let left = Self.limitNanos - min(Self.limitNanos, monotonicNanos() - began)
                let limit = client.eventLoop.scheduleTask(in: .nanoseconds(Int64(left))) { client.drop() }
                defer {
                    limit.cancel()
                    client.drop()
                }
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

    private func writeAndFlush(_ bytes: UInt64) throws -> UInt64 {
        let path = floor
        return try Remains.with({ try makeFile(path, bytes: 0) }, remove: { unlink(path) }) {
            let descriptor = open(path, O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw PerfError("\(path): \(String(cString: strerror(errno)))") }
            defer { close(descriptor) }
            return try writeAndFlush(bytes, descriptor)
        }
    }

    private func writeAndFlush(_ bytes: UInt64, _ descriptor: Int32) throws -> UInt64 {
        let piece = [UInt8](repeating: 7, count: 1 << 20)
        let began = monotonicNanos()
        var left = Int(bytes)
        while left > 0 {
            let count = write(descriptor, piece, min(left, piece.count))
            guard count > 0 else { throw PerfError("\(floor): \(String(cString: strerror(errno)))") }
            left -= count
        }
        guard fdatasync(descriptor) == 0 else { throw PerfError("\(floor): \(String(cString: strerror(errno)))") }
        return max(1, monotonicNanos() - began)
    }

    private func wait(_ what: String, _ cluster: LocalCluster, _ condition: () throws -> Bool) throws {
        let began = monotonicNanos()
        while try !condition() {
            guard monotonicNanos() - began < Self.limitNanos else {
                throw PerfError("\(what) after a minute\n\(cluster.logs())")
            }
            usleep(10_000)
        }
    }
}
