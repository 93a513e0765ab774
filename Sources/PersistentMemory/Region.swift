// A group's region of a pool: whose log it holds, where the un-destaged records begin, and the ring of their bytes.
//
// Invariants:
//  - an incarnation begins with one durable block, the identity slot; its head is its start until a head of the same
//    incarnation is durable (S4), so a crash leaves either the old incarnation or the new one;
//  - heads and acknowledged LSNs only grow within an incarnation.

package import CLogCore
import Glibc
public import LogModel
import Synchronization

/// Safe from any number of threads, except that on persistent memory ``drain()`` covers the stores of its own thread,
/// so a mirror stores and drains on one thread.
public final class Region: Sendable {
    public let group: GroupID
    /// Of the region, in the file.
    public let offset: UInt64
    public let ringBytes: UInt64
    package let mapping: Mapping
    /// Held while a slot is stored, which in msync mode takes as long as the disk does.
    private let state: Mutex<State>
    /// What of it is durable, for whoever only looks; never held over a store, so that an event loop may look at any time.
    private let visible: Mutex<Visible>
    private let undrained = Mutex(Undrained())

    private struct State {
        var identity: IdentitySlot?
        var identityTurn: Int
        var head = HeadSlot(sequence: 0, head: .zero, acknowledged: .zero)
        var headTurn = 0
        var standing = StandingSlot(sequence: 0, standing: RegionStanding())
        var standingTurn = 0
    }

    private struct Visible {
        var identity: RegionIdentity?
        var head: LSN
        var acknowledged: LSN
        var standing: RegionStanding

        init(_ state: State) {
            standing = state.standing.standing
            identity = state.identity?.identity
            head = state.head.head
            acknowledged = state.head.acknowledged
        }
    }

    public var persistence: Persistence { mapping.persistence }
    /// Where the ring starts in the file: an LSN's place is `ringOffset + LSN mod ringBytes`.
    public var ringOffset: UInt64 { offset + RegionFormat.headerBytes }
    /// `nil` until the region is formatted for the first time.
    public var identity: RegionIdentity? { visible.withLock { $0.identity } }
    /// Where un-destaged records begin, durably.
    public var head: LSN { visible.withLock { $0.head } }
    /// The highest acknowledged LSN that the head slots know (S5).
    public var acknowledged: LSN { visible.withLock { $0.acknowledged } }

    /// What this region has seen of the coordinator, durably.
    public var standing: RegionStanding { visible.withLock { $0.standing } }

    /// What of this region's memory has failed since the pool was opened (S26); `nil` on a good day, which costs one load.
    /// There the region reads as zeros, and what is stored does not reach the file: nothing of it may be called durable.
    public var memoryFault: MemoryFault? {
        guard mapping.hasFaults else { return nil }
        return memoryFault(in: [offset..<ringOffset + ringBytes])
    }

    /// The same, of the bytes that hold `[lsn, lsn + count)`. Precondition: at most the ring's size.
    public func memoryFault(from lsn: LSN, count: UInt64) -> MemoryFault? {
        precondition(count <= ringBytes)
        guard mapping.hasFaults else { return nil }
        let place = lsn.rawValue % ringBytes
        let first = min(count, ringBytes - place)
        return memoryFault(in: [
            ringOffset + place..<ringOffset + place + first, ringOffset..<ringOffset + count - first,
        ])
    }

    /// The same, of identity and head.
    public var memoryFaultOfHeader: MemoryFault? { memoryFault(in: [offset..<ringOffset]) }

    private func memoryFault(in ranges: [Range<UInt64>]) -> MemoryFault? {
        let faults = ranges.flatMap(mapping.faults(in:))
        guard let first = faults.first else { return nil }
        return MemoryFault(
            path: mapping.path,
            fileOffsets: faults.dropFirst().reduce(first) { low, next in
                min(low.lowerBound, next.lowerBound)..<max(low.upperBound, next.upperBound)
            }, firstLSN: self.lsn(at: first.lowerBound))
    }

    /// The position at or above the head whose place is at `fileOffset`; `nil` before the ring.
    private func lsn(at fileOffset: UInt64) -> LSN? {
        guard fileOffset >= ringOffset else { return nil }
        let head = head
        return head + (fileOffset - ringOffset + ringBytes - head.rawValue % ringBytes) % ringBytes
    }

