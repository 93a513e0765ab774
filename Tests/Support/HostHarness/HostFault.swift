// What may happen to the hosts of a cluster, and its end.

internal import AdminProtocol
internal import ClusterHarness
internal import EtcdSupport
internal import Glibc

package enum HostFault: String, CaseIterable, Sendable {
    case ownerKilled, mirrorKilled
    case ownerFrozen, mirrorFrozen
    case ownerLinkDown, mirrorLinkDown
    case railCut, railCutToMirror, railCutToOwner
    case railLossy
    /// Of several rails, the one that the session is on.
    case sessionRailCut, sessionRailCutToMirror, sessionRailCutToOwner, sessionRailThin
    case etcdMemberDown, etcdMemberFrozen, etcdAway
    case etcdCutFromOwner, etcdCutFromMirror
}

/// What may happen to one rail of several.
package enum RailFault: String, CaseIterable, Sendable {
    case cut, cutToMirror, cutToOwner
    /// What the mirror is sent arrives ever later.
    case thin
}

/// Who was what when a fault began.
package struct Roles: Sendable {
    package var owner: String
    package var mirror: String

    package init(owner: String, mirror: String) {
        self.owner = owner
        self.mirror = mirror
    }
}

extension HostCluster {
    package func inflict(_ fault: HostFault, _ roles: Roles) throws {
        switch fault {
        case .ownerKilled: cluster.signal(roles.owner, SIGKILL)
        case .mirrorKilled: cluster.signal(roles.mirror, SIGKILL)
        case .ownerFrozen: cluster.signal(roles.owner, SIGSTOP)
        case .mirrorFrozen: cluster.signal(roles.mirror, SIGSTOP)
        case .ownerLinkDown: try network.setLink(of: roles.owner, isUp: false)
        case .mirrorLinkDown: try network.setLink(of: roles.mirror, isUp: false)
        case .railCut: for rail in network.networks { try inflict(.cut, on: rail, roles) }
        case .railCutToMirror: for rail in network.networks { try inflict(.cutToMirror, on: rail, roles) }
        case .railCutToOwner: for rail in network.networks { try inflict(.cutToOwner, on: rail, roles) }
        case .railLossy:
            for rail in network.networks {
                try lose(percent: 10, NetworkPath.both(roles.owner, roles.mirror, over: rail))
            }
        case .sessionRailCut: try inflict(.cut, on: sessionRail(of: roles.owner), roles)
        case .sessionRailCutToMirror: try inflict(.cutToMirror, on: sessionRail(of: roles.owner), roles)
        case .sessionRailCutToOwner: try inflict(.cutToOwner, on: sessionRail(of: roles.owner), roles)
        case .sessionRailThin: try inflict(.thin, on: sessionRail(of: roles.owner), roles)
        case .etcdMemberDown: servers.kill(0)
        case .etcdMemberFrozen: servers.signal(1, SIGSTOP)
        case .etcdAway: for index in Self.members.indices { servers.kill(index) }
        case .etcdCutFromOwner: try drop(Self.members.flatMap { NetworkPath.both(roles.owner, $0) })
        case .etcdCutFromMirror: try drop(Self.members.flatMap { NetworkPath.both(roles.mirror, $0) })
        }
    }

    /// The first one while there is no session.
    private func sessionRail(of owner: String) -> Int {
        cluster.group(at: owner)?.status.rails?.firstIndex { $0.state == "session" } ?? 0
    }

    package func inflict(_ fault: RailFault, on rail: Int, _ roles: Roles) throws {
        switch fault {
        case .cut: try drop(NetworkPath.both(roles.owner, roles.mirror, over: rail))
        case .cutToMirror: try drop([NetworkPath(from: roles.owner, to: roles.mirror, over: rail)])
        case .cutToOwner: try drop([NetworkPath(from: roles.mirror, to: roles.owner, over: rail)])
        case .thin: try network.limit(roles.mirror, at: rail, kilobitsPerSecond: 256)
        }
    }

    private func drop(_ paths: [NetworkPath]) throws {
        try change { $0.dropped.formUnion(paths) }
    }

    private func lose(percent: Int, _ paths: [NetworkPath]) throws {
        try change { faults in for path in paths { faults.lossPercent[path] = percent } }
    }

    /// Ends every fault. Nodes that died are started by `recover`.
    package func heal() throws {
        try change { $0 = NetworkFaults() }
        for node in LocalCluster.nodes {
            try network.setLink(of: node, isUp: true)
            for rail in network.networks { try network.limit(node, at: rail, kilobitsPerSecond: nil) }
            cluster.signal(node, SIGCONT)
        }
        for index in Self.members.indices {
            servers.signal(index, SIGCONT)
            if !servers.isRunning(index) { try servers.start(index) }
        }
    }

    /// Waits until the group is mirrored. Nodes that were killed are started again, those on a host that was turned off once the other
    /// node owns the group: a host that is on again too early is fenced again. One that ended in another way is an error.
    package func recover(seconds: Double = 60) async throws {
        try await cluster.wait("mirrored again", seconds: seconds) {
            for node in LocalCluster.nodes { try startIfKilled(node) }
            return cluster.state()?.state == "mirrored" && cluster.owner() != nil
        }
    }

    private func startIfKilled(_ node: String) throws {
        guard let ending = cluster.ending(of: node) else { return }
        guard ending == "signal \(SIGKILL)" else { throw HarnessError("\(node) ended by itself: \(ending)") }
        if isOff(node) {
            guard let owner = cluster.owner(), owner != node else { return }
            try turnOn(node)
        }
        cluster.kill(node)
        try start(node)
    }
}
