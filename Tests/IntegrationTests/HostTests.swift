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
            // A takeover from a host that answers nothing takes as long, and up to two heartbeats.
            try await withHosts(leaseMillis: 800) { hosts, roles, history in
                try await measure(fault, history) {
                    try hosts.inflict(fault, roles)
                    try await hosts.cluster.wait("taken over", seconds: 60) { hosts.cluster.owner() == roles.mirror }
                    try await written(100, history, hosts)
                }
                #expect(hosts.cluster.ending(of: roles.owner) == "signal 9")
            }
        }

        @Test(
            "S16, S17: an owner whose process has ended on a host that lives is taken over from long before a lease is over"
        )
        func takenOverAtOnce() async throws {
            try await withHosts(leaseMillis: 600_000) { hosts, roles, history in
                try await measure("an owner SIGKILLed within its lease", history) {
                    try hosts.inflict(.ownerKilled, roles)
                    try await hosts.cluster.wait("taken over", seconds: 60) { hosts.cluster.owner() == roles.mirror }
                    try await written(100, history, hosts)
                }
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

        @Test(
            "S11, S16: one rail of two that is cut, loses a direction or is thin stops nothing, whichever it is: no takeover, and the mirror counts all the while",
            arguments: RailFault.allCases)
        func oneRail(fault: RailFault) async throws {
            try await withTwoRails { hosts, roles, history in
                for rail in hosts.network.networks {
                    try await measure("both rails up", history) { try await written(500, history, hosts) }
                    try await measure("rail \(rail) \(fault)", history) {
                        try hosts.inflict(fault, on: rail, roles)
                        try await sessionLeaves(rail, hosts, roles)
                        try await written(500, history, hosts)
                    }
                    try hosts.heal()
                    try await standingBy(hosts, roles)
                }
            }
        }

        @Test("S16: a rail that flaps is used less and less, and stops nothing")
        func flapping() async throws {
            try await withTwoRails { hosts, roles, history in
                try await measure("rail 0 flaps", history) {
                    for _ in 0..<6 {
                        try hosts.inflict(.cut, on: 0, roles)
                        try await sessionLeaves(0, hosts, roles)
                        try await written(200, history, hosts)
                        try hosts.heal()
                        try await written(200, history, hosts)
                    }
                }
                guard case .events(let events) = try hosts.cluster.ask(roles.owner, .events(after: 0, wait: false))
                else {
                    return #expect(Bool(false), "no events")
                }
                // Only from the rail that flaps, and not back to it: the other one holds.
                #expect(events.count { $0.kind == "rail-moved" } <= 1)
                try await standingBy(hosts, roles)
            }
        }

        @Test("S13: both rails cut at once are a mirror that is gone, and the owner serves on")
        func bothRails() async throws {
            try await withHosts(leaseMillis: Self.patientLease, rails: 2) { hosts, roles, history in
                try await measure("\(HostFault.railCut) of two", history) {
                    try hosts.inflict(.railCut, roles)
                    try await hosts.cluster.wait("degraded", seconds: 60) {
                        hosts.cluster.group(at: roles.owner)?.status.state == "degraded"
                    }
                    try await written(500, history, hosts)
                }
                #expect(hosts.cluster.owner() == roles.owner)
            }
        }

        /// A pair with two rails, of which one at a time fails in `body`: the same node owns the group in the same epoch afterwards, which each
        /// change of the in-sync set would have raised.
        private func withTwoRails(_ body: (HostCluster, Roles, History) async throws -> Void) async throws {
            try await withHosts(leaseMillis: Self.patientLease, rails: 2) { hosts, roles, history in
                try await standingBy(hosts, roles)
                let epoch = hosts.cluster.group(at: roles.owner)?.status.epoch
                try await body(hosts, roles, history)
                #expect(hosts.cluster.owner() == roles.owner)
                #expect(hosts.cluster.group(at: roles.owner)?.status.epoch == epoch)
            }
        }

        private func rails(_ hosts: HostCluster, _ roles: Roles) -> [GroupStatus.Rail] {
            hosts.cluster.group(at: roles.owner)?.status.rails ?? []
        }

        private func standingBy(_ hosts: HostCluster, _ roles: Roles) async throws {
            try await hosts.cluster.wait("one rail with the session, the others standing by", seconds: 60) {
                let rails = rails(hosts, roles)
                return rails.map(\.state).sorted() == ["session", "standby"]
                    && rails.allSatisfy { $0.roundTripSeconds != nil && $0.tls == true }
            }
        }

        private func sessionLeaves(_ rail: Int, _ hosts: HostCluster, _ roles: Roles) async throws {
            try await hosts.cluster.wait("the session is on another rail than \(rail)", seconds: 60) {
                let rails = rails(hosts, roles)
                return rails.count == 2 && rails[1 - rail].state == "session"
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

        @Test("S18: the recorder of the medium tells a write by a process that is not the owner")
        func strangerAtTheMedium() async throws {
            try await withHosts(leaseMillis: Self.patientLease) { hosts, _, history in
                try await written(500, history, hosts)
            } finally: { hosts in
                let path = hosts.cluster.mediumPath()
                let program = "import os; os.pwrite(os.open('\(path)', os.O_RDWR), bytes(4096), 32 << 20)"
                let ended = try run(hosts.recordedLauncher + ["/usr/bin/python3", "-c", program])
                #expect(ended.code == 0, "\(ended.output)")
                #expect(throws: HarnessError.self) { try hosts.auditMedium() }
            }
        }

        /// A mirrored pair with clients at work, which is mirrored again when `body` is over.
        private func withHosts(
            leaseMillis: Int, rails: Int = 1, _ body: (HostCluster, Roles, History) async throws -> Void,
            finally: (HostCluster) throws -> Void = { _ in }
        ) async throws {
            let hosts = try HostCluster(leaseMillis: leaseMillis, rails: rails)
            do {
                try await hosts.start()
                let history = try await withHistory(hosts, seed: 14) { history in
                    let (owner, mirror) = try hosts.cluster.roles()
                    try await written(200, history, hosts)
                    try await body(hosts, Roles(owner: owner, mirror: mirror), history)
                    try hosts.heal()
                    try await hosts.recover()
                    try await written(100, history, hosts)
                }
                try await verify(history, hosts)
                try finally(hosts)
            } catch {
                Issue.record("\(error)\n\(hosts.logs())")
            }
        }

        private func written(_ count: Int, _ history: History, _ hosts: HostCluster) async throws {
            let before = history.acknowledgedWrites
            try await hosts.cluster.wait("writing", seconds: 60) { history.acknowledgedWrites > before + count }
        }

        private func measure(_ fault: HostFault, _ history: History, _ body: () async throws -> Void) async throws {
            try await measure("\(fault)", history, body)
        }

        private func measure(_ what: String, _ history: History, _ body: () async throws -> Void) async throws {
            _ = history.takeLongestGap()
            try await body()
            print("\(what): \(history.takeLongestGap()) without an acknowledgement")
        }

        /// Acknowledged writes a second, over a few seconds or `TWINLOG_RATE_SECONDS`.
        private func rate(_ history: History, _ hosts: HostCluster) async throws -> Int {
            let seconds = ProcessInfo.processInfo.environment["TWINLOG_RATE_SECONDS"].flatMap { Int($0) } ?? 4
            let clock = ContinuousClock()
            let count = history.acknowledgedWrites
            let began = clock.now
            try await hosts.cluster.wait("measured", seconds: Double(seconds) + 60) {
                clock.now - began > .seconds(seconds)
            }
            return Int(Double(history.acknowledgedWrites - count) / ((clock.now - began) / .seconds(1)))
        }
    }
}
