// A heal that is cut at any store, and any choice of lines that reached memory since the last drain, is finished by
// running it again: the same pool in the end, and at no moment less than before (S10).

import CLogCore
import Foundation
import LogModel
import PersistentMemory
import Recovery
import TestSupport
import Testing
import WriteLog

struct HealCutTests {
    private static let lineBytes = 64

    /// The lines that a recorded operation stores: where, and what.
    private func lines(_ operation: tl_operation) -> [(offset: Int, bytes: [UInt8])] {
        guard operation.kind == TL_OPERATION_STREAM || operation.kind == TL_OPERATION_STORE else { return [] }
        let bytes = Array(UnsafeBufferPointer(start: operation.bytes, count: Int(operation.count)))
        return stride(from: 0, to: bytes.count, by: Self.lineBytes).map {
            (Int(operation.offset) + $0, Array(bytes[$0..<min($0 + Self.lineBytes, bytes.count)]))
        }
    }

    private func recordedHeal(_ pair: Pair) throws -> [tl_operation] {
        let recorder = try #require(tl_recorder_create())
        defer { tl_recorder_destroy(recorder) }
        try pair.mirror.reopen(recorder: recorder)
        let outcome = try pair.healMirror()
        try #require(outcome.verdict == .clean && outcome.healedRecords >= 5)
        pair.mirror.close()
        return (0..<tl_recorder_count(recorder)).map { tl_recorder_operation(recorder, $0) }
            .map { operation in
                // Owned by the recorder: copied before it goes.
                var copy = operation
                if operation.count > 0, let bytes = operation.bytes {
                    let kept = UnsafeMutablePointer<UInt8>.allocate(capacity: Int(operation.count))
                    kept.update(from: bytes, count: Int(operation.count))
                    copy.bytes = UnsafePointer(kept)
                }
                return copy
            }
    }

    /// Some records of one copy are gone; or the copy is stale, so that its head moves before anything is stored.
    @Test(arguments: [false, true]) func aCutHealIsFinishedByTheNext(isStale: Bool) throws {
        let pair = try isStale ? Pair.stale() : Pair.filled(seed: 5)
        for index in isStale ? [] : [0, 3, 4, 8, 11] {
            try pair.mirror.zero(pair.writes[index].start..<pair.writes[index].end)
        }
        pair.mirror.close()
        let before = [UInt8](try data(of: pair.mirror.path))
        let operations = try recordedHeal(pair)
        defer { for operation in operations { operation.bytes?.deallocate() } }
        let healed = try data(of: pair.mirror.path)
        var random = SplitMix64(seed: 6)
        var durable = before, states = 0
        var pending: [(offset: Int, bytes: [UInt8])] = []
        /// What memory holds if of the pending lines only `kept` arrived.
        func check(_ kept: [(offset: Int, bytes: [UInt8])]) throws {
            var image = durable
            for line in kept { image.replaceSubrange(line.offset..<line.offset + line.bytes.count, with: line.bytes) }
            try Data(image).write(to: URL(fileURLWithPath: pair.mirror.path))
            try pair.mirror.reopen()
            #expect(try pair.healMirror().verdict == .clean)
            pair.mirror.close()
            #expect(try data(of: pair.mirror.path) == healed)
            states += 1
        }
        for operation in operations {
            pending += lines(operation)
            guard operation.kind == TL_OPERATION_DRAIN, !pending.isEmpty else { continue }
            for cut in 0...pending.count { try check(Array(pending.prefix(cut))) }
            for left in pending.indices { try check(pending.indices.filter { $0 != left }.map { pending[$0] }) }
            for _ in 0..<40 { try check(pending.filter { _ in Bool.random(using: &random) }) }
            for line in pending {
                durable.replaceSubrange(line.offset..<line.offset + line.bytes.count, with: line.bytes)
            }
            pending = []
        }
        #expect(pending.isEmpty && Data(durable) == healed, "everything is drained in the end")
        #expect(states > 100)
    }
}
