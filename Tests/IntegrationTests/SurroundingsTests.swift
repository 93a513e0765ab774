// What surrounds a process when somebody starts it: descriptors, working directory, home, locale, time zone, file mode mask, rights. None
// of it changes what the executables do or print. (`ProcessTests` has signals, limits and broken output.)

import AdminProtocol
import ClusterHarness
import Foundation
import Glibc
import LogModel
import NBDClient
import Testing

/// A world for a process: `preparation` is run by bash, which then becomes the process.
struct Surroundings: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var preparation: String

    var launcher: [String] { ["/bin/bash", "-ec", preparation + "; exec \"$@\"", "bash"] }

    static let all = [
        Surroundings(
            testDescription: "no standard input and error, in /, no HOME, every mode allowed",
            preparation: "cd /; unset HOME; umask 0; exec <&- 2>&-"),
        Surroundings(
            testDescription: "a working directory that was deleted, in Turkish, in Apia",
            preparation: """
                cd "$(mktemp -d)"; rmdir "$PWD"
                set -- env LC_ALL=tr_TR.UTF-8 LANG=tr_TR.UTF-8 TZ=Pacific/Apia "$@"
                """),
        Surroundings(testDescription: "no environment", preparation: "set -- env -i \"$@\""),
        Surroundings(
            testDescription: "locale, time zone, home and folder for temporary files that do not exist",
            preparation:
                "umask 077; set -- env LC_ALL=xx_XX LANG=xx_XX TZ=No/Where HOME=/no/where TMPDIR=/no/where \"$@\""),
    ]
}

extension Cluster {
    @Suite(.serialized) struct SurroundingsTests {
        private static let plain = Surroundings(testDescription: "plain", preparation: ":")

        private func tool(_ name: String, _ arguments: String..., in surroundings: Surroundings = plain) throws
            -> Finished
        {
            try run(surroundings.launcher + ["\(builtBinaries())/\(name)"] + arguments)
        }

        @Test("Nodes and tools do and print the same in any surroundings", arguments: Surroundings.all)
        func everyExecutable(_ surroundings: Surroundings) async throws {
            try await withCluster(started: false) { cluster in
                for node in LocalCluster.nodes { try cluster.start(node, through: surroundings.launcher) }
                try await cluster.waitUntilMirrored()
                let (owner, mirror) = try cluster.roles()
                try await write(1, at: owner, cluster)
                try await askNodes(cluster, in: surroundings)

                #expect(cluster.stop(owner) == 0)
                try await cluster.wait("owned by \(mirror)") { cluster.owner() == mirror }
                try await write(2, at: mirror, cluster)
                #expect(cluster.stop(mirror) == 0)
                try askFiles(cluster, of: mirror, in: surroundings)
                try expectPrivate(cluster)
            }
        }

        private func write(_ stamp: UInt64, at node: String, _ cluster: LocalCluster) async throws {
            let client = try await cluster.connect(to: node)
            try await client.write(offset: 0, Stamp.block(0, stamp: stamp))
            #expect(try await client.read(offset: 0, length: 4096) == Stamp.block(0, stamp: stamp))
            await client.disconnect()
        }

        /// What nodes say through the tool is the same twice: plainly, and in these surroundings.
        private func askNodes(_ cluster: LocalCluster, in surroundings: Surroundings) async throws {
            for command in [["status", "--json"], ["events"], ["events", "--json"], ["check-config"]] {
                let words = ["\(builtBinaries())/twinlog", "--config", cluster.configurationPath] + command
                var answers: [Finished] = []
                try await cluster.wait("told the same by twinlog \(command): \(answers)") {
                    answers = try [Self.plain, surroundings].map { try run($0.launcher + words) }
                    if command[0] == "status" { answers = try answers.map(withoutMeasurements) }
                    return answers[0].output == answers[1].output
                }
                #expect(answers.map(\.code) == [0, 0], "\(command): \(answers)")
            }
        }

        /// The names of the keys and what stands still.
        private func withoutMeasurements(_ answer: Finished) throws -> Finished {
            let status = try JSONDecoder().decode(ClusterStatus.self, from: Data(answer.output.utf8))
            let groups = status.groups.map {
                "\($0.name) \($0.state) \($0.owner ?? "-") \($0.epoch.map(String.init) ?? "-")"
            }
            return Finished(code: answer.code, output: (groups + status.nodes.map(\.name).sorted()).description)
        }

        private func askFiles(_ cluster: LocalCluster, of node: String, in surroundings: Surroundings) throws {
            let pool = "\(cluster.folder)/run/\(node).pool"
            for command in ["scan", "dump"] {
                let plainly = try tool("twinlog-recover", command, pool)
                let here = try tool("twinlog-recover", command, pool, in: surroundings)
                #expect(plainly.code == 0 && !plainly.output.isEmpty, "\(command): \(plainly)")
                #expect(here.code == plainly.code && here.output == plainly.output, "\(command): \(here)")
            }
            let result = cluster.folder + "/result.json"
            let measured = try tool(
                "twinlog-perf", "append", "--seconds", "0.05", "--repeats", "1", "--json", result, in: surroundings)
            #expect(measured.code == 0, "\(measured)")
            let json = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: result)))
            #expect((json as? [String: Any])?["scenario"] as? String == "append")
        }

        /// S22: whatever the mask allows, what a node makes is its own.
        private func expectPrivate(_ cluster: LocalCluster) throws {
            let run = cluster.folder + "/run"
            let names = try FileManager.default.subpathsOfDirectory(atPath: run)
            #expect(names.contains("alpha.pool") && names.contains("vol0.img"))
            for name in names {
                var status = stat()
                #expect(lstat("\(run)/\(name)", &status) == 0)
                #expect(status.st_mode & 0o077 == 0, "\(name) has mode \(String(status.st_mode & 0o777, radix: 8))")
            }
        }
    }
}
