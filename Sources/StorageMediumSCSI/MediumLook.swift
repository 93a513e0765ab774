// Looking at a logical unit that another node may have: nothing is taken and nothing is changed.

public import LogModel
internal import SCSICommands
public import StorageMedium

extension UnitMedium {
    /// A unit that is looked at again and again, over ways that are kept. Thread-safe.
    public final class Look: Sendable {
        private let address: UnitAddress
        private let opener: Opener
        private let reader: UnitReader

        public init(_ address: UnitAddress, as opener: Opener) {
            self.address = address
            self.opener = opener
            reader = UnitReader(address, initiator: opener.initiator)
        }

        /// Throws unless the unit is large enough and has reservations that nobody but this cluster uses; answers its identity. Blocks.
        public func check(sizeBytes: UInt64) throws(MediumError) -> UUID128 {
            try during { unit throws(MediumError) in
                try UnitMedium.check(unit, address, sizeBytes)
                return try UnitMedium.onUnit(.open) { () throws(SCSIError) in
                    try ExclusiveHold.check(unit.device, of: opener.all)
                    return try unit.identity(of: address)
                }
            }
        }

        /// Past any cache of this host, which has none. Throws `outOfRange` for what lies outside of the unit. Blocks.
        public func read(_ range: ByteRange) throws(MediumError) -> [UInt8] {
            try during { unit throws(MediumError) in
                guard range.end <= unit.sizeBytes else {
                    throw MediumError(.outOfRange, "\(address): \(range) is outside of \(unit.sizeBytes) bytes")
                }
                var bytes = [UInt8](repeating: 0, count: Int(range.length))
                let result = bytes.withUnsafeMutableBytes { space in
                    Result { () throws(SCSIError) in try unit.readBytes(into: space, at: range.offset) }
                }
                return try UnitMedium.onUnit(.read) { () throws(SCSIError) in
                    try result.get()
                    return bytes
                }
            }
        }

        private func during<Answer: Sendable>(
            _ body: (LogicalUnit) throws(MediumError) -> Answer
        ) throws(MediumError) -> Answer {
            let result = try UnitMedium.onUnit(.open) { () throws(SCSIError) in
                try reader.reading { unit throws(SCSIError) in
                    Result { () throws(MediumError) in try body(unit) }
                }
            }
            return try result.get()
        }
    }
}

extension LogicalUnit {
    /// By the target's name and the unit's number there; the portal may change, as the name of a block device may.
    func identity(of address: UnitAddress) throws(SCSIError) -> UUID128 {
        switch address {
        case .iscsi(let address): try identity(at: "\(address.target)/\(address.lun)")
        case .device: try identity(at: "device")
        }
    }
}
