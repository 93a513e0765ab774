// The media of a group in memory, as both nodes reach them: a cache in front of sectors, an exclusive lock for each process, and the
// faults of real ones. The fault model is that of `FaultInjectingMedium`, shared by two nodes.

import ClusterConfiguration
import Coordination
import GroupEngine
import LogModel
import PersistentMemory
import SimulationSupport
import StorageMedium
import TestSupport

/// Some of the sectors of a small volume.
private struct Sectors {
    static let limit = 64
    private var bits: UInt64 = 0

    mutating func insert(_ sector: Int) { bits |= 1 << UInt64(sector) }
    mutating func remove(_ sector: Int) { bits &= ~(1 << UInt64(sector)) }

    /// In ascending order.
    var all: some Sequence<Int> {
        sequence(state: bits) { rest in
            guard rest != 0 else { return nil }
            defer { rest &= rest - 1 }
            return rest.trailingZeroBitCount
        }
    }
}

/// One volume's bytes. What was written since the last flush is read back at once; each sector of it may be gone after a loss of
/// power. What a failed flush gave up no later flush makes durable; only writing it anew does (S8).
final class StoredVolume {
    static let sectorBytes = 512

    let identity: UUID128
    private(set) var cached: [UInt8]
    private(set) var durable: [UInt8]
    private var dirty = Sectors()
    private var abandoned = Sectors()

    init(sizeBytes: Int, identity: UUID128) {
        precondition(sizeBytes <= Self.sectorBytes * Sectors.limit)
        self.identity = identity
        cached = Array(repeating: 0, count: sizeBytes)
        durable = cached
    }

    func write(_ bytes: ArraySlice<UInt8>, at offset: Int) {
        cached.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[offset...]).copyBytes(from: bytes) }
        for sector in sectors(offset, bytes.count) {
            dirty.insert(sector)
            abandoned.remove(sector)
        }
    }

    private func sectors(_ offset: Int, _ count: Int) -> Range<Int> {
        offset / Self.sectorBytes..<(offset + count + Self.sectorBytes - 1) / Self.sectorBytes
    }

    private func place(_ sector: Int) -> Range<Int> {
        sector * Self.sectorBytes..<min((sector + 1) * Self.sectorBytes, cached.count)
    }

    /// Some of the sectors of a write, whole and in no order.
    func tear(_ bytes: [UInt8], at offset: Int, _ random: inout SplitMix64) {
        for sector in sectors(offset, bytes.count) where random.chance(50) {
            let part = place(sector).clamped(to: offset..<offset + bytes.count)
            write(bytes[part.lowerBound - offset..<part.upperBound - offset], at: part.lowerBound)
        }
    }

    private func keep(_ sector: Int) {
        let place = place(sector)
        durable.withUnsafeMutableBytes { durable in
            cached.withUnsafeBytes { cached in
                UnsafeMutableRawBufferPointer(rebasing: durable[place])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: cached[place]))
            }
        }
    }

    func flush() {
        for sector in dirty.all { keep(sector) }
        dirty = Sectors()
    }

    func failFlush(_ random: inout SplitMix64) {
        for sector in dirty.all {
            if random.chance(50) { keep(sector) } else { abandoned.insert(sector) }
        }
        dirty = Sectors()
    }

    /// Whoever opens it reads past the cache, where it is not to be written back.
    func dropCleanPages() {
        for sector in abandoned.all { cached.replaceSubrange(place(sector), with: durable[place(sector)]) }
        abandoned = Sectors()
    }

    func losePower(_ random: inout SplitMix64) {
        for sector in dirty.all where random.chance(50) { keep(sector) }
        dirty = Sectors()
        abandoned = Sectors()
        cached = durable
    }
}

/// All volumes of one group.
final class Media {
    let volumes: [String: StoredVolume]
    /// The process that holds the lock.
    var holder: Server?
    var fails = false
    var isFull = false
    /// A flush that began before a loss of power fails.
    private(set) var powerCuts = 0

    init(_ configuration: [ClusterConfiguration.Volume], _ random: inout SplitMix64) {
        var volumes: [String: StoredVolume] = [:]
        for volume in configuration {
            volumes[volume.name] = StoredVolume(
                sizeBytes: Int(volume.sizeBytes), identity: UUID128.random(using: &random))
        }
        self.volumes = volumes
    }

