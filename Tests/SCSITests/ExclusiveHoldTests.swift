// Taking a medium from another node by persistent reservations: what is believed, what is not, and what is never done twice (S18).

import LogModel
import SCSICommands
import Synchronization
import Testing

struct ExclusiveHoldTests {
    static let alpha = KeyHolder(NodeID("alpha"), of: "test")
    static let beta = KeyHolder(NodeID("beta"), of: "test")
    static let cluster = [alpha, beta]
    let unit = FakeUnit()

    private func take(_ holder: KeyHolder, on initiator: String) throws -> ExclusiveHold {
        try ExclusiveHold.take(unit.initiator(initiator), as: holder, of: Self.cluster)
    }

    private func write(on initiator: String) throws {
        let blocks = try LogicalUnit(unit.initiator(initiator))
        try [UInt8](repeating: 7, count: 512).withUnsafeBytes { bytes in
            try blocks.write(bytes, toBlock: 3)
        }
    }

    private func error(_ body: () throws -> Void) throws -> SCSIError {
        try #require(throws: SCSIError.self) { try body() }
    }

    // MARK: Taking

    @Test(
        "S18: who takes the medium has it alone: the old owner's write is refused, and it does not come back by verifying"
    )
    func takenOver() throws {
        let old = try take(Self.alpha, on: "a")
        try write(on: "a")
        let new = try take(Self.beta, on: "b")
        #expect(unit.keys == [new.key.rawValue])
        #expect(unit.state.withLock { $0.reservation?.key } == new.key.rawValue)
        #expect(unit.state.withLock { $0.reservation?.type } == Reservation.writeExclusiveRegistrantsOnly)
        unit.state.withLock { $0.attentions["a"] = [] }
        let before = unit.state.withLock { $0.bytes }
        #expect(try error { try write(on: "a") }.code == .reservationConflict)
        #expect(try error { try old.verify() }.code == .reservationConflict)
        #expect(unit.keys == [new.key.rawValue], "verifying registers nobody")
        #expect(unit.state.withLock { $0.bytes } == before)
        try write(on: "b")
        try new.verify()
    }

    @Test("S18: what an earlier process of the same node left registered is taken away, too")
    func predecessor() throws {
        let old = try take(Self.alpha, on: "a1")
        let new = try take(Self.alpha, on: "a2")
        #expect(old.key != new.key && unit.keys == [new.key.rawValue])
        #expect(try error { try old.verify() }.code == .reservationConflict)
    }

    @Test(
        "A released medium has no registration and no reservation, and the next one takes it without preempting anybody"
    )
    func released() throws {
        let hold = try take(Self.alpha, on: "a")
        try hold.release()
        #expect(unit.keys == [] && unit.state.withLock { $0.reservation == nil })
        try hold.release()
        _ = try take(Self.beta, on: "b")
        #expect(!unit.commands.contains("b 5f/4"))
    }

    @Test("A key of no node of the cluster keeps the medium from it, by name, and nothing is registered")
    func stranger() throws {
        unit.state.withLock { $0.registrations["x"] = 0xABCD }
        let refusal = try error { _ = try take(Self.alpha, on: "a") }
        #expect(refusal.code == .failed && refusal.message.contains("0x000000000000abcd"))
        #expect(unit.keys == [0xABCD])
    }

    @Test("A unit without persistent reservations is refused by name")
    func unsupported() throws {
        unit.lie { _, command, _ in command[0] == 0x5E ? .status(FakeInitiator.illegal) : nil }
        let refusal = try error { _ = try take(Self.alpha, on: "a") }
        #expect(refusal.code == .noReservations && refusal.message.contains("has no persistent reservations"))
    }

    @Test("S18: the unit is reset when a key was preempted: the old owner's commands end")
    func commandsEnd() throws {
        _ = try take(Self.alpha, on: "a")
        unit.state.withLock { $0.inProgress = ["a"] }
        let hold = try take(Self.beta, on: "b")
        #expect(unit.keys == [hold.key.rawValue])
        #expect(unit.state.withLock { $0.inProgress } == [])
    }

    @Test("S18: after a taking whose answer was lost, the next one ends the old owner's commands")
    func answerLost() throws {
        _ = try take(Self.alpha, on: "a")
        unit.state.withLock { $0.inProgress = ["a"] }
        unit.lie { _, command, _ in command[0...1] == [0x5F, 4] ? .doneAndLost : nil }
        #expect(try error { _ = try take(Self.beta, on: "b") }.code == .lost)
        #expect(!unit.keys.contains { Self.alpha.has($0) } && unit.state.withLock { $0.inProgress } == ["a"])
        unit.state.withLock { $0.lie = nil }
        let hold = try take(Self.beta, on: "b")
        #expect(unit.keys == [hold.key.rawValue] && unit.state.withLock { $0.inProgress } == [])
    }

    @Test("S18: a medium whose unit is not reset is not taken, and no fence is confirmed", arguments: [false, true])
    func resetFails(again: Bool) throws {
        _ = try take(Self.alpha, on: "a")
        if again { try fence() }
        unit.state.withLock { $0.resetError = SCSIError(.failed, "unit: does not reset") }
        #expect(try error { try fence(on: "b2") }.message == "unit: does not reset")
        #expect(try error { _ = try take(Self.beta, on: "b3") }.message == "unit: does not reset")
        #expect(again || unit.keys == [], "nor does this node stay registered")
        unit.state.withLock { $0.resetError = nil }
        try fence()
    }

