// floor: what this machine can do at best, one thing at a time.

import ArgumentParser
import CLogCore
import Foundation
import Glibc
import LogModel
import PersistentMemory

struct FloorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "floor",
        abstract: "Copy, checksum, persist, a TCP round trip, a durable file write: what this machine does at best.")
    @OptionGroup var options: CommonOptions
    @Option(help: "The file that is written and flushed; it must not exist, and is removed.")
    var file = "/var/tmp/twinlog-perf-\(getpid()).file"

    func validate() throws {
        guard try options.depths().count == 1 else { throw ValidationError("--depth: one for all rows") }
    }

    func run() throws {
        try options.checkOutputs()
        let pool = try PerfPool(path: options.pool, purpose: "floor", groups: ["floor"])
        let server = try FloorServer.start()
        let file = try ScratchFile(file)
        var results = Results(scenario: "floor")
        for size in try options.sizes() {
            for kind in MemoryKernel.Kind.allCases {
                results.rows.append(try memoryRow(MemoryKernel(kind, pool.regions[0], size: size), pool.memory))
            }
            results.rows.append(try tcpRow(size, server))
            results.rows.append(try fileRow(size, file))
        }
        try results.report(options)
    }

    /// Latency in a pass of its own: a clock read is not small beside these.
    private func memoryRow(_ kernel: MemoryKernel, _ memory: String) throws -> Row {
        let nanos = UInt64(options.secondsPerRepeat * 1e9)
        let stretch = max(1, (256 << 10) / kernel.size)
        let repeats = (0..<options.repeats).map { _ in
            let begin = monotonicNanos()
            var operations: UInt64 = 0
            var now = begin
            while now - begin < nanos {
                for _ in 0..<stretch { kernel.step() }
                operations += UInt64(stretch)
                now = monotonicNanos()
            }
            return Repeat(operations: operations, seconds: Double(now - begin) / 1e9)
        }
        var histogram = makeHistogram()
        let begin = monotonicNanos()
        var before = begin
        while before - begin < nanos {
            kernel.step()
            let after = monotonicNanos()
            histogram.note(after - before)
            before = after
        }
        return Row(
            kernel.kind.rawValue, memory: kernel.kind == .checksum ? "none" : memory, sizeBytes: kernel.size,
            repeats: repeats,
            latency: Latency(histogram))
    }

    private func tcpRow(_ size: Int, _ server: FloorServer) throws -> Row {
        var repeats: [Repeat] = []
        var histogram = makeHistogram()
        for _ in 0..<options.repeats {
            let (measured, latencies) = try TCPFloor.measure(
                port: server.port, size: size, depth: try options.depths()[0], seconds: options.secondsPerRepeat)
            repeats.append(measured)
            histogram.merge(latencies)
        }
        return Row(
            "tcp", memory: "none", sizeBytes: size, depth: try options.depths()[0], repeats: repeats,
            latency: Latency(histogram))
    }

    private func fileRow(_ size: Int, _ file: ScratchFile) throws -> Row {
        var repeats: [Repeat] = []
        var histogram = makeHistogram()
        for _ in 0..<options.repeats {
            let begin = monotonicNanos()
            var operations: UInt64 = 0
            var before = begin
            while before - begin < UInt64(options.secondsPerRepeat * 1e9) {
                try file.writeDurably(size, number: operations)
                let after = monotonicNanos()
                histogram.note(after - before)
                before = after
                operations += 1
            }
            repeats.append(Repeat(operations: operations, seconds: Double(before - begin) / 1e9))
        }
        return Row("write+fdatasync", memory: "file", sizeBytes: size, repeats: repeats, latency: Latency(histogram))
    }
}

/// One of the steps that an append is made of, over memory far larger than the caches.
final class MemoryKernel {
    enum Kind: String, CaseIterable {
        case copy = "memcpy"
        case stream = "copy+drain"
        case checksum = "crc32c"
        case fused = "copy+crc32c+drain"
    }

    let kind: Kind
    let size: Int
    private let region: Region
    private let source: UnsafeMutableRawBufferPointer
    private let stepBytes: Int
    private var place = 0
    private var checksum: UInt32 = 0

    init(_ kind: Kind, _ region: Region, size: Int) {
        self.kind = kind
        self.size = size
        self.region = region
        source = .allocate(byteCount: size, alignment: 64)
        source.initializeMemory(as: UInt8.self, repeating: 7)
        stepBytes = (size + 63) / 64 * 64
    }

    deinit { source.deallocate() }

    /// Persisted as the pool's memory asks for, `msync` left out.
    func step() {
        if place + stepBytes > Int(region.ringBytes) { place = 0 }
        let to = region.ringBase + place
        let persist = UnsafePointer(region.mapping.persist)
        switch kind {
        case .copy: to.copyMemory(from: source.baseAddress!, byteCount: size)
        case .stream:
            tl_stream(persist, to, source.baseAddress, size)
            tl_drain(persist)
        case .checksum: checksum = tl_crc32c(checksum, source.baseAddress, size)
        case .fused:
            checksum = tl_stream_crc32c(persist, to, source.baseAddress, size, checksum)
            tl_drain(persist)
        }
        place += stepBytes
    }
}

/// A file without a name, allocated and durable before it is measured.
final class ScratchFile {
    private static let fileBytes = 64 << 20
    private let descriptor: Int32
    private let path: String
    private let block: UnsafeMutableRawBufferPointer

    init(_ path: String) throws(PerfError) {
        descriptor = Remains.undisturbed {
            let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            if descriptor >= 0 { unlink(path) }
            return descriptor
        }
        block = .allocate(byteCount: Int(CommonOptions.largestSizeBytes), alignment: 4096)
        block.initializeMemory(as: UInt8.self, repeating: 7)
        self.path = path
        guard descriptor >= 0 else { throw failure("cannot be created") }
        for start in stride(from: 0, to: Self.fileBytes, by: block.count) {
            guard pwrite(descriptor, block.baseAddress, block.count, off_t(start)) == block.count else {
                throw failure("write")
            }
        }
        guard fsync(descriptor) == 0 else { throw failure("fsync") }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
        block.deallocate()
    }

    func writeDurably(_ size: Int, number: UInt64) throws(PerfError) {
        let place = Int(number % UInt64(Self.fileBytes / size)) * size
        guard pwrite(descriptor, block.baseAddress, size, off_t(place)) == size else { throw failure("write") }
        guard fdatasync(descriptor) == 0 else { throw failure("fdatasync") }
    }

    private func failure(_ what: String) -> PerfError {
        PerfError("\(path): \(what): \(String(cString: strerror(errno)))")
    }
}
