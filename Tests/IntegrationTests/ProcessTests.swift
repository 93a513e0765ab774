// What a shell and a kernel do to the executables: descriptors that are closed or full, signals, limits, crashes.

import AdminProtocol
import ClusterHarness
import Foundation
import Glibc
import LogModel
import NBDClient
import NIOCore
import Testing

/// Connects `count` times to an NBD socket, offers client flags that nobody knows, and hangs up: each makes the node log a line.
func makeBadHandshakes(_ count: Int, at address: Endpoint) throws {
    guard case .unix(let path) = address else { throw HarnessError("\(address) is no unix socket") }
    var name = sockaddr_un()
    name.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &name.sun_path) { space in
        for (index, byte) in path.utf8.enumerated() { space[index] = byte }
    }
    for number in 0..<count {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        let connected = withUnsafePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard connected == 0 else { throw HarnessError("\(path): connection \(number): errno \(errno)") }
        // A node that does not answer is what the tests are about.
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var greeting = [UInt8](repeating: 0, count: 18)
        guard recv(descriptor, &greeting, 18, Int32(MSG_WAITALL)) == 18 else {
            throw HarnessError("\(path): connection \(number) is not greeted")
        }
        let flags: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF]
        _ = send(descriptor, flags, flags.count, Int32(MSG_NOSIGNAL))
        while recv(descriptor, &greeting, 18, 0) > 0 {}
    }
}

extension Cluster {
    @Suite(.serialized) struct ProcessTests {
        /// Becomes the node behind a shell's redirections or limits.
        private func shell(_ preparation: String) -> [String] {
            ["/bin/bash", "-c", preparation + "; exec \"$@\"", "shell"]
        }

        @Test("O2: with descriptors 0 to 2 closed nothing is written into the pool")
        func closedDescriptors() async throws {
            try await withCluster(started: false) { cluster in
                try cluster.start("alpha", through: shell("exec <&- >&- 2>&-"))
                try cluster.start("beta")
                try await cluster.waitUntilMirrored()
                let (owner, mirror) = try cluster.roles()
                if owner != "alpha" {
                    #expect(try twinlog(cluster, "handover", "g0", "--to", "alpha").code == 0)
                    try await cluster.waitUntilMirrored()
                }
                let process = try #require(cluster.processID(of: "alpha"))
                for descriptor in 0...2 {
                    let target = try FileManager.default.destinationOfSymbolicLink(
                        atPath: "/proc/\(process)/fd/\(descriptor)")
                    #expect(target == "/dev/null")
                }
                try makeBadHandshakes(600, at: cluster.nbdAddress(of: "alpha"))
                let client = try await cluster.connect(to: "alpha")
                try await client.write(offset: 0, Stamp.block(0, stamp: 7))
                await client.disconnect()
                cluster.kill("alpha")
                let scan = try cluster.recover("scan", "alpha")
                #expect(scan.code == 0 || scan.code == 1, "\(mirror): \(scan.output)")
            }
        }

        @Test("S28, O24: a node has an event loop for each group, and one for itself") func loops() async throws {
            var options = LocalClusterOptions()
            options.crossed = true
            try await withCluster(options) { cluster in
                let process = try #require(cluster.processID(of: "alpha"))
                let tasks = "/proc/\(process)/task"
                let names = try FileManager.default.contentsOfDirectory(atPath: tasks).compactMap {
                    // A thread that has ended meanwhile is none of them.
                    try? String(contentsOfFile: "\(tasks)/\($0)/comm", encoding: .utf8)
                }
                #expect(names.count { $0.hasPrefix("NIO-ELT") } == 3)
            }
        }

        @Test("O1, S28: a log that nobody reads holds up neither clients nor the group")
        func unreadLog() async throws {
            try await withCluster(started: false) { cluster in
                let log = cluster.folder + "/unread"
                try #require(mkfifo(log, 0o600) == 0)
                // Read and write: opening it waits for nobody, and nobody ever reads.
                try cluster.start("alpha", through: shell("exec 2<>'\(log)'"))
                try cluster.start("beta")
                try await cluster.waitUntilMirrored()
                if cluster.owner() != "alpha" {
                    #expect(try twinlog(cluster, "handover", "g0", "--to", "alpha").code == 0)
                    try await cluster.waitUntilMirrored()
                }
                try fill(log)
                let epoch = try #require(cluster.state()?.epoch)
                let history = try await withHistory(cluster, seed: 11) { history in
                    try makeBadHandshakes(600, at: cluster.nbdAddress(of: "alpha"))
                    let before = history.acknowledgedWrites
                    try await cluster.wait("writing") { history.acknowledgedWrites > before + 200 }
                }
                #expect(cluster.owner() == "alpha" && cluster.state()?.epoch == epoch)
                try await verify(history, cluster)
                #expect(cluster.stop("alpha") == 0, "nor does it hold up the end")
            }
        }