    /// Whether no log was ever here: every byte is zero, but for the standing, and for one identity slot, which a crash of the first
    /// format may have left in any state. Reads all of it.
    public var isBlank: Bool {
        let identities = RegionFormat.identityOffsets, slotBytes = UInt64(RegionFormat.slotBytes)
        let slots = (identities + RegionFormat.standingOffsets).sorted()
        let ends = slots.dropFirst() + [ringOffset - offset + ringBytes]
        let others = zip(slots, ends).map { $0 + slotBytes..<$1 }
        return others.allSatisfy(isZero) && identities.contains { isZero($0..<$0 + slotBytes) }
    }

    private func isZero(_ bytes: Range<UInt64>) -> Bool {
        let first = mapping.base + Int(offset + bytes.lowerBound)
        return first.load(as: UInt8.self) == 0
            && memcmp(first, first + 1, Int(bytes.upperBound - bytes.lowerBound) - 1) == 0
    }

    // MARK: Opening

    /// Reads the slots; throws `corrupt` if both identity slots are damaged. Heals nothing by itself.
    init(_ entry: RegionDirectory.Entry, in mapping: Mapping) throws(PoolError) {
        group = entry.group
        offset = entry.offset
        ringBytes = entry.ringBytes
        self.mapping = mapping
        let loaded = try Self.load(entry.offset, mapping)
        state = Mutex(loaded)
        visible = Mutex(Visible(loaded))
    }

    private static func load(_ offset: UInt64, _ mapping: Mapping) throws(PoolError) -> State {
        let blocks = RegionFormat.identityOffsets.map { mapping.block(at: offset + $0, count: RegionFormat.slotBytes) }
        let slots = blocks.map(IdentitySlot.decode)
        // A crash of the first format leaves one slot damaged and the other untouched; no crash damages both.
        if slots[0] == nil, slots[1] == nil, !blocks[0].isZero, !blocks[1].isZero {
            throw PoolError(
                .corrupt, path: mapping.path, offset: offset, "both identity slots of the region are damaged")
        }
        let newest = (slots[1]?.sequence ?? 0) > (slots[0]?.sequence ?? 0) ? 1 : 0
        var state = State(identity: slots[newest], identityTurn: 1 - newest)
        if let identity = state.identity?.identity { loadHead(of: identity, into: &state, offset, mapping) }
        for (turn, place) in RegionFormat.standingOffsets.enumerated() {
            guard let slot = StandingSlot.decode(mapping.block(at: offset + place, count: RegionFormat.slotBytes)),
                slot.sequence > state.standing.sequence
            else { continue }
            state.standing = slot
            state.standingTurn = 1 - turn
        }
        return state
    }

    private static func loadHead(
        of identity: RegionIdentity, into state: inout State, _ offset: UInt64, _ mapping: Mapping
    ) {
        let seed = checksumSeed(log: identity.logUUID, incarnation: identity.incarnation)
        state.head = HeadSlot(sequence: 0, head: identity.startLSN, acknowledged: .zero)
        state.headTurn = 0
        for (turn, place) in RegionFormat.headOffsets.enumerated() {
            let block = mapping.block(at: offset + place, count: RegionFormat.slotBytes)
            // A head below the start is of an earlier format of the same incarnation (a mirror that came back).
            guard let slot = HeadSlot.decode(block, incarnation: identity.incarnation, seed: seed),
                slot.sequence > state.head.sequence
            else { continue }
            state.head = HeadSlot(
                sequence: slot.sequence, head: max(slot.head, identity.startLSN), acknowledged: slot.acknowledged)
            state.headTurn = 1 - turn
        }
    }

    /// Writes the twins of slots that a crash or rot has taken.
    func healSlots() throws(PoolError) {
        try state.withLock { state throws(PoolError) in
            if state.standing.sequence > 0 {
                let twin = offset + RegionFormat.standingOffsets[state.standingTurn]
                let block = state.standing.encoded()
                if !mapping.holds(block, at: twin) { try mapping.store(block, at: twin) }
            }
            guard let slot = state.identity else { return }
            let twin = offset + RegionFormat.identityOffsets[state.identityTurn]
            if IdentitySlot.decode(mapping.block(at: twin, count: RegionFormat.slotBytes)) == slot { return }
            try mapping.store(slot.encoded(), at: twin)
        }
    }

