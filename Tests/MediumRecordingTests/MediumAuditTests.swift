// What the audit lets pass, and what it does not.

import MediumRecording
import Testing

@Suite struct MediumAuditTests {
    private static let old: Int32 = 10
    private static let new: Int32 = 20
    private static let claims = [
        RecordedClaim(epoch: 1, process: old), RecordedClaim(epoch: 2, process: old),
        RecordedClaim(epoch: 3, process: new),
    ]

    private func lock(_ process: Int32, _ at: UInt64, descriptor: UInt64 = 5) -> RecordedCall {
        RecordedCall(.lock(descriptor: descriptor), by: process, begin: at, end: nil)
    }

    private func unlock(_ process: Int32, _ at: UInt64, descriptor: UInt64 = 5) -> RecordedCall {
        RecordedCall(.unlock(descriptor: descriptor), by: process, begin: at, end: nil)
    }

    private func write(_ process: Int32, _ begin: UInt64, _ end: UInt64?) -> RecordedCall {
        RecordedCall(.write, by: process, begin: begin, end: end)
    }

    @Test("S16: an owner's writes, the last of them cut short by its death, and then those of the next")
    func inTurn() {
        let calls = [
            lock(Self.old, 1), write(Self.old, 2, 4), write(Self.old, 3, 5), write(Self.old, 6, nil),
            lock(Self.new, 7), write(Self.new, 8, 9), unlock(Self.new, 10),
        ]
        let audit = MediumAudit(of: calls.reversed(), claims: Self.claims)
        #expect(audit.violations == [])
        #expect(audit.turns.map(\.process) == [Self.old, Self.new])
        #expect(audit.turns.map(\.writes) == [3, 1])
    }

    @Test("S15: an older owner's write after the new owner's first")
    func begunLate() {
        let calls = [
            lock(Self.old, 1), write(Self.old, 2, 3), lock(Self.new, 4), write(Self.new, 5, 6), write(Self.old, 7, nil),
        ]
        #expect(MediumAudit(of: calls, claims: Self.claims).violations.count == 1)
    }

    @Test("S16: an older owner's write that was under way when the new owner began")
    func endedLate() {
        let calls = [lock(Self.old, 1), write(Self.old, 2, 5), lock(Self.new, 3), write(Self.new, 4, 6)]
        #expect(MediumAudit(of: calls, claims: Self.claims).violations.count == 1)
    }

    @Test("S18: a write after the lock was given back, and not after another descriptor gave back what it never had")
    func unlocked() {
        let harmless = [lock(Self.old, 1), unlock(Self.old, 2, descriptor: 6), write(Self.old, 3, 4)]
        #expect(MediumAudit(of: harmless, claims: Self.claims).violations == [])
        let late = [lock(Self.old, 1), write(Self.old, 2, 3), unlock(Self.old, 4), write(Self.old, 5, 6)]
        // Its begin and its end.
        #expect(MediumAudit(of: late, claims: Self.claims).violations.count == 2)
    }

    @Test("S15: turns in another order than that of the claims, and a writer that never claimed")
    func unclaimed() {
        let turns = [
            lock(Self.old, 1), write(Self.old, 2, 3), unlock(Self.old, 4), lock(Self.new, 5), write(Self.new, 6, 7),
            unlock(Self.new, 8), lock(Self.old, 9), write(Self.old, 10, 11),
        ]
        #expect(MediumAudit(of: turns, claims: Self.claims).violations.count == 1)
        let back = Self.claims + [RecordedClaim(epoch: 4, process: Self.old)]
        #expect(MediumAudit(of: turns, claims: back).violations == [])
        let stranger = [lock(30, 1), write(30, 2, 3)]
        #expect(MediumAudit(of: stranger, claims: Self.claims).violations.count == 1)
    }
}
