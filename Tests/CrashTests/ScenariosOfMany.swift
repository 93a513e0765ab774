// Scenarios with more than one party: several writers on one log, and a mirror.

import CLogCore
import ClusterProtocol
import LogModel
import PersistentMemory
import RemoteMemory
import TestSupport
import Testing
import WriteLog

@testable import GroupEngine

extension Scenario {
    /// Writers that store side by side. Each one's stores are recorded on their own and then woven together from the
    /// seed: they are of different bytes, so any order that keeps each writer's own is one that threads could have had.
    static let writers = Scenario(name: "writers") { rig, random in
        let raw = try Recording()
        let weave = try Weave(raw, rig)
        for _ in 0..<rig.times(14) {
            try weave.round(writers: 2 + Int(random.below(3)), &random)
            if random.below(3) == 0 { try weave.trim() }
        }
    }

    /// The mirror's side: what it completed was drained into its own memory (S11).
    static let mirror = Scenario(name: "mirror") { rig, random in
        let mirror = try Mirrored(rig)
        for number in 0..<rig.times(30) {
            try mirror.append(random.bytes(Int(random.below(number % 3 == 0 ? 2500 : 20)) + 1), &random)
            if random.below(3) > 0 { try mirror.ship() }
            if random.below(6) == 0 { try mirror.trim(to: mirror.shipped) }
        }
        try mirror.ship()
    }

    /// An owner that went on alone destages and trims what it never shipped: the mirror's log goes on behind a gap.
    static let mirrorThatSkips = Scenario(name: "mirror-that-skips", beforeEnd: 192) { rig, random in
        let mirror = try Mirrored(rig)
        for round in 0..<rig.times(8) {
            for _ in 0..<1 + random.below(2) { try mirror.append(random.bytes(Int(random.below(90)) + 1), &random) }
            try mirror.ship()
            for _ in 0..<1 + random.below(2) {
                try mirror.append(random.bytes(Int(random.below(9)) + 1), &random, acknowledge: true)
            }
            let head = rig.log.published
            // What arrives in one turn is stored first and then persisted together. The first of them knows that all before
            // the head is acknowledged. One that knew it of another of them would rightly make corrupt what a crash leaves
            // without the other: a mirror that is being caught up promises nothing.
            let isTogether = round % 2 == 0
            for index in 0..<1 + random.below(2) where isTogether {
                try mirror.append(random.bytes(Int(random.below(9)) + 1), &random, acknowledge: index == 0)
            }
            try mirror.trim(to: head, andShip: isTogether)
        }
    }
}

/// Weaves the recordings of several writers into one.
private final class Weave {
    private let raw: Recording
    private let rig: LogRig
    private var taken = 0
    private var log: OpaquePointer!
    private var needsSync: Bool { rig.region.persistence == .msync }

    init(_ raw: Recording, _ rig: LogRig) throws {
        self.raw = raw
        self.rig = rig
        // What the log stores from here on goes to `raw`; the ledger's recording takes it over in the woven order.
        rig.region.mapping.persist.pointee.recorder = raw.recorder
        var ring = try #require(rig.region.ring)
        try #require(tl_log_create(&log, rig.region.mapping.persist, &ring, rig.log.published.rawValue) == 0)
    }

    deinit {
        rig.region.mapping.persist.pointee.recorder = rig.ledger.recording.recorder
        tl_log_destroy(log)
    }

    private struct Part {
        var write: tl_write
        var bytes: [UInt8]
        var place: tl_reservation
        var operations: Range<Int>
    }

