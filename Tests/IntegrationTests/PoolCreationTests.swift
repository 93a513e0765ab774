// The order in which a pool comes into being: what it holds is on the disk before its name is, or a crash would leave a pool
// that nobody can open under the name of one.

import ClusterHarness
import Foundation
import Testing

/// Whether processes may be traced here.
private let canTrace = (try? run("strace", "-o", "/dev/null", "true").code) == 0

extension Cluster {
    @Suite(.enabled(if: canTrace, "strace cannot trace processes here")) struct PoolCreationTests {
        @Test func thePoolIsOnTheDiskBeforeItsNameIs() async throws {  // S8, S20
            try await withCluster(in: "/var/tmp", started: false) { cluster in
                let pool = "\(cluster.folder)/run/alpha.pool", trace = "\(cluster.folder)/trace"
                // Ends by itself: its partner never comes.
                let command =
                    "timeout -s KILL 20 strace -f -y -o '\(trace)' "
                    + "-e trace=fallocate,msync,fsync,fdatasync,link,linkat,unlink,unlinkat,rename,renameat2 "
                    + "'\(builtBinaries())/twinlogd' --config '\(cluster.configurationPath)' --node alpha"
                let node = Process()
                node.executableURL = URL(fileURLWithPath: "/bin/bash")
                node.arguments = ["-c", "exec \(command) >/dev/null 2>&1"]
                try node.run()
                try await cluster.wait("pool at \(pool)") { cluster.group(at: "alpha") != nil }
                let lines = try String(contentsOfFile: trace, encoding: .utf8).split(separator: "\n")
                let process = try #require(lines.first?.split(separator: " ").first.flatMap { pid_t($0) })
                #expect(kill(process, SIGKILL) == 0)
                node.waitUntilExit()

                let calls = lines.filter { $0.hasSuffix(" = 0") }
                func first(_ what: String, _ call: String...) throws -> Int {
                    try #require(calls.firstIndex { line in call.allSatisfy(line.contains) }, "no \(what) in \(calls)")
                }
                let named = try first("link", "link(\"\(pool).creating\", \"\(pool)\")")
                let allocated = try first("allocation", "fallocate(", "\(pool).creating>")
                let synced = try first("fsync", "fsync(", "\(pool).creating>")
                let lastStore = try #require(calls[..<named].lastIndex { $0.contains("msync(") })
                #expect(allocated < lastStore && lastStore < synced && synced < named)
                let unnamed = try first("unlink", "unlink(\"\(pool).creating\")")
                #expect(named < unnamed)
                // The next thing that happens; media come later, and have the same folder synced.
                let next = try #require(calls.dropFirst(unnamed + 1).first)
                #expect(next.contains("fsync(") && next.contains("\(cluster.folder)/run>"), "\(next)")
            }
        }
    }
}
