// A group's rail as mirror: an owner asks to attach, its region is prepared, and it is told where that is.

internal import ClusterConfiguration
package import ClusterProtocol
internal import Coordination
package import LogModel
internal import PersistentMemory
internal import RemoteMemory
internal import WriteLog

extension Group: MirrorSide {
    package func counts(_ rail: AcceptedRail) -> Bool { mirrorRail === rail }

    package func railSaid(_ event: RailEvent) { handle(event) }

    package func railEnded() {
        mirrorRail = nil
        handle(.down)
        askWhetherOwnerListens()
    }

    /// After the last of the owner's rails: a process that lives has lost them to the network, and takes connections.
    private func askWhetherOwnerListens() {
        guard hasNoRails, host.fence.endsProcesses, !machine.isOwner else { return }
        host.nobodyListens(at: peer) { [weak self] nobodyListens in
            if let self, nobodyListens, hasNoRails { handle(.nobodyListens) }
        }
    }

    private var hasNoRails: Bool { mirrorRail == nil && standbyRails.isEmpty && candidateRail == nil }

    /// What was sent earlier and comes late, on a rail that the owner has left, takes nothing from the one that it is on (S12).
    package func attachRequested(_ request: AttachRequest, on rail: AcceptedRail) {
        if let newestAttach, newestAttach.incarnation == request.incarnation, request.attempt > 0,
            request.attempt <= newestAttach.attempt
        {
            return refuse(rail, .notReady, "a later request to attach has come on another rail")
        }
        newestAttach = (request.incarnation, request.attempt)
        candidateRail = rail
        handle(.attachRequested(request))
    }

    package func expectRepair(of range: Range<LSN>) { mirrorTarget?.target.expectRepair(of: range) }

    func refuseAttach(_ request: AttachRequest, _ refusal: AttachRefusal, _ reason: String) {
        refuse(candidateRail, refusal, reason)
        candidateRail = nil
    }

    package func refuse(_ rail: AcceptedRail?, _ refusal: AttachRefusal, _ reason: String) {
        send(
            .refused(group: configuration.id, epoch: machine.record?.epoch ?? .none, refusal, reason),
            on: rail?.queuePair)
    }

    /// A rail ended that does not count: the machine does not know it.
    package func candidateEnded(_ rail: AcceptedRail) {
        if candidateRail === rail { candidateRail = nil }
        guard standbyRails.contains(where: { $0 === rail }) else { return }
        standsByNoMore(rail)
        askWhetherOwnerListens()
    }

    /// Of an owner; far above what a node has of networks.
    private static let maximumStandbyRails = 8

    package func heartbeatArrived(_ heartbeat: RailHeartbeat, beside rail: AcceptedRail) {
        if !standbyRails.contains(where: { $0 === rail }) {
            if standbyRails.count == Self.maximumStandbyRails { standbyRails.removeFirst().close() }
            standbyRails.append(rail)
        }
        // Another claim's rail is no sign of the owner's life (S16).
        guard mirrorTarget?.incarnation == heartbeat.incarnation else { return }
        handle(.heardBeside(isSuspended: heartbeat.isSuspended))
    }

    private func standsByNoMore(_ rail: AcceptedRail) { standbyRails.removeAll { $0 === rail } }

    /// Seals what an earlier owner may still write, prepares the region, and opens it under a fresh key (S12).
    func acceptAttach(_ request: AttachRequest, generation: UInt64) {
        guard let rail = candidateRail else { return }
        guard request.ringBytes == region.ringBytes else {
            return refuseAttach(
                request, .notReady, "the log here has \(region.ringBytes) bytes, the owner's has \(request.ringBytes)")
        }
        guard !isPreparingRegion else {
            return refuseAttach(request, .notReady, "the mirror region is still being prepared for an earlier request")
        }
        if let fault = region.memoryFault { return refuseAttach(request, .notReady, fault.description) }
        candidateRail = nil
        let old = mirrorRail === rail ? nil : mirrorRail
        mirrorRail = rail
        standsByNoMore(rail)
        // Only now is what arrives there a sign of the owner's life.
        handle(.up)
        isPreparingRegion = true
        let earlier = mirrorTarget
        mirrorTarget = nil
        let prepare = { [self] in
            let region = region
            let archives = host.archives
            let known = earlier?.incarnation == request.incarnation ? earlier?.target.durable : nil
            runtime.run(.memory) {
                try MirrorRegion.prepare(
                    region, for: request, generation: generation, known: known, archives: archives)
            } _: { [self] result in
                isPreparingRegion = false
                if let sealed = onRegionPrepared {
                    onRegionPrepared = nil
                    return sealed()
                }
                guard mirrorRail === rail else { return }
                switch result {
                case .failure(let error):
                    refuse(rail, .notReady, "the mirror region cannot be prepared: \(error)")
                case .success(let prepared):
                    if let report = prepared.report { self.report(report) }
                    open(request, rail, prepared)
                }
            }
        }
        shutOut(old, earlier?.key, then: prepare)
    }

    /// Nothing that still comes on an earlier rail is carried out any more, under whatever key; no copy under its own is in progress when
    /// `done` is called (S12).
    private func shutOut(_ rail: AcceptedRail?, _ key: RegionKey?, then done: @escaping () -> Void) {
        rail?.close()
        if let key { host.regions.revoke(key, sealed: done) } else { done() }
    }

    private func open(_ request: AttachRequest, _ rail: AcceptedRail, _ prepared: MirrorRegion.Prepared) {
        let target = MirrorTarget(
            region: region, durable: prepared.durable, head: prepared.head, kept: prepared.kept, runtime: runtime)
        target.onConflict = { [weak self] in self?.reportConflict(at: $0, with: request.from) }
        let key = host.regions.register(target, lengthBytes: MirrorTarget.lengthBytes(ring: region.ringBytes))
        mirrorTarget = (target, key, request.incarnation)
        send(
            .attached(
                group: configuration.id, epoch: request.epoch, key: key.rawValue, durable: prepared.durable,
                contents: MirrorContents(
                    pool: host.poolUUID, generation: region.standing.generation, isKept: prepared.kept != nil,
                    acknowledged: region.acknowledged, end: prepared.kept?.end ?? prepared.durable)),
            on: rail.queuePair)
        report(
            Report(
                .mirroring,
                "mirroring \(request.from)'s log of epoch \(request.epoch) from LSN \(prepared.durable)"))
    }

    /// Once a record: the owner asks again and again.
    private func reportConflict(at lsn: LSN, with owner: NodeID) {
        guard reportedConflict != lsn else { return }
        reportedConflict = lsn
        report(
            Report(
                .mirrorConflict,
                "\(owner) sent other bytes for LSN \(lsn), where the mirror log holds a good record: they are not stored"
            ))
    }
}
