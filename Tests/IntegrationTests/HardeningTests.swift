// The service unit's hardening (packaging/twinlogd@.service): what it takes from a node, no node needs.

import AdminProtocol
import ClusterHarness
import Foundation
import Glibc
import NBDClient
import Testing

private let projectFolder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
private let unit = projectFolder + "/packaging/twinlogd@.service"
private let confinement = [projectFolder + "/Tests/Verification/surroundings/under-unit", unit]

private func reason(_ what: String, _ command: String...) -> Comment? {
    do {
        let result = try run(command)
        let last = result.output.split(separator: "\n").last ?? ""
        return result.code == 0 ? nil : "\(what) here: \(last)"
    } catch {
        return "\(what) here: \(error)"
    }
}

private let whyNotConfined = reason("processes cannot be confined", confinement[0], confinement[1], "/bin/true")
private let whyNotVerified = reason(
    "the unit cannot be verified", "bash", "-c", "systemd-analyze --version && cat '\(unit)'")

extension Cluster {
    @Suite(.serialized) struct HardeningTests {
        @Test(
            "A cluster works with the rights, limits and system calls that the unit leaves to it",
            .enabled(if: whyNotConfined == nil, whyNotConfined ?? ""))
        func confinedNodes() async throws {
            let refused = try run(confinement + ["/usr/bin/unshare", "--user", "/bin/true"])
            #expect(refused.output.contains("Operation not permitted"), "the confinement holds: \(refused.output)")
            try await withCluster(started: false) { cluster in
                for node in LocalCluster.nodes { try cluster.start(node, through: confinement) }
                try await cluster.waitUntilMirrored()
                for node in LocalCluster.nodes { try expectConfined(cluster, node) }
                let (owner, mirror) = try cluster.roles()
                let history = try await withHistory(cluster, seed: 17) { history in
                    try await cluster.wait("writing") { history.acknowledgedWrites > 100 }
                    // Stopped, not dead: its partner has to fence it.
                    try await cluster.freeze(owner)
                    try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                    try await cluster.wait("fenced") { !cluster.isRunning(owner) }
                    try cluster.start(owner, through: confinement)
                    try await cluster.waitUntilMirrored()
                    let handover = try twinlog(cluster, "handover", "g0", "--to", owner)
                    #expect(handover.code == 0, "\(handover.output)")
                    try await cluster.waitUntilMirrored()
                }
                try await verify(history, cluster)
                #expect(!cluster.logs().contains("not permitted"), "\(cluster.logs())")
                for node in LocalCluster.nodes { #expect(cluster.stop(node) == 0) }
            }
        }

        private func expectConfined(_ cluster: LocalCluster, _ node: String) throws {
            let process = try #require(cluster.processID(of: node))
            let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
            for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
                #expect(status.contains(line), "\(line) in \(status)")
            }
        }

        @Test("systemd reads the unit without a complaint", .enabled(if: whyNotVerified == nil, whyNotVerified ?? ""))
        func unitIsUnderstood() throws {
            let folder = NSTemporaryDirectory() + "twinlog-unit-\(getpid())"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
            defer { _ = Result { try FileManager.default.removeItem(atPath: folder) } }
            // What a package brings: the program where it is built, the user who is there.
            let installed = try String(contentsOfFile: unit, encoding: .utf8)
                .replacingOccurrences(of: "/usr/bin/twinlogd", with: builtBinaries() + "/twinlogd")
                .replacingOccurrences(of: "=twinlog\n", with: "=root\n")
            try installed.write(toFile: folder + "/twinlogd@.service", atomically: true, encoding: .utf8)
            let result = try run("systemd-analyze", "verify", folder + "/twinlogd@alpha.service")
            #expect(result.code == 0 && result.output.isEmpty, "\(result.output)")
        }
    }
}