    @Test("A hold of this node's own stays when it fences by it, and the others' commands end")
    func ownHold() throws {
        let mine = try take(Self.beta, on: "b")
        unit.state.withLock { $0.inProgress = ["a"] }
        try fence(on: "b2")
        #expect(unit.keys == [mine.key.rawValue] && unit.state.withLock { $0.inProgress } == [])
        try mine.verify()
    }

    @Test("A unit that is not there is said not to be, and not to lack reservations")
    func absent() throws {
        let notSupported = SCSIStatus(status: 2, senseKey: 5, additionalSense: 0x25)
        unit.lie { _, _, _ in .status(notSupported) }
        let refusal = try error { _ = try take(Self.alpha, on: "a") }
        #expect(refusal.code == .noUnit && refusal.message.contains("the unit is not there"))
        unit.lie { _, command, _ in command[0] == 0 ? .status(FakeInitiator.illegal) : nil }
        #expect(try error { try unit.initiator("a").clearAttentions() }.code == .noUnit)
    }

    @Test("A unit attention is no answer: each command is made once more, and a second one is an error")
    func attentions() throws {
        unit.state.withLock { $0.attentions["a"] = [FakeInitiator.attention(0x29)] }
        _ = try take(Self.alpha, on: "a")
        unit.lie { _, command, _ in command[0] == 0x5E ? .status(FakeInitiator.attention(0x29)) : nil }
        let failed = try error { _ = try take(Self.beta, on: "b") }
        #expect(failed.code == .unitAttention(.reset))
        #expect(unit.commands.count { $0 == "b 5e/0" } == 2)
    }

    // MARK: Fencing

    private func fence(on initiator: String = "b") throws {
        try ExclusiveHold.shutOthers(outOf: unit.initiator(initiator), by: Self.beta, of: Self.cluster)
    }

    @Test("S18: the fence is confirmed when the old owner cannot write any more; again is as good")
    func shutOut() throws {
        _ = try take(Self.alpha, on: "a")
        try fence()
        unit.state.withLock { $0.attentions["a"] = [] }
        #expect(try error { try write(on: "a") }.code == .reservationConflict)
        let changes = unit.commands.count { $0.contains("5f") }
        try fence(on: "b2")
        #expect(unit.commands.count { $0.contains("5f") } == changes, "nothing is changed that is right")
    }

    @Test("S18: a unit that says that it preempted and did not, confirms nothing")
    func notPreempted() throws {
        _ = try take(Self.alpha, on: "a")
        unit.lie { _, command, _ in command[0] == 0x5F && (4...5).contains(command[1]) ? .nothing : nil }
        let failure = try error { try fence() }
        #expect(failure.code == .failed && failure.message.contains("not held by"))
        #expect(unit.keys.count == 1, "nor does this node stay registered")
    }

    @Test(
        "S18: a unit that says that it reserved and did not, or otherwise, confirms nothing",
        arguments: [nil, 1, 7] as [UInt8?])
    func notReserved(type: UInt8?) throws {
        unit.lie { _, command, state in
            guard command[0...1] == [0x5F, 1] else { return nil }
            if let type, let (name, key) = state.registrations.first { state.reservation = (key, name, type) }
            return .nothing
        }
        #expect(try error { try fence() }.code == .failed)
    }

    @Test("S18: a conflict, or a way that is lost in the middle, confirms nothing", arguments: [0, 1, 4] as [UInt8])
    func interrupted(action: UInt8) throws {
        _ = try take(Self.alpha, on: "a")
        let code: UInt8 = action == 4 ? 0x5F : 0x5E
        unit.lie { initiator, command, _ in
            initiator == "b" && command[0] == code && command[1] == action ? .lost : nil
        }
        #expect(try error { try fence() }.code == .lost)
        unit.lie { initiator, command, _ in
            initiator == "b" && command[0] == 0x5F && (4...6).contains(command[1])
                ? .status(FakeInitiator.conflict) : nil
        }
        #expect(throws: SCSIError.self) { try fence(on: "b") }
        #expect(unit.keys.contains { Self.alpha.has($0) })
    }

    @Test(
        "S21: answers of impossible lengths are refused",
        arguments: [
            [], [0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 1, 255, 255, 255, 248],
        ] as [[UInt8]])
    func malformed(answer: [UInt8]) throws {
        unit.lie { _, command, _ in command[0...1] == [0x5E, 0] ? .answer(answer) : nil }
        #expect(try error { try fence() }.code == .malformed)
    }

    // MARK: Keys

    @Test("A node's keys are its own, never zero, and the same in every version")
    func keys() {
        #expect(Self.alpha != Self.beta)
        #expect(KeyHolder(NodeID("alpha"), of: "other") != Self.alpha)
        #expect(Self.alpha.initiatorName == "iqn.2026-11.org.twinlog:a96b5ff921d9")
    }
}

extension KeyHolder {
    fileprivate func has(_ key: UInt64) -> Bool {
        initiatorName.hasSuffix(":" + String(key >> 16, radix: 16))
    }
}
