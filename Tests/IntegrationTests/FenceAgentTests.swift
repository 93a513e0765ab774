// A pair of processes whose fence is an agent: a hanging owner is turned off by it and taken over from; an agent that does not confirm keeps the
// takeover waiting until an operator says what the machine cannot (S16, S18).

import AdminProtocol
import ClusterHarness
import Coordination
import Foundation
import LogModel
import NBDClient
import NIOCore
import TestSupport
import Testing

extension Cluster {
    @Suite(.serialized) struct FenceAgentTests {
        private let written = ByteBuffer(repeating: 0x5a, count: 4096)

        /// Turns a node off, that is, kills the process whose number stands beside it; out of order while a file says so.
        private func makeAgent(in folder: Folder) throws -> String {
            let agent = folder.file("fence_test")
            try put(
                """
                #!/bin/sh
                while IFS== read -r key value; do
                    case "$key" in action) action=$value ;; nodename) node=$value ;; esac
                done
                [ -e "$0.broken" ] && { echo "no answer from the power switch"; exit 1; }
                pid=$(cat "$0.$node")
                case "$action" in
                off) kill -9 "$pid"; while [ -e "/proc/$pid/exe" ]; do sleep 0.01; done; exit 0 ;;
                status) [ -e "/proc/$pid/exe" ] && exit 0; exit 2 ;;
                esac
                exit 1

                """, into: agent)
            try #require(chmod(agent, 0o700) == 0)
            return agent
        }

        private func withPair(_ body: (LocalCluster, _ agent: String) async throws -> Void) async throws {
            let folder = try Folder()
            let agent = try makeAgent(in: folder)
            var options = LocalClusterOptions()
            options.fence = "{type: command, run: [\(agent)], timeout: 20s}"
            try await withCluster(options) { cluster in
                for node in LocalCluster.nodes {
                    try put("\(try #require(cluster.processID(of: node)))", into: "\(agent).\(node)")
                }
                let owner = try cluster.roles().owner
                let client = try await cluster.connect(to: owner)
                try await client.write(offset: 0, written)
                await client.disconnect()
                try await body(cluster, agent)
            }
        }

        private func expectWritten(_ cluster: LocalCluster, at node: String) async throws {
            let client = try await cluster.connect(to: node)
            #expect(try await client.read(offset: 0, length: written.readableBytes) == written)
            await client.disconnect()
        }

        private func events(_ cluster: LocalCluster, _ node: String) throws -> [String] {
            guard case .events(let events) = try cluster.ask(node, .events(after: 0, wait: false)) else { return [] }
            return events.map { "\($0.kind): \($0.message)" }
        }

        @Test("S16, S18: the agent turns a hanging owner off, and the partner serves what was acknowledged")
        func turnedOff() async throws {
            try await withPair { cluster, _ in
                let (owner, mirror) = try cluster.roles()
                try await cluster.freeze(owner)
                try await cluster.wait("taken over", seconds: 60) { cluster.owner() == mirror }
                try await expectWritten(cluster, at: mirror)
                #expect(try events(cluster, mirror).contains { $0.hasPrefix("fenced: ") && $0.contains("fence_test") })
            }
        }

        @Test("S18: an agent that does not confirm keeps the takeover waiting, loudly, until an operator confirms")
        func unconfirmed() async throws {
            try await withPair { cluster, agent in
                let (owner, mirror) = try cluster.roles()
                try put("", into: agent + ".broken")
                try await cluster.freeze(owner)
                try await cluster.wait("waiting", seconds: 60) {
                    cluster.group(at: mirror)?.status.reason?.contains("confirm-dead \(owner)") == true
                }
                #expect(
                    cluster.group(at: mirror)?.isOwner != true || cluster.group(at: mirror)?.status.state == "fencing")
                let failed = try events(cluster, mirror).filter { $0.hasPrefix("fence-failed: ") }
                #expect(failed.count == 1 && failed.first?.contains("no answer from the power switch") == true)
                cluster.kill(owner)
                let confirmed = try twinlog(cluster, "confirm-dead", owner, "--yes")
                #expect(confirmed.code == 0, "\(confirmed.output)")
                try await cluster.wait("taken over", seconds: 60) {
                    cluster.group(at: mirror)?.status.state == "degraded"
                }
                try await expectWritten(cluster, at: mirror)
                let fences = try #require(try cluster.record()).fences
                #expect(fences.allSatisfy { $0.confirmed?.method == "operator" })
            }
        }
    }
}
