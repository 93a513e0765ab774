// One fault that stays for ever, and beside it a copy that could be served: it is served within a bound. In the other runs every
// fault ends some time, and with it the trouble that a machine did not get out of by itself.

import ClusterProtocol
import Coordination
import GroupEngine
import LogModel
import SimulationSupport

extension World {
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
        /// Nothing becomes durable in the mirror's memory.
        case mirrorHangs
        /// What one says does not reach the other.
        case ownerUnheard, standbyUnheard
        /// One network of two: nothing crosses it, or not what one of them sends, or everything is late.
        case networkSilent, networkDeafToOwner, networkDeafToStandby, networkSlow

        /// The mirror can be reached all the while: it counts, and nobody takes over.
        var stopsNothing: Bool {
            switch self {
            case .networkSilent, .networkDeafToOwner, .networkDeafToStandby, .networkSlow: true
            case .standbyWithoutMedium, .ownerWithoutCoordinator, .standbyWithoutCoordinator, .noCoordinator,
                .ownerWithoutMedium, .ownersMediumHangs, .ownerStopped, .standbyStopped, .mirrorHangs, .ownerUnheard,
                .standbyUnheard:
                false
            }
        }
    }

    /// The longest way out: a doubt, a claim that is given back, and what the claimer does then.
    static let servedWithin = 30 * second

    func live(under fault: LastingFault) {
        for node in nodes { start(node) }
        after(0) { self.clients.begin() }
        guard run(until: 10 * second, or: { self.nodes.allSatisfy(self.isMirrored) }), let owner = servingServer?.node
        else { return oracle.expect(false, "the group is not mirrored before anything fails") }
        run(until: now + random.between(0, 1000) * millisecond)
        note("--- \(fault) for ever")
        let epoch = coordinator.record?.epoch
        apply(fault, owner: owner, standby: nodes[1 - owner.index])
        let end = now + Self.servedWithin
        run(until: end)
        let before = coverage.acknowledgedWrites
        run(until: end + 5 * second)
        oracle.expect(
            coverage.acknowledgedWrites > before,
            "nothing is acknowledged \(Self.servedWithin / second) s after \(fault): \(nodes.map(describe).joined(separator: "; "))"
        )
        guard fault.stopsNothing else { return }
        oracle.expect(
            coordinator.record?.epoch == epoch && isMirrored(owner),
            "\(fault) was not left for the other network: \(nodes.map(describe).joined(separator: "; "))")
    }

    private func apply(_ fault: LastingFault, owner: SimNode, standby: SimNode) {
        switch fault {
        case .standbyWithoutMedium:
            standby.mediumFails = true
            after(random.between(0, 2000) * millisecond) { [self] in
                if let server = owner.server { kill(server) }
                after(500 * millisecond) { self.keepUp() }
            }
        case .ownerWithoutCoordinator: owner.isCutFromCoordinator = true
        case .standbyWithoutCoordinator: standby.isCutFromCoordinator = true
        case .noCoordinator: for node in nodes { node.isCutFromCoordinator = true }
        case .ownerWithoutMedium: owner.mediumFails = true
        case .ownersMediumHangs: owner.hungMedium.isOn = true
        case .ownerStopped: owner.server?.pause()
        case .standbyStopped: standby.server?.pause()
        case .mirrorHangs: standby.hungMemory.isOn = true
        case .networkSilent:
            let network = anyNetwork()
            for node in nodes { setMute(node, over: network, true) }
        case .networkDeafToOwner: setMute(owner, over: anyNetwork(), true)
        case .networkDeafToStandby: setMute(standby, over: anyNetwork(), true)
        case .networkSlow: setSlow(anyNetwork(), true)
        case .ownerUnheard: setMute(owner, true)
        case .standbyUnheard: setMute(standby, true)
        }
    }

    private func anyNetwork() -> Int { Int(random.between(0, UInt64(networks.count - 1))) }
}
