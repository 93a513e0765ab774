// volume: a running cluster through its NBD export, as a client sees it. The floor is the same number of bytes over one
// plain TCP connection on this machine, one way, which a mirrored write crosses twice.

import ArgumentParser
import Foundation
import LogModel
import NBDClient
import NIOCore
import NIOPosix

struct VolumeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "volume",
        abstract: "Drives an export of a running cluster. Its writes overwrite the volume.")
    @OptionGroup var options: CommonOptions
    @Option(help: "HOST:PORT or unix:/path of the export's owner.") var connect: String
    @Option(help: "The export: the volume's name.") var export: String
    @Option(help: "How many of a hundred operations are reads; the others are writes.") var reads = 0
    @Flag(help: "One block after another, instead of anywhere.") var sequential = false
    @Option(help: "Seed of the random offsets.") var seed: UInt64 = 1
    @Flag(help: "Write though the volume holds something: it is lost.") var overwrite = false

    func validate() throws {
        guard Endpoint(connect) != nil else {
            throw ValidationError("--connect: '\(connect)' is neither HOST:PORT nor unix:/path")
        }
        guard (0...100).contains(reads) else { throw ValidationError("--reads: 0 to 100") }
        guard options.pool == nil else { throw ValidationError("--pool: the cluster has its own") }
    }

    func run() throws {
        try options.checkOutputs()
        if reads < 100, !overwrite { try checkEmpty() }
        let floor = try FloorServer.start()
        var results = Results(scenario: "volume")
        for size in try options.sizes() {
            for threads in try options.threadCounts() {
                for depth in try options.depths() {
                    let (row, tcp) = try measure(size, connections: threads, depth: depth, floor)
                    results.rows += [row, tcp]
                    results.compare(row, to: tcp)
                }
            }
        }
        try results.report(options)
    }

    /// Reads the whole export, up to the first byte that would be lost.
    private func checkEmpty() throws {
        let client = try makeClient()
        defer { client.drop() }
        let pieceBytes: UInt64 = 4 << 20
        for offset in stride(from: 0, to: client.sizeBytes, by: UInt64.Stride(pieceBytes)) {
            let length = Int(min(pieceBytes, client.sizeBytes - offset))
            let promise = client.eventLoop.makePromise(of: ByteBuffer.self)
            promise.completeWithTask { try await client.read(offset: offset, length: length) }
            let piece = try promise.futureResult.wait().readableBytesView
            guard let place = piece.firstIndex(where: { $0 != 0 }) else { continue }
            let first = offset + UInt64(place - piece.startIndex)
            throw PerfError(
                "export \(export) is not empty: there is data at \(first). Its writes would destroy it; --overwrite does so, "
                    + "--reads 100 only reads")
        }
    }

    /// Each thread is a connection with an event loop of its own, and `depth` requests under way.
    private func measure(_ size: Int, connections: Int, depth: Int, _ floor: FloorServer) throws -> (Row, Row) {
        let drivers = try (0..<connections).map { try driver(size, depth: depth, $0) }
        defer { for driver in drivers { driver.client.drop() } }
        var repeats: [Repeat] = []
        var floorRepeats: [Repeat] = []
        var histogram = makeHistogram()
        var floorHistogram = makeHistogram()
        for _ in 0..<options.repeats {
            let seconds = options.secondsPerRepeat
            let (measured, latencies) = try VolumeDriver.run(drivers, seconds: seconds)
            repeats.append(measured)
            histogram.merge(latencies)
            let tcp = try TCPFloor.measure(
                port: floor.port, size: size, depth: depth * connections, seconds: seconds)
            floorRepeats.append(tcp.0)
            floorHistogram.merge(tcp.1)
        }
        return (
            Row(
                "twinlog", memory: "cluster", sizeBytes: size, threads: connections, depth: depth,
                repeats: repeats,
                latency: Latency(histogram)),
            Row(
                "tcp", memory: "none", sizeBytes: size, threads: 1, depth: depth * connections,
                repeats: floorRepeats, latency: Latency(floorHistogram))
        )
    }

    private func driver(_ size: Int, depth: Int, _ index: Int) throws -> VolumeDriver {
        let client = try makeClient()
        guard client.sizeBytes >= UInt64(size) else { throw PerfError("the export has only \(client.sizeBytes) bytes") }
        return try VolumeDriver(
            client: client, size: size, depth: depth, reads: reads, sequential: sequential,
            seed: seed &+ UInt64(index))
    }

    private func makeClient() throws -> NBDClient {
        guard let address = Endpoint(connect) else { throw PerfError("--connect: '\(connect)' is no address") }
        return try VolumeDriver.connect(to: address, export: export)
    }
}