    /// Hands on the slots that memory knows, and where in the file they belong, while nobody stores one; of heads the newest, if it is lost.
    func withSlots(
        _ body: ([(offset: UInt64, block: ByteBlock)]) throws(PoolError) -> [UInt64]
    ) throws(PoolError) -> [UInt64] {
        try state.withLock { state throws(PoolError) in
            var slots: [(offset: UInt64, block: ByteBlock)] = []
            if state.standing.sequence > 0 {
                slots += RegionFormat.standingOffsets.map { (offset + $0, state.standing.encoded()) }
            }
            if let slot = state.identity {
                slots += RegionFormat.identityOffsets.map { (offset + $0, slot.encoded()) }
                let log = slot.identity
                let seed = checksumSeed(log: log.logUUID, incarnation: log.incarnation)
                let place = offset + RegionFormat.headOffsets[1 - state.headTurn]
                let block = mapping.block(at: place, count: RegionFormat.slotBytes)
                let found = HeadSlot.decode(block, incarnation: log.incarnation, seed: seed)
                // One below the start of the log counts as that start, and stays as it is.
                if state.head.sequence > 0, found?.sequence != state.head.sequence {
                    slots.append((place, state.head.encoded(incarnation: log.incarnation, seed: seed)))
                }
            }
            return try body(slots)
        }
    }

    /// The slots as they count now, each beside its twin, in the place of what is before the ring.
    func encodedSlots() -> ByteBlock {
        var header = ByteBlock(count: Int(RegionFormat.headerBytes))
        state.withLock { state in
            guard let slot = state.identity else { return }
            let (log, seed) = (
                slot.identity, checksumSeed(log: slot.identity.logUUID, incarnation: slot.identity.incarnation)
            )
            for offset in RegionFormat.identityOffsets { header.put(slot.encoded(), at: Int(offset)) }
            if state.head.sequence > 0 {
                let head = state.head.encoded(incarnation: log.incarnation, seed: seed)
                for offset in RegionFormat.headOffsets { header.put(head, at: Int(offset)) }
            }
            if state.standing.sequence > 0 {
                for offset in RegionFormat.standingOffsets { header.put(state.standing.encoded(), at: Int(offset)) }
            }
        }
        return header
    }

    // MARK: Identity and head

    /// Notes durably what was seen of the coordinator; a generation or an epoch below the one that is known is passed over.
    public func note(_ standing: RegionStanding) throws(PoolError) {
        try state.withLock { state throws(PoolError) in
            let known = state.standing.standing
            var next = standing.generation >= known.generation ? standing : known
            next.epoch = max(standing.epoch, known.epoch)
            guard next != known else { return }
            let slot = StandingSlot(sequence: state.standing.sequence + 1, standing: next)
            guard max(slot.sequence, next.generation, next.epoch.rawValue) <= PoolFormat.maximumSequence else {
                throw beyondFormat("generation \(next.generation) of the region")
            }
            // The older slot first; then its twin, so that one rotten slot never brings an older standing back.
            let first = state.standingTurn
            try mapping.store(slot.encoded(), at: offset + RegionFormat.standingOffsets[first])
            state.standing = slot
            state.standingTurn = 1 - first
            try mapping.store(slot.encoded(), at: offset + RegionFormat.standingOffsets[1 - first])
            show(state)
        }
    }

    /// The most that one start adds. What is counted stays exact in JSON for 2^33 starts.
    private static let largestStep: UInt64 = 1 << 20

    /// Counts a start durably, unless the one before was never known to be counted at the coordinator: then it is still the one that is
    /// being made.
    public func countStart() throws(PoolError) {
        var next = standing
        guard next.counted == next.generation else { return }
        next.generation += UInt64.random(in: 1...Self.largestStep)
        try note(next)
    }

    /// Begins an incarnation: identity and head are durable when it returns. A crash on the way leaves the region as
    /// it was or as it shall be. Throws `invalidValue` for an incarnation above 2^62, `corrupt` if what is there cannot be
    /// followed. Precondition: `start` is a multiple of 64 up to 2^62.
    public func format(role: RegionRole, logUUID: UUID128, incarnation: Incarnation, start: LSN) throws(PoolError) {
        precondition(start.rawValue % LSN.alignment == 0 && start.rawValue <= RegionFormat.maximumLSN)
        let identity = RegionIdentity(role: role, logUUID: logUUID, incarnation: incarnation, startLSN: start)
        try state.withLock { state throws(PoolError) in
            try write(identity, &state)
            undrained.withLock { $0 = Undrained() }
            Self.loadHead(of: identity, into: &state, offset, mapping)
            show(state)
        }
    }

    /// Notes durably that the recovery tool wrote this log to the medium. Precondition: formatted.
    public func markReplayed() throws(PoolError) {
        try state.withLock { state throws(PoolError) in
            guard var identity = state.identity?.identity else { preconditionFailure("the region was never formatted") }
            identity.isReplayed = true
            try write(identity, &state)
            show(state)
        }
    }

