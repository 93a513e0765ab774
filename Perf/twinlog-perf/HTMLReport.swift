// The results as a page of its own, for people: what the table in the terminal says, where and how it was measured, and plots. Well-formed
// XML, without a script and without anything from elsewhere.

import Foundation
import LogModel

struct HTMLReport {
    let results: Results

    var page: Data { Data(text.utf8) }

    private var text: String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8"/>
        <meta name="viewport" content="width=device-width"/>
        <title>TwinLog: \(results.scenario.escapedForXML)</title>
        <style>
        \(Self.style)
        </style>
        </head>
        <body>
        <h1>\(results.scenario.escapedForXML)</h1>
        \(facts)
        <p>Rows with the same size, threads and depth were measured in turn. Rates are medians of the repeats; so are ratios, of
        the ratios of neighbouring repeats. The bar shows a row's rate beside the best one of its kind.</p>
        <div class="wide"><table class="rows">
        <thead><tr>\(Self.titles.map { "<th>\($0)</th>" }.joined())</tr></thead>
        <tbody>
        \(lines)
        </tbody>
        </table></div>
        \(plots)
        \(ratios)
        </body>
        </html>

        """
    }

    // MARK: Where and how

    private var facts: String {
        let run = results.run
        let repeats = Set(results.rows.map(\.repeatsOperationsPerSecond.count)).sorted().map { "\($0)" }
        let facts: [(String, String)] = [
            ("command", "<code>\(run.command.escapedForXML)</code>"),
            ("date", run.date.escapedForXML),
            ("machine", "\(run.machine.processor), \(run.machine.cores) cores".escapedForXML),
            ("kernel", run.machine.kernel.escapedForXML),
            ("governor", (run.machine.governor ?? "none told").escapedForXML),
            ("load before", run.load.map(Figure.plain) ?? "unknown"),
            ("repeats", repeats.joined(separator: ", ")),
        ]
        return "<dl>\n" + facts.map { "<dt>\($0.0)</dt><dd>\($0.1)</dd>" }.joined(separator: "\n") + "\n</dl>"
    }

    // MARK: Table

    private static let titles = [
        "row", "memory", "size", "threads", "depth", "operations/s", "", "MiB/s", "mean", "p50", "p99", "p99.9",
        "processor, us per operation",
    ]

    private var lines: String {
        results.rows.indices.map { index in
            let isFirst = index > 0 && !results.rows[index].isComparable(to: results.rows[index - 1])
            return line(results.rows[index], isFirst: isFirst)
        }.joined(separator: "\n")
    }

    private func line(_ row: Row, isFirst: Bool) -> String {
        let best = results.rows.filter { $0.isComparable(to: row) }.map(\.operationsPerSecond).max() ?? 0
        let latency = row.latencyNanos
        let cells =
            [
                row.name.escapedForXML, row.memory.escapedForXML, Size.format(UInt64(row.sizeBytes)), "\(row.threads)",
                "\(row.depth)", Figure.grouped(row.operationsPerSecond),
                bar(best > 0 ? row.operationsPerSecond / best : 0), Figure.grouped(row.mebibytesPerSecond),
            ]
            + [latency.mean, Double(latency.p50), Double(latency.p99), Double(latency.p999)]
            .map { latency.samples > 0 ? Figure.duration($0) : "" } + [processor(row)]
        return "<tr\(isFirst ? " class=\"first\"" : "")>" + cells.map { "<td>\($0)</td>" }.joined() + "</tr>"
    }

    private func bar(_ part: Double) -> String {
        "<span class=\"bar\"><span style=\"width: \(String(format: "%.1f", 100 * min(1, part)))%\"></span></span>"
    }

    private func processor(_ row: Row) -> String {
        let bounds = Asked.processor(row.name, sizeBytes: row.sizeBytes, threads: row.threads, depth: row.depth)
        let asked = bounds?.sorted { $0.key > $1.key }.map { "\($0.key) \(Figure.plain($0.value))" }
        return (row.processor ?? "").escapedForXML
            + (asked.map { "<br/><small>asked at most \($0.joined(separator: " + "))</small>" } ?? "")
    }

    private var ratios: String {
        guard !results.ratios.isEmpty else { return "" }
        let asked = results.asked
        let lines = results.ratios.sorted { $0.key < $1.key }.map { name, ratio in
            let bound = asked[name]
            let verdict = bound.map { $0.isMet(by: ratio) ? "met" : "not met" } ?? ""
            return "<tr><td>\(name.escapedForXML)</td><td>\(String(format: "%.3f", ratio))</td>"
                + "<td>\(bound?.text ?? "")</td><td>\(verdict)</td></tr>"
        }
        return """
            <h2>Ratios</h2>
            <div class="wide"><table class="ratios">
            <thead><tr><th>of</th><th>ratio</th><th>asked</th><th></th></tr></thead>
            <tbody>
            \(lines.joined(separator: "\n"))
            </tbody>
            </table></div>
            """
    }

    // MARK: Plots

    private var plots: String {
        let plots = Plots(results)
        let keys = plots.contenders.enumerated().map { index, name in
            "<span class=\"key\"><span class=\"swatch b\(index)\"></span>\(name.escapedForXML)</span>"
        }
        let legend = "<p class=\"legend\">\(keys.joined(separator: " "))</p>"
        func section(_ title: String, _ pictures: [String]) -> String {
            guard !pictures.isEmpty else { return "" }
            let figures = pictures.map { "<figure>\n\($0)\n</figure>" }
            return "<h2>\(title)</h2>\n\(legend)\n<div class=\"plots\">\n\(figures.joined(separator: "\n"))\n</div>"
        }
        return section("Rates", plots.rates.compactMap(\.svg)) + "\n"
            + section("Latencies, and rates as time passed", plots.loads.joined().compactMap(\.svg))
    }

    /// The colours keep their distance for people who see few of them, on both backgrounds.
    private static let light = ["#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#4a3aa7", "#e87ba4"]
    private static let dark = ["#3987e5", "#d95926", "#199e70", "#c98500", "#9085e9", "#d55181"]

    private static func colours(_ colours: [String]) -> String {
        colours.enumerated().map { "--c\($0): \($1);" }.joined(separator: " ")
    }

    private static let style = """
        :root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2430; --soft: #56606e; --rule: #e1e6ec; --strong: #c0c8d2; \(colours(light)) }
        @media (prefers-color-scheme: dark) {
          :root { --paper: #14181e; --ink: #dfe5ec; --soft: #9aa5b3; --rule: #2a323c; --strong: #4a5563; \(colours(dark)) }
        }
        body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 82rem; padding: 0 1rem; color: var(--ink); background: var(--paper); }
        h1 { font-size: 1.6rem; margin-bottom: .5rem; }
        h2 { font-size: 1.2rem; margin-top: 2.5rem; }
        p { max-width: 50rem; color: var(--soft); }
        dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.25rem; margin: 0; }
        dt { color: var(--soft); }
        dd { margin: 0; overflow-wrap: anywhere; }
        code { font: .9em ui-monospace, monospace; }
        .wide { overflow-x: auto; }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
        th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
        th:first-child, td:first-child { text-align: left; padding-left: 0; }
        .rows th:last-child, .rows td:last-child, .ratios th:nth-child(n+3), .ratios td:nth-child(n+3) { text-align: left; }
        th { font-weight: 600; border-bottom: 2px solid var(--strong); }
        tr.first td { border-top: 2px solid var(--strong); }
        small { color: var(--soft); }
        .bar { display: inline-block; width: 5rem; height: .7rem; background: var(--rule); border-radius: 2px; }
        .bar span { display: block; height: 100%; background: var(--c0); border-radius: 2px; }
        .legend { color: var(--ink); }
        .key { margin-right: 1.25rem; white-space: nowrap; }
        .swatch { display: inline-block; width: 1.1rem; height: .25rem; margin-right: .4rem; vertical-align: middle; border-radius: 2px; }
        .plots { display: grid; gap: 1.25rem 1.5rem; }
        @media (min-width: 52rem) { .plots { grid-template-columns: 1fr 1fr; } }
        figure { margin: 0; max-width: 36rem; }
        svg { display: block; width: 100%; height: auto; }
        svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
        svg text.heading { font-size: 13px; font-weight: 600; fill: var(--ink); }
        .grid { stroke: var(--rule); }
        .tickmark { stroke: var(--strong); }
        .line path { fill: none; stroke-width: 2; stroke-linejoin: round; }
        .mark { stroke: var(--paper); stroke-width: 1; }
        \(light.indices.map { ".c\($0) path { stroke: var(--c\($0)); } .c\($0) circle { fill: var(--c\($0)); } .b\($0) { background: var(--c\($0)); }" }.joined(separator: "\n"))
        """
}

extension Row {
    fileprivate func isComparable(to other: Row) -> Bool {
        operation == other.operation && sizeBytes == other.sizeBytes && threads == other.threads && depth == other.depth
            && (memory == other.memory || memory == "none" || other.memory == "none")
    }
}