    /// Each writer reserves, all store, in any order; then all publish, in any order.
    func round(writers: Int, _ random: inout SplitMix64) throws {
        var parts: [Part] = []
        for _ in 0..<writers {
            var write = tl_write()
            let bytes = random.bytes(Int(random.below(random.below(2) == 0 ? 12 : 400)) + 1)
            write.kind = TL_KIND_DATA
            write.length = UInt64(bytes.count)
            write.offset = random.below(32000)
            write.volume = volume.rawValue
            write.acknowledged = rig.ledger.promise.acknowledged.rawValue
            var place = tl_reservation()
            guard tl_log_reserve(log, &write, &place) == TL_LOG_DONE else { break }
            parts.append(Part(write: write, bytes: bytes, place: place, operations: 0..<0))
        }
        for index in parts.indices.shuffled(using: &random) { store(&parts[index]) }
        taken = raw.count
        for part in parts { note(part) }
        weave(parts, &random)
        for index in parts.indices.shuffled(using: &random) { tl_log_publish(log, &parts[index].place) }
        if needsSync, let end = parts.last?.place.end { try sync(to: LSN(end)) }
    }

    /// On an ordinary file one `msync` makes them all durable.
    private func sync(to end: LSN) throws {
        taken = raw.count
        try rig.region.syncRing(from: rig.ledger.promise.acknowledged, to: end)
        for index in taken..<raw.count { add(index, thread: 0) }
        taken = raw.count
        rig.ledger.promise { $0.acknowledged = end }
    }

    private func store(_ part: inout Part) {
        let first = raw.count
        part.bytes.withUnsafeBytes { bytes in
            var write = part.write
            write.payload = bytes.baseAddress
            withUnsafePointer(to: part.place) { tl_log_store(log, &write, $0) }
        }
        part.operations = first..<raw.count
    }

    private func note(_ part: Part) {
        rig.note(
            IssuedWrite(
                start: LSN(part.place.start), end: LSN(part.place.end), offset: Int(part.write.offset),
                effect: .data(part.bytes)), LSN(part.write.acknowledged))
    }

    /// A write is acknowledged when it and everything below it has drained (S1).
    private func weave(_ parts: [Part], _ random: inout SplitMix64) {
        var left = parts.map(\.operations)
        while let writer = left.indices.filter({ !left[$0].isEmpty }).randomElement(using: &random) {
            add(left[writer].removeFirst(), thread: UInt32(writer))
            guard !needsSync, left[writer].isEmpty,
                let open = left.firstIndex(where: { !$0.isEmpty }) ?? left.indices.last
            else { continue }
            let end = left[open].isEmpty ? parts[open].place.end : parts[open].place.start
            if LSN(end) > rig.ledger.promise.acknowledged { rig.ledger.promise { $0.acknowledged = LSN(end) } }
        }
    }

    private func add(_ index: Int, thread: UInt32) {
        var operation = raw[index]
        operation.thread = thread
        tl_recorder_add(rig.ledger.recording.recorder, &operation)
    }

    func trim() throws {
        let head = rig.ledger.promise.acknowledged
        rig.ledger.life.tellHead(head)
        rig.ledger.life.mostAcknowledged = max(rig.ledger.life.mostAcknowledged, head)
        try rig.region.setHead(head, acknowledged: head)
        for index in taken..<raw.count { add(index, thread: 0) }
        taken = raw.count
        rig.ledger.promise { $0.head = head }
        tl_log_set_reclaim(log, head.rawValue)
    }
}

/// An owner's log that is shipped to the region under test, through the node's own mirror target.
private final class Mirrored {
    private let rig: LogRig
    private let owner: Pool
    private let from: Region
    private let target: MirrorTarget
    private let folder: Folder
    private let runtime = InlineRuntime()
    private(set) var shipped: LSN

    /// The region becomes a mirror; the rig's log is the owner's, in a pool of its own.
    init(_ rig: LogRig) throws {
        self.rig = rig
        folder = try Folder()
        owner = try Pool.create(
            path: folder.file("owner"), sizeBytes: rig.region.ringBytes + (64 << 10), identity: poolIdentity,
            persistence: .volatile)
        from = try owner.allocateRegion(group: group, ringBytes: rig.region.ringBytes)
        var identity = rig.ledger.life.identity
        identity.role = .mirror
        identity.incarnation = Incarnation(identity.incarnation.rawValue + 1)
        shipped = identity.startLSN
        try rig.format(identity, medium: rig.ledger.life.medium)
        try from.format(role: .owner, logUUID: logUUID, incarnation: identity.incarnation, start: shipped)
        rig.log = try WriteLog(region: from)
        target = MirrorTarget(
            region: rig.region, durable: shipped, head: shipped, runtime: runtime)
    }