    func losePower(_ random: inout SplitMix64) {
        powerCuts += 1
        for (_, volume) in volumes.sorted(by: { $0.key < $1.key }) { volume.losePower(&random) }
    }

    func stored(_ volume: ClusterConfiguration.Volume) -> StoredVolume {
        guard let stored = volumes[volume.name] else { preconditionFailure("\(volume.name) is configured") }
        return stored
    }
}

/// A volume as one process has it open.
final class OpenedMedium: Medium, @unchecked Sendable {
    // Sendable: whoever calls it holds the world's baton. Unsafe: both end with the world, and nothing runs in it then.
    private unowned(unsafe) let server: Server
    private unowned(unsafe) let group: SimGroup
    private let name: String
    private let stored: StoredVolume
    let sizeBytes: UInt64
    /// The losses of power when the oldest write was made that is not flushed.
    private var unflushedSince: Int?

    init(_ server: Server, _ group: SimGroup, _ volume: ClusterConfiguration.Volume) {
        self.server = server
        self.group = group
        name = volume.name
        stored = group.media.stored(volume)
        sizeBytes = volume.sizeBytes
    }

    private var world: World { server.world }
    private var media: Media { group.media }
    private var path: MediumPath { group.path(of: server.node) }

    private func failure(_ code: MediumError.Code, errno: Int32 = 5) -> MediumError {
        MediumError(code, "\(name): \(code) failed (errno \(errno))", errno: errno)
    }

    private var isFailing: Bool { media.fails || path.fails }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        guard server.spend(world.mediumCallTime(), hang: path.hang), !isFailing else {
            throw failure(.read)
        }
        buffer.copyBytes(from: stored.cached[Int(offset)..<Int(offset) + buffer.count])
    }

    /// A cache has it or not.
    func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool {
        guard !path.hang.isOn, world.random.chance(50) else { return false }
        guard !isFailing else { throw failure(.read) }
        buffer.copyBytes(from: stored.cached[Int(offset)..<Int(offset) + buffer.count])
        world.coverage.readsAtOnce += 1
        return true
    }

    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        world.faults.willWrite(server, group)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(buffers.reduce(0) { $0 + $1.count })
        for buffer in buffers { bytes.append(contentsOf: buffer) }
        try change(bytes, at: offset, .write)
    }

    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        try change(Array(repeating: 0, count: Int(range.length)), at: range.offset, .discard)
    }

    /// A process that dies in the call, or a medium that fails, leaves any of its sectors.
    private func change(_ bytes: [UInt8], at offset: UInt64, _ code: MediumError.Code) throws(MediumError) {
        let returned = server.spend(world.mediumCallTime(), hang: path.hang)
        guard server.mayTouchMedia else { throw failure(code) }
        if media.isFull, returned { throw failure(code, errno: 28) }
        unflushedSince = unflushedSince ?? media.powerCuts
        group.oracle.willWrite(server, name)
        guard returned, !isFailing else {
            world.coverage.tornWrites += 1
            stored.tear(bytes, at: Int(offset), &world.random)
            throw failure(code)
        }
        group.note("  \(server.name) writes \(name) [\(offset), \(offset + UInt64(bytes.count)))")
        stored.write(bytes[...], at: Int(offset))
    }

    func flush() throws(MediumError) {
        let returned = server.spend(4 * world.mediumCallTime(), hang: path.hang)
        guard !server.isDead else { throw failure(.flush) }
        guard returned, !isFailing, (unflushedSince ?? media.powerCuts) == media.powerCuts else {
            unflushedSince = nil
            stored.failFlush(&world.random)
            throw failure(.flush)
        }
        unflushedSince = nil
        stored.flush()
    }
}

/// What one process opens and locks.
final class ProcessMediumGuard: MediumGuard, @unchecked Sendable {
    // Sendable: whoever calls it holds the world's baton.
    private unowned let server: Server

    init(_ server: Server) { self.server = server }

    /// Whose media these are: all of one group, or the engine mixes them up.
    private func group(of expected: [ExpectedMedium]) throws(MediumError) -> SimGroup {
        guard let group = expected.first.flatMap({ server.world.group($0.group) }),
            expected.allSatisfy({ $0.group == group.id && group.has($0.volume) })
        else {
            for group in server.world.groups {
                group.oracle.expect(false, "\(server.name) takes media of several groups: \(expected)")
            }
            throw MediumError(.open, "no group has these media")
        }
        return group
    }

