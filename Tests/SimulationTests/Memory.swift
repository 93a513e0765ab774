// What happens to the memory under a pool while its process runs: a loss of power keeps any part of what was not made durable, and a
// page fails. The fault model of the first is that of `Tests/Verification/crash-states`, in lines.

import CLogCore
import Foundation
@testable import GroupEngine
import LogModel
import PersistentMemory
import SimulationSupport
import TestSupport

/// What passes the persistence seam of one opening of a pool.
final class RecordedMemory {
    let recorder: OpaquePointer
    private let opened: [UInt8]

    /// Of a pool that holds `opened` when it is opened.
    init(opened: [UInt8]) {
        guard let recorder = tl_recorder_create() else { preconditionFailure("no memory for a recorder") }
        self.recorder = recorder
        self.opened = opened
    }

    deinit { tl_recorder_destroy(recorder) }

    /// A part of a store, in one line: durable after a drain of the thread that streamed it or wrote it back.
    private struct PendingLine {
        let offset: Int
        let bytes: ArraySlice<UInt8>
        var drainedBy: UInt32?
    }

    /// What the file holds when power returns.
    func afterLossOfPower(_ random: inout SplitMix64) -> [UInt8] {
        var image = opened
        var pending: [PendingLine] = []
        for index in 0..<tl_recorder_count(recorder) {
            let operation = tl_recorder_operation(recorder, index)
            switch operation.kind {
            case TL_OPERATION_STREAM, TL_OPERATION_STORE: pending += lines(of: operation)
            case TL_OPERATION_WRITE_BACK:
                let first = Int(operation.offset) / Self.lineBytes
                let last = (Int(operation.offset + operation.count) - 1) / Self.lineBytes
                for place in pending.indices where (first...last).contains(pending[place].offset / Self.lineBytes) {
                    pending[place].drainedBy = pending[place].drainedBy ?? operation.thread
                }
            case TL_OPERATION_DRAIN:
                for line in pending where line.drainedBy == operation.thread { put(line, into: &image) }
                pending.removeAll { $0.drainedBy == operation.thread }
            default: break
            }
        }
        for line in pending where random.chance(50) { put(line, into: &image) }
        return image
    }

    private static let lineBytes = Int(LSN.alignment)

    private func lines(of operation: tl_operation) -> [PendingLine] {
        let bytes = Array(UnsafeBufferPointer(start: operation.bytes, count: Int(operation.count)))
        let offset = Int(operation.offset)
        let drainedBy = operation.kind == TL_OPERATION_STREAM ? operation.thread : nil
        return (offset / Self.lineBytes...(offset + bytes.count - 1) / Self.lineBytes).map { line in
            let part = max(offset, line * Self.lineBytes)..<min(offset + bytes.count, (line + 1) * Self.lineBytes)
            return PendingLine(
                offset: part.lowerBound, bytes: bytes[part.lowerBound - offset..<part.upperBound - offset],
                drainedBy: drainedBy)
        }
    }

    private func put(_ line: PendingLine, into image: inout [UInt8]) {
        image.replaceSubrange(line.offset..<line.offset + line.bytes.count, with: line.bytes)
    }
}

extension World {
    /// The machine under `server` loses power: what its process gave to the media may land, and of its pool only what is durable is
    /// certain. Precondition: the memory is recorded.
    func losePower(of server: Server) {
        guard let recorded = server.recorded else {
            preconditionFailure("the memory of \(server.name) is not recorded")
        }
        note("\(server.name) loses power")
        coverage.lossesOfPower += 1
        let image = recorded.afterLossOfPower(&random)
        server.isDying = true
        server.die()
        write(image, to: server.node)
    }

    /// A page under the log that `server` has of `group` fails: it reads as zeros there, and what it stores there does not reach the file (S26). As the
    /// kernel does it for a page that the file has lost for a moment.
    func failMemory(of server: Server, under group: SimGroup) {
        let region = server.engine(of: group).region
        let place = random.between(0, region.ringBytes / Self.pageBytes - 1) * Self.pageBytes
        group.note("\(server.name)'s memory fails at byte \(place) of its ring")
        coverage.memoriesFailed += 1
        server.node.memoryFailedAt = now
        do {
            let file = try FileHandle(forUpdating: URL(fileURLWithPath: server.node.poolPath))
            try file.seek(toOffset: region.ringOffset + place)
            guard let lost = try file.readToEnd() else { preconditionFailure("the ring ends before its page") }
            try file.truncate(atOffset: region.ringOffset + place)
            var byte: UInt8 = 1
            withUnsafeMutableBytes(of: &byte) { region.readRing(from: LSN(place), into: $0) }
            precondition(byte == 0 && region.memoryFault != nil, "the page has not failed")
            try file.seek(toOffset: region.ringOffset + place)
            try file.write(contentsOf: lost)
            try file.close()
        } catch {
            preconditionFailure("\(error)")
        }
    }

    private static let pageBytes: UInt64 = 4096
}
