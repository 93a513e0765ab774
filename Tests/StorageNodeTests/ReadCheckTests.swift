import ClusterProtocol
import LogModel
import NIOCore
import PersistentMemory
import RemoteMemory
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

/// Reads of what is in the log give its bytes or an error, never rot (B1).
struct ReadCheckTests {
    private final class Answer {
        var result: Result<ByteBuffer?, VolumeError>?
        var bytes: ByteBuffer? { try? result?.get() }
        var isFailure: Bool { if case .failure = result { true } else { false } }
    }

    private static func read(_ session: any VolumeSession, _ offset: UInt64, _ length: Int) -> Answer {
        let answer = Answer()
        session.submit(.read(offset: offset, length: length)) { answer.result = $0 }
        return answer
    }

    @Test("S26, B1: a read that meets rot waits until the mirror has healed it", arguments: [64 + 100, 12, 40])
    func healed(_ at: UInt64) async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: at)
            let session = rig.session()
            let answer = Self.read(session, 0, 3000)
            #expect(answer.result == nil && rig.kinds == [.recordDamaged])
            try rig.mirror.answerReads(rig)
            #expect(answer.bytes == ByteBuffer(repeating: 5, count: 3000) && rig.kinds.last == .recordHealed)
            // Once: what rots later is the scrub's.
            rig.flip(at: at)
            #expect(Self.read(session, 0, 100).result != nil && rig.mirror.reads.isEmpty)
        }
    }

    @Test("S26, B1: without another copy such a read fails; other records are read as ever")
    func lost() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            let session = rig.session()
            session.submit(.write(offset: 4096, payload: ByteBuffer(repeating: 6, count: 1000))) { _ in }
            rig.owner.pump()
            rig.mirror.completeAll(rig)
            rig.owner.detachMirror()
            rig.needsMirror = false
            rig.flip(at: 64 + 2999)
            #expect(Self.read(session, 0, 100).isFailure && Self.read(session, 0, 100).isFailure)
            #expect(Self.read(session, 4096, 1000).bytes == ByteBuffer(repeating: 6, count: 1000))
            #expect(rig.kinds == [.recordDamaged])
        }
    }

    @Test("S26, B1: nor is it answered with what both copies have lost")
    func lostTwice() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: 100)
            rig.mirror.bytes[2000] ^= 1
            let answer = Self.read(rig.session(), 0, 3000)
            try rig.mirror.answerReads(rig)
            #expect(answer.isFailure && rig.byte(at: 100) == 5 ^ 0x20)
        }
    }

    @Test("B1: while the mirror that counts is away, the read waits for it")
    func waits() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: 100)
            rig.owner.detachMirror()
            let answer = Self.read(rig.session(), 0, 3000)
            for _ in 0..<3 { rig.owner.pump() }
            #expect(answer.result == nil)
            rig.owner.attach(rig.mirror, key: RegionKey(rawValue: 2), durable: rig.log.published, isKept: true)
            rig.owner.pump()
            try rig.mirror.answerReads(rig)
            #expect(answer.bytes == ByteBuffer(repeating: 5, count: 3000))
        }
    }

    @Test("B1: a long read is checked over several turns of the loop, each record once")
    func longRead() async throws {
        try await OwnerRig.overTurns(ringBytes: 32 << 20) { on in
            let done = try await on { rig in
                let session = rig.session()
                for number in 0..<4 as Range<UInt64> {
                    let payload = ByteBuffer(repeating: UInt8(number + 1), count: 1 << 20)
                    session.submit(.write(offset: number << 20, payload: payload)) { _ in }
                }
                for _ in 0..<6 {
                    rig.owner.pump()
                    rig.mirror.completeAll(rig)
                }
                try #require(rig.owner.owned.acknowledgedWriteEnd == rig.log.published)
                let answer = NIOLoopBound(Self.read(session, 0, 4 << 20), eventLoop: rig.eventLoop)
                #expect(answer.value.result == nil)
                return (answer, NIOLoopBound(session, eventLoop: rig.eventLoop))
            }
            try await on.eventually("read") { _ in done.0.value.result != nil }
            try await on { _ in
                let bytes = try #require(done.0.value.bytes)
                #expect((0..<4).allSatisfy { bytes.getInteger(at: $0 << 20 | 77) == UInt8($0 + 1) })
                // All of it is known to be good.
                #expect(Self.read(done.1.value, 0, 4 << 20).result != nil)
            }
        }
    }

    @Test("B1: what is not covered by the log alone is checked as well")
    func besideTheMedium() async throws {
        try await OwnerRig.overTurns { on in
            let answer = try await on { rig in
                try rig.write(5, bytes: 4096)
                rig.flip(at: 100)
                rig.owner.detachMirror()
                rig.needsMirror = false
                return NIOLoopBound(Self.read(rig.session(), 0, 8192), eventLoop: rig.eventLoop)
            }
            try await on.eventually("failed") { _ in answer.value.isFailure }
            try await on { rig in #expect(rig.kinds == [.recordDamaged]) }
        }
    }

    @Test("what was checked is forgotten with the record")
    func forgotten() {
        var overlay = Overlay()
        let volume = VolumeID(name: "vol0"), range = ByteRange(offset: 0, length: 4096)
        func insert(_ record: LSN) {
            overlay.insert(
                OverlaidRange(volume: volume, range: range, source: LogSource(record: record, payload: record + 64)))
        }
        insert(LSN(1 << 20))
        #expect(overlay.unchecked(volume, range) == [LSN(1 << 20)])
        overlay.didCheck(LSN(1 << 20))
        #expect(overlay.unchecked(volume, range) == [])
        overlay.forget(below: LSN(2 << 20))
        insert(LSN(2 << 20))
        #expect(overlay.unchecked(volume, range) == [LSN(2 << 20)])
    }
}