    private func show(_ state: State) {
        let now = Visible(state)
        visible.withLock { $0 = now }
    }

    /// The older slot first; then its twin, so that one rotten slot never brings an older incarnation back (S5).
    private func write(_ identity: RegionIdentity, _ state: inout State) throws(PoolError) {
        let slot = IdentitySlot(sequence: (state.identity?.sequence ?? 0) + 1, identity: identity)
        guard identity.incarnation.rawValue <= PoolFormat.maximumSequence else {
            throw PoolError(
                .invalidValue, path: mapping.path, offset: offset,
                "incarnation \(identity.incarnation) is beyond what the format holds")
        }
        guard slot.sequence <= PoolFormat.maximumSequence else {
            throw beyondFormat("sequence \(slot.sequence) of the log's identity")
        }
        let first = state.identityTurn
        try mapping.store(slot.encoded(), at: offset + RegionFormat.identityOffsets[first])
        state.identity = slot
        state.identityTurn = 1 - first
        try mapping.store(slot.encoded(), at: offset + RegionFormat.identityOffsets[1 - first])
    }

    /// Moves the head; durable when it returns. `head` must be a write boundary (S7) that is not below the present head,
    /// else `invalidValue`. The acknowledged LSN of the slot never goes down. Precondition: formatted.
    public func setHead(_ head: LSN, acknowledged: LSN) throws(PoolError) {
        try state.withLock { state throws(PoolError) in try store(head, acknowledged: acknowledged, &state) }
    }

    /// The same for several threads that each know a head, in no order: one that is not above the present head is passed over.
    /// It is acknowledged itself.
    public func advanceHead(to head: LSN) throws(PoolError) {
        try state.withLock { state throws(PoolError) in
            guard head > state.head.head else { return }
            try store(head, acknowledged: head, &state)
        }
    }

    private func store(_ head: LSN, acknowledged: LSN, _ state: inout State) throws(PoolError) {
        guard let identity = state.identity?.identity else { preconditionFailure("the region was never formatted") }
        guard head >= state.head.head, head.rawValue % LSN.alignment == 0,
            max(head, acknowledged).rawValue <= RegionFormat.maximumLSN
        else {
            throw PoolError(
                .invalidValue, path: mapping.path, offset: offset,
                "head \(head), acknowledged \(acknowledged) do not follow head \(state.head.head)")
        }
        let slot = HeadSlot(
            sequence: state.head.sequence + 1, head: head, acknowledged: max(acknowledged, state.head.acknowledged))
        if slot.head == state.head.head && slot.acknowledged == state.head.acknowledged { return }
        guard slot.sequence <= PoolFormat.maximumSequence else {
            throw beyondFormat("sequence \(slot.sequence) of the log's head")
        }
        let seed = checksumSeed(log: identity.logUUID, incarnation: identity.incarnation)
        try mapping.store(
            slot.encoded(incarnation: identity.incarnation, seed: seed),
            at: offset + RegionFormat.headOffsets[state.headTurn])
        state.head = slot
        state.headTurn = 1 - state.headTurn
        show(state)
    }

    /// What is here already counts so far that what comes next could not be read back: nothing that a program wrote.
    private func beyondFormat(_ what: String) -> PoolError {
        PoolError(
            .corrupt, path: mapping.path, offset: offset,
            "\(what) is beyond what the format holds: what is here now was not written by TwinLog")
    }

    // MARK: The ring

    /// The ring's memory. Valid as long as the region is referenced.
    package var ringBase: UnsafeMutableRawPointer { mapping.base + Int(ringOffset) }

    /// The ring and the checksum seed of its incarnation, as the C core sees them. `nil` if never formatted.
    package var ring: tl_ring? {
        identity.map { identity in
            tl_ring(
                bytes: UnsafePointer(ringBase.assumingMemoryBound(to: UInt8.self)), size: ringBytes,
                incarnation: identity.incarnation.rawValue,
                seed: checksumSeed(log: identity.logUUID, incarnation: identity.incarnation))
        }
    }

    /// Calls `body` with the contiguous pieces (one or two) of `[lsn, lsn + count)`, in order. Precondition: at most the
    /// ring's size.
    public func withRingBytes<E: Error>(
        from lsn: LSN, count: UInt64, _ body: (UnsafeRawBufferPointer) throws(E) -> Void
    ) throws(E) {
        precondition(count <= ringBytes)
        let place = lsn.rawValue % ringBytes
        let first = min(count, ringBytes - place)
        if first > 0 { try body(UnsafeRawBufferPointer(start: ringBase + Int(place), count: Int(first))) }
        if count > first { try body(UnsafeRawBufferPointer(start: ringBase, count: Int(count - first))) }
    }

