// mirror: writes appended to a log and shipped to a second process' mirror log, as an owner does it: the same session
// logic, the same transport, acknowledged when both logs hold them durably (S1). The floor is the same number of bytes
// over plain TCP to the same process.

import ArgumentParser
import ClusterProtocol
import Foundation
import LogModel
import NIOCore
import NIOPosix
import PersistentMemory
import RemoteMemory
import RemoteMemoryTCP
import WriteLog

struct MirrorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror",
        abstract: "Appends that are acknowledged when a second process' mirror log holds them too.")
    @OptionGroup var options: CommonOptions

    func validate() throws {
        guard try options.threadCounts() == [1] else {
            throw ValidationError("--threads: a group lives on one event loop; use --depth")
        }
    }

    func run() throws {
        try options.checkOutputs()
        let pool = try PerfPool(path: options.pool, purpose: "mirror", groups: ["log"])
        let partner = try Partner.start(pool: options.pool.map { $0 + ".partner" })
        defer { partner.stop() }
        let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        let log = try PerfPool.openLog(pool.regions[0])
        let shipper = try eventLoop.flatSubmit {
            MirrorShipper.dial(partner.announcement, log: log, eventLoop: eventLoop)
        }.wait()
        var results = Results(scenario: "mirror")
        for size in try options.sizes() {
            let (row, floor) = try measure(size, shipper, eventLoop, partner, pool)
            results.rows += [row, floor]
            results.compare(row, to: floor)
        }
        try results.report(options)
    }

    private func measure(
        _ size: Int, _ shipper: NIOLoopBound<MirrorShipper>, _ eventLoop: any EventLoop, _ partner: Partner,
        _ pool: PerfPool
    ) throws -> (Row, Row) {
        var rows: [[Repeat]] = [[], []]
        var histograms = [makeHistogram(), makeHistogram()]
        for turn in 0..<options.repeats {
            for which in turn % 2 == 0 ? [0, 1] : [1, 0] {
                let (measured, histogram) =
                    which == 0
                    ? try run(size, shipper, eventLoop)
                    : try TCPFloor.measure(
                        port: partner.announcement.floorPort, size: size, depth: options.depth,
                        seconds: options.secondsPerRepeat)
                rows[which].append(measured)
                histograms[which].merge(histogram)
            }
        }
        let both = ["twinlog", "tcp"].enumerated().map { index, name in
            Row(
                name, memory: index == 0 ? "\(pool.memory)" : "none", sizeBytes: size, depth: options.depth,
                repeats: rows[index],
                latency: Latency(histograms[index]))
        }
        return (both[0], both[1])
    }

    private func run(
        _ size: Int, _ shipper: NIOLoopBound<MirrorShipper>, _ eventLoop: any EventLoop
    ) throws -> (Repeat, LatencyHistogram) {
        let depth = options.depth
        let nanos = UInt64(options.secondsPerRepeat * 1e9)
        return try eventLoop.flatSubmit { shipper.value.run(size: size, depth: depth, nanos: nanos) }.wait()
    }
}

/// The second process.
struct Partner {
    let announcement: PartnerAnnouncement
    private let process: Process
    private let input: Pipe

    static func start(pool: String?) throws -> Partner {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["mirror-partner"] + (pool.map { ["--pool", $0] } ?? [])
        let input = Pipe()
        let output = Pipe()
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        var line = Data()
        while line.last != UInt8(ascii: "\n"), let more = try output.fileHandleForReading.read(upToCount: 1),
            !more.isEmpty
        {
            line += more
        }
        guard line.last == UInt8(ascii: "\n") else {
            process.waitUntilExit()
            throw PerfError("the partner process did not start")
        }
        return Partner(
            announcement: try JSONDecoder().decode(PartnerAnnouncement.self, from: line), process: process, input: input
        )
    }

    /// It ends with its standard input.
    func stop() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}

/// The owner's side. Lives on its event loop.
final class MirrorShipper: QueuePairDelegate {
    private let log: WriteLog
    private let queuePair: TCPQueuePair
    private let key: RegionKey
    private let eventLoop: any EventLoop
    private var session: MirrorSession
    private var acknowledgement: Acknowledgement
    private let volume = VolumeID(name: "perf")

    /// What is being measured.
    private final class Run {
        let payload: [UInt8]
        let depth: Int
        let nanos: UInt64
        let begin = monotonicNanos()
        let done: EventLoopPromise<(Repeat, LatencyHistogram)>
        var issued = CircularBuffer<(end: LSN, at: UInt64)>()
        var operations: UInt64 = 0
        var histogram = makeHistogram()

        init(size: Int, depth: Int, nanos: UInt64, done: EventLoopPromise<(Repeat, LatencyHistogram)>) {
            payload = [UInt8](repeating: 7, count: size)
            self.depth = depth
            self.nanos = nanos
            self.done = done
        }
    }
    private var current: Run?
    /// The end of the last write that was acknowledged: a boundary for the head (S7).
    private var acknowledgedEnd: LSN

    private init(
        _ queuePair: TCPQueuePair, _ announcement: PartnerAnnouncement, _ log: WriteLog, _ eventLoop: any EventLoop
    ) {
        self.queuePair = queuePair
        self.log = log
        self.eventLoop = eventLoop
        key = RegionKey(rawValue: announcement.key)
        session = MirrorSession(durable: log.head, mirrorHead: log.head, head: log.head)
        acknowledgement = Acknowledgement(log.head)
        acknowledgedEnd = log.head
    }

