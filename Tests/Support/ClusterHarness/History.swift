// A history checker. Writers stamp blocks, each write with a stamp that no other has; whatever happens to the cluster
// meanwhile, a block must hold its last acknowledged stamp or one that was issued later, and once a stamp was seen, no
// earlier one may come back (S23). Each block has one writer, so its stamps are ordered.

public import Foundation
public import LogModel
package import NBDClient
public import NIOCore
import Synchronization
internal import TestSupport

/// What every byte of a stamped block must be.
public enum Stamp {
    public static let blockBytes = 4096

    public static func block(_ index: Int, stamp: UInt64) -> ByteBuffer {
        words(index, stamp).withUnsafeBytes { ByteBuffer(bytes: $0) }
    }

    /// The first word is the stamp, every other one depends on it, on the block and on its own place.
    private static func words(_ index: Int, _ stamp: UInt64) -> [UInt64] {
        let count = blockBytes / 8
        guard stamp != 0 else { return [UInt64](repeating: 0, count: count) }
        let base = (stamp &* 0x9e37_79b9_7f4a_7c15) ^ (UInt64(index) << 32)
        return [UInt64](unsafeUninitializedCapacity: count) { words, initialized in
            words[0] = stamp.littleEndian
            var word = 1
            while word < count {
                words[word] = (base ^ UInt64(truncatingIfNeeded: word)).littleEndian
                word &+= 1
            }
            initialized = count
        }
    }

    /// The stamp of a block's bytes; `nil` if they are not one whole block (torn, or another block's).
    public static func read(_ index: Int, _ bytes: some Collection<UInt8>) -> UInt64? {
        guard bytes.count == blockBytes else { return nil }
        let found = Array(bytes)
        return found.withUnsafeBytes { raw in
            let stamp = UInt64(littleEndian: raw.loadUnaligned(as: UInt64.self))
            return words(index, stamp).withUnsafeBytes { memcmp($0.baseAddress!, raw.baseAddress!, blockBytes) == 0 }
                ? stamp : nil
        }
    }
}

public final class History: Sendable {
    private struct Block {
        var issued: UInt64 = 0
        var acknowledged: UInt64 = 0
        var seen: UInt64 = 0
    }
    private struct State {
        var blocks: [Block]
        var acknowledgedWrites = 0
        var lastAcknowledgement = Date.distantPast
        var lastInstant = ContinuousClock.now
        var longestGap = Duration.zero
        var violations: [String] = []
    }
    private let state: Mutex<State>
    public let blockCount: Int

    public init(blockCount: Int) {
        self.blockCount = blockCount
        state = Mutex(State(blocks: [Block](repeating: Block(), count: blockCount)))
    }

    public func issue(_ block: Int) -> UInt64 {
        state.withLock { state in
            state.blocks[block].issued += 1
            return state.blocks[block].issued
        }
    }

    public func acknowledge(_ block: Int, _ stamp: UInt64) {
        state.withLock { state in
            state.blocks[block].acknowledged = max(state.blocks[block].acknowledged, stamp)
            state.acknowledgedWrites += 1
            state.lastAcknowledgement = Date()
            let now = ContinuousClock.now
            state.longestGap = max(state.longestGap, now - state.lastInstant)
            state.lastInstant = now
        }
    }

    /// The longest time without an acknowledgement since the last call of this, or since the history began.
    public func takeLongestGap() -> Duration {
        state.withLock { state in
            defer { state.longestGap = .zero }
            return max(state.longestGap, ContinuousClock.now - state.lastInstant)
        }
    }

    /// The oldest stamp that a read that begins now may return.
    public func floor(_ block: Int) -> UInt64 {
        state.withLock { max($0.blocks[block].acknowledged, $0.blocks[block].seen) }
    }

    /// A read that began when the floor was `floor` returned `bytes`.
    public func check(
        _ block: Int, _ bytes: some Collection<UInt8>, floor: UInt64, from place: String, isServed: Bool = true
    ) {
        let stamp = Stamp.read(block, bytes)
        state.withLock { state in
            let known = state.blocks[block]
            if let stamp, stamp >= floor, stamp <= known.issued {
                if isServed { state.blocks[block].seen = max(known.seen, stamp) }
                return
            }
            guard state.violations.count < 20 else { return }
            state.violations.append(
                "block \(block) on \(place): holds \(stamp.map { "stamp \($0)" } ?? "no whole stamp"), but \(floor) was acknowledged or seen before, \(known.issued) issued"
            )
        }
    }

    public var acknowledgedWrites: Int { state.withLock { $0.acknowledgedWrites } }
    public var lastAcknowledgement: Date { state.withLock { $0.lastAcknowledgement } }
    public var violations: [String] { state.withLock { $0.violations } }
}

/// One client that writes and reads its own blocks through whichever node serves them, until it is told to stop.
public final class HistoryWriter: Sendable {
    private let history: History
    private let blocks: [Int]
    private let addresses: [Endpoint]
    private let connect: Connect
    private let patience: TimeAmount?
    private let depth: Int
    private let seed: UInt64
    private let stopping = Atomic<Bool>(false)

