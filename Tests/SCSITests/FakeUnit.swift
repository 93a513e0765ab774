// A logical unit in memory with persistent reservations as SPC-4 has them, for several initiators; each of its answers can be made a lie.

import SCSICommands
import Synchronization

/// What every initiator of the unit sees.
final class FakeUnit: Sendable {
    struct State {
        /// By initiator.
        var registrations: [String: UInt64] = [:]
        var reservation: (key: UInt64, initiator: String, type: UInt8)?
        var attentions: [String: [SCSIStatus]] = [:]
        var bytes = [UInt8](repeating: 0, count: 64 * 512)
        var resets = 0
        /// A reset fails with it, and nothing is reset.
        var resetError: SCSIError?
        /// Commands that had passed the reservation's check, and are not carried out yet; by initiator.
        var inProgress: Set<String> = []
        /// Command code and service action of each, by initiator.
        var commands: [String] = []
        /// What is answered in place of the truth.
        var lie: (@Sendable (_ initiator: String, _ command: [UInt8], inout State) -> Lie?)?
    }

    enum Lie {
        case status(SCSIStatus)
        case answer([UInt8])
        case lost
        /// Good, and nothing done.
        case nothing
        /// Carried out; the answer is lost.
        case doneAndLost
    }

    let state = Mutex(State())

    func initiator(_ name: String) -> FakeInitiator { FakeInitiator(unit: self, initiator: name) }
    var keys: [UInt64] { state.withLock { $0.registrations.values.sorted() } }
    var commands: [String] { state.withLock { $0.commands } }

    func lie(_ lie: @escaping @Sendable (_ initiator: String, _ command: [UInt8], inout State) -> Lie?) {
        state.withLock { $0.lie = lie }
    }
}

struct FakeInitiator: SCSIDevice {
    let unit: FakeUnit
    let initiator: String
    var name: String { "unit" }

    static let conflict = SCSIStatus(status: 0x18)
    static let illegal = SCSIStatus(status: 2, senseKey: 5, additionalSense: 0x24)

    static func attention(_ code: UInt8, _ qualifier: UInt8 = 0) -> SCSIStatus {
        SCSIStatus(status: 2, senseKey: 6, additionalSense: code, qualifier: qualifier)
    }

    func resetUnit() throws(SCSIError) {
        let result: Result<Void, SCSIError> = unit.state.withLock { state in
            if let error = state.resetError { return .failure(error) }
            state.resets += 1
            state.inProgress = []
            for other in state.registrations.keys { state.attentions[other, default: []].append(Self.attention(0x29)) }
            return .success(())
        }
        try result.get()
    }

    func execute(_ command: [UInt8], _ transfer: SCSITransfer) throws(SCSIError) -> Int {
        let parameters: [UInt8] = if case .out(let bytes) = transfer { Array(bytes) } else { [] }
        let (status, answer) = try carriedOut(command, parameters)
        if let error = status.error(of: command, on: name) { throw error }
        guard case .into(let buffer) = transfer else { return 0 }
        let count = min(buffer.count, answer.count)
        buffer.copyBytes(from: answer.prefix(count))
        return count
    }

    private func carriedOut(_ command: [UInt8], _ parameters: [UInt8]) throws(SCSIError) -> (SCSIStatus, [UInt8]) {
        let good = SCSIStatus(status: SCSIStatus.good)
        let result: Result<(SCSIStatus, [UInt8]), SCSIError> = unit.state.withLock { state in
            let action = command[0] == 0x5E || command[0] == 0x5F ? "/\(command[1])" : ""
            state.commands.append("\(initiator) \(String(command[0], radix: 16))\(action)")
            if var waiting = state.attentions[initiator], !waiting.isEmpty {
                let first = waiting.removeFirst()
                state.attentions[initiator] = waiting
                return .success((first, []))
            }
            let lie = state.lie?(initiator, command, &state)
            switch lie {
            case .status(let status)?: return .success((status, []))
            case .answer(let bytes)?: return .success((good, bytes))
            case .lost?: return .failure(SCSIError(.lost, "unit: gone"))
            case .nothing?: return .success((good, []))
            case .doneAndLost?, nil: break
            }
            let answer = answer(command, parameters, &state)
            return lie == nil ? .success(answer) : .failure(SCSIError(.lost, "unit: gone"))
        }
        return try result.get()
    }

    private func answer(
        _ command: [UInt8], _ parameters: [UInt8], _ state: inout FakeUnit.State
    ) -> (SCSIStatus, [UInt8]) {
        let good = SCSIStatus(status: SCSIStatus.good)
        switch command[0] {
        case 0x5E: return (good, report(command[1], state))
        case 0x5F: return (change(command[1], command[2] & 0xF, parameters, &state), [])
        case 0x8A: return (write(command, parameters, &state), [])
        case 0x88: return (good, Array(state.bytes[blocks(command)]))
        case 0x9E: return (good, (63 as UInt64).bytes + (512 as UInt32).bytes + [UInt8](repeating: 0, count: 20))
        case 0x12: return command[2] == 0x83 ? (good, Self.identification) : (Self.illegal, [])
        default: return (good, [])
        }
    }

    static let identification: [UInt8] = [0, 0x83, 0, 12, 1, 3, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]

    private func blocks(_ command: [UInt8]) -> Range<Int> {
        let first = command[2..<10].reduce(0) { $0 << 8 | Int($1) }
        let count = command[10..<14].reduce(0) { $0 << 8 | Int($1) }
        return first * 512..<(first + count) * 512
    }

    private func write(_ command: [UInt8], _ bytes: [UInt8], _ state: inout FakeUnit.State) -> SCSIStatus {
        guard state.reservation == nil || state.registrations[initiator] != nil else { return Self.conflict }
        state.bytes.replaceSubrange(blocks(command), with: bytes)
        return SCSIStatus(status: SCSIStatus.good)
    }

    private func report(_ what: UInt8, _ state: FakeUnit.State) -> [UInt8] {
        let body: [UInt8] =
            what == 0
            ? state.registrations.values.sorted().flatMap(\.bytes)
            : state.reservation.map { $0.key.bytes + [0, 0, 0, 0, 0, $0.type, 0, 0] } ?? []
        return [0, 0, 0, 0] + UInt32(body.count).bytes + body
    }

    /// SPC-4, 5.13.7 to 5.13.11.
    private func change(_ action: UInt8, _ type: UInt8, _ parameters: [UInt8], _ state: inout FakeUnit.State)
        -> SCSIStatus
    {
        let key = parameters[0..<8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let other = parameters[8..<16].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let mine = state.registrations[initiator]
        guard action == 6 || key == mine ?? 0 else { return Self.conflict }
        switch action {
        case 0, 6:
            state.registrations[initiator] = other == 0 ? nil : other
            if other == 0, state.reservation?.initiator == initiator { state.reservation = nil }
        case 1:
            guard mine != nil, state.reservation == nil || state.reservation?.initiator == initiator else {
                return Self.conflict
            }
            state.reservation = (key, initiator, type)
        case 4:
            guard mine != nil, state.registrations.values.contains(other) else { return Self.conflict }
            for (name, registered) in state.registrations where registered == other && name != initiator {
                state.registrations[name] = nil
                state.attentions[name, default: []].append(Self.attention(0x2A, 5))
            }
            if state.reservation?.key == other { state.reservation = (key, initiator, type) }
        default: return Self.illegal
        }
        return SCSIStatus(status: SCSIStatus.good)
    }
}

extension FixedWidthInteger {
    var bytes: [UInt8] { withUnsafeBytes(of: bigEndian) { Array($0) } }
}
