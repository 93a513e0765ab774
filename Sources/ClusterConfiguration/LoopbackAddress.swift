// HOST:PORT on the loopback interface. `localhost` is both of its addresses, whatever a resolver says.

internal import LogModel

package enum LoopbackAddress {
    /// `nil` unless `text` is HOST:PORT with a port from 1 to 65535.
    static func split(_ text: String) -> (host: Substring, port: UInt16)? {
        guard let colon = text.lastIndex(of: ":"), colon > text.startIndex else { return nil }
        let digits = text[text.index(after: colon)...]
        guard digits.allSatisfy(\.isNumber), let port = UInt16(digits), port > 0 else { return nil }
        return (text[..<colon], port)
    }

    /// A name such as 127.example.org is whatever its owner says it is.
    package static func isLoopback(_ host: Substring) -> Bool {
        host == "localhost" || host == "[::1]" || octets(host)?.first == 127
    }

    /// The places where a server of this address listens, IPv4 first.
    static func places(of address: String) -> [String] {
        guard let (host, port) = split(address) else { return [address] }
        if host == "localhost" { return ["127.0.0.1:\(port)", "[::1]:\(port)"] }
        return ["\(host):\(port)"]
    }

    /// Without leading zeros: resolvers read those as octal, people do not.
    private static func octets(_ host: Substring) -> [UInt8]? {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        let octets = parts.compactMap { UInt8($0) }
        return octets.count == 4 && octets.map(String.init) == parts.map(String.init) ? octets : nil
    }
}
