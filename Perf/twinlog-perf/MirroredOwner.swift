// An owner of a mirrored group, as far as a write needs one: the production engine on an event loop, with a rail to the partner, allowed
// to acknowledge at any time. And one client of it.

import ClusterProtocol
import GroupEngine
import LogModel
import LoopPolling
import NIOCore
import RemoteMemory
import RemoteMemoryTCP
import StorageMedium
import StorageNode
import WriteLog

/// Takes everything and keeps nothing.
struct NullMedium: Medium {
    let sizeBytes: UInt64
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        _ = buffer.initializeMemory(as: UInt8.self, repeating: 0)
    }
    func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool {
        try read(into: buffer, at: offset)
        return true
    }
    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {}
    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {}
    func flush() throws(MediumError) {}
}

/// The engine's parts of one owned log with one volume. Lives in the runtime's place.
struct PerfOwner {
    static let volume = VolumeID(name: "perf")
    static let volumeBytes: UInt64 = 1 << 30
    let path: OwnerDataPath
    let session: any VolumeSession

    init(_ log: WriteLog, _ runtime: any Runtime, failed: @escaping (String) -> Void) {
        let medium = NullMedium(sizeBytes: Self.volumeBytes)
        let owned = OwnedLog(
            log: log, start: log.head, media: [Self.volume: (medium: medium, path: "none")], runtime: runtime,
            authority: Authority(
                validUntil: .max, rule: AcknowledgementRule(allowed: true, required: MemberSet(first: 1))),
            listener: OwnedLog.Listener(
                report: { failed("\($0.kind.rawValue): \($0.message)") }))
        path = OwnerDataPath(owned, start: log.head)
        session = path.session(Self.volume, medium)
    }

    /// Serves with a mirror that is empty.
    func serve(_ queuePair: any QueuePair, key: RegionKey, durable: LSN) {
        path.attach(queuePair, key: key, durable: durable, isKept: false)
        path.serve()
    }
}

/// Lives on its event loop.
final class MirroredOwner: QueuePairDelegate {
    private let eventLoop: any EventLoop
    private var owner: PerfOwner?
    private var current: Run?

    /// What is being measured.
    private final class Run {
        let payload: ByteBuffer
        let depth: Int
        let nanos: UInt64
        let begin = monotonicNanos()
        let done: EventLoopPromise<(Repeat, LatencyHistogram)>
        var issued: UInt64 = 0
        var operations: UInt64 = 0
        var histogram = makeHistogram()
        var pace: Pace

        init(size: Int, depth: Int, nanos: UInt64, done: EventLoopPromise<(Repeat, LatencyHistogram)>) {
            payload = ByteBuffer(repeating: 7, count: size)
            self.depth = depth
            self.nanos = nanos
            pace = Pace(begin: begin, nanos: nanos)
            self.done = done
        }
    }

    private init(
        _ queuePair: TCPQueuePair, _ announcement: PartnerAnnouncement, _ log: WriteLog, _ eventLoop: any EventLoop
    ) {
        self.eventLoop = eventLoop
        let runtime = LoopRuntime(eventLoop: eventLoop, threads: .ofOneGroup())
        owner = PerfOwner(log, runtime) { [unowned self] in fail($0) }
        queuePair.delegate = self
    }

    static func dial(
        _ announcement: PartnerAnnouncement, log: WriteLog, eventLoop: any EventLoop, poller: LoopPoller?
    ) -> EventLoopFuture<NIOLoopBound<MirroredOwner>> {
        let promise = eventLoop.makePromise(of: NIOLoopBound<MirroredOwner>.self)
        guard let secret = ClusterSecret(hexadecimal: announcement.secret) else {
            return eventLoop.makeFailedFuture(PerfError("the partner told no secret"))
        }
        TCPMirrorDialer.dial(
            TCPAddress("127.0.0.1:\(announcement.railPort)")!,
            as: PerfRail.identity(of: PerfRail.owner, secret: secret), expecting: PerfRail.partner,
            registry: TCPRegionRegistry(), poller: poller, timeout: .seconds(5), on: eventLoop
        ) { result in
            switch result {
            case .failure(let error): promise.fail(PerfError("the rail: \(error)"))
            case .success(let (queuePair, _)):
                let owner = MirroredOwner(queuePair, announcement, log, eventLoop)
                // The queue pair is in the pipeline when this turn of the loop is over.
                let bound = NIOLoopBound(owner, eventLoop: eventLoop)
                eventLoop.assumeIsolated().execute {
                    owner.owner?.serve(queuePair, key: RegionKey(rawValue: announcement.key), durable: log.head)
                    promise.succeed(bound)
                }
            }
        }
        return promise.futureResult
    }

    /// Keeps `depth` writes unacknowledged for so long, then waits for the last of them.
    func run(size: Int, depth: Int, nanos: UInt64) -> EventLoopFuture<(Repeat, LatencyHistogram)> {
        let promise = eventLoop.makePromise(of: (Repeat, LatencyHistogram).self)
        let run = Run(size: size, depth: depth, nanos: nanos, done: promise)
        current = run
        for _ in 0..<depth { issue(run) }
        return promise.futureResult
    }

    private func issue(_ run: Run) {
        let now = monotonicNanos()
        guard current === run, now - run.begin < run.nanos else { return endIfOver(run) }
        let size = UInt64(run.payload.readableBytes)
        let offset = run.issued * size % (PerfOwner.volumeBytes / size * size)
        run.issued += 1
        owner?.session.submit(.write(offset: offset, payload: run.payload)) { [unowned self] _ in
            run.operations += 1
            let ended = monotonicNanos()
            run.histogram.note(ended - now)
            run.pace.note(ended)
            issue(run)
        }
    }

    /// The last write that was issued ends the run.
    private func endIfOver(_ run: Run) {
        guard current === run, run.operations == run.issued else { return }
        current = nil
        let seconds = Double(monotonicNanos() - run.begin) / 1e9
        let p50 = run.histogram.p50
        run.done.succeed(
            (Repeat(operations: run.operations, seconds: seconds, p50: p50, pace: run.pace), run.histogram))
    }

    private func fail(_ reason: String) {
        guard let run = current else { return }
        current = nil
        run.done.fail(PerfError(reason))
    }

    // MARK: QueuePairDelegate

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {
        owner?.path.mirrorCompleted(through: id)
    }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) { fail("the rail: \(error)") }

    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {
        owner?.path.mirrorRead(id, bytes)
    }

    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {}
    func queuePairHeard(_ queuePair: any QueuePair) {}
}
