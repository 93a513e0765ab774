// Files and logical units of one group: all of them or none, and none for a node that owns the group no more (S15, S18).

import ClusterConfiguration
import Coordination
import GroupEngine
import LogModel
import NodeAssembly
import RecordSupport
import StorageMedium
import Synchronization
import TestSupport
import Testing

/// Takes everything, unless it is to refuse, and tells what is held.
private final class CountingGuard: MediumGuard {
    let refuses: Bool
    private let names = Mutex<[String]>([])
    var held: [String] { names.withLock { $0 } }

    init(refuses: Bool = false) { self.refuses = refuses }

    func take(_ expected: [ExpectedMedium]) throws(MediumError) -> HeldMedia {
        guard !refuses else { throw MediumError(.open, "refused") }
        let taken = expected.map(\.volume.name)
        names.withLock { $0 += taken }
        return HeldMedia(
            media: taken.map(NamedMedium.init), identities: Dictionary(uniqueKeysWithValues: taken.map { ($0, .zero) })
        ) {
            self.names.withLock { names in names.removeAll { taken.contains($0) } }
        }
    }

    func look(_ expected: [ExpectedMedium], owner: Int32?) -> MediaLook {
        MediaLook(problem: refuses && !expected.isEmpty ? "refused" : nil)
    }

    func readUncached(_ volume: ClusterConfiguration.Volume, _ range: ByteRange) throws(MediumError) -> [UInt8] {
        Array(volume.name.utf8)
    }
}

private struct NamedMedium: Medium {
    let name: String
    var sizeBytes: UInt64 { 4096 }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {}
    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {}
    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {}
    func flush() throws(MediumError) {}
}

struct ConfiguredMediumTests {
    private static let alpha = NodeID("alpha")
    private static let text = """
        cluster: test
        coordinator: {type: file, path: c}
        nodes:
          alpha: {mirror: ["127.0.0.1:7101"], nbd: "unix:a.nbd", admin: a.sock, pool: {path: a.pool, size: 64MiB}}
          beta: {mirror: ["127.0.0.1:7102"], nbd: "unix:b.nbd", admin: b.sock, pool: {path: b.pool, size: 64MiB}}
        groups:
          g0:
            home: alpha
            mirror: beta
            log: 4MiB
            volumes:
              v0: {medium: "iscsi://192.0.2.5/iqn.a:b/1", size: 1MiB}
              v1: {medium: v1.img, size: 1MiB}
              v2: {medium: "iscsi://192.0.2.5/iqn.a:b/2", size: 1MiB}
        """
    private let folder: Folder
    private let coordinator: FileCoordinator
    private let files = CountingGuard()
    private let expected: [ExpectedMedium]

    init() throws {
        let group = try #require(
            ClusterConfiguration.parse(Self.text, file: "c.yaml", baseDirectory: "/base").group(GroupID("g0")))
        expected = group.volumes.map { volume in
            ExpectedMedium(
                volume: volume, group: group.id, expectation: MediumExpectation(volume: volume.name, identity: nil))
        }
        folder = try Folder()
        coordinator = try FileCoordinator(directory: folder.path + "/coordinator")
    }

    private func own(_ owner: NodeID) throws {
        let record = GroupRecord(
            version: 1, group: GroupID("g0"), logUUID: .zero, owner: owner, epoch: Epoch(1), phase: .claimed,
            holders: [owner], ownerProcess: nil, pools: ["alpha": .zero, "beta": UUID128(high: 0, low: 1)])
        #expect(try coordinator.swap(expecting: 0, to: record) == .won)
    }

    private func guardOfAll(_ units: CountingGuard) -> ConfiguredMediumGuard {
        ConfiguredMediumGuard(Self.alpha, files: files, units: units, coordinator: coordinator)
    }

    @Test("Media of two kinds come in the order of the volumes, and are released together")
    func order() throws {
        try own(Self.alpha)
        let units = CountingGuard()
        let held = try guardOfAll(units).take(expected)
        #expect(held.media.compactMap { ($0 as? NamedMedium)?.name } == ["v0", "v1", "v2"])
        #expect(Set(held.identities.keys) == ["v0", "v1", "v2"])
        #expect(units.held == ["v0", "v2"] && files.held == ["v1"])
        try held.release()
        #expect(units.held == [] && files.held == [])
        #expect(
            try guardOfAll(units).readUncached(expected[0].volume, ByteRange(offset: 0, length: 1)) == Array("v0".utf8))
    }

    @Test(
        "S15, S18: a node that was stopped between its claim and this, and owns the group no more, leaves the media again"
    )
    func claimedMeanwhile() throws {
        try own(NodeID("beta"))
        let units = CountingGuard()
        let error = try #require(throws: MediumError.self) { try guardOfAll(units).take(expected) }
        #expect(error.code == .fenced && error.message.contains("beta owns g0"))
        #expect(units.held == [] && files.held == [])
    }

    @Test("S18: without the coordinator's word nothing is taken")
    func coordinatorUnknown() throws {
        let units = CountingGuard()
        #expect(throws: MediumError.self) { try guardOfAll(units).take(expected) }
        #expect(units.held == [] && files.held == [])
    }

    @Test("A medium that is refused leaves none of the others held, and is a standby's problem")
    func allOrNone() throws {
        try own(Self.alpha)
        let units = CountingGuard(refuses: true)
        #expect(throws: MediumError.self) { try guardOfAll(units).take(expected) }
        #expect(files.held == [])
        #expect(guardOfAll(units).look(expected, owner: nil).problem == "refused")
        #expect(guardOfAll(units).look([expected[1]], owner: nil).problem == nil)
    }
}
