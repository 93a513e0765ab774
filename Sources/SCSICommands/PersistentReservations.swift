// Persistent reservations (SPC-4, 5.13): the commands, one method each. ExclusiveHold has what is done with them.

public import LogModel
internal import Crypto

/// What an initiator registers under. The first six bytes are of the node, the same on every medium; the last two tell one opening of a
/// medium from another, so that a registration of an earlier session is never taken for the present one. Never zero.
public struct ReservationKey: Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64
    init(rawValue: UInt64) { self.rawValue = rawValue }

    public var description: String {
        let digits = String(rawValue, radix: 16)
        return "0x" + String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// Whose keys a node's are: the first six bytes of SHA-256 of `twinlog reservation|CLUSTER|NODE`.
public struct KeyHolder: Hashable, Sendable {
    public let node: NodeID
    let prefix: UInt64

    public init(_ node: NodeID, of cluster: String) {
        self.node = node
        let digest = SHA256.hash(data: Array("twinlog reservation|\(cluster)|\(node)".utf8))
        prefix = max(1, UInt64(bigEndianBytes: Array(digest.prefix(8))) >> 16)
    }

    public func has(_ key: ReservationKey) -> Bool { key.rawValue >> 16 == prefix }

    func key(_ opening: UInt16) -> ReservationKey { ReservationKey(rawValue: prefix << 16 | UInt64(opening)) }

    /// What a target knows the node by; it is of this cluster's node alone, as its keys are.
    public var initiatorName: String { "iqn.2026-11.org.twinlog:\(String(prefix, radix: 16))" }

    /// One that is not in use.
    func freshKey(besides used: [ReservationKey]) -> ReservationKey {
        var key = key(.random(in: .min ... .max))
        while used.contains(key) { key = self.key(.random(in: .min ... .max)) }
        return key
    }
}

public struct Reservation: Hashable, Sendable {
    /// Write exclusive, registrants only (SPC-4, table 31).
    public static let writeExclusiveRegistrantsOnly: UInt8 = 5

    public var holder: ReservationKey
    public var type: UInt8
}

public struct PersistentReservations: Sendable {
    public let device: any SCSIDevice
    public init(_ device: any SCSIDevice) { self.device = device }

    private enum Report: UInt8 { case keys = 0, reservation = 1 }
    private enum Action: UInt8 {
        case register = 0, reserve = 1, preempt = 4, registerAndIgnore = 6
    }

    /// More than 510 registrations of one unit are no cluster's.
    private static let answerLimit: UInt16 = 8 + 510 * 8

    // MARK: Reading

    /// Of every registration; one initiator's sessions may have the same.
    public func keys() throws(SCSIError) -> [ReservationKey] {
        let (body, length) = try report(.keys)
        guard length % 8 == 0, body.count == length else {
            throw SCSIError(.malformed, "\(device.name): lists keys in \(length) bytes, of which \(body.count) came")
        }
        return stride(from: 0, to: body.count, by: 8).map {
            ReservationKey(rawValue: UInt64(bigEndianBytes: body[$0..<$0 + 8]))
        }
    }

    public func reservation() throws(SCSIError) -> Reservation? {
        let (body, length) = try report(.reservation)
        guard length > 0 else { return nil }
        guard body.count >= 16 else {
            throw SCSIError(.malformed, "\(device.name): tells its reservation in \(body.count) bytes")
        }
        return Reservation(
            holder: ReservationKey(rawValue: UInt64(bigEndianBytes: body[0..<8])), type: body[13] & 0xF)
    }

    /// What follows the head of the answer, and how long the answer says that it is.
    private func report(_ what: Report) throws(SCSIError) -> (body: [UInt8], length: Int) {
        let command = [0x5E, what.rawValue, 0, 0, 0, 0, 0] + Self.answerLimit.bigEndianBytes + [0]
        let answer = try device.bytes(command, limit: Int(Self.answerLimit))
        guard answer.count >= 8 else {
            throw SCSIError(.malformed, "\(device.name): answers PERSISTENT RESERVE IN with \(answer.count) bytes")
        }
        let length = Int(UInt32(bigEndianBytes: answer[4..<8]))
        return (Array(answer.dropFirst(8).prefix(length)), length)
    }

    // MARK: Changing

    /// Registers this initiator, under whatever key it was registered before.
    public func register(_ key: ReservationKey) throws(SCSIError) {
        try change(.registerAndIgnore, key: nil, other: key)
    }

    /// Throws `reservationConflict` unless this initiator is registered under `key`; never registers it.
    public func checkRegistered(_ key: ReservationKey) throws(SCSIError) {
        try change(.register, key: key, other: key)
    }

    /// Ends this initiator's registration, and its reservation.
    public func unregister(_ key: ReservationKey) throws(SCSIError) { try change(.register, key: key, other: nil) }

    public func reserve(_ key: ReservationKey) throws(SCSIError) { try change(.reserve, key: key, other: nil) }

    /// Takes every registration under `victim` away, and the reservation if that is its holder's. The victim's commands go on.
    public func preempt(_ victim: ReservationKey, by key: ReservationKey) throws(SCSIError) {
        try change(.preempt, key: key, other: victim)
    }

    private func change(
        _ action: Action, key: ReservationKey?, other: ReservationKey?
    ) throws(SCSIError) {
        let parameters =
            (key?.rawValue ?? 0).bigEndianBytes + (other?.rawValue ?? 0).bigEndianBytes
            + [UInt8](repeating: 0, count: 8)
        let length = UInt32(parameters.count).bigEndianBytes
        let command =
            [0x5F, action.rawValue, Reservation.writeExclusiveRegistrantsOnly, 0, 0] + length + [0]
        try device.send(command, parameters)
    }
}
