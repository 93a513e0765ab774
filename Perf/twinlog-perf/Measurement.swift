// What was measured, in numbers that can be compared, as JSON and as a table.

import Foundation
import Histogram
import HostProcess
import LogModel

typealias LatencyHistogram = Histogram<UInt64>

/// Up to a minute, to a thousandth.
func makeHistogram() -> LatencyHistogram {
    LatencyHistogram(highestTrackableValue: 60_000_000_000, numberOfSignificantValueDigits: .three)
}

extension LatencyHistogram {
    /// What is longer than the histogram reaches counts as its longest.
    mutating func note(_ nanos: UInt64) { _ = record(Swift.min(nanos, highestTrackableValue)) }

    mutating func merge(_ other: Self) { add(other) }

    var p50: UInt64 { valueAtPercentile(50) }
}

func monotonicNanos() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

struct Latency: Encodable {
    var mean = 0.0
    var p50: UInt64 = 0
    var p90: UInt64 = 0
    var p99: UInt64 = 0
    var p999: UInt64 = 0
    var p9999: UInt64 = 0
    var max: UInt64 = 0
    var samples: UInt64 = 0

    init() {}
    init(_ histogram: LatencyHistogram) {
        guard histogram.totalCount > 0 else { return }
        mean = histogram.mean
        p50 = histogram.valueAtPercentile(50)
        p90 = histogram.valueAtPercentile(90)
        p99 = histogram.valueAtPercentile(99)
        p999 = histogram.valueAtPercentile(99.9)
        p9999 = histogram.valueAtPercentile(99.99)
        max = histogram.max
        samples = UInt64(histogram.totalCount)
    }
}

/// One repeat: so many operations in so much time.
struct Repeat {
    var operations: UInt64
    var seconds: Double
    /// Of its operations, in nanoseconds, where each was timed.
    var p50: UInt64 = 0
    /// Where it was noted.
    var pace: Pace?
    /// What each part of a server used of the processor meanwhile.
    var processorNanos: [String: UInt64] = [:]
    var operationsPerSecond: Double { seconds > 0 ? Double(operations) / seconds : 0 }
}

struct Row: Encodable {
    /// Whose it is and, where a scenario has several, of which operation.
    var name: String
    let contender: String
    let operation: String?
    var memory: String
    var sizeBytes: Int
    var threads: Int
    var depth: Int
    var operations: UInt64
    var seconds: Double
    /// The median of the repeats.
    var operationsPerSecond: Double
    var repeatsOperationsPerSecond: [Double]
    var mebibytesPerSecond: Double
    var latencyNanos: Latency
    /// Of each repeat, in order.
    let paces: [Pace]
    /// The median of the repeats, by part of the server.
    var processorMicrosPerOperation: [String: Double]?
    /// Of a takeover: what stood in the partner's log, repeat by repeat.
    var undestagedBytes: [UInt64]?
    /// Of each repeat, in nanoseconds; for ratios.
    private let repeatsP50: [Double]

    private enum CodingKeys: String, CodingKey {
        case name, memory, sizeBytes, threads, depth, operations, seconds, operationsPerSecond
        case repeatsOperationsPerSecond, mebibytesPerSecond, latencyNanos, paces, processorMicrosPerOperation
        case undestagedBytes
    }

    init(
        _ contender: String, operation: String? = nil, memory: String, sizeBytes: Int, threads: Int = 1, depth: Int = 1,
        repeats: [Repeat], latency: Latency
    ) {
        name = operation.map { "\(contender) \($0)" } ?? contender
        self.contender = contender
        self.operation = operation
        self.memory = memory
        self.sizeBytes = sizeBytes
        self.threads = threads
        self.depth = depth
        operations = repeats.reduce(0) { $0 + $1.operations }
        seconds = repeats.reduce(0) { $0 + $1.seconds }
        repeatsOperationsPerSecond = repeats.map(\.operationsPerSecond)
        operationsPerSecond = median(repeatsOperationsPerSecond)
        mebibytesPerSecond = operationsPerSecond * Double(sizeBytes) / Double(Size.mebibyte)
        latencyNanos = latency
        paces = repeats.compactMap(\.pace)
        repeatsP50 = repeats.map { Double($0.p50) }
        let parts = Set(repeats.flatMap(\.processorNanos.keys))
        guard !parts.isEmpty else { return }
        processorMicrosPerOperation = Dictionary(
            uniqueKeysWithValues: parts.map { part in
                let measured = repeats.filter { $0.operations > 0 }
                return (
                    part, median(measured.map { Double($0.processorNanos[part] ?? 0) / 1e3 / Double($0.operations) })
                )
            })
    }

    /// What an operation costs each part of the server, for people.
    var processor: String? {
        processorMicrosPerOperation?.sorted { $0.key > $1.key }
            .map { "\($0.key) \(String(format: "%.1f", $0.value))" }.joined(separator: " + ")
    }

    /// This row's median latency by another's: the median of the ratios of neighbouring repeats.
    func latencyRatio(to other: Row) -> Double {
        median(zip(repeatsP50, other.repeatsP50).filter { $0.1 > 0 }.map { $0.0 / $0.1 })
    }
}

/// Operations per second of one row by another's: the median of the ratios of neighbouring repeats.
func ratio(_ row: Row, _ other: Row) -> Double {
    let pairs = zip(row.repeatsOperationsPerSecond, other.repeatsOperationsPerSecond).filter { $0.1 > 0 }
    return median(pairs.map { $0.0 / $0.1 })
}

func median(_ values: [Double]) -> Double {
    guard !values.isEmpty else { return 0 }
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/// The keys of the first row stand at the top too, for scripts that measure one thing.
struct Results: Encodable {
    var scenario: String
    var rows: [Row] = []
    /// Operations per second of one row by another's: the median of the ratios of neighbouring repeats.
    var ratios: [String: Double] = [:]
    let run = RunDescription()

    init(scenario: String) { self.scenario = scenario }

    /// What is asked of those ratios of which something is.
    var asked: [String: Asked] {
        Dictionary(
            uniqueKeysWithValues: ratios.keys.compactMap { name in Asked.ratio(name, of: scenario).map { (name, $0) } })
    }

    /// Adds the ratio of two rows that were measured in turn.
    mutating func compare(_ row: Row, to floor: Row) {
        ratios["\(row.name)/\(floor.name) \(Size.format(UInt64(row.sizeBytes))) \(row.threads)x\(row.depth)"] =
            ratio(row, floor)
    }

    /// Adds the ratio of the median latencies of two rows that were measured in turn.
    mutating func compareLatency(_ row: Row, to floor: Row) {
        ratios["\(row.name)/\(floor.name) p50 \(Size.format(UInt64(row.sizeBytes))) \(row.threads)x\(row.depth)"] =
            row.latencyRatio(to: floor)
    }

    /// Adds what more threads give.
    mutating func compareThreads(_ row: Row, to fewer: Row) {
        ratios["\(row.name) \(Size.format(UInt64(row.sizeBytes))) \(row.threads) threads/\(fewer.threads)"] =
            ratio(row, fewer)
    }

    private enum Key: String, CodingKey { case scenario, rows, ratios, asked }

    func encode(to encoder: any Encoder) throws {
        try rows.first?.encode(to: encoder)
        try run.encode(to: encoder)
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(scenario, forKey: .scenario)
        try container.encode(rows, forKey: .rows)
        try container.encode(ratios, forKey: .ratios)
        try container.encode(asked, forKey: .asked)
    }
}
