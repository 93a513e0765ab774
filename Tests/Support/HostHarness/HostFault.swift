// What may happen to the hosts of a cluster, and its end.

internal import AdminProtocol
internal import ClusterHarness
internal import EtcdSupport
internal import Glibc

package enum HostFault: String, CaseIterable, Sendable {
    case ownerKilled, mirrorKilled, bothKilled
    /// All that runs on the host ends at once. That files lose what was not flushed is not modelled: this machine goes on.
    case ownerPowerLost, mirrorPowerLost
    case ownerFrozen, mirrorFrozen
    case ownerLinkDown, mirrorLinkDown
    /// All that the owner's host is sent comes slowly.
    case ownerLinkThin
    case railCut, railCutToMirror, railCutToOwner
    case railLossy, railLossyToMirror, railLossyToOwner
    /// Of several rails, the one that the session is on.
    case sessionRailCut, sessionRailCutToMirror, sessionRailCutToOwner, sessionRailThin, sessionRailLossy
    /// Another one.
    case spareRailCut
    case etcdMemberDown, etcdMemberFrozen, etcdAway
    case etcdCutFromOwner, etcdCutFromMirror, etcdLossy
    /// Between the host of clients and both nodes.
    case clientsCut, clientsCutToNodes, clientsCutFromNodes, clientsLossy
}

/// How bad a fault is, where that can be more or less.
package struct Severity: Sendable {
    /// Of the packets.
    package var lossPercent = 10
    package var kilobitsPerSecond = 256
    package init() {}
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
    package func inflict(_ fault: HostFault, _ roles: Roles, _ severity: Severity = Severity()) throws {
        let nodes = [roles.owner, roles.mirror]
        switch fault {
        case .ownerKilled: cluster.signal(roles.owner, SIGKILL)
        case .mirrorKilled: cluster.signal(roles.mirror, SIGKILL)
        case .bothKilled: for node in nodes { cluster.signal(node, SIGKILL) }
        case .ownerPowerLost: try network.endProcesses(on: roles.owner)
        case .mirrorPowerLost: try network.endProcesses(on: roles.mirror)
        case .ownerFrozen: try setFrozen(roles.owner, true)
        case .mirrorFrozen: try setFrozen(roles.mirror, true)
        case .ownerLinkDown: try network.setLink(of: roles.owner, isUp: false)
        case .mirrorLinkDown: try network.setLink(of: roles.mirror, isUp: false)
        case .ownerLinkThin:
            for rail in network.networks {
                try network.limit(roles.owner, at: rail, kilobitsPerSecond: severity.kilobitsPerSecond)
            }
        case .railCut, .railCutToMirror, .railCutToOwner: try drop(railPaths(fault, roles))
        case .railLossy, .railLossyToMirror, .railLossyToOwner: try lose(severity, railPaths(fault, roles))
        case .sessionRailCut: try inflict(.cut, on: sessionRail(of: roles.owner), roles)
        case .sessionRailCutToMirror: try inflict(.cutToMirror, on: sessionRail(of: roles.owner), roles)
        case .sessionRailCutToOwner: try inflict(.cutToOwner, on: sessionRail(of: roles.owner), roles)
        case .sessionRailThin: try inflict(.thin, on: sessionRail(of: roles.owner), roles, severity)
        case .sessionRailLossy:
            try lose(severity, NetworkPath.both(roles.owner, roles.mirror, over: sessionRail(of: roles.owner)))
        case .spareRailCut:
            let session = sessionRail(of: roles.owner)
            for rail in network.networks where rail != session { try inflict(.cut, on: rail, roles) }
        case .etcdMemberDown: servers.kill(0)
        case .etcdMemberFrozen: servers.signal(1, SIGSTOP)
        case .etcdAway: for index in Self.members.indices { servers.kill(index) }
        case .etcdCutFromOwner: try drop(Self.members.flatMap { NetworkPath.both(roles.owner, $0) })
        case .etcdCutFromMirror: try drop(Self.members.flatMap { NetworkPath.both(roles.mirror, $0) })
        case .etcdLossy:
            try lose(severity, Self.members.flatMap { member in nodes.flatMap { NetworkPath.both($0, member) } })
        case .clientsCut: try drop(nodes.flatMap { NetworkPath.both(Self.clients, $0) })
        case .clientsCutToNodes: try drop(nodes.map { NetworkPath(from: Self.clients, to: $0) })
        case .clientsCutFromNodes: try drop(nodes.map { NetworkPath(from: $0, to: Self.clients) })
        case .clientsLossy: try lose(severity, nodes.flatMap { NetworkPath.both(Self.clients, $0) })
        }
    }

    /// Of all rails, in the directions that the fault names.
    private func railPaths(_ fault: HostFault, _ roles: Roles) -> [NetworkPath] {
        network.networks.flatMap { rail in
            switch fault {
            case .railCutToMirror, .railLossyToMirror:
                [NetworkPath(from: roles.owner, to: roles.mirror, over: rail)]
            case .railCutToOwner, .railLossyToOwner:
                [NetworkPath(from: roles.mirror, to: roles.owner, over: rail)]
            default: NetworkPath.both(roles.owner, roles.mirror, over: rail)
            }
        }
    }

    /// By its control group; by a signal to the node's process where there are none.
    private func setFrozen(_ node: String, _ isFrozen: Bool) throws {
        if let freezer = freezers[node] {
            try freezer.set(isFrozen: isFrozen)
        } else {
            cluster.signal(node, isFrozen ? SIGSTOP : SIGCONT)
        }
    }

    /// The first one while there is no session.
    private func sessionRail(of owner: String) -> Int {
        cluster.group(at: owner)?.status.rails?.firstIndex { $0.state == "session" } ?? 0
    }

    package func inflict(
        _ fault: RailFault, on rail: Int, _ roles: Roles, _ severity: Severity = Severity()
    ) throws {
        switch fault {
        case .cut: try drop(NetworkPath.both(roles.owner, roles.mirror, over: rail))
        case .cutToMirror: try drop([NetworkPath(from: roles.owner, to: roles.mirror, over: rail)])
        case .cutToOwner: try drop([NetworkPath(from: roles.mirror, to: roles.owner, over: rail)])
        case .thin: try network.limit(roles.mirror, at: rail, kilobitsPerSecond: severity.kilobitsPerSecond)
        }
    }

    private func drop(_ paths: [NetworkPath]) throws {
        try change { $0.dropped.formUnion(paths) }
    }

    private func lose(_ severity: Severity, _ paths: [NetworkPath]) throws {
        try change { faults in for path in paths { faults.lossPercent[path] = severity.lossPercent } }
    }

    /// Ends every fault. Nodes that died are started by `recover`.
    package func heal() throws {
        try change { $0 = NetworkFaults() }
        for node in LocalCluster.nodes {
            try network.setLink(of: node, isUp: true)
            for rail in network.networks { try network.limit(node, at: rail, kilobitsPerSecond: nil) }
            try setFrozen(node, false)
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
