// What a command answers: the reason that `status` has, within seconds; JSON for scripts, failures too; nothing destroyed unasked;
// lines that fit a terminal.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import NBDClient
import NIOCore
import Synchronization
import Testing

/// A program that was run to its end, its two outputs apart.
private struct Answer {
    var code: Int32
    var isSignalled: Bool
    var output: String
    var errors: String

    /// The whole of standard output as one document.
    var document: [String: Any] {
        get throws {
            let value = try JSONSerialization.jsonObject(with: Data(output.utf8))
            return try #require(value as? [String: Any], "\(output)")
        }
    }

    var error: [String: Any] { get throws { try #require(try document["error"] as? [String: Any], "\(output)") } }
}

/// What comes from a program, read on another thread.
private final class Bytes: Sendable {
    private let bytes = Mutex<[UInt8]>([])
    func append(_ more: Data) { bytes.withLock { $0 += more } }
    var text: String { bytes.withLock { String(decoding: $0, as: UTF8.self) } }
}

/// A program on its way.
private final class Running {
    private let process = Process()
    private let output = Pipe()
    private let errors = Pipe()
    private let errorBytes = Bytes()

    init(_ words: [String]) throws {
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["timeout", "--foreground", "-k", "5", "60"] + words
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = errors
        errors.fileHandleForReading.readabilityHandler = { [errorBytes] handle in
            let bytes = handle.availableData
            errorBytes.append(bytes)
        }
        try process.runReachable()
    }

    var told: String { errorBytes.text }

    /// As a terminal's Ctrl-C, to all of its processes.
    func interrupt() { process.interrupt() }

    func end() throws -> Answer {
        let bytes = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        errors.fileHandleForReading.readabilityHandler = nil
        let rest = try errors.fileHandleForReading.readToEnd() ?? Data()
        errorBytes.append(rest)
        return Answer(
            code: process.terminationStatus, isSignalled: process.terminationReason == .uncaughtSignal,
            output: String(decoding: bytes, as: UTF8.self), errors: told)
    }
}

private func twinlogWords(_ cluster: LocalCluster, _ arguments: [String]) -> [String] {
    [builtBinaries() + "/twinlog", "--config", cluster.configurationPath] + arguments
}

private func ask(_ cluster: LocalCluster, _ arguments: String...) throws -> Answer {
    try Running(twinlogWords(cluster, arguments)).end()
}

/// On a terminal of `columns` columns, which types `input`. What it shows has both outputs.
private func onTerminal(_ columns: Int, _ words: [String], typing input: String = "") throws -> Finished {
    let command = "stty cols \(columns) rows 40 -echo; exec " + words.map { "'\($0)'" }.joined(separator: " ")
    return try run("bash", "-c", "printf '%s' \"$2\" | script -qec \"$1\" /dev/null", "-", command, input)
}

extension LocalCluster {
    /// Ends what ``keep(_:fromTheMediumBeyond:)`` began.
    fileprivate func letToTheMedium(_ node: String) throws {
        let process = try #require(processID(of: node))
        try succeed("prlimit", "--pid", "\(process)", "--fsize=unlimited:")
    }

    /// The owner's medium takes nothing of a write that is acknowledged and in the log.
    fileprivate func failMedium(_ owner: String) async throws {
        try keep(owner, fromTheMediumBeyond: 8 << 20)
        let client = try await connect(to: owner)
        try await client.write(offset: 9 << 20, ByteBuffer(repeating: 7, count: 4096))
        await client.disconnect()
    }
}

extension Cluster {
    @Suite(.serialized) struct AnswerTests {
        @Test(
            "O18: a drain while the medium fails says why at once, and answers with that reason; then it can be waited for"
        )
        func drainOfAFailingMedium() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                // Nobody that the owner could hand the group to, however long the answers take.
                cluster.kill(mirror)
                try await cluster.wait("degraded") { cluster.group(at: owner)?.status.state == "degraded" }
                try await cluster.failMedium(owner)
                let began = ContinuousClock.now
                let refused = try ask(cluster, "drain", "g0")
                #expect(refused.code == 1 && ContinuousClock.now - began < .seconds(12), "\(refused)")
                #expect(refused.errors.contains("waiting for \(owner), 1 s: g0 is"), "\(refused.errors)")
                #expect(refused.errors.contains("refuses: nothing has reached the medium for 5 s"), "\(refused.errors)")
                #expect(refused.errors.components(separatedBy: "File too large").count > 2, "\(refused.errors)")
                let json = try ask(cluster, "drain", "g0", "--json")
                #expect(json.code == 1 && !json.errors.contains("waiting for"), "\(json)")
                #expect(try json.error["code"] as? String == "refused")
                #expect((try json.error["next"] as? String)?.hasSuffix("wait g0 --for drained") == true, "\(json)")
                let late = try ask(cluster, "wait", "g0", "--for", "drained", "--timeout", "300ms", "--json")
                #expect(late.code == 1, "\(late)")
                #expect(try late.error["code"] as? String == "timeout")
                #expect((try late.document["reason"] as? String)?.contains("File too large") == true, "\(late)")
                try cluster.letToTheMedium(owner)
                let drained = try ask(cluster, "wait", "g0", "--for", "drained")
                #expect(drained.code == 0, "\(drained)")
                let medium = try FileHandle(forReadingFrom: URL(fileURLWithPath: cluster.mediumPath()))
                try medium.seek(toOffset: 9 << 20)
                #expect(try medium.read(upToCount: 4096) == Data(repeating: 7, count: 4096))
            }
        }

        @Test("O16: a drain of what no mirror acknowledges answers with the reason that status has")
        func drainOfAStalledGroup() async throws {
            var options = LocalClusterOptions()
            options.onMirrorLoss = "stall"
            try await withCluster(options) { cluster in
                let (owner, mirror) = try cluster.roles()
                cluster.kill(mirror)
                try await cluster.wait("stalled") { cluster.group(at: owner)?.status.state == "stalled" }
                let client = try await cluster.connect(to: owner)
                let write = client.submit(
                    .write(offset: 0, payload: ByteBuffer(repeating: 7, count: 4096), fua: false))
                try await cluster.wait("a write that waits") {
                    guard let log = cluster.group(at: owner)?.status.log else { return false }
                    return log.tailLSN != log.acknowledgedLSN
                }
                let refused = try ask(cluster, "drain", "g0")
                let reason = try #require(cluster.group(at: owner)?.status.reason)
                #expect(refused.code == 1 && refused.errors.contains(reason), "\(refused), status: \(reason)")
                try cluster.start(mirror)
                _ = try await write.get()
                #expect(try ask(cluster, "drain", "g0").code == 0)
                await client.disconnect()
            }
        }

        @Test("O18: a handover that the medium holds up says so as long as it lasts, and is done")
        func handoverFromAFailingMedium() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                try await cluster.failMedium(owner)
                let moved = try ask(cluster, "handover", "g0", "--to", mirror)
                #expect(moved.code == 0, "\(moved)")
                #expect(moved.errors.contains("waiting for \(owner), 1 s: g0 is handing-over: "), "\(moved)")
                #expect(moved.errors.contains("File too large"), "\(moved)")
                #expect(try ask(cluster, "drain", "g0").code == 0)
                let medium = try FileHandle(forReadingFrom: URL(fileURLWithPath: cluster.mediumPath()))
                try medium.seek(toOffset: 9 << 20)
                #expect(try medium.read(upToCount: 4096) == Data(repeating: 7, count: 4096))
            }
        }

        @Test("a command that waits is left with Ctrl-C, as a shell expects, and says that the node goes on")
        func interrupted() async throws {
            try await withCluster { cluster in
                let owner = try cluster.roles().owner
                try await cluster.failMedium(owner)
                let drain = try Running(twinlogWords(cluster, ["drain", "g0"]))
                try await cluster.wait("waiting") { drain.told.contains("waiting for \(owner)") }
                drain.interrupt()
                let left = try drain.end()
                #expect(left.code == 130 || (left.isSignalled && left.code == SIGINT), "\(left)")
                #expect(left.errors.contains("\(owner) goes on with it"), "\(left)")
                try cluster.letToTheMedium(owner)
                #expect(try ask(cluster, "wait", "g0", "--for", "drained").code == 0)
            }
        }

        @Test("wait: done when it is so, else at the time-out with the reason that status has")
        func waits() async throws {
            try await withCluster(LocalClusterOptions()) { cluster in
                let (owner, mirror) = try cluster.roles()
                for condition in ["mirrored", "owner=\(owner)", "drained"] {
                    let answer = try ask(cluster, "wait", "g0", "--for", condition, "--json")
                    #expect(answer.code == 0 && answer.errors.isEmpty, "\(condition): \(answer)")
                    #expect(try answer.document["for"] as? String == condition)
                    #expect(try answer.document["holds"] as? Bool == true)
                }
                let other = try ask(cluster, "wait", "g0", "--for", "owner=\(mirror)", "--timeout", "1s")
                #expect(other.code == 1 && other.errors.contains("not so after 1s: \(mirror) owns g0"), "\(other)")
                for words in [
                    ["nosuch", "--for", "mirrored"], ["g0", "--for", "owner=nosuch"], ["g0", "--for", "owner="],
                    ["g0", "--for", "happy"], ["g0"], ["g0", "--for", "mirrored", "--timeout", "-1s"],
                ] {
                    let usage = try Running(twinlogWords(cluster, ["wait"] + words + ["--json"])).end()
                    #expect(try usage.code == 2 && usage.error["code"] as? String == "usage", "\(words): \(usage)")
                }
                cluster.kill(mirror)
                let late = try ask(cluster, "wait", "g0", "--for", "mirrored", "--timeout", "2s", "--json")
                #expect(try late.code == 1 && late.error["code"] as? String == "timeout", "\(late)")
                let status = try JSONDecoder().decode(
                    ClusterStatus.self, from: Data(try ask(cluster, "status", "--json").output.utf8))
                let reason = try #require(status.groups.first?.reason)
                #expect(try late.document["reason"] as? String == reason, "\(late)")
                #expect((try late.error["message"] as? String)?.contains(reason) == true, "\(late)")
                let waiting = try Running(twinlogWords(cluster, ["wait", "g0", "--for", "mirrored"]))
                try cluster.start(mirror)
                #expect(try waiting.end().code == 0)
            }
        }

        @Test("every command answers in JSON, and so do their errors")
        func json() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let keys = cluster.folder + "/keys"
                let answers: [([String], [String: String])] = [
                    (["handover", "g0", "--to", mirror], ["group": "g0", "node": mirror, "result": "handed-over"]),
                    (["wait", "g0", "--for", "mirrored"], ["group": "g0", "state": "mirrored"]),
                    (["drain", "g0"], ["group": "g0", "node": mirror, "result": "drained"]),
                    (["check-config"], ["cluster": "local"]),
                    (["log-level", "info"], ["level": "info"]),
                    (["init-keys", keys], ["file": keys]),
                    (["takeover", "g0", "--on", owner], ["group": "g0", "node": owner, "result": "taken-over"]),
                ]
                for (words, expected) in answers {
                    let answer = try Running(twinlogWords(cluster, words + ["--json"])).end()
                    #expect(answer.code == 0, "\(words): \(answer)")
                    let document = try answer.document
                    #expect(
                        document["error"] == nil && expected.allSatisfy { document[$0] as? String == $1 }, "\(answer)")
                }
                for (words, code, exit) in [
                    (["drain"], "usage", 2), (["drain", "nosuch"], "usage", 2), (["nosuch"], "usage", 2),
                    ([], "usage", 2),
                    (["handover", "g0", "--to", "nosuch"], "usage", 2),
                    (["handover", "g0", "--to", owner], "refused", 1), (["init-keys", keys], "failed", 1),
                    (["forget-coordinator", "g0", "--on", owner, "--yes"], "refused", 1),
                ] as [([String], String, Int32)] {
                    let answer = try Running(twinlogWords(cluster, words + ["--json"])).end()
                    #expect(answer.code == exit && !answer.errors.isEmpty, "\(words): \(answer)")
                    let error = try answer.error
                    #expect(error["code"] as? String == code && error["next"] != nil, "\(words): \(answer)")
                    #expect((error["message"] as? String)?.isEmpty == false)
                }
                let missing = try Running(
                    [builtBinaries() + "/twinlog", "status", "--json", "--config", "/nosuch"]
                ).end()
                #expect(try missing.code == 2 && missing.error["code"] as? String == "configuration", "\(missing)")
            }
        }

        @Test("O13: who cannot be asked, and who may not ask, are told apart in JSON")
        func noAnswer() async throws {
            try await withCluster { cluster in
                guard getuid() == 0 else { return }
                #expect(chmod(cluster.folder, 0o755) == 0 && chmod(cluster.configurationPath, 0o644) == 0)
                let stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
                for command in [["status"], ["drain", "g0"], ["log-level", "info"]] {
                    let denied = try Running(stranger + twinlogWords(cluster, command + ["--json"])).end()
                    #expect(denied.code == 1, "\(denied)")
                    #expect(try denied.error["code"] as? String == "permission-denied", "\(denied)")
                }
                for node in LocalCluster.nodes { cluster.kill(node) }
                for command in [
                    ["status"], ["events"], ["status", "--clients"], ["drain", "g0"], ["log-level", "info"],
                ] {
                    let silent = try Running(twinlogWords(cluster, command + ["--json"])).end()
                    #expect(try silent.code == 1 && silent.error["code"] as? String == "no-answer", "\(silent)")
                }
                let status = try ask(cluster, "status", "--json").document
                #expect((status["groups"] as? [Any])?.count == 1, "all groups are there beside the error")
            }
        }

        @Test("the recovery tool's errors in JSON, with its own exit codes")
        func recoverJSON() async throws {
            try await withCluster { cluster in
                let tool = builtBinaries() + "/twinlog-recover", pool = cluster.folder + "/run/alpha.pool"
                for (words, code, exit) in [
                    (["scan", pool], "in-use", 5), (["scan", cluster.configurationPath], "unreadable", 4),
                    (["scan", "/nosuch"], "unreadable", 4), (["scan"], "usage", 2), (["heal", pool], "usage", 2),
                    (["heal", pool, "--from", pool], "usage", 2), ([], "usage", 2),
                ] as [([String], String, Int32)] {
                    let answer = try Running([tool] + words + ["--json"]).end()
                    #expect(answer.code == exit && !answer.errors.isEmpty, "\(words): \(answer)")
                    #expect(try answer.error["code"] as? String == code, "\(words): \(answer)")
                }
                for node in LocalCluster.nodes { cluster.kill(node) }
                let usage = try Running([tool, "dump", pool, "--group", "nosuch", "--json"]).end()
                #expect(try usage.code == 2 && usage.error["code"] as? String == "usage", "\(usage)")
            }
        }

        @Test("nothing is destroyed unasked: what it would do, a dry run, a question on a terminal, --yes elsewhere")
        func decisions() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let before = try cluster.record()
                let forced = ["takeover", "g0", "--on", mirror, "--force"]
                let forgetting = ["forget-coordinator", "g0", "--on", mirror]
                let confirming = ["confirm-dead", owner]
                for command in [forced, forgetting, confirming] {
                    let dry = try Running(twinlogWords(cluster, command + ["--dry-run", "--json"])).end()
                    #expect(try dry.code == 0 && dry.document["error"] == nil, "\(dry)")
                    let asked = try onTerminal(200, twinlogWords(cluster, command), typing: "no\n")
                    #expect(asked.code == 1 && asked.output.contains("go on? (yes or no)"), "\(asked)")
                    #expect(asked.output.contains("twinlog: nothing was changed"), "\(asked)")
                }
                for command in [forgetting, confirming] {
                    let refused = try Running(twinlogWords(cluster, command)).end()
                    #expect(refused.code == 1 && refused.errors.contains("add --yes"), "\(refused)")
                }
                let after = try cluster.record()
                #expect(
                    after?.epoch == before?.epoch && after?.owner == before?.owner && after?.fences == before?.fences)
                #expect(try ask(cluster, "takeover", "g0", "--on", mirror, "--force").code == 0, "the flag is explicit")
            }
        }

        @Test("a replay and a heal ask on a terminal, and write nothing without a yes")
        func recoverAsks() async throws {
            try await withCluster { cluster in
                let (owner, _) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                for node in LocalCluster.nodes { try cluster.keep(node, fromTheMediumBeyond: 8 << 20) }
                try await client.write(offset: 9 << 20, ByteBuffer(repeating: 7, count: 4096))
                for node in LocalCluster.nodes { cluster.kill(node) }
                await client.disconnect()
                let pools = LocalCluster.nodes.map { "\(cluster.folder)/run/\($0).pool" }
                let files = pools + [cluster.mediumPath()]
                let before = try files.map { try Data(contentsOf: URL(fileURLWithPath: $0)) }
                let tool = builtBinaries() + "/twinlog-recover"
                let replay = [tool, "replay", pools[0], "--group", "g0", "--config", cluster.configurationPath]
                let heal = [tool, "heal", pools[0], "--from", pools[1]]
                for command in [replay, heal] {
                    let asked = try onTerminal(200, command, typing: "no\n")
                    #expect(asked.code == 6 && asked.output.contains("go on? (yes or no)"), "\(asked)")
                    #expect(try Running(command + ["--dry-run"]).end().code <= 1)
                }
                #expect(try files.map { try Data(contentsOf: URL(fileURLWithPath: $0)) } == before)
                let written = try onTerminal(200, replay, typing: "yes\n")
                #expect(written.code <= 1 && written.output.contains("wrote and flushed"), "\(written)")
                let medium = try Data(contentsOf: URL(fileURLWithPath: cluster.mediumPath()))
                #expect(medium[9 << 20..<9 << 20 + 4096].allSatisfy { $0 == 7 })
            }
        }

        @Test("every executable's help has the table of exit codes")
        func exitCodes() throws {
            let shared = ["0  done", "1  refused or failed, with the reason", "2  usage or configuration", "4  output"]
            let own = [
                "0  clean", "1  a torn tail only", "2  usage", "3  corrupt", "4  not a pool", "5  in use", "6  refused",
            ]
            for (tool, lines) in [
                ("twinlog", shared + ["3  status: a group could not be taken over right now"]), ("twinlogd", shared),
                ("twinlog-perf", shared), ("twinlog-demo", shared), ("twinlog-recover", own),
            ] {
                let help = try succeed(builtBinaries() + "/" + tool, "--help")
                #expect(lines.allSatisfy(help.contains), "\(tool):\n\(help)")
            }
        }

        @Test("status is as wide as the terminal, also with --watch; a line off a terminal is never cut")
        func widths() async throws {
            try await withCluster(LocalClusterOptions()) { cluster in
                let (owner, mirror) = try cluster.roles()
                cluster.kill(mirror)
                try await cluster.wait("degraded") { cluster.group(at: owner)?.status.state == "degraded" }
                let reason = try #require(cluster.group(at: owner)?.status.reason)
                let plain = try ask(cluster, "status")
                #expect(plain.output.contains("g0: \(reason)") && !plain.output.contains("\u{1B}"), "\(plain)")
                for columns in [60, 80] {
                    for words in [["status"], ["status", "--watch"]] {
                        let command = ["timeout", "--foreground", "2"] + twinlogWords(cluster, words)
                        let shown = try onTerminal(columns, command).output
                            .replacing("\u{1B}[2J\u{1B}[H", with: "\n").replacing("\r\n", with: "\n")
                        #expect(!shown.contains("\u{1B}") && shown.contains("GROUP"), "\(shown)")
                        let lines = shown.split(separator: "\n")
                        #expect(lines.allSatisfy { $0.count <= columns }, "\(columns):\n\(shown)")
                        #expect(
                            shown.filter { !$0.isWhitespace }.contains(reason.filter { !$0.isWhitespace }), "\(shown)")
                    }
                }
            }
        }

        @Test("on a terminal whoever waits is told every second what for, on one line that goes away")
        func waitingLine() async throws {
            try await withCluster { cluster in
                let (_, mirror) = try cluster.roles()
                let shown = try onTerminal(
                    70, twinlogWords(cluster, ["wait", "g0", "--for", "owner=\(mirror)", "--timeout", "2s"]))
                #expect(shown.code == 1, "\(shown)")
                let parts = shown.output.components(separatedBy: "\r")
                #expect(parts.contains { $0.hasPrefix("waiting until \(mirror) owns g0: g0 is mirrored") }, "\(shown)")
                #expect(parts.filter { $0.hasPrefix("waiting") }.allSatisfy { $0.count < 70 + 3 }, "\(shown)")
            }
        }
    }
}
