// What happens to pools while nobody looks: they are lost, older copies of them are put back, and lines of their logs rot.

import ClusterConfiguration
import ClusterProtocol
import Foundation
@testable import GroupEngine
import LogModel
import PersistentMemory
import Recovery
import SimulationSupport
import WriteLog

/// A copy of a pool's file, as it was at some time.
struct PoolImage {
    let bytes: [UInt8]
    let pool: UUID128
    /// Of each group.
    let generations: [UInt64]
}

/// A line of a node's log that has rotted, while the other node held it whole.
struct RottenLine {
    let node: SimNode
    let incarnation: Incarnation
    let lsn: LSN
    let good: [UInt8]
    let bad: [UInt8]
}

extension Region {
    func line(at lsn: LSN) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(LSN.alignment))
        bytes.withUnsafeMutableBytes { readRing(from: lsn, into: $0) }
        return bytes
    }

    /// Whether `other`, with a ring of the same size, holds the same bytes of `[from, end)`. Precondition: at most the ring's size.
    func isEqual(to other: Region, _ from: LSN, _ end: LSN) -> Bool {
        let place = from.rawValue % ringBytes, count = end - from
        precondition(count <= ringBytes && ringBytes == other.ringBytes)
        let first = min(count, ringBytes - place)
        return memcmp(ringBase + Int(place), other.ringBase + Int(place), Int(first)) == 0
            && memcmp(ringBase, other.ringBase, Int(count - first)) == 0
    }

    /// Behind everybody's back.
    func overwriteLine(at lsn: LSN, with bytes: [UInt8]) {
        (ringBase + Int(lsn.rawValue % ringBytes)).copyMemory(from: bytes, byteCount: bytes.count)
    }
}

extension SimGroup {
    /// The node's region, in its process or as its pool was left. Of a process whose memory has failed: what the next one would find.
    func withRegion<Result>(of node: SimNode, _ body: (Region, Pool) throws -> Result) throws -> Result {
        var path = node.poolPath
        if let server = node.server {
            guard server.hasFailedMemory else { return try body(server.engine(of: self).region, server.pool) }
            path += ".copy"
            try Data(world.fileBytes(of: node)).write(to: URL(fileURLWithPath: path))
        }
        let pool = try node.restingPool ?? world.openPool(path)
        if node.server == nil { node.restingPool = pool }
        guard let region = pool.region(of: id) else { preconditionFailure("the pool has a region") }
        return try body(region, pool)
    }

    // MARK: Rot

    func isRotten(_ node: SimNode) -> Bool {
        forgetMendedLines()
        return rottenLines.contains { $0.node === node }
    }

    /// Those that were healed, destaged, or whose log is gone. An owner's head may be durable before the owner knows.
    private func forgetMendedLines() {
        rottenLines.removeAll { line in
            do {
                return try withRegion(of: line.node) { region, _ in
                    let head = line.node.server?.engine(of: self).owner?.owned.destage.head ?? region.head
                    return region.identity?.incarnation != line.incarnation || head > line.lsn
                        || region.line(at: line.lsn) != line.bad
                }
            } catch {
                preconditionFailure("\(error)")
            }
        }
    }

    /// Runs `body` with the region as the node was given it.
    func withoutRot<Result>(
        of node: SimNode, _ body: (Region, Pool) throws -> Result
    ) throws -> Result {
        if !rottenLines.isEmpty { forgetMendedLines() }
        let lines = rottenLines.filter { $0.node === node }
        return try withRegion(of: node) { region, pool in
            for line in lines { region.overwriteLine(at: line.lsn, with: line.good) }
            defer { for line in lines { region.overwriteLine(at: line.lsn, with: line.bad) } }
            return try body(region, pool)
        }
    }

    /// A line of the node's log rots where it would be told from a torn tail, while the other node counts and holds it (S5).
    /// Answers whether it does.
    func rot(_ node: SimNode, below end: LSN) -> Bool {
        let other = world.nodes[1 - node.index]
        guard let server = node.server, let otherServer = other.server, !server.hasFailedMemory,
            !otherServer.hasFailedMemory, !isRotten(other)
        else { return false }
        let mine = server.engine(of: self).region, theirs = otherServer.engine(of: self).region
        guard let identity = mine.identity, identity.incarnation == theirs.identity?.incarnation else { return false }
        let from = max(mine.head, theirs.head)
        guard from < end else { return false }
        for _ in 0..<8 {
            let lsn = from + world.random.between(0, (end - from) / LSN.alignment - 1) * LSN.alignment
            if let owner = server.engine(of: self).owner, isChecked(lsn, in: owner) { continue }
            if mine.line(at: lsn) == theirs.line(at: lsn), rot(lsn, of: node) { return true }
        }
        return false
    }

