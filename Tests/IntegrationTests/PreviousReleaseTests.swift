// The previous release's programs beside this build's: a cluster is upgraded one node at a time, and back. `make test-previous`.

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import LogModel
import Testing

/// The folder with the previous release's programs.
private let previousRelease = ProcessInfo.processInfo.environment["TWINLOG_PREVIOUS"]

extension Cluster {
    @Suite(.serialized, .enabled(if: previousRelease != nil, "make test-previous names the previous release"))
    struct PreviousReleaseTests {
        private let previous = previousRelease ?? ""

        private func start(_ cluster: LocalCluster, previous node: String) async throws {
            try cluster.start(node, of: previous)
            try cluster.start(LocalCluster.partner(of: node))
            try await cluster.waitUntilMirrored()
        }

        private func wait(_ history: History, _ cluster: LocalCluster, _ writes: Int) async throws {
            try await cluster.wait("\(writes) acknowledged writes") { history.acknowledgedWrites >= writes }
        }

        @Test("S27: either release takes over from the other, and mirrors it again", arguments: ["alpha", "beta"])
        func takeover(previousAt node: String) async throws {
            try await withCluster(started: false) { cluster in
                try await start(cluster, previous: node)
                let history = try await withHistory(cluster, seed: 27) { history in
                    for round in 1...2 {
                        try await wait(history, cluster, 500 * round)
                        let (owner, mirror) = try cluster.roles()
                        cluster.kill(owner)
                        try await cluster.wait("taken over by \(mirror)") { cluster.owner() == mirror }
                        try cluster.start(owner, of: owner == node ? previous : nil)
                        try await cluster.waitUntilMirrored()
                    }
                    try await wait(history, cluster, 1500)
                }
                try await verify(history, cluster)
            }
        }

        @Test("S27: a rolling upgrade and the way back lose nothing, and clients are served all the while")
        func rollingUpgrade() async throws {
            try await withCluster(started: false) { cluster in
                for node in LocalCluster.nodes { try cluster.start(node, of: previous) }
                try await cluster.waitUntilMirrored()
                let history = try await withHistory(cluster, seed: 28) { history in
                    var wanted = 300
                    for release in [nil, previous] {
                        for node in ["beta", "alpha"] {
                            try await wait(history, cluster, wanted)
                            wanted += 300
                            #expect(cluster.stop(node) == 0)
                            try cluster.start(node, of: release)
                            try await cluster.waitUntilMirrored()
                        }
                    }
                    try await wait(history, cluster, wanted)
                }
                try await verify(history, cluster)
            }
        }

        @Test("either release's twinlog understands the other's nodes")
        func operatorsTool() async throws {
            try await withCluster(started: false) { cluster in
                try await start(cluster, previous: "alpha")
                for binaries in [previous, builtBinaries()] {
                    for command in ["status", "status --json", "events"] {
                        let answer = try run(
                            "bash", "-c", "\(binaries)/twinlog --config '\(cluster.configurationPath)' \(command)")
                        #expect(answer.code == 0, "\(binaries): \(command): \(answer.output)")
                        #expect(!answer.output.contains("not of this version"), "\(answer.output)")
                    }
                    for node in ["alpha", "beta", "alpha"] {
                        let answer = try run(
                            "bash", "-c",
                            "\(binaries)/twinlog --config '\(cluster.configurationPath)' handover g0 --to \(node)")
                        #expect(
                            answer.code == 0 || answer.output.contains("owns g0 already"), "\(answer.output)")
                        try await cluster.waitUntilMirrored()
                    }
                }
            }
        }

        @Test(
            "S10: a log that one release left un-destaged is replayed by the other's tools and nodes",
            arguments: [true, false])
        func logOfTheOther(ownerIsPrevious: Bool) async throws {
            try await withCluster(started: false) { cluster in
                for node in LocalCluster.nodes { try cluster.start(node, of: ownerIsPrevious ? previous : nil) }
                try await cluster.waitUntilMirrored()
                let history = try await withHistory(cluster, seed: 29) { history in
                    try await wait(history, cluster, 500)
                    // So the owner's log goes on where the mirror's ends.
                    try await cluster.freeze(try cluster.roles().mirror)
                    for node in LocalCluster.nodes { cluster.kill(node) }
                }
                let other = ownerIsPrevious ? builtBinaries() : previous
                for node in LocalCluster.nodes {
                    let scan = try run(
                        "bash", "-c", "'\(other)/twinlog-recover' scan '\(cluster.folder)/run/\(node).pool' --json")
                    // Clean, or with a torn tail: the mirror was stopped in the middle of what it was sent.
                    #expect([0, 1].contains(scan.code), "\(scan.output)")
                }
                _ = try cluster.spoilMedium(whatIsInTheLogOf: "alpha", andOf: "beta")
                for node in LocalCluster.nodes { try cluster.start(node, of: ownerIsPrevious ? nil : previous) }
                try await cluster.waitUntilMirrored()
                try await verify(history, cluster)
            }
        }
    }
}
