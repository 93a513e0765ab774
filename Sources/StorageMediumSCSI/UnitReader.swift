// Reading from a logical unit over ways of its own: reads need no registration, and do not wait for the writer's commands.

internal import LogModel
internal import SCSICommands
internal import StorageMedium
internal import Synchronization

/// Thread-safe. As many sessions as there are threads that read at once; idle ones are kept.
final class UnitReader: Sendable {
    private let address: UnitAddress
    private let initiator: String
    private let idle = Mutex<[any UnitPath]>([])

    init(_ address: UnitAddress, initiator: String) {
        self.address = address
        self.initiator = initiator
    }

    /// Runs `body` with the unit; once more if something had happened to the unit, or, over a new session, if an idle one was lost.
    func reading<Answer: Sendable>(
        _ body: (LogicalUnit) throws(SCSIError) -> Answer
    ) throws(SCSIError) -> Answer {
        if let device = idle.withLock({ $0.popLast() }) {
            do throws(SCSIError) {
                return try run(body, on: device)
            } catch {
                guard error.code == .lost else { throw error }
            }
        }
        return try run(body, on: UnitPaths.path(to: address, for: .reading, initiator: initiator))
    }

    private func run<Answer: Sendable>(
        _ body: (LogicalUnit) throws(SCSIError) -> Answer, on device: any UnitPath
    ) throws(SCSIError) -> Answer {
        try device.connect()
        try device.clearAttentions()
        let unit = try LogicalUnit(device)
        let answer = try Self.retryingOnce { () throws(SCSIError) in try body(unit) }
        idle.withLock { $0.append(device) }
        return answer
    }

    private static func retryingOnce<Answer>(_ body: () throws(SCSIError) -> Answer) throws(SCSIError) -> Answer {
        do throws(SCSIError) {
            return try body()
        } catch {
            guard case .unitAttention = error.code else { throw error }
            return try body()
        }
    }
}
