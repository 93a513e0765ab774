// mirror: writes of a client, carried out by the engine of an owner and a mirror in two processes: appended, shipped, acknowledged
// when both logs hold them durably (S1), destaged to a medium that costs nothing, trimmed. The floor is the same number of bytes over plain
// TCP to the same process.

import ArgumentParser
import Foundation
import LogModel
import NIOCore
import NIOPosix

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
        let owner = try eventLoop.flatSubmit {
            MirroredOwner.dial(partner.announcement, log: log, eventLoop: eventLoop)
        }.wait()
        var results = Results(scenario: "mirror")
        for size in try options.sizes() {
            let (row, floor) = try measure(size, owner, eventLoop, partner, pool)
            results.rows += [row, floor]
            results.compare(row, to: floor)
        }
        try results.report(options)
    }

    private func measure(
        _ size: Int, _ owner: NIOLoopBound<MirroredOwner>, _ eventLoop: any EventLoop, _ partner: Partner,
        _ pool: PerfPool
    ) throws -> (Row, Row) {
        var rows: [[Repeat]] = [[], []]
        var histograms = [makeHistogram(), makeHistogram()]
        for turn in 0..<options.repeats {
            for which in turn % 2 == 0 ? [0, 1] : [1, 0] {
                let (measured, histogram) =
                    which == 0
                    ? try run(size, owner, eventLoop)
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
        _ size: Int, _ owner: NIOLoopBound<MirroredOwner>, _ eventLoop: any EventLoop
    ) throws -> (Repeat, LatencyHistogram) {
        let depth = options.depth
        let nanos = UInt64(options.secondsPerRepeat * 1e9)
        return try eventLoop.flatSubmit { owner.value.run(size: size, depth: depth, nanos: nanos) }.wait()
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
