// dump: prints the records of a pool's logs one by one, as they are read, so that a log of any size can be dumped.

import ArgumentParser
import Foundation
import HostProcess
import LogModel
import PersistentMemory
import WriteLog

struct Dump: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print the records, one by one.")
    @OptionGroup var options: PoolOptions
    @OptionGroup var selection: GroupOption
    @Option(help: "Begin with the first record at or behind this LSN.") var from: UInt64 = 0
    @Option(help: "Print at most so many records of each log.") var limit: UInt64?
    @Flag(help: "Print the payloads too.") var payload = false

    func run() throws {
        let file = try LogFile.open(options.pool)
        var worst: [ScanEnd] = []
        let regions = try file.regions(of: selection.group)
        if options.json { try StandardOutput.text("{\"groups\":[") }
        for (index, region) in regions.enumerated() {
            if options.json { try StandardOutput.line(index == 0 ? "" : ",") }
            worst.append(options.json ? try dumpJSON(region) : try dumpText(region))
        }
        if options.json { try StandardOutput.line("\n]}") }
        if let end = worst.first(where: { $0.verdict == .corrupt }) ?? worst.first(where: { $0.verdict == .torn }) {
            throw ExitCode((end.verdict == .corrupt ? ToolExit.corrupt : ToolExit.torn).rawValue)
        }
    }

    /// How a dump ended; no verdict if the limit came first.
    private struct ScanEnd {
        var verdict: LogScan.Verdict?
        var firstBad: LSN?
    }

    private func forEachRecord(of region: Region, _ body: (LogRecord) throws -> Void) rethrows -> ScanEnd {
        guard var scan = LogScan(region: region) else { return ScanEnd(verdict: .clean) }
        var printed: UInt64 = 0
        while let write = scan.next() {
            for record in write.records where record.lsn.rawValue >= from {
                if let limit, printed == limit { return ScanEnd() }
                try body(record)
                printed += 1
            }
        }
        return ScanEnd(verdict: scan.verdict, firstBad: scan.firstBadLSN)
    }

    // MARK: JSON

    private struct Entry: Encodable {
        var lsn: UInt64
        var kind: String
        var volume: String
        var offset: UInt64
        var length: UInt64
        var acknowledgedLSN: UInt64
        var record: Int
        var recordsInWrite: Int
        var payloadHex: String?
    }

    /// A line per record, so that the text is never all in memory.
    private func dumpJSON(_ region: Region) throws -> ScanEnd {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        var separator = "\n"
        try StandardOutput.text("{\"name\":\"\(region.group)\",\"records\":[")
        let end = try forEachRecord(of: region) { record in
            let entry = Entry(
                lsn: record.lsn.rawValue, kind: record.kind.name, volume: record.volume.description,
                offset: record.range.offset, length: record.range.length, acknowledgedLSN: record.acknowledged.rawValue,
                record: record.number, recordsInWrite: record.recordsInWrite,
                payloadHex: payload ? hex(record.payload) : nil)
            try StandardOutput.text(separator + String(decoding: try encoder.encode(entry), as: UTF8.self))
            separator = ",\n"
        }
        let verdict = end.verdict.map { "\"\($0.rawValue)\"" } ?? "null"
        try StandardOutput.text("\n],\"verdict\":\(verdict),\"firstBadLSN\":\(end.firstBad?.description ?? "null")}")
        return end
    }

    // MARK: Text

    private func dumpText(_ region: Region) throws -> ScanEnd {
        try StandardOutput.line("\(region.group):")
        let end = try forEachRecord(of: region) { record in
            let place = record.kind == .watermark ? "" : " volume \(record.volume) \(record.range)"
            let part = record.recordsInWrite > 1 ? " (\(record.number + 1) of \(record.recordsInWrite))" : ""
            try StandardOutput.line(
                "  \(record.lsn): \(record.kind.name)\(place)\(part), acknowledged \(record.acknowledged)")
            if payload { try printPayload(record) }
        }
        switch end.verdict {
        case .torn: try StandardOutput.line("  torn at LSN \(end.firstBad ?? .zero)")
        case .corrupt: try StandardOutput.line("  CORRUPT at LSN \(end.firstBad ?? .zero)")
        case .clean, nil: break
        }
        return end
    }

    /// Sixteen bytes a line, at their offset in the volume.
    private func printPayload(_ record: LogRecord) throws {
        for start in stride(from: 0, to: record.payload.count, by: 16) {
            let line = UnsafeRawBufferPointer(rebasing: record.payload[start..<min(start + 16, record.payload.count)])
            try StandardOutput.line("    \(record.range.offset + UInt64(start)): \(hex(line))")
        }
    }
}

private func hex(_ bytes: UnsafeRawBufferPointer) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(unsafeUninitializedCapacity: bytes.count * 2) { text in
        for (index, byte) in bytes.enumerated() {
            text[index * 2] = digits[Int(byte >> 4)]
            text[index * 2 + 1] = digits[Int(byte & 15)]
        }
        return bytes.count * 2
    }
}

extension LogRecord.Kind {
    var name: String {
        switch self {
        case .data: "data"
        case .discard: "discard"
        case .writeZeroes(keepSpace: false): "write-zeroes"
        case .writeZeroes(keepSpace: true): "write-zeroes-keep"
        case .watermark: "watermark"
        }
    }
}
