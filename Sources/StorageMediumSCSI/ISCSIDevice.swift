// A logical unit behind a target. Sessions come and go; each has a number, so that who relies on what an earlier one did sees that there is
// a new one. All of them have one initiator port: a registration belongs to the port, so it outlives the session that made it, on a target
// that keeps to the standard.

internal import Clibiscsi
internal import LogModel
internal import SCSICommands
internal import Synchronization

final class ISCSIDevice: UnitPath {
    let address: ISCSIAddress
    private let initiator: String
    /// Of this opening: two sessions of one name and one port would end each other.
    private let port = UInt32.random(in: 0...0xFF_FFFF)
    private let state = Mutex(State())

    private struct State {
        var session: Held?
        var number: UInt64 = 0
    }

    /// The session is used by whoever holds the lock, which is one thread at a time.
    private struct Held: @unchecked Sendable { let session: ISCSISession }

    /// No connection is made. `initiator` is the name that the target knows this node by.
    init(_ address: ISCSIAddress, initiator: String) {
        self.address = address
        self.initiator = initiator
    }

    var name: String { address.description }

    /// Makes a session if there is none; answers its number.
    @discardableResult
    func connect() throws(SCSIError) -> UInt64 {
        let result = state.withLock { state in
            Result { () throws(SCSIError) in try connect(&state) }
        }
        return try result.get()
    }

    private func connect(_ state: inout State) throws(SCSIError) -> UInt64 {
        guard state.session == nil else { return state.number }
        state.session = Held(session: try ISCSISession(address, name: initiator, port: port))
        state.number += 1
        return state.number
    }

    /// Ends the session, with what waits in it.
    func disconnect() { state.withLock { $0.session = nil } }

    /// Throws `lost` if there is no session, and ends one that lost an answer.
    func execute(_ command: [UInt8], _ transfer: SCSITransfer) throws(SCSIError) -> Int {
        try during { session throws(SCSIError) in try session.execute(command, transfer) }
    }

    func resetUnit() throws(SCSIError) { try during { session throws(SCSIError) in try session.resetUnit() } }

    private func during<Answer: Sendable>(
        _ body: (ISCSISession) throws(SCSIError) -> Answer
    ) throws(SCSIError) -> Answer {
        let result: Result<Answer, SCSIError> = state.withLock { state in
            guard let held = state.session else {
                return .failure(SCSIError(.lost, "\(address): there is no session"))
            }
            let result = Result { () throws(SCSIError) in try body(held.session) }
            if case .failure(let error) = result, error.code == .lost { state.session = nil }
            return result
        }
        return try result.get()
    }
}
