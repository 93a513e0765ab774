// twinlog-perf as scripts call it: what it writes with --json. How fast anything is, is not looked at.

import AdminProtocol
import ClusterHarness
import Foundation
import FoundationXML
import LogModel
import NBDClient
import NIOCore
import TestSupport
import Testing

extension Cluster {
    @Suite(.serialized) struct PerfToolTests {
        private func measure(_ words: String...) throws -> [String: Any] {
            let json = "/dev/shm/twinlog-perf-test-\(getpid()).json"
            defer { unlink(json) }
            let command = [builtBinaries() + "/twinlog-perf"] + words + ["--json", json]
            let finished = try run("bash", "-c", command.map { "'\($0)'" }.joined(separator: " "), seconds: 600)
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

        @Test("a kill is measured with what waited before it")
        func whatWaits() async throws {
            try await withFolder { folder in
                let result = try measure(
                    "takeover", "--quick", "--repeats", "2", "--undestaged", "2MiB", "--depth", "32", "--medium", folder
                )
                let waited = try #require((result["rows"] as? [[String: Any]])?.first?["undestagedBytes"] as? [Int])
                #expect(waited.count == 2 && waited.allSatisfy { $0 >= 2 << 20 }, "\(waited)")
            }
        }

        @Test("a kill is not measured if the partner does not say what waits")
        func silentPartner() async throws {
            try await withFolder { folder in
                let perf = try PerfProcess("takeover", "--repeats", "1", "--seconds", "2", in: folder)
                defer { perf.kill() }
                func isUnderLoad() throws -> Bool {
                    let answer = try? AdminClient.ask(.status, at: folder + "/pool/run/beta.sock", timeoutMillis: 1000)
                    guard case .status(let status) = answer else { return false }
                    return status.groups.first?.status.log.usedBytes ?? 0 > 0
                }
                try #require(try await eventually { try isUnderLoad() }, "\(perf.told)")
                let partner = try #require(try perf.nodes().first { $0.name == "beta" })
                kill(partner.process, SIGSTOP)
                #expect(try await perf.end() == 1)
                #expect(
                    perf.told.hasPrefix(
                        "twinlog-perf: kill 1 of 1 is not measured: beta does not say what its log holds: "),
                    "\(perf.told)")
                #expect(perf.told.hasSuffix("\ntwinlog-perf: no takeover could be measured\n"), "\(perf.told)")
                #expect(try perf.nodes().isEmpty)
            }
        }

        @Test(
            "a kill that cannot be measured is told, the others are reported; a file of others stays; --medium may be relative"
        )
        func someKills() async throws {
            try await withFolder { folder in
                let perf = try PerfProcess(
                    "takeover", "--quick", "--repeats", "2", "--medium", "medium", "--json", "r.json", in: folder,
                    after: "mkdir medium; echo others > medium/twinlog-perf-$$.floor")
                defer { perf.kill() }
                let floor = "\(folder)/medium/twinlog-perf-\(perf.processID).floor"
                try #require(try await eventually { perf.told.contains("\n") }, "no kill failed")
                #expect(
                    perf.told.hasPrefix(
                        "twinlog-perf: kill 1 of 2 is not measured: \(floor): cannot be made: File exists\n"),
                    "\(perf.told)")
                #expect(try String(contentsOfFile: floor, encoding: .utf8) == "others\n")
                unlink(floor)
                #expect(try await perf.end() == 0, "\(perf.told)")
                let text = try Data(contentsOf: URL(fileURLWithPath: folder + "/r.json"))
                let result = try #require(try JSONSerialization.jsonObject(with: text) as? [String: Any])
                #expect(result["operations"] as? Int == 1)
                #expect(try FileManager.default.contentsOfDirectory(atPath: folder + "/medium").isEmpty)
            }
        }