        /// Nothing more goes into the pipe.
        private func fill(_ pipe: String) throws {
            let descriptor = open(pipe, O_RDWR | O_NONBLOCK)
            try #require(descriptor >= 0)
            defer { close(descriptor) }
            for bytes in [4096, 1] {
                let junk = [UInt8](repeating: UInt8(ascii: "."), count: bytes)
                while write(descriptor, junk, bytes) > 0 {}
                try #require(errno == EAGAIN)
            }
        }

        @Test("O1: the level comes from the configuration, by SIGHUP and by command; lines are JSON if asked for")
        func logLevel() async throws {
            try await withCluster { cluster in
                let (owner, _) = try cluster.roles()
                let text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
                try (text + "log: {level: debug, format: json}\n")
                    .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                cluster.signal(owner, SIGHUP)
                try await cluster.wait("reloaded") { cluster.logs().contains("SIGHUP: the log's level is debug now") }
                #expect(try twinlog(cluster, "log-level", "warning").code == 0)
                #expect(try twinlog(cluster, "log-level", "loud").code == 2)
                try "nonsense".write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                cluster.signal(owner, SIGHUP)
                try await cluster.wait("refused") { cluster.logs().contains("SIGHUP: nothing is reloaded") }
                try (text + "log: {level: debug, format: json}\n")
                    .write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
                #expect(cluster.stop(owner) == 0)
                try cluster.start(owner)
                try await cluster.waitUntilMirrored()
                let log = try String(contentsOfFile: "\(cluster.folder)/\(owner).log", encoding: .utf8)
                let started = try #require(log.split(separator: "\n").last { $0.contains("\"ready: ") })
                let line = try #require(
                    try JSONSerialization.jsonObject(with: Data(started.utf8)) as? [String: String])
                #expect(line["level"] == "notice" && line["time"]?.hasSuffix("Z") == true)
            }
        }

        @Test(
            "O3, S28: signals that ask nothing of a node leave it and its group alone",
            arguments: [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPIPE, SIGXFSZ, SIGXCPU, 40])
        func strays(_ number: Int32) async throws {
            try await withCluster { cluster in
                let (owner, _) = try cluster.roles()
                let epoch = try #require(cluster.state()?.epoch)
                let client = try await cluster.connect(to: owner)
                for _ in 0..<3 { cluster.signal(owner, number) }
                // Signals come before what is asked later: a status, and a write on the connection of before.
                try await cluster.wait("asked") { cluster.group(at: owner) != nil }
                try await client.write(offset: 4096, Stamp.block(1, stamp: 3))
                #expect(try await client.read(offset: 4096, length: 4096) == Stamp.block(1, stamp: 3))
                await client.disconnect()
                #expect(cluster.owner() == owner && cluster.state()?.epoch == epoch)
                guard number != SIGPIPE, number != SIGXFSZ else { return }
                let word = number == SIGHUP ? "SIGHUP" : "is ignored"
                try await cluster.wait("said") { cluster.logs().contains(word) }
                guard number != SIGHUP else { return }
                #expect(cluster.logs().components(separatedBy: word).count == 2, "said once: \(cluster.logs())")
            }
        }

