// What carries SCSI commands to a logical unit: an iSCSI session, or a block device of this host. Everything that is said over it is
// written once, in this target, and is tried in tests over a device that lies.

/// The bytes that go with a command.
public enum SCSITransfer {
    case none
    /// To the device. Not changed.
    case out(UnsafeRawBufferPointer)
    case into(UnsafeMutableRawBufferPointer)
}

/// One logical unit. Thread-safe; a call blocks until the command has ended or its time is over.
public protocol SCSIDevice: Sendable {
    /// For people: which unit, by the way that it is reached.
    var name: String { get }

    /// Carries one command out and answers how many bytes came. Nothing is tried twice.
    func execute(_ command: [UInt8], _ transfer: SCSITransfer) throws(SCSIError) -> Int

    /// Ends every command of every initiator that the unit has not finished (LOGICAL UNIT RESET). Reservations stay.
    func resetUnit() throws(SCSIError)

    /// The most bytes that the way to the unit lets one command carry.
    var transferLimit: UInt64 { get }

    /// Throws if another process may write by the same initiator: no reservation keeps it out.
    func checkInitiatorIsFree() throws(SCSIError)
}

extension SCSIDevice {
    public var transferLimit: UInt64 { .max }

    public func checkInitiatorIsFree() throws(SCSIError) {}
}

/// Why a command failed.
public struct SCSIError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// The unit refuses this initiator for the sake of a reservation. Trying again changes nothing (S18).
        case reservationConflict
        /// Something happened to the unit, told once; the command was not carried out.
        case unitAttention(UnitAttention)
        /// The unit does not know the command, or one of its fields.
        case illegalRequest
        /// There is no such unit behind the target, or it refuses to say that it is ready. It may come yet.
        case noUnit
        /// The unit has no persistent reservations.
        case noReservations
        /// No answer came in time, or the way to the unit is gone: the command may have been carried out, or still be.
        case lost
        /// The answer is none that the standard allows (S21).
        case malformed
        case failed
    }

    public var code: Code
    public var message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

/// What a unit attention tells (SPC-4, additional sense codes).
public enum UnitAttention: Hashable, Sendable {
    /// 29h: the unit, or the way to it, was reset: what its cache held may be gone, and so may reservations.
    case reset
    /// 2Ah 03h, 04h, 05h: a reservation or a registration was taken away.
    case reservationsChanged
    case other

    public init(additionalSense: UInt8, qualifier: UInt8) {
        self =
            switch (additionalSense, qualifier) {
            case (0x29, _): .reset
            case (0x2A, 3...5): .reservationsChanged
            default: .other
            }
    }
}

/// The status and the sense data of a command that ended (SAM-5, SPC-4).
public struct SCSIStatus: Hashable, Sendable {
    public static let good: UInt8 = 0
    private static let checkCondition: UInt8 = 2
    private static let conflict: UInt8 = 0x18
    private static let (illegalRequest, unitAttention): (UInt8, UInt8) = (5, 6)
    /// LOGICAL UNIT NOT SUPPORTED (SPC-4, additional sense codes).
    private static let noUnit: UInt8 = 0x25

    public var status: UInt8
    public var senseKey: UInt8
    public var additionalSense: UInt8
    public var qualifier: UInt8

    public init(status: UInt8, senseKey: UInt8 = 0, additionalSense: UInt8 = 0, qualifier: UInt8 = 0) {
        self.status = status
        self.senseKey = senseKey
        self.additionalSense = additionalSense
        self.qualifier = qualifier
    }

    /// `nil` if the command succeeded.
    public func error(of command: [UInt8], on device: String) -> SCSIError? {
        guard status != Self.good else { return nil }
        let what = "\(device): command \(hex(command.first ?? 0))"
        switch (status, senseKey) {
        case (Self.conflict, _):
            return SCSIError(.reservationConflict, "\(what) meets a reservation of another node")
        case (Self.checkCondition, Self.unitAttention):
            let attention = UnitAttention(additionalSense: additionalSense, qualifier: qualifier)
            return SCSIError(.unitAttention(attention), "\(what) met a unit attention \(sense)")
        case (Self.checkCondition, Self.illegalRequest) where additionalSense == Self.noUnit:
            return SCSIError(.noUnit, "\(device): the unit is not there (\(sense))")
        case (Self.checkCondition, Self.illegalRequest):
            return SCSIError(.illegalRequest, "\(what) is not supported (\(sense))")
        case (Self.checkCondition, _): return SCSIError(.failed, "\(what) failed (sense \(hex(senseKey)), \(sense))")
        default: return SCSIError(.failed, "\(what) failed (status \(hex(status)))")
        }
    }

    private var sense: String { "\(hex(additionalSense)) \(hex(qualifier))" }

    private func hex(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) + "h" }
}

extension SCSIDevice {
    /// As ``execute(_:_:)``; a unit attention was told before the command was carried out, so the command is made once more (SAM-5, 5.14).
    func retryingOnce(_ command: [UInt8], _ transfer: SCSITransfer = .none) throws(SCSIError) -> Int {
        do throws(SCSIError) {
            return try execute(command, transfer)
        } catch {
            guard case .unitAttention = error.code else { throw error }
            return try execute(command, transfer)
        }
    }

    /// The bytes that a command brings, at most `limit`.
    func bytes(_ command: [UInt8], limit: Int) throws(SCSIError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: limit)
        let result = bytes.withUnsafeMutableBytes { space in
            Result { () throws(SCSIError) in try retryingOnce(command, .into(space)) }
        }
        return Array(bytes.prefix(max(0, try result.get())))
    }

    func send(_ command: [UInt8], _ bytes: [UInt8]) throws(SCSIError) {
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(SCSIError) in try retryingOnce(command, .out(bytes)) }
        }
        _ = try result.get()
    }

    /// Takes what the unit has to tell a new initiator, so that the next command is carried out. More than a few tidings are no unit's.
    public func clearAttentions() throws(SCSIError) {
        for _ in 0..<8 {
            do throws(SCSIError) {
                _ = try execute([UInt8](repeating: 0, count: 6), .none)
                return
            } catch {
                switch error.code {
                case .unitAttention: continue
                // TEST UNIT READY is known to every unit that is there.
                case .illegalRequest: throw SCSIError(.noUnit, "\(name): the unit is not there: \(error)")
                default: throw error
                }
            }
        }
        throw SCSIError(.failed, "\(name): reports unit attentions without end")
    }
}

/// Numbers in commands and answers are big-endian.
extension FixedWidthInteger {
    var bigEndianBytes: [UInt8] { withUnsafeBytes(of: bigEndian) { Array($0) } }

    /// Precondition: `bytes` has as many as the type.
    init(bigEndianBytes bytes: some Collection<UInt8>) {
        precondition(bytes.count == Self.bitWidth / 8)
        self = bytes.reduce(0) { ($0 << 8) | Self($1) }
    }
}