    /// Copies the ring's bytes from `lsn` on into all of `buffer`. Precondition: at most the ring's size.
    public func readRing(from lsn: LSN, into buffer: UnsafeMutableRawBufferPointer) {
        var done = 0
        withRingBytes(from: lsn, count: UInt64(buffer.count)) { piece in
            UnsafeMutableRawBufferPointer(rebasing: buffer[done...]).copyMemory(from: piece)
            done += piece.count
        }
    }

    /// The mirror's side: copies `bytes` to the place of `lsn`. Durable after ``drain()``, on the same thread.
    /// Precondition: at most the ring's size.
    public func store(_ bytes: UnsafeRawBufferPointer, at lsn: LSN) {
        precondition(UInt64(bytes.count) <= ringBytes && !mapping.isReadOnly)
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        let place = lsn.rawValue % ringBytes
        let first = min(bytes.count, Int(ringBytes - place))
        tl_stream(mapping.persist, ringBase + Int(place), source, first)
        if first < bytes.count { tl_stream(mapping.persist, ringBase, source + first, bytes.count - first) }
        if persistence == .msync { tl_drain(mapping.persist) }
        undrained.withLock { undrained in
            undrained.note(place..<place + UInt64(first), isDeferred: persistence == .msync)
            if first < bytes.count {
                undrained.note(0..<UInt64(bytes.count - first), isDeferred: persistence == .msync)
            }
        }
    }

    /// Makes everything that was stored durable: a fence, or in msync mode `msync` of it (blocking). If that throws, nothing that
    /// was stored since the last drain counts until it is stored anew: the kernel may have marked as clean what it could not
    /// write, so the next `msync` would succeed without it.
    public func drain() throws(PoolError) {
        let taken = undrained.withLock { undrained in
            defer { undrained = Undrained() }
            return undrained
        }
        if persistence != .msync {
            precondition(taken.isOfThisThread, "a fence covers only its own thread's stores")
            return tl_drain(mapping.persist)
        }
        for range in taken.ranges {
            try mapping.sync(offset: ringOffset + range.lowerBound, count: range.upperBound - range.lowerBound)
        }
    }

    /// In msync mode, makes the ring's bytes of `[from, to)` durable (blocking); nothing otherwise.
    package func syncRing(from: LSN, to: LSN) throws(PoolError) {
        let place = from.rawValue % ringBytes, count = to - from
        precondition(count <= ringBytes)
        let first = min(count, ringBytes - place)
        try mapping.sync(offset: ringOffset + place, count: first)
        try mapping.sync(offset: ringOffset, count: count - first)
    }
}

/// Memory of a region that met an uncorrectable error, or that its file does not have any more.
public struct MemoryFault: Hashable, Sendable, CustomStringConvertible {
    public var path: String
    /// Of the pool's file: everything that failed lies in it.
    public var fileOffsets: Range<UInt64>
    /// The first position of the log that failed; `nil` if it was the region's header.
    public var firstLSN: LSN?

    public var description: String {
        let place = firstLSN.map { "the log from LSN \($0)" } ?? "the log's header"
        return "\(path): memory at \(fileOffsets.lowerBound)..<\(fileOffsets.upperBound) has failed (\(place))"
    }
}

/// What was stored to a ring since the last drain.
private struct Undrained {
    /// Beyond it, one range that covers them all: a drain's work stays bounded.
    private static let maximumRanges = 64

    var ranges: [Range<UInt64>] = []
    private var thread: pthread_t?

    /// Precondition of a fence.
    var isOfThisThread: Bool { thread.map { pthread_equal($0, pthread_self()) != 0 } ?? true }

    mutating func note(_ range: Range<UInt64>, isDeferred: Bool) {
        guard isDeferred else {
            precondition(isOfThisThread, "stores of two threads before a drain")
            thread = pthread_self()
            return
        }
        if let last = ranges.last, last.upperBound == range.lowerBound {
            ranges[ranges.count - 1] = last.lowerBound..<range.upperBound
        } else {
            ranges.append(range)
        }
        guard ranges.count > Self.maximumRanges else { return }
        let low = ranges.reduce(range.lowerBound) { min($0, $1.lowerBound) }
        ranges = [low..<ranges.reduce(range.upperBound) { max($0, $1.upperBound) }]
    }
}
