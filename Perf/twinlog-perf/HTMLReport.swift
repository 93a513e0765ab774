// The results as a page of its own, for people: what the table in the terminal says, with bars.

import Foundation
import LogModel

struct HTMLReport {
    let results: Results

    var page: Data { Data(text.utf8) }

    private var text: String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width">
        <title>TwinLog: \(escaped(results.scenario))</title>
        <style>
        \(Self.style)
        </style>
        <h1>\(escaped(results.scenario))</h1>
        <p>Rows with the same size, threads and depth were measured in turn. Rates are medians of the repeats; so are ratios, of
        the ratios of neighbouring repeats. The bar shows a row's rate beside the best one of its kind.</p>
        <table>
        <thead><tr><th>row<th>memory<th>size<th>threads<th>depth<th>operations/s<th><th>MiB/s<th>mean<th>p50<th>p99<th>p99.9<th>processor, us per operation</thead>
        <tbody>
        \(results.rows.map(line).joined(separator: "\n"))
        </tbody>
        </table>
        \(ratios)
        </html>

        """
    }

    private func line(_ row: Row) -> String {
        let best = results.rows.filter { $0.isComparable(to: row) }.map(\.operationsPerSecond).max() ?? 0
        let latency = row.latencyNanos
        return "<tr><td>\(escaped(row.name))<td>\(escaped(row.memory))<td>\(Size.format(UInt64(row.sizeBytes)))"
            + "<td>\(row.threads)<td>\(row.depth)<td>\(grouped(row.operationsPerSecond))"
            + "<td>\(bar(best > 0 ? row.operationsPerSecond / best : 0))<td>\(grouped(row.mebibytesPerSecond))"
            + [latency.mean, Double(latency.p50), Double(latency.p99), Double(latency.p999)]
            .map { "<td>" + duration($0) }.joined() + "<td>\(escaped(row.processor ?? ""))"
    }

    private var ratios: String {
        guard !results.ratios.isEmpty else { return "" }
        let lines = results.ratios.sorted { $0.key < $1.key }.map { name, ratio in
            "<tr><td>\(escaped(name))<td>\(String(format: "%.3f", ratio))"
        }
        return """
            <h2>Ratios</h2>
            <table>
            <tbody>
            \(lines.joined(separator: "\n"))
            </tbody>
            </table>
            """
    }

    private func bar(_ part: Double) -> String {
        "<span class=\"bar\"><span style=\"width: \(String(format: "%.1f", 100 * min(1, part)))%\"></span></span>"
    }

    private func duration(_ nanos: Double) -> String {
        switch nanos {
        case ..<10_000: String(format: "%.0f ns", nanos)
        case ..<10_000_000: String(format: "%.1f us", nanos / 1e3)
        case ..<10_000_000_000: String(format: "%.1f ms", nanos / 1e6)
        default: String(format: "%.1f s", nanos / 1e9)
        }
    }

    /// With thin spaces between the thousands.
    private func grouped(_ value: Double) -> String {
        guard value >= 10 else { return String(format: "%.2f", value) }
        var digits = Array(String(Int(value.rounded())))
        for place in stride(from: digits.count - 3, to: 0, by: -3) { digits.insert("\u{2009}", at: place) }
        return String(digits)
    }

    private func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing("\"", with: "&quot;")
    }

    private static let style = """
        body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c2430; }
        h1 { font-size: 1.6rem; margin-bottom: 0; }
        h2 { font-size: 1.2rem; margin-top: 2rem; }
        p { max-width: 50rem; color: #56606e; }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
        th, td { padding: .25rem .75rem; text-align: right; white-space: nowrap; }
        th:first-child, td:first-child { text-align: left; padding-left: 0; }
        th { font-weight: 600; border-bottom: 2px solid #c9d1db; }
        td { border-bottom: 1px solid #e6eaef; }
        .bar { display: inline-block; width: 8rem; height: .7rem; background: #eef1f5; border-radius: 2px; }
        .bar span { display: block; height: 100%; background: #2f6fb2; border-radius: 2px; }
        @media (prefers-color-scheme: dark) {
          body { background: #14181e; color: #dfe5ec; }
          p { color: #9aa5b3; }
          th { border-color: #414b58; }
          td { border-color: #2a323c; }
          .bar { background: #2a323c; }
          .bar span { background: #6aa5e0; }
        }
        """
}

extension Row {
    fileprivate func isComparable(to other: Row) -> Bool {
        sizeBytes == other.sizeBytes && threads == other.threads && depth == other.depth
    }
}
