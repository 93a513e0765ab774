// twinlog-perf as scripts call it: what it writes with --json. How fast anything is, is not looked at.

import ClusterHarness
import Foundation
import Testing

extension Cluster {
    @Suite(.serialized) struct PerfToolTests {
        private func measure(_ words: String...) throws -> [String: Any] {
            let json = "/dev/shm/twinlog-perf-test-\(getpid()).json"
            defer { unlink(json) }
            let command = [builtBinaries() + "/twinlog-perf"] + words + ["--json", json]
            let finished = try run("bash", "-c", command.map { "'\($0)'" }.joined(separator: " "))
            try #require(finished.code == 0, "\(finished.output)")
            let text = try Data(contentsOf: URL(fileURLWithPath: json))
            return try #require(try JSONSerialization.jsonObject(with: text) as? [String: Any])
        }

        private func check(_ row: [String: Any], _ source: String) throws {
            for key in ["memory", "sizeBytes", "threads", "depth", "operations", "seconds", "operationsPerSecond"] {
                #expect(row[key] != nil, "\(source) has no \(key)")
            }
            #expect(try #require(row["operations"] as? Int) > 0 && #require(row["seconds"] as? Double) > 0)
            let latency = try #require(row["latencyNanos"] as? [String: Any])
            for key in ["mean", "p50", "p99", "p999"] {
                #expect(latency[key] != nil, "\(source) has no latency \(key)")
            }
        }

        @Test(arguments: ["append", "recover", "mirror", "takeover"])
        func aScenarioWritesWhatItMeasured(scenario: String) throws {
            let result = try measure(scenario, "--repeats", "1", "--seconds", "0.2", "--size", "64KiB")
            #expect(result["scenario"] as? String == scenario)
            try check(result, scenario)
        }

        @Test func aComparisonWritesRowsAndRatios() throws {
            let html = "/dev/shm/twinlog-perf-test-\(getpid()).html"
            defer { unlink(html) }
            let result = try measure(
                "compare", "append", "--repeats", "1", "--seconds", "0.1", "--size", "512", "--html", html)
            let page = try String(contentsOfFile: html, encoding: .utf8)
            #expect(page.hasPrefix("<!DOCTYPE html>") && page.contains("<td>floor<td>") && page.contains("Ratios"))
            #expect(result["scenario"] as? String == "append")
            let rows = try #require(result["rows"] as? [[String: Any]])
            #expect(Set(rows.compactMap { $0["name"] as? String }).isSuperset(of: ["twinlog", "floor"]))
            for row in rows { try check(row, "compare append") }
            #expect(try #require(result["ratios"] as? [String: Double]).isEmpty == false)
        }
    }
}
