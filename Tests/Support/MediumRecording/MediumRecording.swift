// An independent recorder of a medium: a library that is loaded into every process that may write to it, between the process and the
// kernel (`CMediumRecorder`), and a file of shared memory in which all of them put their calls in one order. The product does not know of it.
//
// It cannot be passed by unseen: each block of the medium must have the checksum of the last write that was recorded for it.

internal import CMediumRecording
internal import ClusterHarness
internal import Foundation
internal import Glibc
internal import TestSupport

package final class MediumRecording: Sendable {
    /// Sparse: what a long run with thousands of calls a second makes.
    private static let capacity = 1 << 24

    private let folder: Folder
    private let medium: String
    private let blocks: Int
    private var path: String { folder.file("recording") }

    /// Of the file at `medium`, of `bytes`, which need not exist yet.
    package init(of medium: String, bytes: UInt64) throws {
        folder = try Folder()
        self.medium = medium
        blocks = Int(bytes) / RECORDING_BLOCK_BYTES
        try put([], into: path)
        let size = Self.checksums + blocks * MemoryLayout<UInt64>.size
        guard truncate(path, off_t(size)) == 0 else { throw HarnessError("\(path) cannot be given \(size) bytes") }
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        var header = recording()
        header.capacity = UInt64(Self.capacity)
        header.blocks = UInt64(blocks)
        try file.write(contentsOf: withUnsafeBytes(of: header) { Data($0) })
        try file.close()
    }

    private static let calls = MemoryLayout<recording>.size
    private static let checksums = calls + capacity * MemoryLayout<recorded_call>.stride

    /// What stands before a program's words to record it. `host`: only programs with the same number see its locks of the medium, as if each
    /// host were a machine of its own.
    package func launcher(host: Int? = nil) -> [String] {
        [
            "/usr/bin/env", "LD_PRELOAD=\(builtBinaries())/libMediumRecorder.so", "MEDIUM_RECORDING=\(path)",
            "MEDIUM_RECORDED=\(medium)",
        ] + (host.map { ["MEDIUM_HOST=\($0)"] } ?? [])
    }

    /// So far, in no order.
    package func recorded() throws -> [RecordedCall] {
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { file.closeFile() }
        let header = try read(file, at: 0, recording.self, count: 1)[0]
        guard header.calls <= Self.capacity else {
            throw HarnessError("the recording had room for \(Self.capacity) calls, and there were \(header.calls)")
        }
        return try read(file, at: Self.calls, recorded_call.self, count: Int(header.calls)).compactMap(Self.call)
    }

    private static func call(_ call: recorded_call) -> RecordedCall? {
        let process = Int32(call.process)
        let end = call.end == 0 ? nil : call.end
        switch recorded_kind(UInt32(call.kind)) {
        case RECORDED_WRITE, RECORDED_ZERO, RECORDED_TRUNCATE:
            return RecordedCall(.write, by: process, begin: call.begin, end: end)
        case RECORDED_LOCK:
            return RecordedCall(.lock(descriptor: call.offset), by: process, begin: call.begin, end: end)
        case RECORDED_UNLOCK:
            return RecordedCall(.unlock(descriptor: call.offset), by: process, begin: call.begin, end: end)
        default: return nil
        }
    }

    private func read<Value>(_ file: FileHandle, at offset: Int, _: Value.Type, count: Int) throws -> [Value] {
        try file.seek(toOffset: UInt64(offset))
        let bytes = try file.read(upToCount: count * MemoryLayout<Value>.stride) ?? Data()
        guard bytes.count == count * MemoryLayout<Value>.stride else { throw HarnessError("\(path) is cut short") }
        return [Value](unsafeUninitializedCapacity: count) { values, initialized in
            _ = bytes.copyBytes(to: values)
            initialized = count
        }
    }

    /// The blocks that do not hold what was recorded last for them; nothing may write meanwhile.
    package func unrecordedBlocks() throws -> [Int] {
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { file.closeFile() }
        let sums = try read(file, at: Self.checksums, UInt64.self, count: blocks)
        let content = try FileHandle(forReadingFrom: URL(fileURLWithPath: medium))
        defer { content.closeFile() }
        let blockBytes = RECORDING_BLOCK_BYTES
        let zeros = Data(count: blockBytes)
        return try (0..<blocks).filter { block in
            let bytes = try content.read(upToCount: blockBytes) ?? Data()
            switch sums[block] {
            case UInt64(CHECKSUM_UNTOUCHED): return bytes != zeros
            // Its write failed, was cut short, or was not of the whole block.
            case UInt64(CHECKSUM_UNKNOWN): return false
            case let sum: return bytes.count != blockBytes || bytes.withUnsafeBytes(Self.checksum) != sum
            }
        }
    }

    private static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        recording_checksum(bytes.baseAddress!.assumingMemoryBound(to: UInt8.self))
    }
}
