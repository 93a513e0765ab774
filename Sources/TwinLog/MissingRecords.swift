// Records that a mirror holds beyond the end of the log that a crash left: taken over before the log goes on, or its next records would
// contradict them (S3, S5). Only an `msync` that never came loses them here.

internal import ClusterProtocol
internal import LogModel
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import RemoteMemory

enum MissingRecords {
    private static let retryInterval = Duration.milliseconds(50)

    /// An attached mirror.
    private struct Mirror: Sendable {
        let rail: NIOLoopBound<LogRail>
        let contents: MirrorContents
    }

    /// Stores what the mirror holds beyond `end` in `region`, durably. Waits for the mirror up to `patience`. Throws `partnerLost`,
    /// `partnerRefused`, `system`.
    static func fetch(
        for region: Region, of pool: Pool, end: LSN, from partner: LogPartner, patience: Duration?
    ) async throws(TwinLogError) {
        let deadline = patience.map { ContinuousClock.now + $0 }
        while true {
            do throws(TwinLogError) {
                return try await fetchNow(for: region, of: pool, end: end, from: partner, patience)
            } catch {
                guard error.code == .partnerLost, deadline.map({ ContinuousClock.now < $0 }) ?? true else {
                    throw error
                }
            }
            do { try await Task.sleep(for: retryInterval) } catch { throw .cancelled }
        }
    }

    private static func fetchNow(
        for region: Region, of pool: Pool, end: LSN, from partner: LogPartner, _ patience: Duration?
    ) async throws(TwinLogError) {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let request = AttachRequest(region, of: pool, end: end)
        let mirror = try await attach(request, to: partner, on: eventLoop, patience)
        defer { eventLoop.execute { mirror.rail.value.close() } }
        let there = mirror.contents.end
        guard there > end else { return }
        guard there <= region.head + region.ringBytes else {
            throw TwinLogError(.partnerRefused, "\(partner.address): the mirror goes on beyond this log")
        }
        var next = end
        while next < there {
            let place = next.rawValue % region.ringBytes
            let count = min(there - next, region.ringBytes - place, UInt64(RemoteMemoryLimits.maximumTransferBytes))
            let bytes = try await Answer.wait { answer in
                eventLoop.execute { mirror.rail.value.read(at: place, count: Int(count), answer) }
            }
            try await store(bytes, at: next, in: region)
            next = next + count
        }
    }

    private static func attach(
        _ request: AttachRequest, to partner: LogPartner, on eventLoop: any EventLoop, _ patience: Duration?
    ) async throws(TwinLogError) -> Mirror {
        try await Answer.wait { answer in
            eventLoop.execute {
                var rail: LogRail?
                let dialed = LogRail(request, eventLoop: eventLoop) { attachment in
                    guard let attached = rail else { return }
                    answer.give(
                        .success(
                            Mirror(rail: NIOLoopBound(attached, eventLoop: eventLoop), contents: attachment.contents)))
                    rail = nil
                } ended: { error in
                    answer.give(.failure(error))
                    rail = nil
                }
                rail = dialed
                dialed.dial(partner)
                guard let patience else { return }
                let bound = NIOLoopBound(dialed, eventLoop: eventLoop)
                eventLoop.scheduleTask(in: TimeAmount(patience)) {
                    let late = TwinLogError(.partnerLost, "\(partner.address): the log's mirror does not answer")
                    if bound.value.isAsking { bound.value.close() }
                    answer.give(.failure(late))
                }
            }
        }
    }

    /// A fence covers its own thread's stores.
    private static func store(_ bytes: [UInt8], at lsn: LSN, in region: Region) async throws(TwinLogError) {
        try await BlockingThread.runAnywhere { () throws(TwinLogError) in
            try translating { () throws(PoolError) in
                bytes.withUnsafeBytes { region.store($0, at: lsn) }
                try region.drain()
            }
        }
    }
}
