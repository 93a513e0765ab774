// append: writes into a log, from any number of threads, and beside it the floor.
//
// Throughput and latency are measured in passes of their own: a clock read costs a good part of an append. Log and floor
// take turns, so that what disturbs the machine disturbs both. Memory is persisted as the pool's kind asks for.

import ArgumentParser
import LogModel
import PersistentMemory

struct AppendCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "append",
        abstract: "Appends to a log; the floor is copy, checksum, header and drain without a log.")
    @OptionGroup var options: CommonOptions

    func run() throws {
        try options.checkOutputs()
        let pool = try PerfPool(path: options.pool, purpose: "append", groups: ["log", "floor"])
        var results = Results(scenario: "append")
        for size in try options.sizes() {
            for threads in try options.threadCounts() {
                for depth in try options.depths() {
                    let rows = try measure(pool, size, threads, depth)
                    results.rows += rows
                    results.compare(rows[0], to: rows[1])
                }
            }
        }
        try results.report(options)
    }

    /// The log and its floor.
    private func measure(_ pool: PerfPool, _ size: Int, _ threads: Int, _ depth: Int) throws -> [Row] {
        let log = try AppendTarget(PerfPool.openLog(pool.regions[0]), batch: depth)
        let floor = FloorTarget(pool.regions[1], threads: threads, size: size, batch: depth)
        return try Contender.measure(
            [
                Contender("twinlog", memory: pool.memory, size: size, threads: threads, depth: depth, log),
                Contender("floor", memory: pool.memory, size: size, threads: threads, depth: depth, floor),
            ], options)
    }
}

/// One of those that take turns.
struct Contender {
    let name: String
    let memory: String
    let size: Int
    let threads: Int
    let depth: Int
    private let throughput: (_ seconds: Double) throws -> Repeat
    private let latency: (_ seconds: Double) throws -> Latency

    init(
        _ name: String, memory: String, size: Int, threads: Int, depth: Int = 1, _ target: some StoreTarget
    ) {
        self.name = name
        self.memory = memory
        self.size = size
        self.threads = threads
        self.depth = depth
        throughput = { try measureThroughput(of: target, size, threads, seconds: $0) }
        latency = { try measureLatency(of: target, size, threads, seconds: $0) }
    }

    /// Their rows, in order: every repeat measures each once, beginning with another each time.
    static func measure(_ contenders: [Contender], _ options: CommonOptions) throws -> [Row] {
        var repeats = [[Repeat]](repeating: [], count: contenders.count)
        for turn in 0..<options.repeats {
            for step in contenders.indices {
                let index = (turn + step) % contenders.count
                repeats[index].append(try contenders[index].throughput(options.secondsPerRepeat))
            }
        }
        return try zip(contenders, repeats).map { contender, repeats in
            Row(
                contender.name, memory: contender.memory, sizeBytes: contender.size, threads: contender.threads,
                depth: contender.depth, repeats: repeats, latency: try contender.latency(options.secondsPerRepeat))
        }
    }
}

private func measureThroughput(
    of target: some StoreTarget, _ size: Int, _ threads: Int, seconds: Double
) throws -> Repeat {
    let length = UInt64(seconds * 1e9)
    // The clock is looked at once per so many operations.
    let stretch = max(1, (64 << 10) / size)
    let begin = monotonicNanos()
    let outcomes = onThreads(threads) { index -> Result<(UInt64, Pace), PerfError> in
        withPayload(size) { bytes throws(PerfError) in
            var done: UInt64 = 0
            var pace = Pace(begin: begin, nanos: length)
            var now = begin
            var cursor = target.begin(thread: index)
            repeat {
                for _ in 0..<stretch { try target.store(bytes, &cursor) }
                done += UInt64(stretch)
                now = monotonicNanos()
                pace.note(now, stretch)
            } while now - begin < length
            return (done, pace)
        }
    }
    let elapsed = Double(monotonicNanos() - begin) / 1e9
    var operations: UInt64 = 0
    var pace = Pace(begin: begin, nanos: length)
    for outcome in outcomes {
        let (done, ended) = try outcome.get()
        operations += done
        pace.merge(ended)
    }
    return Repeat(operations: operations, seconds: elapsed, pace: pace)
}

private func measureLatency(
    of target: some StoreTarget, _ size: Int, _ threads: Int, seconds: Double
) throws -> Latency {
    let length = UInt64(seconds * 1e9)
    let begin = monotonicNanos()
    let histograms = onThreads(threads) { index -> Result<LatencyHistogram, PerfError> in
        withPayload(size) { bytes throws(PerfError) in
            var histogram = makeHistogram()
            var cursor = target.begin(thread: index)
            var before = monotonicNanos()
            while before - begin < length {
                try target.store(bytes, &cursor)
                let after = monotonicNanos()
                histogram.note(after - before)
                before = after
            }
            return histogram
        }
    }
    var all = makeHistogram()
    for histogram in histograms { all.merge(try histogram.get()) }
    return Latency(all)
}