        @Test("--medium is refused at once where no file can be made")
        func noMedium() async throws {
            try await withFolder { folder in
                let file = folder + "/file"
                #expect(FileManager.default.createFile(atPath: file, contents: nil))
                for (medium, reason) in [
                    ("", "No such file or directory"), (folder + "/none", "No such file or directory"),
                    (file, "Not a directory"),
                ] {
                    let refused = try run(builtBinaries() + "/twinlog-perf", "takeover", "--medium", medium)
                    #expect(refused.code == 2)
                    #expect(
                        refused.output.hasPrefix(
                            "Error: --medium: '\(medium)' is not a folder where files can be made: \(reason)\n"),
                        "\(refused.output)")
                }
            }
        }

        @Test(
            "a signal leaves neither processes nor files",
            arguments: [
                (["takeover", "--medium", "."], SIGINT), (["compare", "volume"], SIGTERM), (["mirror"], SIGHUP),
            ])
        func interrupted(words: [String], number: Int32) async throws {
            try await withFolder { folder in
                let perf = try PerfProcess(words + ["--seconds", "60", "--repeats", "1"], in: folder)
                defer { perf.kill() }
                let isMirror = words == ["mirror"]
                func isUnderWay() throws -> Bool {
                    if isMirror { return try !perf.children().isEmpty }
                    let nodes = try perf.nodes()
                    return nodes.count == 2
                        && FileManager.default.fileExists(atPath: nodes[0].folder + "/run/beta.sock")
                }
                try #require(try await eventually { try isUnderWay() }, "\(perf.told)")
                let children = try perf.children()
                kill(perf.processID, number)
                #expect(try await perf.end() == 128 + number)
                #expect(try await eventually { children.allSatisfy { kill($0, 0) != 0 } }, "\(children)")
                #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["told"])
                #expect(perf.told.isEmpty || words[0] == "compare", "\(perf.told)")
            }
        }

        private func withFolder(_ body: (String) async throws -> Void) async throws {
            let folder = "/dev/shm/twinlog-perf-test-\(UUID128.random())"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            defer { #expect(throws: Never.self) { try FileManager.default.removeItem(atPath: folder) } }
            try await body(folder)
        }

        @Test("O14: a volume that holds something is overwritten only by who says so, and output is tried first")
        func volumeIsKept() async throws {
            var options = LocalClusterOptions.patient
            options.volumeBytes = 8 << 20
            try await withCluster(options) { cluster in
                let address = "unix:\(cluster.folder)/run/\(try cluster.roles().owner).nbd"
                func volume(_ more: String...) throws -> Finished {
                    let words = ["volume", "--connect", address, "--export", "vol0", "--repeats", "1"] + more
                    return try run(
                        "bash", "-c",
                        ([builtBinaries() + "/twinlog-perf"] + words).map { "'\($0)'" }.joined(separator: " "))
                }
                let client = try await cluster.connect(to: try cluster.roles().owner)
                func firstByte() async throws -> UInt8? {
                    try await client.read(offset: 5 << 20, length: 4096).readableBytesView.first
                }
                let nowhere = try volume("--seconds", "0.1", "--json", "\(cluster.folder)/nowhere/r.json")
                #expect(nowhere.code != 0 && nowhere.output.contains("cannot be written"), "\(nowhere.output)")
                let written = client.submit(
                    .write(offset: 5 << 20, payload: ByteBuffer(repeating: 0xEE, count: 4096), fua: false))
                _ = try await written.get()
                let refused = try volume("--seconds", "0.1")
                #expect(refused.code != 0 && refused.output.contains("data at \(5 << 20)"), "\(refused.output)")
                #expect(try volume("--seconds", "0.1", "--reads", "100").code == 0)
                #expect(try await firstByte() == 0xEE)
                let nothing = try volume("--seconds", "0.000000001", "--reads", "100")
                #expect(nothing.code != 0 && nothing.output.contains("nothing was measured"), "\(nothing.output)")
                let sequential = try volume(
                    "--seconds", "1", "--overwrite", "--sequential", "--size", "1MiB", "--depth", "8")
                #expect(sequential.code == 0, "\(sequential.output)")
                await client.disconnect()
            }
        }

        @Test("a comparison with servers has each part's processor time, and its peers where they are installed")
        func comparisonsOfServers() throws {
            for (scenario, others, parts) in [
                ("mirror", ["tcp", "stream"], ["owner", "mirror"]),
                ("volume", ["qemu-nbd write"], ["owner", "mirror"]),
            ] {
                let result = try measure("compare", scenario, "--repeats", "1", "--seconds", "0.2", "--depth", "1")
                let rows = try #require(result["rows"] as? [[String: Any]])
                for row in rows { try check(row, "compare \(scenario)") }
                #expect(Set(rows.compactMap { $0["name"] as? String }).isSuperset(of: others))
                let used = try #require(rows.first?["processorMicrosPerOperation"] as? [String: Double])
                for part in parts { #expect(try #require(used[part]) > 0) }
                let ratios = try #require(result["ratios"] as? [String: Double])
                #expect(ratios.keys.contains { $0.contains("p50") })
            }
        }

        @Test(
            "compare volume's page is well-formed, whatever the command line holds, and has every row, each load's plots and what is asked"
        )
        func aPageOfVolumes() throws {
            let html = "/dev/shm/twinlog-perf-test-\(getpid()).html"
            defer { unlink(html) }
            let folder = "/dev/shm/twinlog-perf-test-\(getpid()) <&\""
            let result = try measure("compare", "volume", "--quick", "--pool", folder, "--html", html)
            #expect(result["command"] as? String == "twinlog-perf compare volume --quick --pool '\(folder)'")
            #expect(!FileManager.default.fileExists(atPath: folder))
            let page = try XMLDocument(data: Data(contentsOf: URL(fileURLWithPath: html)))
            func texts(_ path: String) throws -> [String] { try page.nodes(forXPath: path).compactMap(\.stringValue) }
            #expect(try texts("//dd/code") == [result["command"] as? String])
            let rows = try #require(result["rows"] as? [[String: Any]])
            #expect(try texts("//table[@class='rows']/tbody/tr/td[1]") == rows.compactMap { $0["name"] as? String })
            let loads = Set(rows.map { row in "\(row["threads"] ?? 0)x\(row["depth"] ?? 0)" })
            #expect(loads == ["1x1", "1x32", "1x128", "1x512", "4x32", "16x32", "2x32"])
            #expect(rows.contains { $0["name"] as? String == "twinlog both ways read" })
            let headings = try texts("//svg/title")
            for operation in ["write", "read"] {
                #expect(headings.contains("\(operation), 4KiB, 1 connection"), "no rates over depth")
                for (load, threads, depth) in [
                    ("1 connection, depth 512", 1, 512), ("16 connections, depth 32", 16, 32),
                ] {
                    let these = rows.filter { row in
                        row["threads"] as? Int == threads && row["depth"] as? Int == depth
                            && (row["name"] as? String)?.hasSuffix(" \(operation)") == true
                    }
                    // Where a short load on a busy machine ended nothing within its time, its rates have nothing to draw.
                    let hasRates = these.flatMap { $0["paces"] as? [[String: Any]] ?? [] }
                        .contains { ($0["operations"] as? [Int])?.contains { $0 > 0 } == true }
                    #expect(
                        headings.count { $0 == "\(operation), 4KiB, \(load)" } == (hasRates ? 2 : 1),
                        "latencies and rates of \(load)")
                }
            }
            let ratios = try #require(result["ratios"] as? [String: Double])
            #expect(try Set(texts("//table[@class='ratios']/tbody/tr/td[1]")) == Set(ratios.keys))
            let asked = try #require(result["asked"] as? [String: Any])
            #expect(Set(asked.keys).isSubset(of: ratios.keys))
            #expect(try page.nodes(forXPath: "//script | //link | //img").isEmpty)
        }

        @Test("the README's figures are those of the newest results with nine repeats, and no others pass")
        func figuresOfTheReadme() throws {
            let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "../..")
            let folder = URL(fileURLWithPath: "/dev/shm/twinlog-perf-test-\(getpid()).readme")
            defer { #expect(throws: Never.self) { try FileManager.default.removeItem(at: folder) } }
            let results = folder.appending(path: "Perf/results")
            try FileManager.default.createDirectory(at: results, withIntermediateDirectories: true)
            let program = folder.appending(path: "Perf/fill-readme")
            try FileManager.default.copyItem(at: root.appending(path: "Perf/fill-readme"), to: program)
            let readme = folder.appending(path: "README.md")
            try FileManager.default.copyItem(at: root.appending(path: "README.md"), to: readme)
            func fill() throws -> String {
                #expect(try run(program.path).code == 0)
                #expect(try run(program.path, "--check").code == 0)
                return try String(contentsOf: readme, encoding: .utf8)
            }
            func measure(repeats: Int) throws {
                let file = results.appending(path: "m-\(repeats).json").path
                let measured = try run(
                    builtBinaries() + "/twinlog-perf", "compare", "mirror", "--seconds", "0.1", "--size", "256",
                    "--depth", "1",
                    "--repeats", "\(repeats)", "--json", file)
                #expect(measured.code == 0, "\(measured.output)")
            }
            try measure(repeats: 1)
            #expect(try !fill().contains("m-1.json"))
            try measure(repeats: 9)
            let filled = try fill()
            #expect(filled.contains("(Perf/results/m-9.json)") && filled.contains("| twinlog, 256, 1 x 1 |"))
            #expect(filled.contains("twinlog-perf compare mirror --seconds 0.1 --size 256 --depth 1 --repeats 9"))
            try filled.replacing("| twinlog, 256, 1 x 1 | ", with: "| twinlog, 256, 1 x 1 | 9")
                .write(to: readme, atomically: true, encoding: .utf8)
            let refused = try run(program.path, "--check")
            #expect(refused.code != 0 && refused.output.contains("README.md"), "\(refused.output)")
        }

        @Test func aComparisonWritesRowsAndRatios() throws {
            let html = "/dev/shm/twinlog-perf-test-\(getpid()).html"
            defer { unlink(html) }
            let result = try measure(
                "compare", "append", "--repeats", "1", "--seconds", "0.1", "--size", "512", "--html", html)
            let page = try String(contentsOfFile: html, encoding: .utf8)
            #expect(page.hasPrefix("<!DOCTYPE html>") && page.contains("<td>floor</td>") && page.contains("Ratios"))
            #expect(result["scenario"] as? String == "append")
            let rows = try #require(result["rows"] as? [[String: Any]])
            #expect(Set(rows.compactMap { $0["name"] as? String }).isSuperset(of: ["twinlog", "floor"]))
            for row in rows { try check(row, "compare append") }
            #expect(try #require(result["ratios"] as? [String: Double]).isEmpty == false)
        }
    }
}