    static func dial(
        _ announcement: PartnerAnnouncement, log: WriteLog, eventLoop: any EventLoop
    ) -> EventLoopFuture<NIOLoopBound<MirrorShipper>> {
        let promise = eventLoop.makePromise(of: NIOLoopBound<MirrorShipper>.self)
        guard let secret = ClusterSecret(hexadecimal: announcement.secret) else {
            return eventLoop.makeFailedFuture(PerfError("the partner told no secret"))
        }
        TCPMirrorDialer.dial(
            RailAddress("127.0.0.1:\(announcement.railPort)")!,
            as: PerfRail.identity(of: PerfRail.owner, secret: secret), expecting: PerfRail.partner,
            registry: TCPRegionRegistry(), timeout: .seconds(5), on: eventLoop
        ) { result in
            switch result {
            case .failure(let error): promise.fail(PerfError("the rail: \(error)"))
            case .success(let (queuePair, _)):
                let shipper = MirrorShipper(queuePair, announcement, log, eventLoop)
                queuePair.delegate = shipper
                // The queue pair is in the pipeline when this turn of the loop is over.
                let bound = NIOLoopBound(shipper, eventLoop: eventLoop)
                eventLoop.execute { promise.succeed(bound) }
            }
        }
        return promise.futureResult
    }

    /// Keeps `depth` writes unacknowledged for so long, then waits for the last of them.
    func run(size: Int, depth: Int, nanos: UInt64) -> EventLoopFuture<(Repeat, LatencyHistogram)> {
        let promise = eventLoop.makePromise(of: (Repeat, LatencyHistogram).self)
        current = Run(size: size, depth: depth, nanos: nanos, done: promise)
        pump()
        return promise.futureResult
    }

    private func pump() {
        do throws(PerfError) {
            try issue()
            if log.durable < log.published { try persist() }
            try ship()
            acknowledge()
            try trim()
            endIfOver()
        } catch {
            finish(.failure(error))
        }
    }

    private func issue() throws(PerfError) {
        while let run = current, run.issued.count < run.depth {
            let now = monotonicNanos()
            guard now - run.begin < run.nanos else { return }
            let outcome = run.payload.withUnsafeBytes {
                log.append(volume: volume, offset: 0, .data($0), acknowledged: acknowledgedEnd)
            }
            switch outcome {
            case .appended(let appended): run.issued.append((appended.end, now))
            case .full: return
            case .tooLarge: throw PerfError("\(run.payload.count) bytes do not fit the log")
            case .failed: throw PerfError("the pool's memory has failed")
            }
        }
    }

    private func persist() throws(PerfError) {
        do { try log.persist() } catch { throw PerfError("\(error)") }
    }

    private func ship() throws(PerfError) {
        while let range = session.next(published: log.published, creditBytes: UInt64(queuePair.creditBytes)) {
            session.didPost(range, id: try post(range))
        }
        guard session.needsTrim(to: log.head), queuePair.creditBytes > 0 else { return }
        do throws(RemoteMemoryError) {
            let head = log.head
            session.didPostTrim(
                to: head, id: try queuePair.postAtomicWrite(head.rawValue, key: key, offset: log.ringBytes))
        } catch {
            throw PerfError("the rail: \(error)")
        }
    }

    /// In one or two pieces; what has credit as a whole has it for each.
    private func post(_ range: Range<LSN>) throws(PerfError) -> WorkRequestID {
        var id: WorkRequestID = 0
        var offset = range.lowerBound.rawValue % log.ringBytes
        do throws(RemoteMemoryError) {
            try log.withBytes(from: range.lowerBound, to: range.upperBound) { (bytes) throws(RemoteMemoryError) in
                id = try queuePair.postWrite(bytes, key: key, offset: offset)
                offset = (offset + UInt64(bytes.count)) % log.ringBytes
            }
        } catch {
            throw PerfError("the rail: \(error)")
        }
        return id
    }

    private func acknowledge() {
        guard acknowledgement.update(local: log.durable, mirror: session.durable, allowed: true), let run = current
        else { return }
        let now = monotonicNanos()
        while let first = run.issued.first, first.end <= acknowledgement.acknowledged {
            run.issued.removeFirst()
            run.operations += 1
            run.histogram.note(now - first.at)
            acknowledgedEnd = first.end
        }
    }

    /// The time may be up between the last acknowledgement and what would be issued next: then nothing more comes that could end the run.
    private func endIfOver() {
        let now = monotonicNanos()
        guard let run = current, run.issued.isEmpty, now - run.begin >= run.nanos else { return }
        finish(.success((Repeat(operations: run.operations, seconds: Double(now - run.begin) / 1e9), run.histogram)))
    }

    /// Space comes back a quarter of the ring at a time, once the mirror's head is past it (S6).
    private func trim() throws(PerfError) {
        if acknowledgedEnd - log.head >= log.ringBytes / 4 {
            do { try log.setHead(acknowledgedEnd, acknowledged: acknowledgedEnd) } catch { throw PerfError("\(error)") }
        }
        log.setReclaimLimit(min(log.head, session.mirrorHead))
    }

    private func finish(_ result: Result<(Repeat, LatencyHistogram), PerfError>) {
        guard let run = current else { return }
        current = nil
        switch result {
        case .success(let value): run.done.succeed(value)
        case .failure(let error): run.done.fail(error)
        }
    }

    // MARK: QueuePairDelegate

    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {
        guard session.completed(through: id) else { return }
        acknowledge()
        pump()
    }

    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {
        finish(.failure(PerfError("the rail: \(error)")))
    }

    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {}
    func queuePairHeard(_ queuePair: any QueuePair) {}
}
