// One fault that stays for ever, and beside it a copy that could be served: it is served within a bound. In the other runs every
// fault ends some time, and with it the trouble that a machine did not get out of by itself.

import ClusterProtocol
import Coordination
import GroupEngine
import LogModel
import SimulationSupport

/// What stays. Where there are several groups, the media are those of the first one, and its owner's node is "the owner".
enum LastingFault: CaseIterable, Sendable {
    /// The standby cannot reach the medium, and the owner is restarted: its log is in doubt beside a partner that is of no use.
    case standbyWithoutMedium
    /// Only the owner is cut from the coordinator; its heartbeats go on.
    case ownerWithoutCoordinator
    case standbyWithoutCoordinator
    /// Nobody reaches the coordinator, and nothing else fails.
    case noCoordinator
    /// The owner's path to the medium fails, or hangs.
    case ownerWithoutMedium, ownersMediumHangs
    case ownerStopped
    case standbyStopped
    /// Nothing becomes durable in the memory of one node.
    case ownersMemoryHangs, mirrorHangs
    /// What one says does not reach the other.
    case ownerUnheard, standbyUnheard
    /// One network of two: nothing crosses it, or not what one of them sends, or everything is late.
    case networkSilent, networkDeafToOwner, networkDeafToStandby, networkSlow
    /// The machine that both run on sleeps again and again: their boot clocks jump.
    case machineSleeps
    /// The mirror has come back with an older copy of its pool, to an owner that acknowledges nothing alone.
    case mirrorWithOlderPool

    /// No owner is in trouble, and the mirror can be reached all the while: it counts, and nobody takes over.
    var stopsNothing: Bool {
        switch self {
        case .networkSilent, .networkDeafToOwner, .networkDeafToStandby, .networkSlow, .machineSleeps: true
        case .standbyWithoutMedium, .ownerWithoutCoordinator, .standbyWithoutCoordinator, .noCoordinator,
            .ownerWithoutMedium, .ownersMediumHangs, .ownerStopped, .standbyStopped, .ownersMemoryHangs, .mirrorHangs,
            .ownerUnheard, .standbyUnheard, .mirrorWithOlderPool:
            false
        }
    }

    /// Of one group's media. How long the other groups may be without service: while one that hangs is left, its node's other groups
    /// leave it too.
    var otherGroupsStopFor: UInt64? {
        switch self {
        case .ownerWithoutMedium: World.usualPause
        case .ownersMediumHangs: World.usualPause + 2 * second
        case .standbyWithoutMedium, .ownerWithoutCoordinator, .standbyWithoutCoordinator, .noCoordinator,
            .ownerStopped, .standbyStopped, .ownersMemoryHangs, .mirrorHangs, .ownerUnheard, .standbyUnheard,
            .networkSilent,
            .networkDeafToOwner, .networkDeafToStandby, .networkSlow, .machineSleeps, .mirrorWithOlderPool:
            nil
        }
    }

    /// `on-mirror-loss: stall`.
    var needsStall: Bool { self == .mirrorWithOlderPool }
}

extension World {
    /// The longest way out: a doubt, a claim that is given back, and what the claimer does then.
    static let servedWithin = 30 * second
    /// Clients who are in no hurry leave that much between two answers.
    static let usualPause = 2 * second