/// twinlog-perf, while it runs. Its pool is `pool` in its folder.
private struct PerfProcess {
    private let process = Process()
    private let folder: String
    var processID: Int32 { process.processIdentifier }

    init(_ words: String..., in folder: String, after preparation: String = ":") throws {
        try self.init(words, in: folder, after: preparation)
    }

    /// `preparation` is of a shell that becomes it.
    init(_ words: [String], in folder: String, after preparation: String = ":") throws {
        self.folder = folder
        let command = [builtBinaries() + "/twinlog-perf"] + words + ["--pool", folder + "/pool"]
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        // Whoever runs the tests may ignore a signal.
        process.arguments = [
            "-c",
            "\(preparation); exec env --default-signal=INT,HUP \(command.joined(separator: " ")) > /dev/null 2> told",
        ]
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        process.standardInput = FileHandle.nullDevice
        try process.runReachable()
    }

    /// On standard error.
    var told: String {
        FileManager.default.contents(atPath: folder + "/told").map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    /// The processes that it started.
    func children() throws -> [Int32] {
        try run("pgrep", "--parent", "\(processID)").output.split(separator: "\n").compactMap { Int32($0) }
    }

    /// Those that are nodes, and the folders of their clusters.
    func nodes() throws -> [(process: Int32, name: String, folder: String)] {
        try children().compactMap { child in
            guard let line = FileManager.default.contents(atPath: "/proc/\(child)/cmdline") else { return nil }
            let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            guard words.count == 5, words[1] == "--config", words[3] == "--node" else { return nil }
            return (child, words[4], (words[2] as NSString).deletingLastPathComponent)
        }
    }

    /// The exit code as a shell tells it; fails if it does not end.
    func end() async throws -> Int32 {
        try #require(try await eventually(seconds: 60) { !process.isRunning }, "\(told)")
        return process.terminationStatus + (process.terminationReason == .uncaughtSignal ? 128 : 0)
    }

    func kill() { if process.isRunning { Foundation.kill(processID, SIGTERM) } }
}