/// Keeps `depth` requests of one connection under way. Thread-safe: its state lives on the connection's event loop.
struct VolumeDriver: Sendable {
    let client: NBDClient
    private let state: NIOLoopBound<State>

    /// What a run did.
    struct Ended: Sendable {
        var operations: UInt64
        var histogram: LatencyHistogram
        var pace: Pace
    }

    private final class State {
        let size: Int
        let depth: Int
        let reads: Int
        let sequential: Bool
        let blocks: UInt64
        let payload: ByteBuffer
        var random: UInt64
        var nextBlock: UInt64 = 0
        var underWay = 0
        var begin: UInt64 = 0
        var nanos: UInt64 = 0
        var operations: UInt64 = 0
        var histogram = makeHistogram()
        var pace = Pace(begin: 0, nanos: 0)
        var done: EventLoopPromise<Ended>?

        init(_ client: NBDClient, size: Int, depth: Int, reads: Int, sequential: Bool, seed: UInt64) {
            self.size = size
            self.depth = depth
            self.reads = reads
            self.sequential = sequential
            blocks = client.sizeBytes / UInt64(size)
            payload = ByteBuffer(repeating: 7, count: size)
            random = seed
        }

        /// SplitMix64.
        func draw() -> UInt64 {
            random &+= 0x9E37_79B9_7F4A_7C15
            var z = random
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }

        func nextCommand() -> NBDClient.Command {
            let block = sequential ? nextBlock % blocks : draw() % blocks
            nextBlock += 1
            let offset = block * UInt64(size)
            return draw() % 100 < UInt64(reads)
                ? .read(offset: offset, length: size) : .write(offset: offset, payload: payload, fua: false)
        }
    }

    init(client: NBDClient, size: Int, depth: Int, reads: Int, sequential: Bool, seed: UInt64) throws {
        self.client = client
        state = try client.eventLoop.submit {
            NIOLoopBound(
                State(client, size: size, depth: depth, reads: reads, sequential: sequential, seed: seed),
                eventLoop: client.eventLoop)
        }.wait()
    }

    /// A connection with an event loop of its own.
    static func connect(to address: Endpoint, export: String) throws -> NBDClient {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let promise = group.next().makePromise(of: NBDClient.self)
        promise.completeWithTask { try await NBDClient.connect(to: address, export: export, on: group) }
        do {
            return try promise.futureResult.wait()
        } catch let error as NBDClientError {
            throw PerfError("\(address), export '\(export)': \(error)")
        }
    }

    /// All of them at once, until the time is over and the last request is answered.
    static func run(_ drivers: [VolumeDriver], seconds: Double) throws -> (Repeat, LatencyHistogram) {
        let begin = monotonicNanos()
        var pace = Pace(begin: begin, nanos: UInt64(seconds * 1e9))
        let runs = drivers.map { $0.run(nanos: UInt64(seconds * 1e9)) }
        var histogram = makeHistogram()
        var operations: UInt64 = 0
        for run in runs {
            let ended = try run.wait()
            operations += ended.operations
            histogram.merge(ended.histogram)
            pace.merge(ended.pace)
        }
        let elapsed = Double(monotonicNanos() - begin) / 1e9
        return (Repeat(operations: operations, seconds: elapsed, p50: histogram.p50, pace: pace), histogram)
    }

    /// Until the time is over and the last request is answered.
    func run(nanos: UInt64) -> EventLoopFuture<Ended> {
        client.eventLoop.flatSubmit {
            let state = self.state.value
            let promise = client.eventLoop.makePromise(of: Ended.self)
            state.begin = monotonicNanos()
            state.nanos = nanos
            state.operations = 0
            state.histogram = makeHistogram()
            state.pace = Pace(begin: state.begin, nanos: nanos)
            state.done = promise
            for _ in 0..<state.depth { submit(state) }
            return promise.futureResult
        }
    }

    private func submit(_ state: State) {
        let at = monotonicNanos()
        guard state.done != nil, at - state.begin < state.nanos else { return finishIfDone(state) }
        state.underWay += 1
        client.submit(state.nextCommand()).assumeIsolated().whenComplete { result in
            state.underWay -= 1
            switch result {
            case .success:
                state.operations += 1
                let ended = monotonicNanos()
                state.histogram.note(ended - at)
                state.pace.note(ended)
                submit(state)
            case .failure(let error):
                state.done?.fail(PerfError("a request failed: \(error)"))
                state.done = nil
            }
        }
    }

    private func finishIfDone(_ state: State) {
        guard state.underWay == 0, let done = state.done else { return }
        state.done = nil
        done.succeed(Ended(operations: state.operations, histogram: state.histogram, pace: state.pace))
    }
}
