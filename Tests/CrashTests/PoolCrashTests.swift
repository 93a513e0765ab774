// Crashes of a pool's own structures: creation, directory, identity, head.

import Foundation
import LogModel
import PersistentMemory
import Testing

/// A folder on the memory file system with one pool file, removed at the end.
final class CrashFolder: Sendable {
    let path: String

    init() throws {
        path = "/dev/shm/twinlog-crash-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { _ = Result { try FileManager.default.removeItem(atPath: path) } }

    var pool: String { path + "/pool" }

    func put(_ image: [UInt8]) throws {
        try image.withUnsafeBytes { bytes in
            let descriptor = open(pool, O_WRONLY | O_CREAT, 0o600)
            try #require(descriptor >= 0)
            defer { close(descriptor) }
            try #require(pwrite(descriptor, bytes.baseAddress, bytes.count, 0) == bytes.count)
        }
    }

    func contents() throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: pool))) }
}

let poolIdentity = PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha"))
let group = GroupID("g0")

struct PoolCrashTests {
    @Test func aCrashWhileAPoolIsMadeLeavesNothingThatIsTakenForAnother() throws {  // S20, S22
        let folder = try CrashFolder(), recording = try Recording()
        _ = try Pool.create(
            path: folder.pool, sizeBytes: 256 << 10, identity: poolIdentity, persistence: .volatile,
            recorder: recording.recorder)
        recording.mark(1)
        var states = CrashStates(
            from: [UInt8](repeating: 0, count: 256 << 10), recording.operations, seed: 1, randomChoices: 30)
        let count = try states.forEach { state in
            try folder.put(state.image)
            do throws(PoolError) {
                let pool = try Pool.open(
                    path: folder.pool, expecting: ("demo", NodeID("alpha")), persistence: .volatile)
                #expect(pool.regions.isEmpty)
            } catch {
                // It still has its temporary name then; whoever opens it all the same is told.
                #expect(!state.marks.contains(1), "\(state.description): \(error)")
                #expect([.notAPool, .corrupt, .truncated].contains(error.code), "\(state.description): \(error)")
            }
        }
        #expect(count > 100)
    }

    @Test func aRegionIsThereWholeOrNotAtAll() throws {
        let folder = try CrashFolder(), recording = try Recording()
        _ = try Pool.create(path: folder.pool, sizeBytes: 512 << 10, identity: poolIdentity, persistence: .volatile)
        let before = try folder.contents()
        do {
            let pool = try Pool.open(
                path: folder.pool, expecting: nil, persistence: .volatile, readOnly: false,
                recorder: recording.recorder)
            for number in 1...3 as ClosedRange<UInt64> {
                _ = try pool.allocateRegion(group: GroupID("g\(number)"), ringBytes: 64 << 10)
                recording.mark(number)
            }
        }
        var states = CrashStates(from: before, recording.operations, seed: 2, randomChoices: 20)
        _ = try states.forEach { state in
            try folder.put(state.image)
            let pool = try Pool.open(path: folder.pool, expecting: nil, persistence: .volatile)
            let least = state.marks.count
            #expect((least...least + 1).contains(pool.regions.count), "\(state.description)")
            for (index, region) in pool.regions.enumerated() {
                #expect(region.group == GroupID("g\(index + 1)") && region.identity == nil)
            }
        }
    }

    /// A crash while an incarnation begins or a head moves leaves the earlier one or the new one (S4), whatever was there.
    @Test func incarnationsAndHeadsChangeInOneStep() throws {
        let folder = try CrashFolder(), recording = try Recording()
        let uuid = UUID128(high: 1, low: 2)
        do {
            let pool = try Pool.create(
                path: folder.pool, sizeBytes: 256 << 10, identity: poolIdentity, persistence: .volatile)
            _ = try pool.allocateRegion(group: group, ringBytes: 64 << 10)
        }
        let before = try folder.contents()
        // (incarnation, head) after each mark; mark n is the n-th of them.
        var steps: [(UInt64, UInt64)] = []
        do {
            let pool = try Pool.open(
                path: folder.pool, expecting: nil, persistence: .volatile, readOnly: false,
                recorder: recording.recorder)
            let region = try #require(pool.region(of: group))
            for incarnation in 1...4 as ClosedRange<UInt64> {
                let start = incarnation * 8192
                try region.format(
                    role: incarnation % 2 == 0 ? .mirror : .owner, logUUID: uuid, incarnation: Incarnation(incarnation),
                    start: LSN(start))
                steps.append((incarnation, start))
                recording.mark(UInt64(steps.count))
                for move in 1...3 as ClosedRange<UInt64> {
                    try region.setHead(LSN(start + move * 640), acknowledged: LSN(start + move * 640))
                    steps.append((incarnation, start + move * 640))
                    recording.mark(UInt64(steps.count))
                }
            }
        }
        var states = CrashStates(from: before, recording.operations, seed: 3, randomChoices: 40)
        let count = try states.forEach { state in
            try folder.put(state.image)
            let region = try #require(
                try Pool.open(path: folder.pool, expecting: nil, persistence: .volatile).region(of: group))
            let done = Int(state.marks.max() ?? 0)
            let found = region.identity.map { ($0.incarnation.rawValue, region.head.rawValue) } ?? (0, 0)
            let allowed = [done, done + 1].filter { $0 <= steps.count }.map { $0 == 0 ? (0, 0) : steps[$0 - 1] }
            #expect(
                allowed.contains { $0 == found }, "\(state.description), after step \(done): \(found), not \(allowed)")
        }
        #expect(count > 300)
    }
}