        @Test("O3, O27: SIGQUIT and SIGPWR stop a node in order", arguments: [SIGQUIT, SIGPWR, SIGINT])
        func orderlyStops(_ number: Int32) async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let epoch = try #require(cluster.state()?.epoch)
                cluster.signal(owner, number)
                try await cluster.wait("stopped") { !cluster.isRunning(owner) }
                #expect(cluster.stop(owner) == 0)
                try await cluster.wait("owned by \(mirror)") { cluster.owner() == mirror }
                let events = try twinlog(cluster, "events").output
                #expect(!events.contains("suspect"), "handed over, not taken over: \(events)")
                #expect(try #require(cluster.state()?.epoch) > epoch)
            }
        }

        @Test("O3, C5: a limit of the size of files is an error that names it, and leaves nothing behind")
        func fileSizeLimit() async throws {
            try await withCluster(started: false) { cluster in
                let words = shell("ulimit -f 16000")
                let result = try run(
                    words[0], words[1], words[2], words[3], builtBinaries() + "/twinlogd", "--config",
                    cluster.configurationPath, "--node", "alpha")
                #expect(result.code == 1)
                #expect(result.output.contains("alpha.pool") && result.output.contains("ulimit -f"), "\(result.output)")
                #expect(result.output.contains("\(16000 * 1024) bytes"), "\(result.output)")
                let left = try FileManager.default.contentsOfDirectory(atPath: cluster.folder + "/run")
                #expect(!left.contains { $0.hasPrefix("alpha.pool") }, "\(left)")
            }
        }

        @Test("S28: a crash leaves one line with name and version, and does not linger", arguments: [SIGABRT, SIGSEGV])
        func crash(_ number: Int32) async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                cluster.signal(owner, number)
                try await cluster.wait("ended") { !cluster.isRunning(owner) }
                let log = try String(contentsOfFile: "\(cluster.folder)/\(owner).log", encoding: .utf8)
                let lines = log.split(separator: "\n")
                let name = number == SIGABRT ? "SIGABRT" : "SIGSEGV"
                #expect(lines.last?.hasPrefix("twinlogd \(TwinLogVersion.current): crashed: \(name)") == true, "\(log)")
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
            }
        }

        // MARK: The tools

        @Test("O12: standard error that is closed or full changes nothing", arguments: ["2>&-", "2>/dev/full"])
        func brokenStandardError(_ redirection: String) throws {
            for (command, code) in [
                ("twinlog --version", 0), ("twinlog --config /nope status", 2), ("twinlog", 2), ("twinlog bogus", 2),
                ("twinlogd --version", 0), ("twinlogd", 2), ("twinlogd --config /nope --node alpha", 2),
                ("twinlog-recover --version", 0), ("twinlog-recover scan /nope", 4), ("twinlog-recover bogus", 2),
                ("twinlog-perf --version", 0), ("twinlog-perf bogus", 2), ("twinlog-demo --version", 0),
                ("twinlog-demo --bogus", 2),
            ] {
                let result = try run("bash", "-c", "\(builtBinaries())/\(command) \(redirection) >/dev/null")
                #expect(result.code == Int32(code), "\(command): \(result)")
            }
        }

        @Test(
            "O12: output that cannot be written is an error, said on standard error", arguments: [">/dev/full", ">&-"])
        func brokenStandardOutput(_ redirection: String) async throws {
            for command in ["twinlog", "twinlogd", "twinlog-recover", "twinlog-perf", "twinlog-demo"] {
                for option in ["--version", "--help"] {
                    let result = try run("bash", "-c", "\(builtBinaries())/\(command) \(option) \(redirection)")
                    #expect(result.code == 4 && result.output.contains("standard output"), "\(command): \(result)")
                }
            }
            try await withCluster { cluster in
                let twinlog = "\(builtBinaries())/twinlog --config \(cluster.configurationPath)"
                for command in ["status", "status --json", "status --watch", "events", "events --follow", "drain g0"] {
                    let result = try run("bash", "-c", "\(twinlog) \(command) \(redirection)", seconds: 20)
                    #expect(result.code == 4 && result.output.contains("standard output"), "\(command): \(result)")
                }
            }
        }

        @Test("O12: whoever follows ends when its reader does, without a word")
        func closedPipe() async throws {
            try await withCluster { cluster in
                let twinlog = "\(builtBinaries())/twinlog --config \(cluster.configurationPath)"
                for command in ["events --follow", "status --watch"] {
                    let result = try run(
                        "bash", "-c", "set -o pipefail; \(twinlog) \(command) | head -1 >/dev/null", seconds: 20)
                    #expect(result.code == 4 && result.output.isEmpty, "\(command): \(result)")
                }
            }
        }

        @Test("O12: no escape codes in a file")
        func watchInAFile() async throws {
            try await withCluster { cluster in
                let result = try run(
                    "bash", "-c",
                    "timeout 3 \(builtBinaries())/twinlog --config \(cluster.configurationPath) status --watch")
                #expect(result.output.components(separatedBy: "cluster local").count > 2, "\(result.output)")
                #expect(!result.output.contains("\u{1B}"))
            }
        }
    }
}
