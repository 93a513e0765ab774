// HOST:PORT on the loopback interface. `localhost` is both of its addresses, whatever a resolver says.

package import LogModel

extension TCPAddress {
    /// A name such as 127.example.org is whatever its owner says it is.
    package var isLoopback: Bool { host == "localhost" || host == "::1" || octets?.first == 127 }

    /// The host is a name or a number by its characters; IPv6 may name its interface.
    var hostMayExist: Bool {
        let others: [Character] = host.contains(":") ? [".", ":", "%", "-", "_"] : [".", "-", "_"]
        return host.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber) || others.contains($0) }
    }

    /// Where a server of this address listens, IPv4 first.
    var places: [TCPAddress] {
        guard host == "localhost" else { return [self] }
        return ["127.0.0.1", "::1"].map { TCPAddress(host: $0, port: port) }
    }

    /// Without leading zeros: resolvers read those as octal, people do not.
    private var octets: [UInt8]? {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        let octets = parts.compactMap { UInt8($0) }
        return octets.count == 4 && octets.map(String.init) == parts.map(String.init) ? octets : nil
    }
}