    /// `acknowledge`: by the owner alone, as when the mirror is not required.
    func append(_ bytes: [UInt8], _ random: inout SplitMix64, acknowledge: Bool = false) throws {
        let acknowledged = acknowledge ? rig.log.published : rig.ledger.promise.acknowledged
        let at = random.below(UInt64(32768 - bytes.count))
        let outcome = bytes.withUnsafeBytes {
            rig.log.append(volume: volume, offset: at, .data($0), acknowledged: acknowledged)
        }
        guard case .appended(let place) = outcome else { throw Fault("the owner's log is full") }
        var stored = [UInt8](repeating: 0, count: Int(place.end - place.start))
        stored.withUnsafeMutableBytes { from.readRing(from: place.start, into: $0) }
        rig.ledger.life.add(
            IssuedWrite(start: place.start, end: place.end, offset: Int(at), effect: .data(bytes)), bytes: stored)
        rig.ledger.life.mostAcknowledged = max(rig.ledger.life.mostAcknowledged, acknowledged)
    }

    /// One WRITE for each contiguous piece, one completion for all.
    func ship() throws {
        let to = rig.log.published
        try post(to)
        try complete { $0.acknowledged = to }
    }

    private func post(_ to: LSN) throws {
        try from.withRingBytes(from: shipped, count: to - shipped) { piece in
            try target.write(piece, at: shipped.rawValue % from.ringBytes)
            shipped = shipped + UInt64(piece.count)
        }
    }

    private func complete(_ change: (inout Promise) -> Void) throws {
        if rig.region.persistence == .msync {
            try persistOnTheDisk()
        } else {
            var failure: RemoteMemoryError?
            var isCompleted = false
            target.persist {
                failure = $0
                isCompleted = true
            }
            if let failure { throw failure }
            try #require(isCompleted, "on persistent memory a completion does not wait")
        }
        rig.ledger.promise(change)
    }

    private func persistOnTheDisk() throws {
        var outcome: RemoteMemoryError??
        target.persist { outcome = $0 }
        runtime.settle()
        if let failure = try #require(outcome) { throw failure }
    }

    /// The owner's head moves to `head`, also past what was shipped, and the mirror is told.
    func trim(to head: LSN, andShip: Bool = false) throws {
        rig.ledger.life.tellHead(head)
        rig.ledger.life.mostAcknowledged = max(rig.ledger.life.mostAcknowledged, head)
        try rig.log.setHead(head, acknowledged: head)
        rig.log.setReclaimLimit(head)
        try target.atomicWrite(head.rawValue, at: from.ringBytes)
        shipped = max(shipped, head)
        if andShip { try post(rig.log.published) }
        let reached = shipped
        try complete {
            $0.head = head
            $0.acknowledged = max($0.acknowledged, reached)
        }
    }
}

/// Everything happens on the calling thread; what comes back does so in `settle`.
private final class InlineRuntime: Runtime {
    let now: Nanos = 0
    private var waiting: [() -> Void] = []

    func execute(_ body: @escaping () -> Void) { waiting.append(body) }
    func executeNextTurn(_ body: @escaping () -> Void) { waiting.append(body) }
    func execute(after delay: Nanos, _ body: @escaping () -> Void) { waiting.append(body) }

    func perform(
        _ work: BlockingWork, _ body: @escaping @Sendable () -> Void, _ done: @escaping ((any Error)?) -> Void
    ) {
        body()
        waiting.append { done(nil) }
    }

    func settle() {
        while !waiting.isEmpty { waiting.removeFirst()() }
    }
}
