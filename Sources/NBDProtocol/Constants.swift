// The numbers of the NBD protocol (fixed newstyle), as its specification names them, in network byte order on the wire.

public enum NBD {
    public static let greetingMagic: UInt64 = 0x4e42_444d_4147_4943
    public static let optionMagic: UInt64 = 0x4948_4156_454f_5054
    public static let optionReplyMagic: UInt64 = 0x0003_e889_0455_65a9
    public static let requestMagic: UInt32 = 0x2560_9513
    public static let simpleReplyMagic: UInt32 = 0x6744_6698
    public static let structuredReplyMagic: UInt32 = 0x668e_33ef

    /// Handshake flags, the same bits in both directions.
    public static let fixedNewstyle: UInt16 = 1 << 0
    public static let noZeroes: UInt16 = 1 << 1

    /// The most payload of one request, and what block-size info says.
    public static let maximumPayloadBytes: UInt32 = 32 << 20
    public static let preferredBlockBytes: UInt32 = 4096
    /// The most bytes of an export's name (the specification's limit).
    public static let maximumNameBytes = 4096

    public enum Option {
        public static let exportName: UInt32 = 1
        public static let abort: UInt32 = 2
        public static let list: UInt32 = 3
        public static let startTLS: UInt32 = 5
        public static let info: UInt32 = 6
        public static let go: UInt32 = 7
        public static let structuredReply: UInt32 = 8
        public static let listMetaContext: UInt32 = 9
        public static let setMetaContext: UInt32 = 10
    }

    public enum Reply {
        public static let ack: UInt32 = 1
        public static let server: UInt32 = 2
        public static let info: UInt32 = 3
        public static let metaContext: UInt32 = 4
        private static let error: UInt32 = 1 << 31
        public static let unsupported = error + 1
        public static let policy = error + 2
        public static let invalid = error + 3
        public static let tlsRequired = error + 5
        public static let unknown = error + 6
        public static let shutdown = error + 7
        public static let tooBig = error + 9
        public static func isError(_ type: UInt32) -> Bool { type & error != 0 }
    }

    public enum Info {
        public static let export: UInt16 = 0
        public static let name: UInt16 = 1
        public static let blockSize: UInt16 = 3
    }

    /// Which parts of an export are holes, and which read as zeros.
    public enum MetaContext {
        public static let baseNamespace = "base:"
        public static let allocationName = "base:allocation"
        /// The only context here, and so its number.
        public static let allocation: UInt32 = 1
        public static let hole: UInt32 = 1 << 0
        public static let zero: UInt32 = 1 << 1
    }

    public struct TransmissionFlags: OptionSet, Sendable, Hashable {
        public let rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }
        public static let hasFlags = TransmissionFlags(rawValue: 1 << 0)
        public static let readOnly = TransmissionFlags(rawValue: 1 << 1)
        public static let sendFlush = TransmissionFlags(rawValue: 1 << 2)
        public static let sendFUA = TransmissionFlags(rawValue: 1 << 3)
        public static let sendTrim = TransmissionFlags(rawValue: 1 << 5)
        public static let sendWriteZeroes = TransmissionFlags(rawValue: 1 << 6)
        public static let sendDF = TransmissionFlags(rawValue: 1 << 7)
        public static let canMultiConn = TransmissionFlags(rawValue: 1 << 8)
        public static let sendCache = TransmissionFlags(rawValue: 1 << 10)
        public static let sendFastZero = TransmissionFlags(rawValue: 1 << 11)
    }

    public struct CommandFlags: OptionSet, Sendable, Hashable {
        public let rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }
        public static let fua = CommandFlags(rawValue: 1 << 0)
        public static let noHole = CommandFlags(rawValue: 1 << 1)
        public static let df = CommandFlags(rawValue: 1 << 2)
        public static let reqOne = CommandFlags(rawValue: 1 << 3)
        public static let fastZero = CommandFlags(rawValue: 1 << 4)
    }

    public enum Command: UInt16, Sendable {
        case read = 0
        case write = 1
        case disconnect = 2
        case flush = 3
        case trim = 4
        case cache = 5
        case writeZeroes = 6
        case blockStatus = 7
    }

    /// The error numbers of replies; the protocol's own, whatever the platform's are.
    public struct ErrorCode: RawRepresentable, Sendable, Hashable, CustomStringConvertible {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let none = ErrorCode(rawValue: 0)
        public static let notPermitted = ErrorCode(rawValue: 1)
        public static let io = ErrorCode(rawValue: 5)
        public static let invalid = ErrorCode(rawValue: 22)
        public static let noSpace = ErrorCode(rawValue: 28)
        public static let overflow = ErrorCode(rawValue: 75)
        public var description: String {
            switch self {
            case .none: "no error"
            case .notPermitted: "EPERM"
            case .io: "EIO"
            case .invalid: "EINVAL"
            case .noSpace: "ENOSPC"
            case .overflow: "EOVERFLOW"
            default: "error \(rawValue)"
            }
        }
    }

    public enum Chunk {
        public static let done: UInt16 = 1 << 0
        public static let none: UInt16 = 0
        public static let offsetData: UInt16 = 1
        public static let offsetHole: UInt16 = 2
        public static let blockStatus: UInt16 = 5
        private static let errorBit: UInt16 = 1 << 15
        public static let error = errorBit + 1
        public static let errorOffset = errorBit + 2
        public static func isError(_ type: UInt16) -> Bool { type & errorBit != 0 }
    }
}

/// The peer broke the protocol: the connection cannot go on.
public struct NBDProtocolError: Error, Hashable, Sendable, CustomStringConvertible {
    public var message: String
    public init(_ message: String) { self.message = message }
    public var description: String { message }
}

/// What a client learns of an export.
public struct NBDExportInfo: Hashable, Sendable {
    public var sizeBytes: UInt64
    public var flags: NBD.TransmissionFlags
    public init(sizeBytes: UInt64, flags: NBD.TransmissionFlags) {
        self.sizeBytes = sizeBytes
        self.flags = flags
    }
}
