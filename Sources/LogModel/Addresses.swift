// Where programs listen and connect, as text.

/// HOST:PORT; an IPv6 host stands in brackets.
public struct TCPAddress: Hashable, Sendable, CustomStringConvertible {
    /// A name or a number, without brackets.
    public var host: String
    /// 0: any that is free.
    public var port: Int

    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// `nil` unless the port is a number from 0 to 65535, in ASCII digits, and the host is not empty.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        guard digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            let port = UInt16(digits)
        else { return nil }
        var host = text[..<colon]
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        if isBracketed { host = host.dropFirst().dropLast() }
        guard !host.isEmpty, isBracketed || !host.contains(":") else { return nil }
        self.init(host: String(host), port: Int(port))
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Where clients meet a server: HOST:PORT or unix:/path.
public enum Endpoint: Hashable, Sendable, CustomStringConvertible {
    case tcp(TCPAddress)
    case unix(path: String)

    public init?(_ text: String) {
        if text.hasPrefix("unix:") {
            self = .unix(path: String(text.dropFirst(5)))
        } else {
            guard let address = TCPAddress(text) else { return nil }
            self = .tcp(address)
        }
    }

    public var description: String {
        switch self {
        case .tcp(let address): "\(address)"
        case .unix(let path): "unix:\(path)"
        }
    }
}

/// A logical unit of an iSCSI target: iscsi://HOST[:PORT]/TARGET/LUN (RFC 7143; libiscsi's URL without a login).
public struct ISCSIAddress: Hashable, Sendable, CustomStringConvertible {
    public static let scheme = "iscsi://"
    private static let usualPort = 3260
    /// RFC 7143, 4.2.7.1.
    private static let longestTarget = 223
    /// What a single-level unit number can be (SAM-5, 4.7.7).
    private static let largestUnit: UInt16 = 0x3FFF

    public var portal: TCPAddress
    /// The target's name, in lower case.
    public var target: String
    public var lun: UInt16

    public init(portal: TCPAddress, target: String, lun: UInt16) {
        self.portal = portal
        self.target = target
        self.lun = lun
    }

    /// `nil` unless `text` is such an address. A login in it is none: secrets do not stand in addresses.
    public init?(_ text: String) {
        guard text.hasPrefix(Self.scheme) else { return nil }
        let parts = text.dropFirst(Self.scheme.count).split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 3, let lun = UInt16(parts[2]), lun <= Self.largestUnit, parts[2].first != "+",
            let portal = TCPAddress(String(parts[0])) ?? TCPAddress("\(parts[0]):\(Self.usualPort)"), portal.port > 0,
            !portal.host.contains("@")
        else { return nil }
        let target = parts[1].lowercased()
        guard target.hasPrefix("iqn.") || target.hasPrefix("eui.") || target.hasPrefix("naa."),
            target.utf8.count <= Self.longestTarget, target.utf8.allSatisfy(Self.isNameByte)
        else { return nil }
        self.init(portal: portal, target: target, lun: lun)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."),
            UInt8(ascii: "-"), UInt8(ascii: ":"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    public var description: String { "\(Self.scheme)\(portal)/\(target)/\(lun)" }
}

/// A logical unit of SCSI, by the way that leads to it.
public enum UnitAddress: Hashable, Sendable, CustomStringConvertible {
    case iscsi(ISCSIAddress)
    /// A block device of this host.
    case device(path: String)

    public var description: String {
        switch self {
        case .iscsi(let address): "\(address)"
        case .device(let path): path
        }
    }
}
