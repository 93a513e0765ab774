// A medium for tests: another medium, with the faults of real ones. Chosen calls fail, tear, take time or are held; power
// is lost. The same seed and the same calls give the same bytes.
//
// The fault model:
//  - a torn write stores some of its sectors, whole and in no order, and fails;
//  - what was written since the last flush is read back at once, but each of its sectors may be gone after a loss of power;
//  - a flush that fails makes some of those sectors durable. The others are still read back and no later flush makes
//    them durable, as if their pages had been marked clean; only writing them anew does (S8).

internal import Glibc
package import LogModel
package import StorageMedium
internal import Synchronization

/// Thread-safe, like every medium. Keeps the earlier contents of every sector written since the last flush in memory.
package final class FaultInjectingMedium: Medium {
    package enum Operation: Hashable, Sendable, CaseIterable { case read, write, zero, flush }

    package enum Effect: Hashable, Sendable {
        /// Nothing is carried out (of a flush: some sectors become durable).
        case fail(errno: Int32)
        /// Of a write or a zero, some sectors are carried out; then it fails.
        case tear(errno: Int32)
        /// Carried out after a while.
        case delay(millis: UInt32)
        /// Carried out after ``FaultInjectingMedium/releaseHeld()``.
        case hold
    }

    package static let sectorBytes: UInt64 = 512

    package let sizeBytes: UInt64
    private let base: any Medium
    private let state: Mutex<State>

    fileprivate struct Fault {
        var operation: Operation
        var effect: Effect
        var callsBefore: Int
        var callsLeft: Int
    }

    fileprivate struct State {
        var random: SplitMix64
        var faults: [Fault] = []
        var calls: [Operation: Int] = [:]
        var held = 0
        var releases = 0
        /// Sectors written since the last flush, as they are on the medium after the worst loss of power.
        var unflushed: [UInt64: [UInt8]] = [:]
        /// Sectors that a failed flush gave up: no flush makes them durable any more.
        var abandoned: [UInt64: [UInt8]] = [:]
    }

    /// Owns `base` from now on: whoever writes to it directly defeats the accounting.
    package init(_ base: any Medium, seed: UInt64) {
        self.base = base
        sizeBytes = base.sizeBytes
        state = Mutex(State(random: SplitMix64(seed: seed)))
    }

    // MARK: Faults

    /// After `skipping` further calls of `operation`, the next `count` have `effect`. Of several faults that match a call, the
    /// first that was injected counts.
    package func inject(_ effect: Effect, on operation: Operation, skipping: Int = 0, count: Int = 1) {
        state.withLock {
            $0.faults.append(Fault(operation: operation, effect: effect, callsBefore: skipping, callsLeft: count))
        }
    }

    /// The medium is well again. Held calls stay held.
    package func removeFaults() { state.withLock { $0.faults = [] } }

    /// Calls so far, whatever became of them.
    package func calls(of operation: Operation) -> Int { state.withLock { $0.calls[operation] ?? 0 } }

    /// Calls that are held now.
    package var heldCalls: Int { state.withLock { $0.held } }

    /// Lets every call go on that is held now.
    package func releaseHeld() { state.withLock { $0.releases += 1 } }

    /// Of the sectors that no flush made durable, some go back to what they held before. Durable when it returns.
    package func losePower() throws(MediumError) {
        try state.withLock { state throws(MediumError) in
            for (sector, old) in state.unflushed.sorted(by: { $0.key < $1.key }) where state.random.below(2) == 1 {
                try put(old, at: sector * Self.sectorBytes)
            }
            for (sector, old) in state.abandoned { try put(old, at: sector * Self.sectorBytes) }
            state.unflushed = [:]
            state.abandoned = [:]
            try base.flush()
        }
    }

    /// Counts the call and waits if it is to; what is left to do to it.
    private func begin(_ operation: Operation) -> Effect? {
        let (effect, releases) = state.withLock { state -> (Effect?, Int) in
            state.calls[operation, default: 0] += 1
            let effect = state.nextEffect(on: operation)
            if effect == .hold { state.held += 1 }
            return (effect, state.releases)
        }
        switch effect {
        case .delay(let millis): usleep(millis * 1000)
        case .hold:
            while state.withLock({ $0.releases == releases }) { usleep(500) }
            state.withLock { $0.held -= 1 }
        case .fail, .tear, nil: break
        }
        return effect
    }

    private func failure(_ code: MediumError.Code, _ number: Int32) -> MediumError {
        MediumError(code, "injected: \(code) failed: \(String(cString: strerror(number)))", errno: number)
    }

    // MARK: Medium

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        switch begin(.read) {
        case .fail(let number), .tear(let number): throw failure(.read, number)
        case .delay, .hold, nil: try base.read(into: buffer, at: offset)
        }
    }

    /// At random, as a cache has it or not; never where the call is to take time.
    package func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool {
        let isReady = state.withLock { state in
            var ahead = state
            return switch ahead.nextEffect(on: .read) {
            case .delay, .hold: false
            case .fail, .tear, nil: state.random.below(2) == 1
            }
        }
        guard isReady else { return false }
        if case .fail(let number) = begin(.read) { throw failure(.read, number) }
        return try base.readNow(into: buffer, at: offset)
    }

    package func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        let effect = begin(.write)
        if case .fail(let number) = effect { throw failure(.write, number) }
        let bytes = buffers.flatMap(Array.init)
        try store(bytes, at: offset, tearing: effect, .write) { () throws(MediumError) in
            try base.write(buffers, at: offset)
        }
    }

    package func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        let effect = begin(.zero)
        if case .fail(let number) = effect { throw failure(.discard, number) }
        guard range.end <= sizeBytes else { return try base.zero(range, releasingSpace: releasingSpace) }
        let bytes = [UInt8](repeating: 0, count: Int(range.length))
        try store(bytes, at: range.offset, tearing: effect, .discard) { () throws(MediumError) in
            try base.zero(range, releasingSpace: releasingSpace)
        }
    }

    package func extents(of range: ByteRange, limit: Int) throws(MediumError) -> [MediumExtent] {
        switch begin(.read) {
        case .fail(let number), .tear(let number): throw failure(.read, number)
        case .delay, .hold, nil: try base.extents(of: range, limit: limit)
        }
    }

    package func prefetch(_ range: ByteRange) throws(MediumError) { try base.prefetch(range) }

    /// Remembers what the sectors held, then stores all of `bytes` by `whole`, or some sectors of them.
    private func store(
        _ bytes: [UInt8], at offset: UInt64, tearing effect: Effect?, _ code: MediumError.Code,
        _ whole: () throws(MediumError) -> Void
    ) throws(MediumError) {
        guard offset <= sizeBytes, UInt64(bytes.count) <= sizeBytes - offset else { return try whole() }
        try state.withLock { state throws(MediumError) in
            let pieces = Self.pieces(offset, bytes.count)
            for piece in pieces { try remember(piece.sector, &state) }
            guard case .tear(let number) = effect else { return try whole() }
            for piece in pieces where state.random.below(2) == 1 {
                try put(Array(bytes[piece.bytes]), at: offset + UInt64(piece.bytes.lowerBound))
            }
            throw failure(code, number)
        }
    }

    package func flush() throws(MediumError) {
        let effect = begin(.flush)
        try state.withLock { state throws(MediumError) in
            switch effect {
            case .fail(let number), .tear(let number):
                for (sector, old) in state.unflushed.sorted(by: { $0.key < $1.key }) where state.random.below(2) == 1 {
                    state.abandoned[sector] = old
                }
                state.unflushed = [:]
                throw failure(.flush, number)
            case .delay, .hold, nil:
                try base.flush()
                state.unflushed = [:]
            }
        }
    }

    // MARK: Sectors

    /// The parts of `count` bytes at `offset` by the sector that each lies in.
    private static func pieces(_ offset: UInt64, _ count: Int) -> [(sector: UInt64, bytes: Range<Int>)] {
        var pieces: [(UInt64, Range<Int>)] = []
        var done = 0
        while done < count {
            let position = offset + UInt64(done)
            let length = min(Int(sectorBytes - position % sectorBytes), count - done)
            pieces.append((position / sectorBytes, done..<done + length))
            done += length
        }
        return pieces
    }

    private func remember(_ sector: UInt64, _ state: inout State) throws(MediumError) {
        guard state.unflushed[sector] == nil else { return }
        if let old = state.abandoned.removeValue(forKey: sector) {
            state.unflushed[sector] = old
            return
        }
        let offset = sector * Self.sectorBytes
        var old = [UInt8](repeating: 0, count: Int(min(Self.sectorBytes, sizeBytes - offset)))
        let result = old.withUnsafeMutableBytes { space in
            Result { () throws(MediumError) in try base.read(into: space, at: offset) }
        }
        try result.get()
        state.unflushed[sector] = old
    }

    private func put(_ bytes: [UInt8], at offset: UInt64) throws(MediumError) {
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(MediumError) in try base.write([bytes], at: offset) }
        }
        try result.get()
    }
}

extension FaultInjectingMedium.State {
    fileprivate mutating func nextEffect(on operation: FaultInjectingMedium.Operation) -> FaultInjectingMedium.Effect? {
        for index in faults.indices where faults[index].operation == operation {
            if faults[index].callsBefore > 0 {
                faults[index].callsBefore -= 1
            } else if faults[index].callsLeft > 0 {
                faults[index].callsLeft -= 1
                return faults[index].effect
            }
        }
        return nil
    }
}
