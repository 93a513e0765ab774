// Where the results of a scenario go: a table for people, JSON, a page.

import Foundation
import HostProcess
import LogModel

extension Results {
    func report(_ options: CommonOptions) throws {
        if let row = rows.first(where: { $0.operations == 0 }) {
            throw PerfError("\(row.name): no operation ended in \(row.seconds) s: nothing was measured; more --seconds")
        }
        try printTable()
        if let path = options.html { try OutputFile.replace(path, by: HTMLReport(results: self).page) }
        guard let path = options.json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try OutputFile.replace(path, by: encoder.encode(self))
    }

    private func printTable() throws(OutputError) {
        func cell(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(0, width - text.count)) + text
        }
        func micros(_ nanos: Double) -> String { String(format: "%.2f", nanos / 1000) }
        let nameWidth = 2 + (rows.map(\.name.count).max() ?? 0)
        let titles = [
            "memory", "size", "threads", "depth", "ops/s", "MiB/s", "mean us", "p50 us", "p99 us", "p99.9 us",
        ]
        let hasProcessor = rows.contains { $0.processor != nil }
        try StandardOutput.line(
            "\(scenario)".padding(toLength: max(22, nameWidth), withPad: " ", startingAt: 0)
                + titles.map { cell($0, 11) }.joined()
                + (hasProcessor ? "   processor us/op" : ""))
        for row in rows {
            let latency = row.latencyNanos
            let cells = [
                row.memory, Size.format(UInt64(row.sizeBytes)), "\(row.threads)", "\(row.depth)",
                String(format: "%.0f", row.operationsPerSecond), String(format: "%.0f", row.mebibytesPerSecond),
                micros(latency.mean), micros(Double(latency.p50)), micros(Double(latency.p99)),
                micros(Double(latency.p999)),
            ]
            try StandardOutput.line(
                "  \(row.name)".padding(toLength: max(22, nameWidth), withPad: " ", startingAt: 0)
                    + cells.map { cell($0, 11) }.joined()
                    + (row.processor.map { "   " + $0 } ?? ""))
        }
        for (name, ratio) in ratios.sorted(by: { $0.key < $1.key }) {
            let asked = Asked.ratio(name, of: scenario).map { " (asked \($0.text))" } ?? ""
            try StandardOutput.line("  \(name): \(String(format: "%.3f", ratio))\(asked)")
        }
    }
}
