// mirror: writes of a client, carried out by the engine of an owner and a mirror in two processes: appended, shipped, acknowledged
// when both logs hold them durably (S1), destaged to a medium that costs nothing, trimmed. The floor is the same number of bytes over plain
// TCP to the same process.

import ArgumentParser
import Foundation
import LogModel
import LoopPolling
import NIOCore
import NIOPosix

struct MirrorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror",
        abstract: "Appends that are acknowledged when a second process' mirror log holds them too.")
    @OptionGroup var options: CommonOptions
    @OptionGroup var polling: PollingOption

    func validate() throws {
        guard try options.threadCounts() == [1] else {
            throw ValidationError("--threads: a group lives on one event loop; use --depth")
        }
    }

    func run() throws {
        try options.checkOutputs()
        let bench = try MirrorBench(options, polling)
        defer { bench.stop() }
        var results = Results(scenario: "mirror")
        for size in try options.sizes() {
            for depth in try options.depths() {
                let rows = try bench.measure(size, depth: depth, [.twinlog, .tcp])
                results.rows += rows
                results.compare(rows[0], to: rows[1])
            }
        }
        try results.report(options)
    }
}

/// An owner here, a mirror in a second process, and both ends of the floors.
struct MirrorBench {
    enum Contender: String, CaseIterable {
        case twinlog
        /// One message after another, by blocking calls.
        case tcp
        /// Many at once, copied, checksummed and drained on both ends.
        case stream
    }

    private let options: CommonOptions
    private let pool: PerfPool
    private let partner: Partner
    private let eventLoop: any EventLoop
    private let owner: NIOLoopBound<MirroredOwner>

    init(_ options: CommonOptions, _ polling: PollingOption) throws {
        self.options = options
        pool = try PerfPool(path: options.pool, purpose: "mirror", groups: ["log", "floor"])
        partner = try Partner.start(pool: options.pool.map { $0 + ".partner" }, polling)
        let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        self.eventLoop = eventLoop
        let log = try PerfPool.openLog(pool.regions[0])
        let announcement = partner.announcement
        owner = try eventLoop.flatSubmit {
            MirroredOwner.dial(
                announcement, log: log, eventLoop: eventLoop, poller: LoopPoller(polling.mode, eventLoop: eventLoop))
        }.wait()
    }

    func stop() { partner.stop() }

    /// In turn, each repeat beginning with another of them.
    func measure(_ size: Int, depth: Int, _ contenders: [Contender]) throws -> [Row] {
        var repeats = [[Repeat]](repeating: [], count: contenders.count)
        var histograms = contenders.map { _ in makeHistogram() }
        for turn in 0..<options.repeats {
            for step in contenders.indices {
                let which = (step + turn) % contenders.count
                let before = try ProcessorTime.nanos(of: processes)
                var (measured, histogram) = try run(contenders[which], size, depth)
                measured.processorNanos = ProcessorTime.used(before, try ProcessorTime.nanos(of: processes))
                repeats[which].append(measured)
                histograms[which].merge(histogram)
            }
        }
        return contenders.indices.map { index in
            let isTCP = contenders[index] == .tcp
            return Row(
                contenders[index].rawValue, memory: isTCP ? "none" : "\(pool.memory)", sizeBytes: size, depth: depth,
                repeats: repeats[index], latency: Latency(histograms[index]))
        }
    }

    /// The owner's is its client's, too.
    private var processes: [String: Int32] { ["owner": getpid(), "mirror": partner.processID] }

    private func run(_ contender: Contender, _ size: Int, _ depth: Int) throws -> (Repeat, LatencyHistogram) {
        let seconds = options.secondsPerRepeat
        switch contender {
        case .twinlog:
            let owner = owner
            return try eventLoop.flatSubmit {
                owner.value.run(size: size, depth: depth, nanos: UInt64(seconds * 1e9))
            }.wait()
        case .tcp:
            return try TCPFloor.measure(
                port: partner.announcement.floorPort, size: size, depth: depth, seconds: seconds)
        case .stream:
            return try StreamFloor.measure(
                port: partner.announcement.streamFloorPort, pool.regions[1], size: size, depth: depth, seconds: seconds)
        }
    }
}

/// The second process.
struct Partner {
    let announcement: PartnerAnnouncement
    private let process: Process
    private let input: Pipe
    var processID: Int32 { process.processIdentifier }

    static func start(pool: String?, _ polling: PollingOption) throws -> Partner {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["mirror-partner", "--poll", polling.poll] + (pool.map { ["--pool", $0] } ?? [])
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