    /// Opens the export at an address.
    package typealias Connect = @Sendable (Endpoint) async throws -> NBDClient

    /// Writer `index` of `count` has every `count`-th block.
    public convenience init(
        history: History, index: Int, of count: Int, addresses: [Endpoint], export: String,
        on group: any EventLoopGroup,
        depth: Int, seed: UInt64
    ) {
        self.init(history: history, index: index, of: count, addresses: addresses, depth: depth, seed: seed) {
            address in
            try await NBDClient.connect(to: address, export: export, on: group, timeout: .seconds(1))
        }
    }

    /// `patience`: without an answer for so long it gives its connection up; what was outstanding there may have been carried out or
    /// not. `connect` must then end that connection before it opens another one (S24).
    package init(
        history: History, index: Int, of count: Int, addresses: [Endpoint], depth: Int, seed: UInt64,
        patience: TimeAmount? = nil, connect: @escaping Connect
    ) {
        self.history = history
        blocks = Array(stride(from: index, to: history.blockCount, by: count))
        self.addresses = addresses
        self.connect = connect
        self.patience = patience
        self.depth = depth
        self.seed = seed &+ UInt64(index) &* 0x9e37_79b9
    }

    public func stop() { stopping.store(true, ordering: .relaxed) }

    public func run() async {
        var random = SplitMix64(seed: seed)
        var attempt = Int(seed % UInt64(addresses.count))
        while !stopping.load(ordering: .relaxed) {
            let address = addresses[attempt % addresses.count]
            attempt += 1
            do {
                let client = try await connect(address)
                attempt -= 1
                await use(client, &random)
                attempt += 1
                client.drop()
            } catch {
                do { try await Task.sleep(for: .milliseconds(20)) } catch { return }
            }
        }
    }

    /// Rounds of writes and reads until the connection fails.
    private func use(_ client: NBDClient, _ random: inout SplitMix64) async {
        while !stopping.load(ordering: .relaxed) {
            let alarm = patience.map { client.eventLoop.scheduleTask(in: $0) { client.drop() } }
            defer { alarm?.cancel() }
            var chosen = Set<Int>()
            while chosen.count < min(depth, blocks.count) {
                chosen.insert(blocks[Int(random.next() % UInt64(blocks.count))])
            }
            var writes: [(Int, UInt64, EventLoopFuture<ByteBuffer?>)] = []
            for block in chosen {
                let stamp = history.issue(block)
                let command = NBDClient.Command.write(
                    offset: UInt64(block * Stamp.blockBytes), payload: Stamp.block(block, stamp: stamp),
                    fua: random.next() % 8 == 0)
                writes.append((block, stamp, client.submit(command)))
            }
            var failed = false
            for (block, stamp, write) in writes {
                do {
                    _ = try await write.get()
                    history.acknowledge(block, stamp)
                } catch {
                    failed = true
                }
            }
            if failed { return }
            let block = blocks[Int(random.next() % UInt64(blocks.count))]
            let floor = history.floor(block)
            do {
                let bytes = try await client.read(offset: UInt64(block * Stamp.blockBytes), length: Stamp.blockBytes)
                history.check(block, bytes.readableBytesView, floor: floor, from: "a read")
            } catch {
                return
            }
        }
    }
}

extension History {
    /// Reads every block through the node at `address`.
    public func verify(through address: Endpoint, export: String, on group: any EventLoopGroup) async throws {
        let client = try await NBDClient.connect(to: address, export: export, on: group)
        try await verify(through: client, of: address)
        await client.disconnect()
    }

    package func verify(through client: NBDClient, of address: Endpoint) async throws {
        let run = 256
        for start in stride(from: 0, to: blockCount, by: run) {
            let count = min(run, blockCount - start)
            let floors = (start..<start + count).map { floor($0) }
            let bytes = try await client.read(
                offset: UInt64(start * Stamp.blockBytes), length: count * Stamp.blockBytes)
            for index in 0..<count {
                guard
                    let slice = bytes.getSlice(
                        at: bytes.readerIndex + index * Stamp.blockBytes, length: Stamp.blockBytes)
                else { continue }
                check(start + index, slice.readableBytesView, floor: floors[index], from: address.description)
            }
        }
    }

    /// Reads every block from the medium itself. Everything must have been destaged.
    /// `isServed`: false for what a tool has brought there out of one of several logs. Another log may end earlier, with writes that nobody
    /// was promised (docs/LOG.md).
    public func verify(medium path: String, isServed: Bool = true) throws {
        let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { handle.closeFile() }
        for block in 0..<blockCount {
            let bytes = try handle.read(upToCount: Stamp.blockBytes) ?? Data()
            check(block, bytes, floor: floor(block), from: "the medium", isServed: isServed)
        }
    }
}
