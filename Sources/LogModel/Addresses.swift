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
