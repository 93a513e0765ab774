// What a block may hold, from what clients asked and were answered. Each block is a register: a write that is answered takes the place of
// every write that certainly came before it; one that was never answered may have happened or not.
//
// A write came before another if it was answered before the other was asked, or if its connection had ended before the other's
// began (S24).

import Glibc
import NIOCore

/// One connection of one client, as the server knows it. Times are counts of the oracle.
final class ConnectionLife {
    let openedAt: UInt64
    var endedAt: UInt64?
    init(openedAt: UInt64) { self.openedAt = openedAt }
}

/// A write of some blocks, or a discard or a write of zeros, whose stamp is 0 for readers.
final class Write {
    /// No other write has it.
    let number: UInt64
    /// What its blocks hold: `number`, or 0.
    let stamp: UInt64
    let blocks: Range<Int>
    let connection: ConnectionLife
    let askedAt: UInt64
    var answeredAt: UInt64?

    init(number: UInt64, stamp: UInt64, blocks: Range<Int>, connection: ConnectionLife, askedAt: UInt64) {
        self.number = number
        self.stamp = stamp
        self.blocks = blocks
        self.connection = connection
        self.askedAt = askedAt
    }

    func cameBefore(_ other: Write) -> Bool {
        if let answeredAt, answeredAt < other.askedAt { return true }
        if let endedAt = connection.endedAt, endedAt < other.connection.openedAt { return true }
        return false
    }
}

/// The numbers of the clients' writes. No two are alike, so what lands in another group's place is known by it.
struct WriteNumbers {
    private var groups: [Int] = []

    mutating func next(of group: Int) -> UInt64 {
        groups.append(group)
        return UInt64(groups.count)
    }

    /// `nil` of what nobody wrote.
    func group(of number: UInt64) -> Int? {
        number > 0 && number <= groups.count ? groups[Int(number) - 1] : nil
    }
}

struct Promises {
    private struct Block {
        /// Any of these may be what the block holds.
        var possible: [Write] = []
        /// Others have taken their place, at these times.
        var gone: [(write: Write, at: UInt64)] = []

        mutating func answered(_ write: Write, at time: UInt64) {
            var kept = 0
            for index in possible.indices {
                let other = possible[index]
                if other !== write, other.cameBefore(write) {
                    gone.append((other, time))
                } else {
                    if kept < index { possible[kept] = other }
                    kept += 1
                }
            }
            possible.removeSubrange(kept...)
        }
    }

    private var blocks: [Block]

    init(blocks count: Int) {
        let beginning = Write(
            number: 0, stamp: 0, blocks: 0..<count, connection: ConnectionLife(openedAt: 0), askedAt: 0)
        beginning.answeredAt = 0
        blocks = Array(repeating: Block(possible: [beginning]), count: count)
    }

    mutating func asked(_ write: Write) {
        for block in write.blocks { blocks[block].possible.append(write) }
    }

    mutating func answered(_ write: Write, at time: UInt64) {
        write.answeredAt = time
        for block in write.blocks { blocks[block].answered(write, at: time) }
    }

    /// Whether the block may hold `stamp` now.
    func isPossible(_ stamp: UInt64, at block: Int) -> Bool {
        blocks[block].possible.contains { $0.stamp == stamp }
    }

    /// Whether a read that was asked at `time` and is answered now may see `stamp`.
    func mayBeRead(_ stamp: UInt64, at block: Int, askedAt time: UInt64) -> Bool {
        isPossible(stamp, at: block) || blocks[block].gone.contains { $0.at > time && $0.write.stamp == stamp }
    }

    /// What is lost by an operator's decision: of what the block ever held, only `stamps` are left. `isRotten`: a batch may have
    /// written what rotted under it, which is nobody's write; the good copy of it is what the operator gave up.
    mutating func giveUp(at block: Int, allBut stamps: [UInt64], isRotten: Bool, at time: UInt64) {
        let known = blocks[block].possible + blocks[block].gone.map(\.write)
        let lost = blocks[block].possible.filter { !stamps.contains($0.stamp) }
        blocks[block].possible = known.filter { stamps.contains($0.stamp) }
        for stamp in stamps where isRotten && !known.contains(where: { $0.stamp == stamp }) {
            blocks[block].possible.append(
                Write(
                    number: stamp, stamp: stamp, blocks: block..<block + 1, connection: ConnectionLife(openedAt: 0),
                    askedAt: time))
        }
        blocks[block].gone += lost.map { ($0, time) }
    }

    func possible(at block: Int) -> [UInt64] { blocks[block].possible.map(\.stamp) }
}

/// Volumes as the simulator's clients see them: blocks whose size no medium has, each filled with one stamp.
enum Blocks {
    static let bytes = 1000
    static let perVolume = Int(World.volumeBytes) / bytes
    private static let words = bytes / 8

    static func filled(_ stamp: UInt64, count: Int) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count * bytes)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count * bytes) { space in
            for word in 0..<count * words {
                space.storeBytes(of: stamp.littleEndian, toByteOffset: word * 8, as: UInt64.self)
            }
            return count * bytes
        }
        return buffer
    }

    /// The stamps of each block, in order. More than one: of a write that nobody was promised only a part was replayed, and then another
    /// log decided.
    static func stamps(of bytes: [UInt8]) -> [[UInt64]] {
        bytes.withUnsafeBytes { bytes in
            var all: [[UInt64]] = Array(repeating: [], count: bytes.count / Self.bytes)
            forEachStamp(of: bytes) { block, stamp, _ in all[block].append(stamp) }
            return all
        }
    }

    /// Calls `body` with every block and each of its stamps. `isWhole`: it has no other.
    static func forEachStamp(
        of bytes: UnsafeRawBufferPointer, _ body: (_ block: Int, _ stamp: UInt64, _ isWhole: Bool) -> Void
    ) {
        guard let base = bytes.baseAddress else { return }
        for block in 0..<bytes.count / Self.bytes {
            let start = base + block * Self.bytes
            func stamp(_ word: Int) -> UInt64 {
                UInt64(littleEndian: start.loadUnaligned(fromByteOffset: word * 8, as: UInt64.self))
            }
            // Equal to itself, moved by one word.
            guard memcmp(start, start + 8, (words - 1) * 8) != 0 else {
                body(block, stamp(0), true)
                continue
            }
            for word in 0..<words where word == 0 || stamp(word) != stamp(word - 1) { body(block, stamp(word), false) }
        }
    }
}
