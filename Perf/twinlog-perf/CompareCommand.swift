// compare: a scenario, its floors and the peers that are installed, in turn in one run, and the ratios between them.

import ArgumentParser
import CLogCore
import Glibc
import HostProcess
import LogModel
import PersistentMemory
import WriteLog

struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare", abstract: "Runs a scenario, its floors and the installed peers in turn; prints ratios.")

    enum Scenario: String, ExpressibleByArgument, CaseIterable { case append, mirror, volume, recover }

    @Argument(help: "append, mirror, volume or recover.") var scenario: Scenario
    @OptionGroup var options: CommonOptions
    @OptionGroup var polling: PollingOption
    @Option(help: "append: a file on a disk, for the msync rows; it must not exist, and is removed.")
    var disk = "/var/tmp/twinlog-perf-\(getpid()).pool"

    func run() throws {
        try options.checkOutputs()
        switch scenario {
        case .append: try compareAppend().report(options)
        case .mirror: try compareMirror().report(options)
        case .volume: try compareVolume(options, polling).report(options)
        case .recover: try RecoverScenario(options).measure().report(options)
        }
    }

    // MARK: mirror

    private func compareMirror() throws -> Results {
        guard try options.threadCounts() == [1] else {
            throw ValidationError("--threads: a group lives on one event loop; use --depth")
        }
        var results = Results(scenario: "mirror")
        let bench = try MirrorBench(options, polling)
        defer { bench.stop() }
        for depth in try options.depths(default: "1,32,256") {
            for size in try options.sizes(default: "64,256,4KiB,64KiB") {
                // One message at a time is what blocking calls are best at, many what one read for all of them is.
                let rows = try bench.measure(
                    size, depth: depth, depth == 1 ? [.twinlog, .tcp, .stream] : [.twinlog, .stream])
                results.rows += rows
                for floor in rows.dropFirst() {
                    results.compare(rows[0], to: floor)
                    results.compareLatency(rows[0], to: floor)
                }
            }
        }
        return results
    }

    // MARK: append

    private func compareAppend() throws -> Results {
        var results = Results(scenario: "append")
        let pool = try PerfPool(path: options.pool, purpose: "compare", groups: ["log", "floor"])
        let peer = try PMEMLogTarget(bytes: Int(perfRingBytes))
        if peer == nil { try StandardOutput.line("libpmemlog is not installed (Debian: libpmemlog1): no peer") }
        for size in try options.sizes(default: "64,512,4KiB,64KiB") {
            try compareAppend(size, pool, peer, &results)
        }
        try compareGroupPersist(&results)
        for size in try options.sizes(default: "64,512,4KiB,64KiB") {
            results.ratios["drains/append \(Size.format(UInt64(size)))"] = try drains(appending: size).perAppend
        }
        results.ratios["drains/trim"] = try drains(appending: 512).perTrim
        return results
    }

    private func compareAppend(
        _ size: Int, _ pool: PerfPool, _ peer: PMEMLogTarget?, _ results: inout Results
    ) throws {
        let log = try AppendTarget(PerfPool.openLog(pool.regions[0]), batch: 1)
        let counts = try options.threadCounts(default: "1,2")
        var contenders: [Contender] = []
        for threads in counts {
            func add(_ name: String, _ target: some StoreTarget) {
                contenders.append(Contender(name, memory: pool.memory, size: size, threads: threads, target))
            }
            add("twinlog", log)
            add("floor", FloorTarget(pool.regions[1], threads: threads, size: size, batch: 1))
            add(
                "floor+tail",
                FloorTarget(pool.regions[1], threads: threads, size: size, batch: 1, hasSharedTail: true))
            if let peer { add("libpmemlog", peer) }
        }
        let rows = try Contender.measure(contenders, options)
        results.rows += rows
        let perCount = rows.count / counts.count
        for first in stride(from: 0, to: rows.count, by: perCount) {
            for other in rows[(first + 1)..<(first + perCount)] { results.compare(rows[first], to: other) }
            guard first > 0 else { continue }
            for row in 0..<3 { results.compareThreads(rows[first + row], to: rows[row]) }
        }
    }

    /// An ordinary file: many writers' records made durable by one msync.
    private func compareGroupPersist(_ results: inout Results) throws {
        let pool = try PerfPool(path: disk, purpose: "disk", groups: ["log"], ringBytes: 16 << 20)
        let log = try PerfPool.openLog(pool.regions[0])
        let rows = try Contender.measure(
            [1, 32].map { depth in
                Contender(
                    "twinlog", memory: pool.memory, size: 512, threads: 1, depth: depth,
                    AppendTarget(log, batch: depth))
            }, options)
        results.rows += rows
        results.ratios["twinlog \(pool.memory) 512 depth 32/depth 1"] = ratio(rows[1], rows[0])
    }

    /// Counted at the seam through which every store to persistent memory goes.
    private func drains(appending size: Int) throws -> (perAppend: Double, perTrim: Double) {
        guard let recorder = tl_recorder_create() else { throw PerfError("no memory for a recorder") }
        defer { tl_recorder_destroy(recorder) }
        let path = "/dev/shm/twinlog-perf-\(getpid())-drains.pool"
        let pool = try Remains.undisturbed {
            let pool = try Pool.create(
                path: path, sizeBytes: 24 << 20,
                identity: PoolIdentity(uuid: .random(), cluster: "perf", node: NodeID("perf")), persistence: .auto,
                recorder: recorder)
            unlink(path)
            return pool
        }
        let log = try PerfPool.openLog(pool.allocateRegion(group: GroupID("log"), ringBytes: 16 << 20))
        func drains(_ body: () throws -> Void) throws -> Double {
            let before = tl_recorder_count(recorder)
            try body()
            return Double(
                (before..<tl_recorder_count(recorder)).count {
                    tl_recorder_operation(recorder, $0).kind == TL_OPERATION_DRAIN
                })
        }
        let appends = 50
        let target = AppendTarget(log, batch: 1)
        let appending = try drains {
            try withPayload(size) { bytes throws(PerfError) in
                var cursor = target.begin(thread: 0)
                for _ in 0..<appends { try target.store(bytes, &cursor) }
            }.get()
        }
        let trimming = try drains {
            try log.setHead(log.durable, acknowledged: log.durable)
            log.setReclaimLimit(log.head)
        }
        return (appending / Double(appends), trimming)
    }
}
