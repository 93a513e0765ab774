// What persistent memory may hold after a crash, computed from a recorded run.
//
// The fault model: a streamed (non-temporal) store is durable after the next drain of its thread; until then any subset of
// its 8-byte words may have reached memory. A cached store is durable after a write-back of its line and a drain of the
// same thread; until then its line may be evicted at any moment, with any prefix of the line's stores. A crash keeps
// whatever was durable, and of the rest any such choice.

import CLogCore
import LogModel
import PersistentMemory
import Testing

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

struct Operation {
    var kind: tl_operation_kind
    var thread: UInt32
    var offset: Int
    var bytes: [UInt8]
    var count: Int
}

/// Notes what passes the persistence seam.
// @unchecked: a tl_recorder is safe from any thread.
final class Recording: @unchecked Sendable {
    let recorder: OpaquePointer

    init() throws { recorder = try #require(tl_recorder_create()) }
    deinit { tl_recorder_destroy(recorder) }

    /// From here on a crash must keep what `number` stands for.
    func mark(_ number: UInt64) { tl_recorder_mark(recorder, number) }

    var operations: [Operation] {
        (0..<tl_recorder_count(recorder)).map { index in
            let operation = tl_recorder_operation(recorder, index)
            let bytes = operation.bytes.map { Array(UnsafeBufferPointer(start: $0, count: Int(operation.count))) }
            return Operation(
                kind: operation.kind, thread: operation.thread, offset: Int(operation.offset), bytes: bytes ?? [],
                count: Int(operation.count))
        }
    }
}

/// One thing that memory may hold after a crash.
struct CrashState {
    var image: [UInt8]
    /// The marks that came before the crash.
    var marks: Set<UInt64>
    var description: String
}

struct CrashStates {
    private struct Pending {
        var offset: Int
        var bytes: [UInt8]
        var thread: UInt32
        /// A cached store must be written back first.
        var isWrittenBack: Bool
    }

    private let operations: [Operation]
    private var durable: [UInt8]
    private var pending: [Pending] = []
    private var marks: Set<UInt64> = []
    private var random: SeededGenerator
    /// Random choices at each drain, beside none, all, one line only and all but one line.
    private let randomChoices: Int

    init(from image: [UInt8], _ operations: [Operation], seed: UInt64, randomChoices: Int = 6) {
        self.operations = operations
        durable = image
        random = SeededGenerator(seed: seed)
        self.randomChoices = randomChoices
    }

    /// Calls `body` with the states of a crash right before every drain, and after the last operation. Returns their count.
    mutating func forEach(_ body: (CrashState) throws -> Void) rethrows -> Int {
        var count = 0
        for (index, operation) in operations.enumerated() {
            switch operation.kind {
            case TL_OPERATION_STREAM: add(operation, isWrittenBack: true)
            case TL_OPERATION_STORE: add(operation, isWrittenBack: false)
            case TL_OPERATION_WRITE_BACK: writeBack(operation)
            case TL_OPERATION_MARK: marks.insert(UInt64(operation.offset))
            default:
                count += try states(at: index, body)
                drain(operation.thread)
            }
        }
        return count + (try states(at: operations.count, body))
    }

    /// Split at words, the grain at which memory is atomic.
    private mutating func add(_ operation: Operation, isWrittenBack: Bool) {
        var done = 0
        while done < operation.bytes.count {
            let offset = operation.offset + done
            let count = min(8 - offset % 8, operation.bytes.count - done)
            pending.append(
                Pending(
                    offset: offset, bytes: Array(operation.bytes[done..<done + count]), thread: operation.thread,
                    isWrittenBack: isWrittenBack))
            done += count
        }
    }

    private mutating func writeBack(_ operation: Operation) {
        let lines = operation.offset / 64...(operation.offset + max(1, operation.count) - 1) / 64
        for index in pending.indices where lines.contains(pending[index].offset / 64) {
            if pending[index].thread == operation.thread { pending[index].isWrittenBack = true }
        }
    }

    private mutating func drain(_ thread: UInt32) {
        for store in pending where store.thread == thread && store.isWrittenBack { apply(store, to: &durable) }
        pending.removeAll { $0.thread == thread && $0.isWrittenBack }
    }

    private func apply(_ store: Pending, to image: inout [UInt8]) {
        image.replaceSubrange(store.offset..<store.offset + store.bytes.count, with: store.bytes)
    }

    private mutating func states(at index: Int, _ body: (CrashState) throws -> Void) rethrows -> Int {
        let lines = Array(Set(pending.map { $0.offset / 64 })).sorted()
        var choices: [(String, (Int) -> Bool)] = [("nothing undrained", { _ in false })]
        if !pending.isEmpty { choices.append(("everything undrained", { _ in true })) }
        // Single lines, at most eight spread over all of them, first and last always.
        let step = max(1, (lines.count + 6) / 7)
        for line in lines.enumerated().filter({ $0.offset % step == 0 || $0.offset == lines.count - 1 }).map(\.element)
        {
            let offsets = pending.map { $0.offset / 64 }
            choices.append(("line \(line) only", { offsets[$0] == line }))
            choices.append(("all but line \(line)", { offsets[$0] != line }))
        }
        for number in 0..<(pending.isEmpty ? 0 : randomChoices) {
            var choice = SeededGenerator(seed: random.next())
            let kept = pending.map { _ in choice.next() & 1 == 0 }
            choices.append(("random choice \(number)", { kept[$0] }))
        }
        for (name, isKept) in choices {
            var image = durable
            // In program order, so that a later store to the same word wins if both were kept.
            for (position, store) in pending.enumerated() where isKept(position) { apply(store, to: &image) }
            try body(CrashState(image: image, marks: marks, description: "operation \(index), \(name)"))
        }
        return choices.count
    }
}
