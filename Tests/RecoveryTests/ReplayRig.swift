// A cluster at rest: alpha's pool with a log, beta's with the same, a medium, and a coordinator that knows both.

import Coordination
import Foundation
import LogModel
import PersistentMemory
import RecordSupport
import TestSupport
import Testing

final class ReplayRig {
    static let alpha = NodeID("alpha")
    static let beta = NodeID("beta")
    static let configuration = """
        cluster: demo
        coordinator: {type: file, path: coordinator}
        nodes:
          alpha: {mirror: ["127.0.0.1:7101"], nbd: "unix:alpha.nbd", admin: alpha.sock, pool: {path: pool, size: 32MiB}}
          beta: {mirror: ["127.0.0.1:7102"], nbd: "unix:beta.nbd", admin: beta.sock, pool: {path: beta.pool, size: 32MiB}}
        groups:
          g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 4MiB}, vol1: {medium: vol1.img, size: 4MiB}}}
        """
    static let betaPool = UUID128(high: 9, low: 9)

    let fixture: Fixture
    let betaPath: String
    let coordinator: FileCoordinator

    /// Both pools are closed. The record counts both nodes in sync, at their first start.
    init(writes: Int = 40, incarnationOfBeta: UInt64 = 5) throws {
        fixture = try Fixture(volumes: ["vol0", "vol1"])
        try fixture.fillRandomly(seed: 21, count: writes)
        betaPath = fixture.folder.file("beta.pool")
        let pool = try Pool.create(
            path: betaPath, sizeBytes: fixture.pool.sizeBytes,
            identity: PoolIdentity(uuid: Self.betaPool, cluster: "demo", node: Self.beta), persistence: .volatile)
        let region = try pool.allocateRegion(group: Fixture.group, ringBytes: fixture.region.ringBytes)
        try region.format(
            role: .mirror, logUUID: logUUID, incarnation: Incarnation(incarnationOfBeta), start: fixture.region.head)
        try fixture.region.withRingBytes(from: .zero, count: fixture.region.ringBytes) { bytes throws(PoolError) in
            region.store(bytes, at: .zero)
        }
        try region.drain()
        for region in [region, fixture.region] {
            try region.note(RegionStanding(generation: 1, counted: 1, epoch: Epoch(5)))
        }
        pool.close()
        fixture.pool.close()
        try Self.configuration.write(toFile: fixture.folder.file("cluster.yaml"), atomically: true, encoding: .utf8)
        coordinator = try FileCoordinator(directory: fixture.folder.file("coordinator"))
        try swap { _ in }
    }

    var configurationPath: String { fixture.folder.file("cluster.yaml") }

    func record() throws -> GroupRecord { try #require(try coordinator.read(Fixture.group)) }

    /// The next record, after `change`.
    func swap(_ change: (inout GroupRecord) -> Void) throws {
        var record =
            try coordinator.read(Fixture.group)
            ?? GroupRecord(
                version: 0, group: Fixture.group, logUUID: logUUID, owner: Self.alpha, epoch: Epoch(5),
                phase: .published, holders: [Self.alpha, Self.beta], ownerProcess: nil,
                pools: ["alpha": poolUUID, "beta": Self.betaPool], incarnation: Incarnation(5))
        record.version += 1
        change(&record)
        #expect(try coordinator.swap(expecting: record.version - 1, to: record) == .won)
    }

    /// Of alpha's pool, or `path`'s.
    func replay(_ flags: String..., path: String? = nil) throws -> ToolRun {
        try recover(
            arguments: ["replay", path ?? fixture.poolPath, "--group", "g0", "--config", configurationPath] + flags)
    }

    /// Without the coordinator.
    func replayBlindly(_ flags: String..., path: String? = nil) throws -> ToolRun {
        let media = ["vol0", "vol1"].flatMap { ["--volume", "\($0)=\(fixture.mediumPath($0))"] }
        return try recover(arguments: ["replay", path ?? fixture.poolPath, "--group", "g0"] + media + flags)
    }

    /// What alpha's pool has seen.
    func note(_ standing: RegionStanding) throws {
        let pool = try Pool.open(path: fixture.poolPath, expecting: nil, persistence: .volatile)
        defer { pool.close() }
        try #require(pool.region(of: Fixture.group)).note(standing)
    }

    func isMarked(_ path: String) throws -> Bool {
        let pool = try Pool.open(path: path, expecting: nil, persistence: .volatile, readOnly: true)
        defer { pool.close() }
        return try #require(pool.region(of: Fixture.group)?.identity).isReplayed
    }

    /// Clients write all of vol0 anew after the recovery.
    func useMedium() throws -> Data {
        let used = [UInt8](repeating: 0x55, count: Int(Fixture.mediumBytes))
        try overwrite(fixture.mediumPath(), at: 0, with: used)
        return Data(used)
    }
}
