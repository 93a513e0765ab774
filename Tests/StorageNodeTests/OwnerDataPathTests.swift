import CLogCore
import ClusterProtocol
import LogModel
import NIOCore
import PersistentMemory
import RemoteMemory
import StorageMedium
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

/// The data path of an owner, with a mirror that the test holds in its hands.
struct OwnerDataPathTests {
    @Test("S26: a record that rots in the owner's log is healed by the scrub, before anything needs it")
    func scrubHealsHere() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            try rig.write(6, bytes: 3000)
            rig.flip(at: 64 + 100)
            rig.owner.scrubber.tick()
            #expect(rig.mirror.reads.map(\.offset) == [0])
            let operations = try rig.recorded { try rig.mirror.answerReads(rig) }
            #expect(rig.kinds == [.scrubHealed] && rig.byte(at: 64 + 100) == 5)
            #expect(operations.count > 1 && operations.last == TL_OPERATION_DRAIN)
        }
    }

    @Test(
        "S13: a READ of the scrub that is not completed is told to the group: where it takes the last place, nothing else is posted"
    )
    func uncompletedRead() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.owner.pump()
            #expect(rig.pendingTold == nil)
            rig.owner.scrubber.tick()
            let read = try #require(rig.mirror.reads.first?.id)
            rig.owner.pump()
            #expect(rig.pendingTold == read)
            try rig.mirror.answerReads(rig)
            rig.owner.pump()
            #expect(rig.pendingTold == read)
            rig.mirror.completeAll(rig)
            #expect(rig.pendingTold == nil)
        }
    }

    @Test("S5: what a record says of acknowledgements ends with a write: half of one is promised to nobody")
    func acknowledgedInTheMiddleOfAWrite() async throws {
        try await OwnerRig.run(ringBytes: 16 << 20) { rig in
            let session = rig.session()
            session.submit(.write(offset: 0, payload: ByteBuffer(repeating: 5, count: 1 << 20))) { _ in }
            rig.owner.pump()
            // A WRITE takes a MiB: all of it but its end.
            rig.owner.mirrorCompleted(through: 1)
            rig.owner.pump()
            let second = rig.log.published
            try #require(rig.owner.owned.acknowledged == LSN(1 << 20) && second > rig.owner.owned.acknowledged)
            session.submit(.write(offset: 0, payload: ByteBuffer(repeating: 6, count: 100))) { _ in }
            rig.owner.pump()
            // A mirror that loses power now may hold this record, and of the one before it not the end.
            #expect((0..<8).allSatisfy { rig.byte(at: second.rawValue + 16 + $0) == 0 })
        }
    }

    @Test("a record that rots in the mirror log is announced and sent anew")
    func scrubHealsThere() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            try rig.write(6, bytes: 3000)
            rig.owner.scrubber.tick()
            rig.mirror.bytes[3200] ^= 1
            try rig.mirror.answerReads(rig)
            #expect(rig.mirror.messages == [PeerMessage.repair(LSN(3072)..<LSN(6144)).encoded])
            #expect(rig.kinds == [])
            rig.mirror.completeAll(rig)
            #expect(rig.kinds == [.scrubHealed] && rig.mirror.bytes[3200] == 6)
        }
    }

    @Test("what both copies have lost is reported once and left as it is")
    func scrubCannotDecide() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: 200)
            for _ in 0..<2 {
                rig.owner.scrubber.position = .zero
                rig.owner.scrubber.tick()
                rig.mirror.bytes[300] = 1
                try rig.mirror.answerReads(rig)
            }
            #expect(rig.kinds == [.scrubDamaged] && rig.byte(at: 200) != 5 && rig.mirror.messages.isEmpty)
        }
    }

    @Test("answers to a healing that was given up are never taken for those of a later one")
    func answersOfAnEarlierHealing() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: 200)
            let damaged = DamagedRange(from: .zero, to: LSN(3072))
            try rig.beginBatch()
            rig.owner.healer.heal(damaged) { _ in }
            let first = rig.mirror.reads.removeLast()
            // As a rail does that lost its window in the middle of asking.
            rig.owner.healer.current = nil
            rig.owner.healer.heal(damaged) { _ in }
            rig.owner.healer.healed(by: first.id, with: [UInt8](repeating: 0xAA, count: 3072))
            #expect(rig.byte(at: 200) == 5 ^ 0x20 && rig.owner.healer.current != nil)
            try rig.mirror.answerReads(rig)
            #expect(rig.byte(at: 200) == 5 && rig.byte(at: 70) == 5)
            #expect(rig.kinds.last == .recordHealed)
        }
    }

    @Test("S5: what was found damaged before it was healed is neither reported nor fetched again")
    func foundBeforeItWasHealed() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: 200)
            let damaged = DamagedRange(from: .zero, to: LSN(3072))
            rig.owner.healer.heal(damaged) { _ in }
            try rig.mirror.answerReads(rig)
            #expect(rig.kinds == [.recordDamaged, .recordHealed])
            var outcome: HealOutcome?
            rig.owner.healer.heal(damaged) { outcome = $0 }
            guard case .healed = outcome else {
                Issue.record("\(String(describing: outcome))")
                return
            }
            #expect(rig.kinds == [.recordDamaged, .recordHealed] && rig.mirror.reads.isEmpty)
        }
    }

    @Test("the mirror's copy is not believed if it fails its checks too")
    func healingWithBadBytes() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: 200)
            rig.mirror.bytes[300] = 1
            var outcome: HealOutcome?
            rig.owner.healer.heal(DamagedRange(from: .zero, to: LSN(3072))) { outcome = $0 }
            try rig.mirror.answerReads(rig)
            guard case .lost = outcome else {
                Issue.record("\(String(describing: outcome))")
                return
            }
            #expect(rig.kinds == [.recordDamaged] && rig.byte(at: 200) == 5 ^ 0x20 && rig.byte(at: 300) == 5)
        }
    }

    @Test(
        "S6, S26: what was on the medium before the mirror answered is stored nowhere: its space may be another record's"
    )
    func healedTooLate() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.flip(at: 200)
            var outcome: HealOutcome?
            rig.owner.healer.heal(DamagedRange(from: .zero, to: LSN(3072))) { outcome = $0 }
            try rig.beginBatch()
            try rig.finishBatch()
            try rig.mirror.answerReads(rig)
            guard case .interrupted = outcome else {
                Issue.record("\(String(describing: outcome))")
                return
            }
            #expect(rig.byte(at: 200) == 5 ^ 0x20)
        }
    }

    @Test("S8: nothing is acknowledged once the log could not be made durable, whatever another persist says")
    func persistFailed() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.owner.owned.persistFailure = "as if an msync had failed"
            rig.session().submit(.write(offset: 0, payload: ByteBuffer(repeating: 6, count: 3000))) { _ in }
            rig.owner.pump()
            rig.mirror.completeAll(rig)
            #expect(rig.log.durable == LSN(6144) && rig.owner.owned.acknowledged == LSN(3072))
        }
    }

    @Test("a handover that was given up leaves no drain behind to end the next one early")
    func abortedDrain() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            var done: [String] = []
            rig.owner.drain(thenStop: true) { _ in done.append("first handover") }
            rig.owner.drain(thenStop: false) { _ in done.append("drain") }
            rig.owner.serve()
            try rig.beginBatch()
            try rig.finishBatch()
            #expect(done == ["drain"])
        }
    }

    @Test("S6: a full log delays writers; reads and flushes are answered meanwhile, and space comes from both heads")
    func fullLog() async throws {
        try await OwnerRig.run { rig in
            let session = rig.session()
            var written = 0
            for index in 0..<10 as Range<UInt64> {
                let payload = ByteBuffer(repeating: UInt8(index + 1), count: 8192)
                session.submit(.write(offset: index * 8192, payload: payload)) { _ in written += 1 }
            }
            rig.owner.pump()
            rig.mirror.completeAll(rig)
            #expect(written == 7 && session.parkedBytes == 3 * 8192)
            var answers: [ByteBuffer?] = []
            session.submit(.read(offset: 3 * 8192, length: 8192)) { answers.append(try? $0.get()) }
            session.submit(.flush) { answers.append(try? $0.get()) }
            #expect(answers == [ByteBuffer(repeating: 4, count: 8192), nil] && written == 7)

            // On the medium, but the mirror's head has not moved: its log still has the bytes.
            try rig.beginBatch()
            try rig.finishBatch()
            #expect(session.parkedBytes == 3 * 8192)
            rig.mirror.completeAll(rig)
            #expect(session.parkedBytes == 0)
            rig.mirror.completeAll(rig)
            #expect(written == 10)
        }
    }

    @Test("S25: a discard is one piece of the overlay a record, however long, and many of one range are no more")
    func longDiscards() async throws {
        try await OwnerRig.run { rig in
            let volume = VolumeID(name: "vol0")
            let range = ByteRange(offset: 4096, length: 4_294_963_200)
            let session = rig.session()
            var answered = 0
            for _ in 0..<400 {
                session.submit(.discard(offset: range.offset, length: range.length)) { _ in answered += 1 }
            }
            rig.owner.pump()
            rig.mirror.completeAll(rig)
            #expect(answered == 400 && rig.owner.owned.overlay.covers(volume, range))
            var pieces: [UInt64] = []
            rig.owner.owned.overlay.forEach(volume, ByteRange(offset: 0, length: 8 << 30)) { part, source in
                pieces.append(part.length)
                #expect(source.payload == nil)
            }
            // A record is of 2 GiB at most.
            #expect(pieces.count == 2 && pieces.reduce(0, +) == range.length)
            try rig.beginBatch()
            try rig.finishBatch()
            #expect(!rig.owner.owned.overlay.covers(volume, ByteRange(offset: 4096, length: 1)))
        }
    }
}
