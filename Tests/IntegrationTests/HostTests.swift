// One fault at a time of a pair whose nodes share nothing but a network and a medium. After each nothing that was acknowledged is
// missing, through the owner and on the medium, and the group is mirrored again. Each prints how long no write was acknowledged.

import AdminProtocol
import ClusterHarness
import Foundation
import HostHarness
import Testing

extension Cluster {
    @Suite(.serialized, .enabled(if: HostNetwork.obstacle == nil, "\(HostNetwork.obstacle ?? "")"))
    struct HostTests {
        /// The lease that one second of a busy machine does not end.
        private static let patientLease = 3000

        @Test(
            "S16, S17, S18: an owner that dies, hangs or is cut off is turned off by the agent and taken over from",
            arguments: [HostFault.ownerKilled, .ownerFrozen, .ownerLinkDown])
        func takenOver(fault: HostFault) async throws {
            try await withHosts(leaseMillis: 1000) { hosts, roles, history in
                try await measure(fault, history) {
                    try hosts.inflict(fault, roles)
                    try await hosts.cluster.wait("taken over", seconds: 60) { hosts.cluster.owner() == roles.mirror }
                    try await written(100, history, hosts)
                }
                #expect(hosts.cluster.ending(of: roles.owner) == "signal 9")
            }
        }

        @Test(
            "S13: a mirror that cannot be reached, in both directions or one, is counted out, and the owner serves on",
            arguments: [
                HostFault.railCut, .railCutToMirror, .railCutToOwner, .mirrorLinkDown, .mirrorFrozen, .mirrorKilled,
            ])
        func countedOut(fault: HostFault) async throws {
            try await withHosts(leaseMillis: Self.patientLease) { hosts, roles, history in
                try await measure(fault, history) {
                    try hosts.inflict(fault, roles)
                    try await hosts.cluster.wait("degraded", seconds: 60) {
                        hosts.cluster.group(at: roles.owner)?.status.state == "degraded"
                    }
                    try await written(500, history, hosts)
                }
                #expect(hosts.cluster.owner() == roles.owner)
            }
        }

        @Test(
            "S17: a coordinator that is away, for both or for one, stops nothing but takeovers",
            arguments: [HostFault.etcdAway, .etcdCutFromOwner, .etcdCutFromMirror])
        func servesOn(fault: HostFault) async throws {
            try await withHosts(leaseMillis: Self.patientLease) { hosts, roles, history in
                let before = try await rate(history, hosts)
                try await measure(fault, history) {
                    try hosts.inflict(fault, roles)
                    try await hosts.cluster.wait("without a takeover", seconds: 60) {
                        hosts.cluster.group(at: roles.owner)?.status.takeoverPossible == false
                    }
                    let during = try await rate(history, hosts)
                    print("\(fault): \(before) writes a second before, \(during) during")
                }
                #expect(hosts.cluster.owner() == roles.owner)
            }
        }

        @Test(
            "S15: a member of etcd that dies or hangs is not missed",
            arguments: [HostFault.etcdMemberDown, .etcdMemberFrozen])
        func oneMember(fault: HostFault) async throws {
            try await withHosts(leaseMillis: Self.patientLease) { hosts, roles, history in
                try await measure(fault, history) {
                    try hosts.inflict(fault, roles)
                    try await written(2000, history, hosts)
                    hosts.cluster.signal(roles.owner, SIGKILL)
                    try await hosts.cluster.wait("taken over", seconds: 60) { hosts.cluster.owner() == roles.mirror }
                }
            }
        }

        @Test("S16: without a coordinator nobody takes over, and with it again the mirror does")
        func takeoverWaits() async throws {
            try await withHosts(leaseMillis: 1000) { hosts, roles, history in
                try hosts.inflict(.etcdAway, roles)
                try await hosts.cluster.wait("without a takeover", seconds: 60) {
                    hosts.cluster.group(at: roles.owner)?.status.takeoverPossible == false
                }
                try hosts.inflict(.ownerKilled, roles)
                try await hosts.cluster.wait("suspecting", seconds: 60) {
                    hosts.cluster.group(at: roles.mirror)?.status.state == "suspecting"
                }
                #expect(hosts.cluster.owner() == nil)
                try hosts.heal()
                try await hosts.cluster.wait("taken over", seconds: 60) { hosts.cluster.owner() == roles.mirror }
                try await written(100, history, hosts)
            }
        }

        /// A mirrored pair with clients at work, which is mirrored again when `body` is over.
        private func withHosts(
            leaseMillis: Int, _ body: (HostCluster, Roles, History) async throws -> Void
        ) async throws {
            let hosts = try HostCluster(leaseMillis: leaseMillis)
            do {
                try await hosts.start()
                let history = try await withHistory(hosts.cluster, seed: 14) { history in
                    let (owner, mirror) = try hosts.cluster.roles()
                    try await written(200, history, hosts)
                    try await body(hosts, Roles(owner: owner, mirror: mirror), history)
                    try hosts.heal()
                    try await hosts.recover()
                    try await written(100, history, hosts)
                }
                try await verify(history, hosts.cluster)
            } catch {
                Issue.record("\(error)\n\(hosts.logs())")
            }
        }

        private func written(_ count: Int, _ history: History, _ hosts: HostCluster) async throws {
            let before = history.acknowledgedWrites
            try await hosts.cluster.wait("writing", seconds: 60) { history.acknowledgedWrites > before + count }
        }

        private func measure(_ fault: HostFault, _ history: History, _ body: () async throws -> Void) async throws {
            _ = history.takeLongestGap()
            try await body()
            print("\(fault): \(history.takeLongestGap()) without an acknowledgement")
        }

        /// Acknowledged writes a second, over as many as a few seconds take.
        private func rate(_ history: History, _ hosts: HostCluster) async throws -> Int {
            let clock = ContinuousClock()
            let count = history.acknowledgedWrites
            let began = clock.now
            try await hosts.cluster.wait("measured") { clock.now - began > .seconds(4) }
            return Int(Double(history.acknowledgedWrites - count) / ((clock.now - began) / .seconds(1)))
        }
    }
}
