// Which requests are refused, and why: the specification's rules for every command, flag and size.

/// What was agreed on for the requests of one connection.
public struct NBDTransmission: Hashable, Sendable {
    public var export: NBDExportInfo
    public var isStructured: Bool
    /// `base:allocation` was selected.
    public var reportsAllocation: Bool

    public init(export: NBDExportInfo, isStructured: Bool, reportsAllocation: Bool) {
        self.export = export
        self.isStructured = isStructured
        self.reportsAllocation = reportsAllocation
    }

    var isReadOnly: Bool { export.flags.contains(.readOnly) }
}

public enum NBDRequestProblem: Hashable, Sendable {
    case unknownCommand
    /// A flag that the command does not have, or that was not agreed on.
    case flags
    case readOnly
    /// FLUSH has neither offset nor length.
    case flushOfRange
    /// No metadata context was selected.
    case noContext
    /// Block status of nothing.
    case empty
    case tooLong
    case outside(isWrite: Bool)

    public var code: NBD.ErrorCode {
        switch self {
        case .readOnly: .notPermitted
        case .outside(isWrite: true): .noSpace
        default: .invalid
        }
    }

    public func text(for request: NBDRequest, in transmission: NBDTransmission) -> String {
        switch self {
        case .unknownCommand: "the command is not known here"
        case .flags: "flags 0x\(String(request.flags.rawValue, radix: 16)) are not possible with this command here"
        case .readOnly: "the export is read-only"
        case .flushOfRange: "a flush is of the whole export"
        case .noContext: "base:allocation was not selected in the handshake"
        case .empty: "there is no block status of zero bytes"
        case .tooLong: "\(request.length) bytes are more than the \(NBD.maximumPayloadBytes) of one request"
        case .outside:
            "\(request.length) bytes at \(request.offset) are not inside of the \(transmission.export.sizeBytes) of the export"
        }
    }
}

extension NBDRequest {
    /// Why the request is refused, or `nil`.
    public func problem(in transmission: NBDTransmission) -> NBDRequestProblem? {
        guard let command else { return .unknownCommand }
        guard flags.subtracting(command.flags(in: transmission)).isEmpty else { return .flags }
        switch command {
        case .disconnect: return nil
        case .flush: return offset == 0 && length == 0 ? nil : .flushOfRange
        case .write, .trim, .writeZeroes: if transmission.isReadOnly { return .readOnly }
        case .blockStatus:
            guard transmission.reportsAllocation else { return .noContext }
            guard length > 0 else { return .empty }
        case .read, .cache: break
        }
        if command.hasPayload, length > NBD.maximumPayloadBytes { return .tooLong }
        let size = transmission.export.sizeBytes
        guard offset <= size, UInt64(length) <= size - offset else {
            return .outside(isWrite: command == .write || command == .writeZeroes)
        }
        return nil
    }
}

extension NBD.Command {
    /// Its bytes go over the wire, with the request or with the reply.
    var hasPayload: Bool { self == .read || self == .write }

    /// FUA is taken with every command, as the specification asks of a server that offers it.
    fileprivate func flags(in transmission: NBDTransmission) -> NBD.CommandFlags {
        switch self {
        case .read: transmission.isStructured ? [.fua, .df] : .fua
        case .writeZeroes: [.fua, .noHole, .fastZero]
        case .blockStatus: [.fua, .reqOne]
        case .disconnect: NBD.CommandFlags(rawValue: .max)
        case .write, .flush, .trim, .cache: .fua
        }
    }
}