    private func problem(of group: SimGroup) -> MediumError? {
        guard group.media.fails || group.path(of: server.node).fails else { return nil }
        return MediumError(.open, "the medium cannot be reached", errno: 5)
    }

    private func check(_ expected: ExpectedMedium, _ media: Media) throws(MediumError) {
        let identity = media.stored(expected.volume).identity
        guard expected.expectation.identity == nil || expected.expectation.identity == identity else {
            throw MediumError(.otherMedium, "\(expected.volume.name) has identity \(identity)")
        }
        try expected.checkProof()
    }

    func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia {
        let group = try group(of: expected)
        let media = group.media
        guard server.spend(server.world.mediumCallTime(), hang: group.path(of: server.node).hang) else {
            throw MediumError(.open, "the process is gone")
        }
        if let problem = problem(of: group) { throw problem }
        for one in expected { try check(one, media) }
        guard media.holder == nil else {
            throw MediumError(.locked, "\(media.holder?.name ?? "") holds the lock of the medium")
        }
        media.holder = server
        for one in expected { media.stored(one.volume).dropCleanPages() }
        let identities = expected.map { ($0.volume.name, media.stored($0.volume).identity) }
        return HeldMedia(
            media: expected.map { OpenedMedium(server, group, $0.volume) },
            identities: Dictionary(uniqueKeysWithValues: identities),
            release: { [self] () throws(MediumError) in try release(group) })
    }

    private func release(_ group: SimGroup) throws(MediumError) {
        guard server.spend(100 * microsecond, hang: group.path(of: server.node).hang) else {
            throw MediumError(.open, "the process is gone")
        }
        if group.media.holder === server { group.media.holder = nil }
    }

    func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook {
        guard server.world.looksFindFaults, let group = expected.first.flatMap({ server.world.group($0.group) }) else {
            return MediaLook()
        }
        if let problem = problem(of: group) { return MediaLook(problem: problem.message) }
        let holder = group.media.holder
        return MediaLook(stranger: holder.flatMap { $0.identity.pid == owner ? nil : "\($0.name) holds the medium" })
    }

    func readUncached(_ volume: ClusterConfiguration.Volume, _ range: ByteRange) throws(MediumError) -> [UInt8] {
        guard let group = server.world.groups.first(where: { $0.has(volume) }) else {
            throw MediumError(.open, "no group has \(volume.name)")
        }
        if let problem = problem(of: group) { throw problem }
        return Array(group.media.stored(volume).cached[Int(range.offset)..<Int(range.end)])
    }
}

/// Kills, and says so when the process is gone.
final class KillingFence: Fence, @unchecked Sendable {
    // Sendable: whoever calls it holds the world's baton.
    private unowned let server: Server
    private static let patience = 2 * second

    init(_ server: Server) { self.server = server }

    func confirmDead(
        _ process: ProcessIdentity, by node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        let world = server.world
        let deadline = world.now + Self.patience
        while let target = world.livingServer(process) {
            guard !world.fenceFails, world.now < deadline else { throw FenceError("\(target.name) may live") }
            if !target.isDying { world.coverage.fences += 1 }
            world.kill(target)
            guard server.spend(millisecond, hang: nil) else { throw FenceError("the fencing process is gone") }
        }
        return GroupRecord.Fence.Confirmation(method: "process", by: "\(node)", at: "\(world.now)")
    }
}

extension KillingFence {
    /// Where a death is seen, a fence need not bring it about.
    var endsProcesses: Bool { !server.world.seesDeath }

    func isGone(_ process: ProcessIdentity) -> Bool {
        server.world.seesDeath && server.world.livingServer(process) == nil
    }

    /// Every process of these nodes can be seen, so the pool's lock need not speak for it.
    func confirmEnded(
        predecessor: ProcessIdentity, of node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation? { nil }
}

/// Archives are counted, and cost nothing.
final class CountedArchives: LogArchives, @unchecked Sendable {
    // Sendable: whoever calls it holds the world's baton.
    private unowned let world: World

    init(_ world: World) { self.world = world }

    func archive(_ region: Region, upTo end: LSN, isPrunable: Bool) throws(ArchiveError) -> String {
        world.coverage.archives += 1
        return "archive-\(world.coverage.archives)"
    }
}
