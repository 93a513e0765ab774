// A follower of events beside nodes that come and go.

import AdminProtocol
import ClusterHarness
import Foundation
import Testing

extension Cluster {
    @Suite(.serialized) struct EventTests {
        private func decode(_ text: String) throws -> [NodeEvent] {
            try text.split(separator: "\n").map { try JSONDecoder().decode(NodeEvent.self, from: Data($0.utf8)) }
        }

        @Test("O20, C8: a follower over 24 restarts, by SIGTERM and SIGKILL, misses no event; each start is one")
        func follower() async throws {
            try await withCluster { cluster in
                let output = cluster.folder + "/followed", events = cluster.folder + "/run/beta.pool.events"
                try #require(FileManager.default.createFile(atPath: output, contents: nil))
                let follower = Process()
                follower.executableURL = URL(fileURLWithPath: builtBinaries() + "/twinlog")
                follower.arguments = ["--config", cluster.configurationPath, "events", "--follow", "--json"]
                follower.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: output))
                try follower.run()
                defer {
                    follower.terminate()
                    follower.waitUntilExit()
                }
                for number in 0..<24 {
                    if number % 3 == 0 { #expect(cluster.stop("beta") == 0) } else { cluster.kill("beta") }
                    try cluster.start("beta")
                    try await cluster.wait("started") {
                        try decode(String(contentsOfFile: events, encoding: .utf8)).filter { $0.kind == "started" }
                            .count
                            == number + 2
                    }
                }
                try await cluster.waitUntilMirrored()
                let last = try #require(try decode(String(contentsOfFile: events, encoding: .utf8)).last)
                try await cluster.wait("followed to the end") {
                    try String(contentsOfFile: output, encoding: .utf8).contains(
                        "\"sequence\":\(last.sequence),\"time\":\"\(last.time)\"")
                }
                let followed = try decode(String(contentsOfFile: output, encoding: .utf8)).filter { $0.node == "beta" }
                #expect(followed.map(\.sequence) == Array(1...last.sequence))
                #expect(!followed.contains { $0.kind == "events-missing" })
                let kept = try decode(String(contentsOfFile: events, encoding: .utf8))
                #expect(followed == Array(kept.prefix(followed.count)))
            }
        }

        @Test("O20: what a node said before SIGKILL is there after its restart, and a lost file is named")
        func afterSIGKILL() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                guard case .events(let before) = try cluster.ask(owner, .events(after: 0, wait: false)) else {
                    throw HarnessError("no events")
                }
                #expect(before.first?.kind == "started" && before.first?.sequence == 1)
                cluster.kill(owner)
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                try cluster.start(owner)
                try await cluster.waitUntilMirrored()
                let text = try twinlog(cluster, "events", "--json")
                let told = try decode(text.output).filter { $0.node == owner }
                #expect(Array(told.prefix(before.count)) == before)
                #expect(told.map(\.sequence) == Array(1...UInt64(told.count)))
                cluster.kill(owner)
                try FileManager.default.removeItem(atPath: cluster.folder + "/run/\(owner).pool.events")
                try cluster.start(owner)
                try await cluster.waitUntilMirrored()
                let after = try decode(try twinlog(cluster, "events", "--json").output).filter { $0.node == owner }
                #expect(after.first?.kind == "events-missing" && after.dropFirst().first?.kind == "started")
                #expect(try #require(after.last).sequence > UInt64(told.count))
            }
        }
    }
}