    func live(under fault: LastingFault) {
        for node in nodes { start(node) }
        after(0) { for group in self.groups { group.clients.begin() } }
        guard run(until: 10 * second, or: { self.groups.allSatisfy(\.isWhole) }) else {
            return violate("not every group is mirrored before anything fails")
        }
        run(until: now + random.between(0, 1000) * millisecond)
        // A packet that is late may have moved a session: the rail that it left is made anew.
        guard run(until: now + 10 * second, or: { self.groups.allSatisfy(\.hasAllRails) }),
            let owner = groups[0].servingServer?.node
        else { return violate("not every rail is there before anything fails") }
        note("--- \(fault) for ever")
        let epochs = groups.map { $0.record?.epoch }
        apply(fault, owner: owner, standby: nodes[1 - owner.index])
        let end = now + Self.servedWithin
        if let limit = fault.otherGroupsStopFor { expectService(of: groups.dropFirst(), within: limit, until: end) }
        run(until: end)
        run(until: end + 5 * second)
        for group in groups {
            group.oracle.expect(
                group.oracle.lastAcknowledgement > end,
                "nothing is acknowledged \(Self.servedWithin / second) s after \(fault): \(group.state)")
        }
        guard fault.stopsNothing else { return }
        // Machines that have woken a moment ago have no right to serve until a message comes.
        run(until: now + Self.usualPause, or: { self.groups.allSatisfy { $0.ownerNode.map($0.isMirrored) == true } })
        for (group, epoch) in zip(groups, epochs) {
            group.oracle.expect(
                group.record?.epoch == epoch && group.ownerNode.map(group.isMirrored) == true,
                "\(fault) is nobody's reason to take over or to count a mirror out: \(group.state)")
        }
    }

    /// Whatever happens to another group's media.
    private func expectService(of others: ArraySlice<SimGroup>, within limit: UInt64, until end: UInt64) {
        guard now < end else { return }
        for group in others {
            group.oracle.expect(
                group.oracle.lastAcknowledgement + limit > now,
                "nothing is acknowledged for \(limit / millisecond) ms because of another group's medium: \(group.state)"
            )
        }
        after(100 * millisecond) { self.expectService(of: others, within: limit, until: end) }
    }

    private func apply(_ fault: LastingFault, owner: SimNode, standby: SimNode) {
        switch fault {
        case .standbyWithoutMedium:
            groups[0].path(of: standby).fails = true
            after(random.between(0, 2000) * millisecond) { [self] in
                if let server = owner.server { kill(server) }
                after(500 * millisecond) { self.keepUp() }
            }
        case .ownerWithoutCoordinator: owner.isCutFromCoordinator = true
        case .standbyWithoutCoordinator: standby.isCutFromCoordinator = true
        case .noCoordinator: for node in nodes { node.isCutFromCoordinator = true }
        case .ownerWithoutMedium: groups[0].path(of: owner).fails = true
        case .ownersMediumHangs: groups[0].path(of: owner).hang.isOn = true
        case .ownerStopped: owner.server?.pause()
        case .standbyStopped: standby.server?.pause()
        case .ownersMemoryHangs: owner.hungMemory.isOn = true
        case .mirrorHangs: standby.hungMemory.isOn = true
        case .networkSilent:
            let network = anyNetwork()
            for node in nodes { setMute(node, over: network, true) }
        case .networkDeafToOwner: setMute(owner, over: anyNetwork(), true)
        case .networkDeafToStandby: setMute(standby, over: anyNetwork(), true)
        case .networkSlow: setSlow(anyNetwork(), true)
        case .ownerUnheard: setMute(owner, true)
        case .standbyUnheard: setMute(standby, true)
        case .machineSleeps: sleepAgainAndAgain()
        case .mirrorWithOlderPool: comeBack(standby, with: image(of: standby))
        }
    }

    private func anyNetwork() -> Int { Int(random.between(0, UInt64(networks.count - 1))) }

    private func sleepAgainAndAgain() {
        sleep(nodes, random.between(300, 5000) * millisecond)
        after(random.between(1000, 3000) * millisecond) { self.sleepAgainAndAgain() }
    }

    /// The node is started once more before its pool gives way to `image`: else nothing would tell that it is older.
    private func comeBack(_ node: SimNode, with image: PoolImage) {
        restart(node)
        run(until: now + 10 * second, or: { self.groups.allSatisfy(\.isWhole) })
        restart(node) { self.putBack(image, at: node) }
    }

    /// `meanwhile`: between the end of its process and the beginning of the next one.
    private func restart(_ node: SimNode, meanwhile: () -> Void = {}) {
        if let server = node.server { kill(server) }
        run(until: now + second, or: { node.server == nil })
        meanwhile()
        start(node)
    }
}
