// What a session does at its client's end (S24), and what it tells of a range (S9, S23).

import Glibc
import LogModel
import NIOCore
import StorageMedium
import Synchronization
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

struct ClientSessionTests {
    private let volume = VolumeID(name: "vol0")

    // MARK: The end of input

    /// Ten writes of which three find no space in the log.
    private static func fill(_ rig: OwnerRig, _ session: any VolumeSession) {
        for index in 0..<10 as Range<UInt64> {
            let payload = ByteBuffer(repeating: UInt8(index + 1), count: 8192)
            session.submit(.write(offset: index * 8192, payload: payload)) { _ in }
        }
        rig.owner.pump()
        rig.mirror.completeAll(rig)
    }

    private static func makeSpace(_ rig: OwnerRig) throws {
        try rig.beginBatch()
        try rig.finishBatch()
        for _ in 0..<2 { rig.mirror.completeAll(rig) }
    }

    private func open(_ rig: OwnerRig, _ volume: VolumeID, _ opened: @escaping (Bool) -> Void) -> () -> Void {
        rig.owner.requests.open(
            volume, at: rig.log.tail, acknowledged: rig.owner.owned.acknowledged, ready: opened)
    }

    @Test("S24, C2: a session begins after what clients that ended their input still have in the queue")
    func aSessionBeginsAfterWhatIsStillToBeCarriedOut() async throws {
        try await OwnerRig.run { [self] rig in
            let ending = rig.session()
            Self.fill(rig, ending)
            ending.endInput()
            var opened: [String] = []
            _ = open(rig, volume) { _ in opened.append("same volume") }
            _ = open(rig, VolumeID(name: "vol1")) { _ in opened.append("other volume") }
            #expect(opened == ["other volume"])
            try Self.makeSpace(rig)
            #expect(ending.parkedBytes == 0 && rig.owner.owned.acknowledged == rig.log.tail && opened.count == 1)
            ending.close()
            #expect(opened == ["other volume", "same volume"])
        }
    }

    @Test("S24: what a dead client had not got issued is dropped, and the next session begins at once")
    func aDeadClientHoldsNobodyUp() async throws {
        try await OwnerRig.run { [self] rig in
            let ending = rig.session()
            Self.fill(rig, ending)
            ending.endInput()
            var answers: [Bool] = []
            _ = open(rig, volume) { answers.append($0) }
            let giveUp = open(rig, volume) { answers.append($0) }
            giveUp()
            ending.close()
            #expect(answers == [true])
            let tail = rig.log.tail
            try Self.makeSpace(rig)
            // Nothing more was issued: the three parked writes are gone.
            #expect(rig.log.tail == tail)
        }
    }

    @Test("S24: a client at work holds no opening up beyond what it has issued")
    func aClientAtWorkHoldsNobodyUp() async throws {
        try await OwnerRig.run { [self] rig in
            Self.fill(rig, rig.session())
            var isOpen = false
            _ = open(rig, volume) { isOpen = $0 }
            #expect(isOpen)
        }
    }

    // MARK: Extents

    private static let blockBytes: UInt64 = 4096

    private func extents(
        _ run: OwnerRig.Runner, _ medium: FileMedium, offset: UInt64, length: UInt64
    ) async throws -> [VolumeExtent] {
        let answer = Answer()
        try await run { rig in
            let session = rig.owner.session(VolumeID(name: "vol0"), medium)
            session.extents(offset: offset, length: length) { result in
                let extents = try? result.get()
                answer.value.withLock { $0 = extents }
                session.close()
            }
        }
        try await run.eventually("the extents") { _ in answer.value.withLock { $0 != nil } }
        return try #require(answer.value.withLock { $0 })
    }

    private final class Answer: Sendable {
        let value = Mutex<[VolumeExtent]?>(nil)
    }

    @Test("base:allocation: what the log has of a range counts, holes of the medium show through beside it")
    func theLogLiesOverTheMedium() async throws {
        let path = "/dev/shm/twinlog-extents-\(UUID128.random())"
        defer { unlink(path) }
        let medium = try FileMedium.open(path: path, sizeBytes: 16 * Self.blockBytes, createIfMissing: true)
        let block = [UInt8](repeating: 1, count: Int(Self.blockBytes))
        try block.withUnsafeBytes { try medium.write([$0, $0, $0, $0], at: 4 * Self.blockBytes) }
        try await OwnerRig.overTurns { run in
            try await run { rig in
                let session = rig.session()
                // Data over a hole; zeros over data, and over half a hole.
                session.submit(.write(offset: 1 * Self.blockBytes, payload: ByteBuffer(bytes: block))) { _ in }
                session.submit(.discard(offset: 5 * Self.blockBytes, length: Self.blockBytes)) { _ in }
                session.submit(
                    .writeZeroes(offset: 7 * Self.blockBytes, length: 2 * Self.blockBytes, mayRelease: false)
                ) { _ in }
                rig.owner.pump()
                rig.mirror.completeAll(rig)
            }
            let kinds: [VolumeExtent.Kind] = [.hole, .data, .hole, .data, .zeros, .data, .zeros, .hole]
            let blocks: [UInt64] = [1, 1, 2, 1, 1, 1, 2, 7]
            let all = try await extents(run, medium, offset: 0, length: 16 * Self.blockBytes)
            #expect(all == zip(blocks, kinds).map { VolumeExtent(lengthBytes: $0 * Self.blockBytes, kind: $1) })
            let part = try await extents(run, medium, offset: 5 * Self.blockBytes + 100, length: Self.blockBytes)
            #expect(
                part == [VolumeExtent(lengthBytes: 3996, kind: .zeros), VolumeExtent(lengthBytes: 100, kind: .data)])
        }
    }

    @Test("S28: an answer has at most 128 extents, however torn the log's range is") func extentsAreBounded()
        async throws
    {
        let path = "/dev/shm/twinlog-extents-\(UUID128.random())"
        defer { unlink(path) }
        let medium = try FileMedium.open(path: path, sizeBytes: 1 << 20, createIfMissing: true)
        try await OwnerRig.overTurns(ringBytes: 1 << 20) { run in
            try await run { rig in
                let session = rig.session()
                for index in 0..<500 as Range<UInt64> {
                    session.submit(.write(offset: index * 2048, payload: ByteBuffer(repeating: 1, count: 512))) { _ in }
                }
                rig.owner.pump()
                rig.mirror.completeAll(rig)
            }
            let all = try await extents(run, medium, offset: 0, length: 1 << 20)
            #expect(all.count == 128)
            #expect(all.prefix(4).map(\.lengthBytes) == [512, 1536, 512, 1536])
            #expect(all.prefix(4).map(\.kind) == [.data, .hole, .data, .hole])
        }
    }
}
