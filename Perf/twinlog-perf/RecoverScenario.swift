// recover: the scan of a full log, as recovery reads it: every record's place, header and payload verified. Beside it
// the floor: one checksum pass over the same mapped bytes.

import ArgumentParser
import CLogCore
import Foundation
import LogModel
import PersistentMemory
import WriteLog

struct RecoverCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover",
        abstract: "Scans a full log; the floor is one checksum pass over the same bytes.")
    @OptionGroup var options: CommonOptions

    func run() throws {
        try options.checkOutputs()
        try RecoverScenario(options).measure().report(options)
    }
}

struct RecoverScenario {
    static let logBytes: UInt64 = 1 << 30
    private let options: CommonOptions

    init(_ options: CommonOptions) { self.options = options }

    /// One scan per repeat, however long it takes; rates are records per second.
    func measure() throws -> Results {
        var results = Results(scenario: "recover")
        let pool = try PerfPool(
            path: options.pool, purpose: "recover", groups: ["log"], ringBytes: Self.logBytes)
        for size in try options.sizes() {
            let log = try PerfPool.openLog(pool.regions[0])
            let records = try fill(log, size)
            var scans: [Repeat] = [], floors: [Repeat] = []
            let memoryBefore = try residentAnonymousBytes()
            for turn in 0..<options.repeats {
                for which in turn % 2 == 0 ? [0, 1] : [1, 0] {
                    if which == 0 {
                        scans.append(try scan(log.region, expecting: records))
                    } else {
                        floors.append(checksum(log.region, to: log.published, records))
                    }
                }
            }
            let grown = max(0, try residentAnonymousBytes() - memoryBefore)
            let rows = [("twinlog", scans), ("floor", floors)].map { name, repeats in
                Row(name, memory: pool.memory, sizeBytes: size, repeats: repeats, latency: Latency())
            }
            results.rows += rows
            results.compare(rows[0], to: rows[1])
            results.ratios["memory grown by/bytes scanned \(Size.format(UInt64(size)))"] =
                Double(grown) / Double(log.published - log.head)
        }
        return results
    }

    private func fill(_ log: WriteLog, _ size: Int) throws -> UInt64 {
        var records: UInt64 = 0
        try withPayload(size) { bytes throws(PerfError) in
            while case .appended = log.append(
                volume: VolumeID(name: "perf"), offset: records * UInt64(size), .data(bytes), acknowledged: .zero)
            {
                records += 1
            }
        }.get()
        return records
    }

    private func scan(_ region: Region, expecting records: UInt64) throws -> Repeat {
        let begin = monotonicNanos()
        guard var scan = LogScan(region: region), scan.finish() == .clean, scan.writeCount == records else {
            throw PerfError("the scan did not find what was written")
        }
        return Repeat(operations: records, seconds: Double(monotonicNanos() - begin) / 1e9)
    }

    private func checksum(_ region: Region, to end: LSN, _ records: UInt64) -> Repeat {
        let begin = monotonicNanos()
        var checksum: UInt32 = 0
        region.withRingBytes(from: region.head, count: end - region.head) {
            checksum = tl_crc32c(checksum, $0.baseAddress, $0.count)
        }
        let seconds = Double(monotonicNanos() - begin) / 1e9
        precondition(checksum != 0, "the pass was made")
        return Repeat(operations: records, seconds: seconds)
    }

    private func residentAnonymousBytes() throws -> Int {
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("RssAnon:") }),
            let kibibytes = Int(line.split(whereSeparator: \.isWhitespace)[1])
        else { throw PerfError("/proc/self/status has no RssAnon") }
        return kibibytes << 10
    }
}