    /// The line at `lsn` rots, if it would be told from a torn tail; answers whether it does.
    func rot(_ lsn: LSN, of node: SimNode) -> Bool {
        guard let mine = node.server?.engine(of: self).region, let identity = mine.identity else { return false }
        let good = mine.line(at: lsn)
        var bad = good
        bad[Int(world.random.between(0, LSN.alignment - 1))] ^= UInt8(world.random.between(1, 255))
        mine.overwriteLine(at: lsn, with: bad)
        var scan = LogScan(region: mine)
        guard scan?.finish() == .corrupt else {
            mine.overwriteLine(at: lsn, with: good)
            return false
        }
        note("a line at LSN \(lsn) of \(node.name)'s log rots")
        world.coverage.linesRotten += 1
        hasRotted = true
        rottenLines.append(RottenLine(node: node, incarnation: identity.incarnation, lsn: lsn, good: good, bad: bad))
        return true
    }

    /// A read has checked the record and will not again: what rots from then on the scrub finds, or the destager.
    private func isChecked(_ lsn: LSN, in owner: OwnerDataPath) -> Bool {
        guard let record = owner.log.startOfRecord(with: lsn) else { return false }
        return volumes.contains { volume in
            let whole = ByteRange(offset: 0, length: volume.sizeBytes)
            let unchecked = owner.owned.overlay.unchecked(volume.id, whole)
            var isChecked = false
            owner.owned.overlay.forEach(volume.id, whole) { _, source in
                if source.record == record, source.payload != nil, !unchecked.contains(record) { isChecked = true }
            }
            return isChecked
        }
    }

    /// With the recovery tool, of two nodes that are stopped.
    func healLogs() {
        do {
            try withRegion(of: world.nodes[0]) { first, _ in
                try withRegion(of: world.nodes[1]) { second, _ in
                    for (target, source) in [(first, second), (second, first)]
                    where try Heal.run(target, from: source).healedRecords > 0 {
                        world.coverage.logsHealed += 1
                    }
                }
            }
        } catch {
            note("the logs cannot be healed: \(error)")
        }
    }
}

extension World {
    /// A line of a log of the node has rotted.
    func isRotten(_ node: SimNode) -> Bool { groups.contains { $0.isRotten(node) } }

    func fileBytes(of node: SimNode) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: node.poolPath)))
    }

    /// Precondition: the node is down.
    func write(_ bytes: [UInt8], to node: SimNode) {
        precondition(node.server == nil)
        node.restingPool = nil
        do {
            try Data(bytes).write(to: URL(fileURLWithPath: node.poolPath))
        } catch {
            preconditionFailure("\(error)")
        }
    }

    func image(of node: SimNode) -> PoolImage {
        do {
            let generations = try groups.map { group in
                try group.withRegion(of: node) { region, _ in region.standing.generation }
            }
            return PoolImage(bytes: try fileBytes(of: node), pool: poolUUID(of: node), generations: generations)
        } catch {
            preconditionFailure("\(error)")
        }
    }

    /// Precondition: the node is down.
    func putBack(_ image: PoolImage, at node: SimNode) {
        precondition(node.server == nil)
        note("\(node.name) gets an older copy of its pool, of start \(image.generations[0])")
        coverage.poolsRolledBack += 1
        write(image.bytes, to: node)
        for group in groups { group.olderCopies.insert(node.index) }
    }

    /// Precondition: the node is down.
    func replacePool(of node: SimNode) {
        precondition(node.server == nil)
        note("\(node.name) loses its pool")
        coverage.poolsLost += 1
        for group in groups { group.olderCopies.remove(node.index) }
        createPool(of: node)
    }

    func poolUUID(of node: SimNode) -> UUID128 {
        do {
            return try groups[0].withRegion(of: node) { $1.identity.uuid }
        } catch {
            preconditionFailure("\(error)")
        }
    }
}
