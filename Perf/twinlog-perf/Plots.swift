// What of the results is drawn: rates over depth and over connections; for each load its latencies and its rate as time passed.

import Foundation
import LogModel
import PersistentMemory

struct Plots {
    private let rows: [Row]
    /// In the order in which they appear, which is that of their colours.
    let contenders: [String]

    init(_ results: Results) {
        rows = results.rows
        contenders = results.rows.map(\.contender).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    /// Rates over whatever there are at least two of.
    var rates: [Plot] {
        let overDepth = groups { Load($0, threads: $0.threads) }
            .compactMap { load, rows in rate(title(load), over: "depth", rows) { $0.depth } }
        let overThreads = groups { Load($0, depth: $0.depth) }
            .compactMap { load, rows in rate(title(load), over: threadsName, rows) { $0.threads } }
        return overDepth + overThreads
    }

    /// For each load the latencies and the rate, where they were measured.
    var loads: [[Plot]] {
        groups { Load($0, threads: $0.threads, depth: $0.depth) }.map { load, rows in
            [latencies(title(load), rows), pace(title(load), rows)].compactMap(\.self)
        }
    }

    // MARK: Groups

    /// What rows have in common that are drawn together.
    private struct Load: Hashable {
        let operation: String?
        let sizeBytes: Int
        /// Its rates are a disk's: a thousandth of memory's.
        let isOnDisk: Bool
        let threads: Int?
        let depth: Int?

        init(_ row: Row, threads: Int? = nil, depth: Int? = nil) {
            operation = row.operation
            sizeBytes = row.sizeBytes
            isOnDisk = row.memory == Persistence.msync.rawValue
            self.threads = threads
            self.depth = depth
        }
    }

    private func title(_ load: Load) -> String {
        let unit = load.sizeBytes % Int(Size.kibibyte) == 0 ? "" : " B"
        let size = Size.format(UInt64(load.sizeBytes)) + unit + (load.isOnDisk ? " by msync" : "")
        let parts = [
            load.operation, size, load.threads.flatMap(threads), load.depth.map { "depth \($0)" },
        ]
        return parts.compactMap(\.self).joined(separator: ", ")
    }

    private var threadsName: String { rows.contains { $0.operation != nil } ? "connections" : "threads" }

    /// `nil` where all rows have one.
    private func threads(_ count: Int) -> String? {
        guard rows.contains(where: { $0.threads != 1 }) else { return nil }
        return "\(count) \(count == 1 ? String(threadsName.dropLast()) : threadsName)"
    }

    private func groups(_ load: (Row) -> Load) -> [(Load, [Row])] {
        var order: [Load] = []
        var byLoad: [Load: [Row]] = [:]
        for row in rows {
            if byLoad[load(row)] == nil { order.append(load(row)) }
            byLoad[load(row), default: []].append(row)
        }
        return order.map { ($0, byLoad[$0] ?? []) }
    }

    // MARK: Plots

    private func line(_ contender: String, _ stretches: [[(x: Double, y: Double)]]) -> Plot.Line {
        Plot.Line(name: contender, colour: contenders.firstIndex(of: contender) ?? 0, stretches: stretches)
    }

    /// `nil` if there is only one of them.
    private func rate(_ title: String, over name: String, _ rows: [Row], _ count: (Row) -> Int) -> Plot? {
        let counts = Set(rows.map(count)).sorted()
        guard counts.count > 1 else { return nil }
        let lines = contenders.map { contender in
            line(
                contender,
                [
                    rows.filter { $0.contender == contender }.map { (log2(Double(count($0))), $0.operationsPerSecond) }
                        .sorted { $0.0 < $1.0 }
                ])
        }
        return Plot(
            title: title, xTitle: name, yTitle: "operations/s", lines: lines,
            xTicks: counts.map { Plot.Tick(place: log2(Double($0)), label: "\($0)") }, format: Figure.rate)
    }

    private func latencies(_ title: String, _ rows: [Row]) -> Plot? {
        let lines = rows.map { row in
            line(row.contender, [row.latencyNanos.percentiles.map { (Self.place($0.percent), Double($0.nanos)) }])
        }
        guard lines.contains(where: { $0.points.count > 1 }) else { return nil }
        return Plot(
            title: title, xTitle: "percentile", yTitle: "latency", lines: lines,
            xTicks: Latency.percents.map { Plot.Tick(place: Self.place($0), label: "p" + Figure.plain($0)) },
            isLogarithmic: true, format: Figure.duration)
    }

    /// Each digit nine takes the same room.
    private static func place(_ percent: Double) -> Double { -log10(1 - percent / 100) }

    private func pace(_ title: String, _ rows: [Row]) -> Plot? {
        let lines = rows.filter { !$0.paces.isEmpty }.map { row in
            var begin = 0.0
            let stretches = row.paces.map { pace in
                defer { begin += pace.sliceSeconds * Double(Pace.slices) }
                return pace.operations.enumerated().map { slice, count in
                    (x: begin + (Double(slice) + 0.5) * pace.sliceSeconds, y: Double(count) / pace.sliceSeconds)
                }
            }
            return line(row.contender, stretches)
        }
        guard !lines.isEmpty else { return nil }
        let seconds = rows.map { $0.paces.reduce(0) { $0 + $1.sliceSeconds * Double(Pace.slices) } }.max() ?? 0
        return Plot(
            title: title, xTitle: "s of load, repeat after repeat", yTitle: "operations/s", lines: lines,
            xTicks: Plot.steps(seconds).map { Plot.Tick(place: $0, label: Figure.plain($0)) },
            hasMarks: false, format: Figure.rate)
    }
}

extension Latency {
    static let percents = [50, 90, 99, 99.9, 99.99]

    /// Those beyond which there is at least one sample.
    fileprivate var percentiles: [(percent: Double, nanos: UInt64)] {
        zip(Self.percents, [p50, p90, p99, p999, p9999]).filter { Double(samples) * (1 - $0.0 / 100) >= 1 }
            .map { ($0.0, $0.1) }
    }
}

/// Numbers for people.
enum Figure {
    /// With at most three digits that say something.
    static func duration(_ nanos: Double) -> String {
        switch nanos {
        case ..<999.5: significant(nanos) + " ns"
        case ..<999.5e3: significant(nanos / 1e3) + " us"
        case ..<999.5e6: significant(nanos / 1e6) + " ms"
        default: significant(nanos / 1e9) + " s"
        }
    }

    static func rate(_ value: Double) -> String {
        switch value {
        case ..<999.5: significant(value)
        case ..<999.5e3: significant(value / 1e3) + "k"
        default: significant(value / 1e6) + "M"
        }
    }

    /// Without zeros at the end.
    static func plain(_ value: Double) -> String { String(format: "%.6g", value) }

    private static func significant(_ value: Double) -> String {
        value >= 999.5 ? String(format: "%.0f", value) : String(format: "%.3g", value)
    }

    /// With thin spaces between the thousands.
    static func grouped(_ value: Double) -> String {
        guard value >= 10 else { return String(format: "%.2f", value) }
        var digits = Array(String(Int(value.rounded())))
        for place in stride(from: digits.count - 3, to: 0, by: -3) { digits.insert("\u{2009}", at: place) }
        return String(digits)
    }
}
